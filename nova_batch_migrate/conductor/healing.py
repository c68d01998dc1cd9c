"""Heals a server that Nova 33 or 34 left in ERROR behind an aborted or failed live migration.

Called by the executor. Nova has rolled back and the guest runs on at the source, only the state
is wrong. It is reset only when every witness agrees (design section 4); otherwise nothing is
touched and the reason is told.
"""

from oslo_log import log

from nova_batch_migrate import exception
from nova_batch_migrate.db import api as db

LOG = log.getLogger(__name__)


class Healer:
    """Asks both agents, Placement and Neutron before it resets a state."""

    def __init__(self, nova, placement, neutron, agents):
        self._nova = nova
        self._placement = placement
        self._neutron = neutron
        self._agents = agents

    def heal(self, ctxt, batch: dict, row: dict, server) -> str | None:
        """Reset ``server`` to ACTIVE; return None when done, else the reason why not."""
        try:
            reason = self._refusal(ctxt, row, server)
        except exception.BatchMigrateError as error:
            reason = f"a witness could not be asked ({error.text})"
        if reason is not None:
            db.add_event(batch["id"], "warning", f"not healed: {reason}", server.id,
                         ctxt.request_id)
            return reason
        self._nova.reset_state_active(server.id)
        db.update_server(batch["id"], server.id, {"healed": True})
        db.add_event(
            batch["id"], "healed",
            f"Nova left it in ERROR after its migration ended; the guest runs on {row['source']} "
            "and nowhere else, its allocations and ports are there: reset to ACTIVE",
            server.id, ctxt.request_id)
        return None

    def _refusal(self, ctxt, row: dict, server) -> str | None:
        if (row["progress"] or {}).get("post_copy"):
            return "post-copy was under way, so its memory may be on two hosts"
        if server.host != row["source"]:
            return f"Nova places it on {server.host}, not on {row['source']}"
        here = self._agents.presence(ctxt, row["source"], server.id)
        if not here["present"] or here["state"] != "running" or here["migrating"]:
            return f"its domain is not simply running on {row['source']}"
        there = self._agents.presence(ctxt, row["destination"], server.id)
        if there["present"]:
            return f"a domain of it is left on {row['destination']}"
        providers = set(self._placement.allocations(server.id))
        if providers != {server.node}:
            return f"Placement has allocations of it on {', '.join(sorted(providers)) or 'none'}"
        bound = self._neutron.port_hosts(server.id)
        if bound - {row["source"]}:
            return f"ports of it are bound to {', '.join(sorted(bound - {row['source']}))}"
        return None
