"""The actions on a batch migration: one key, named after the action, with its parameters."""

from nova_batch_migrate.api.schemas import parameter_types as types
from nova_batch_migrate.policies import actions

PARAMETERS = {"abort": {"running": types.one_of("finish", "abort")}}


def _action(name: str) -> dict:
    parameters = PARAMETERS.get(name, {})
    taken = ", ".join(parameters) or "nothing"
    return types.record(f"null, or an object with {taken} in it", parameters,
                        **{"type": ["object", "null"]})


CREATE = types.record(
    "an object with one action in it: " + ", ".join(actions.DESCRIPTIONS),
    {name: _action(name) for name in actions.DESCRIPTIONS},
    minProperties=1, maxProperties=1)
