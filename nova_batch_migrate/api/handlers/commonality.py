"""What the servers of a batch migration have in common."""

from nova_batch_migrate.api import batch_ids, validation
from nova_batch_migrate.api.call import Call, respond
from nova_batch_migrate.api.schemas import empty
from nova_batch_migrate.policies import commonality as policies


def show(call: Call, batch_id: str):
    """Show the pairwise chart of FIG. 3 in bytes and shares, and the totals per server."""
    call.authorize(policies.SHOW)
    validation.query(call.request, empty.QUERY)
    batch_ids.check(batch_id)
    return respond(200, {"commonality": call.conductor.commonality(call.context, batch_id)})
