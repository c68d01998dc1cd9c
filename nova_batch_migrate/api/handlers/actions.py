"""Actions on a batch migration: start, pause, resume, abort, replan."""

from nova_batch_migrate.api import batch_ids, validation
from nova_batch_migrate.api.call import Call, respond
from nova_batch_migrate.api.schemas import actions as schemas
from nova_batch_migrate.api.schemas import empty
from nova_batch_migrate.api.views import batch_migrations as views
from nova_batch_migrate.policies import actions as policies


def create(call: Call, batch_id: str):
    """Note the operator's wish; 202 with the batch migration as it is now."""
    # Each action has its own rule, which only the body tells. Who may do none of them learns
    # nothing more, not even whether the body is well formed.
    call.services.enforcer.authorize_any(call.context, list(policies.RULE_OF.values()))
    validation.query(call.request, empty.QUERY)
    (action, parameters), = validation.body(call.request, schemas.CREATE).items()
    call.authorize(policies.RULE_OF[action])
    batch_ids.check(batch_id)
    batch = call.conductor.action(call.context, batch_id, action, parameters or {})
    return respond(202, views.show(call.base_url, batch))
