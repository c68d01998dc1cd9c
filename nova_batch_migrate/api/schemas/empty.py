"""The query of calls that take no parameter at all."""

from nova_batch_migrate.api.schemas import parameter_types as types

QUERY = types.record("no query parameter", {})
