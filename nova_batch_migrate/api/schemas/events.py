"""Paging through the events of a batch migration."""

from nova_batch_migrate.api.schemas import parameter_types as types

INDEX = types.record("query parameters", {
    "limit": types.LIMIT,
    "marker": {"type": "string", "format": "count", "maxLength": 18,
               "description": "the id of the last event of the page before, a number"},
})
