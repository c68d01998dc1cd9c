"""Rules of the batch migrations themselves."""

from nova_batch_migrate.policies import base

CREATE = f"{base.ROOT}:create"
INDEX = f"{base.ROOT}:index"
SHOW = f"{base.ROOT}:show"
DELETE = f"{base.ROOT}:delete"
RULES = [
    base.rule(CREATE, "Empty compute hosts or move servers as one batch", "POST", ""),
    base.rule(INDEX, "List batch migrations", "GET", ""),
    base.rule(SHOW, "Show a batch migration with the state of every server", "GET", "/{id}"),
    base.rule(DELETE, "Delete a batch migration that is not active", "DELETE", "/{id}"),
]


def list_rules():
    return RULES
