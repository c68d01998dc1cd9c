"""Rule of a batch migration's plan."""

from nova_batch_migrate.policies import base

SHOW = f"{base.ROOT}:plan"
RULES = [
    base.rule(SHOW, "Show the plan of a batch migration with the measurements it was made from",
              "GET", "/{id}/plan"),
]


def list_rules():
    return RULES
