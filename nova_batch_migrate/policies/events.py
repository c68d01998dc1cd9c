"""Rule of a batch migration's events."""

from nova_batch_migrate.policies import base

INDEX = f"{base.ROOT}:events"
RULES = [
    base.rule(INDEX, "List what happened in a batch migration",
              "GET", "/{id}/events"),
]


def list_rules():
    return RULES
