"""What happened in a batch migration."""

from nova_batch_migrate.api import batch_ids, validation
from nova_batch_migrate.api.call import Call, respond
from nova_batch_migrate.api.schemas import events as schemas
from nova_batch_migrate.api.views import collection
from nova_batch_migrate.policies import events as policies


def index(call: Call, batch_id: str):
    """List events, oldest first."""
    call.authorize(policies.INDEX)
    query = validation.query(call.request, schemas.INDEX)
    batch_ids.check(batch_id)
    limit = collection.limit_of(query, call.max_limit)
    marker = int(query["marker"]) if "marker" in query else None
    events = call.conductor.events(call.context, batch_id, limit + 1, marker)
    url = f"{call.base_url}/{batch_id}/events"
    return respond(200, collection.page("events", events, limit, url, query))
