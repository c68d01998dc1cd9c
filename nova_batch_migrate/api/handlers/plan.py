"""The plan of a batch migration."""

from nova_batch_migrate.api import batch_ids, validation
from nova_batch_migrate.api.call import Call, respond
from nova_batch_migrate.api.schemas import empty
from nova_batch_migrate.policies import plan as policies


def show(call: Call, batch_id: str):
    """Show ordered groups, destinations, reasons, who stays, and the telemetry behind them."""
    call.authorize(policies.SHOW)
    validation.query(call.request, empty.QUERY)
    batch_ids.check(batch_id)
    return respond(200, {"plan": call.conductor.plan(call.context, batch_id)})
