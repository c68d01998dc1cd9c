"""Batch migrations: create, list, show, delete."""

from nova_batch_migrate.api import batch_ids, validation
from nova_batch_migrate.api.call import Call, respond
from nova_batch_migrate.api.schemas import batch_migrations as schemas
from nova_batch_migrate.api.schemas import empty
from nova_batch_migrate.api.views import batch_migrations as views
from nova_batch_migrate.api.views import collection
from nova_batch_migrate.policies import batch_migrations as policies


def create(call: Call):
    """Hand a request to a conductor; 202 once it has checked it and committed the batch."""
    call.authorize(policies.CREATE)
    validation.query(call.request, empty.QUERY)
    request = validation.body(call.request, schemas.CREATE)["batch_migration"]
    batch = call.conductor.create(call.context, request)
    return respond(202, views.show(call.base_url, batch),
                   location=views.url(call.base_url, batch))


def index(call: Call):
    """List batch migrations, newest first, without their servers."""
    call.authorize(policies.INDEX)
    query = validation.query(call.request, schemas.INDEX)
    limit = collection.limit_of(query, call.max_limit)
    filters = {name: query[name] for name in ("status", "host") if name in query}
    batches = call.conductor.list(call.context, filters, limit + 1, query.get("marker"))
    items = [views.item(call.base_url, batch) for batch in batches]
    return respond(200, collection.page("batch_migrations", items, limit, call.base_url, query))


def show(call: Call, batch_id: str):
    """Show a batch migration with its servers."""
    call.authorize(policies.SHOW)
    validation.query(call.request, empty.QUERY)
    batch_ids.check(batch_id)
    return respond(200, views.show(call.base_url, call.conductor.get(call.context, batch_id)))


def delete(call: Call, batch_id: str):
    """Forget a batch migration that is not active."""
    call.authorize(policies.DELETE)
    validation.query(call.request, empty.QUERY)
    batch_ids.check(batch_id)
    call.conductor.delete(call.context, batch_id)
    return respond(204)
