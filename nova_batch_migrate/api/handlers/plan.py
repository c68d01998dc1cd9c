"""The plan of a batch migration."""

from nova_batch_migrate.api import batch_ids, validation
from nova_batch_migrate.api.call import Call, respond
from nova_batch_migrate.api.schemas import plan as schemas
from nova_batch_migrate.policies import plan as policies


def show(call: Call, batch_id: str):
    """Show ordered groups, destinations, reasons, who stays, and the telemetry behind them."""
    call.authorize(policies.SHOW)
    query = validation.query(call.request, schemas.SHOW)
    batch_ids.check(batch_id)
    whole = query.get("request", "true") == "true"
    return respond(200, {"plan": call.conductor.plan(call.context, batch_id, whole)})
