"""How much of a plan is to be shown."""

from nova_batch_migrate.api.schemas import parameter_types as types

SHOW = types.record("query parameters", {"request": types.one_of("true", "false")})
