"""Rule of the chart of common memory."""

from nova_batch_migrate.policies import base

SHOW = f"{base.ROOT}:commonality"
RULES = [
    base.rule(SHOW, "Show what memory the servers of a batch migration have in common",
              "GET", "/{id}/commonality"),
]


def list_rules():
    return RULES
