"""Rules of the actions on a batch migration, one per action."""

from nova_batch_migrate.policies import base

DESCRIPTIONS = {
    "start": "Start a batch migration that was only planned",
    "pause": "Let a batch migration issue no new migrations",
    "resume": "Let a paused batch migration go on",
    "abort": "End a batch migration before its time",
    "replan": "Measure and plan the rest of a batch migration again",
}
RULE_OF = {action: f"{base.ROOT}:{action}" for action in DESCRIPTIONS}
RULES = [base.rule(RULE_OF[action], description, "POST", "/{id}/action")
         for action, description in DESCRIPTIONS.items()]


def list_rules():
    return RULES
