"""Heals a server that Nova 33 or 34 left in ERROR behind an aborted or failed live migration.

Called by executor and gangs. Nova has rolled back and the guest runs on at the source, only the
state is wrong. It is reset only when every witness agrees (design section 4); otherwise nothing is
touched and the reason is told.

Nova gives its verdict on a migration as soon as QEMU has failed, and sets ERROR when libvirt's call
has come back: many seconds later where the destination's QEMU does not end at once. So the end of a
migration is libvirt's to tell.
"""

from oslo_log import log

from nova_batch_migrate import exception
from nova_batch_migrate.conductor import state
from nova_batch_migrate.db import api as db

LOG = log.getLogger(__name__)
#: How long what a failed migration leaves behind may take to go away. libvirt kills a QEMU that
#: does not listen after 15 s, and may wait 30 s for a job before.
PATIENCE_SECONDS = 90.0


class Healer:
    """Asks both agents, Placement and Neutron before it resets a state."""

    def __init__(self, nova, placement, neutron, agents):
        self._nova = nova
        self._placement = placement
        self._neutron = neutron
        self._agents = agents

    def heal(self, ctxt, batch: dict, row: dict, server) -> str | None:
        """Reset ``server`` to ACTIVE; return None when done, else the reason why not."""
        reason = self._witnesses(ctxt, row, server)
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

    def still_at_it(self, ctxt, row: dict) -> str | None:
        """Return what libvirt has not ended of a row's last migration; None when all is over.

        An agent that can't be asked has nothing to say here: it is a witness when it comes to heal.
        """
        here, there = (self._presence(ctxt, row[end], row["server_id"])
                       for end in ("source", "destination"))
        if here is not None and here["migrating"]:
            return f"libvirt on {row['source']} has not ended its migration"
        if there is not None and there["present"]:
            return f"libvirt on {row['destination']} still has a domain of it"
        return None

    def states(self, ctxt, row: dict) -> dict[str, str]:
        """Return the state of a row's domain on each of its two hosts, in libvirt's words.

        One that is not there is "not there"; "unknown" with the reason where nobody can be asked.
        """
        found = {}
        for host in (row["source"], row["destination"]):
            try:
                presence = self._agents.presence(ctxt, host, row["server_id"])
                found[host] = presence["state"] if presence["present"] else "not there"
            except (exception.AgentUnavailable, exception.AgentRefused) as error:
                found[host] = f"unknown ({error.text})"
        return found

    def told_states(self, ctxt, row: dict) -> str:
        """Return both states in one line, for an operator."""
        return _line(self.states(ctxt, row))

    def left_paused(self, ctxt, row: dict) -> str | None:
        """Say what both hosts show of a guest that is paused and runs nowhere; None of any other.

        It is resumed by nobody: only an operator can tell which of two halves is the whole one.
        """
        states = self.states(ctxt, row)
        if "paused" not in states.values() or "running" in states.values():
            return None
        return f"libvirt left its guest paused ({_line(states)}): look before you resume it"

    def unsettled(self, ctxt, batch: dict, row: dict) -> str | None:
        """Return why a server can't be migrated again yet; None once it can, healed if need be.

        A server that is gone is nothing to wait for.
        """
        server = self._nova.server(row["server_id"])
        if server is None:
            return None
        flying = [migration for migration in self._nova.migrations(row["server_id"])
                  if migration.status in state.IN_FLIGHT]
        if flying:
            return f"its migration {flying[0].id} is {flying[0].status}"
        if server.task_state is not None:
            return f"Nova is busy with it (task {server.task_state})"
        reason = self.still_at_it(ctxt, row)
        if reason is not None or server.status != "ERROR":
            return reason
        reason = self._witnesses(ctxt, row, server)
        if reason is not None:
            return f"Nova left it in ERROR, and {reason}"
        return self.heal(ctxt, batch, row, server)

    def _presence(self, ctxt, host: str, server_id: str) -> dict | None:
        try:
            return self._agents.presence(ctxt, host, server_id)
        except (exception.AgentUnavailable, exception.AgentRefused) as error:
            LOG.warning("server %s on %s: %s", server_id, host, error)
            return None

    def _witnesses(self, ctxt, row: dict, server) -> str | None:
        """Return why a server must not be reset."""
        try:
            return self._refusal(ctxt, row, server)
        except exception.BatchMigrateError as error:
            return f"a witness could not be asked ({error.text})"

    def _refusal(self, ctxt, row: dict, server) -> str | None:
        if (row["progress"] or {}).get("post_copy"):
            return "post-copy was under way, so its memory may be on two hosts"
        if server.host != row["source"]:
            return f"Nova places it on {server.host}, not on {row['source']}"
        here = self._agents.presence(ctxt, row["source"], server.id)
        if not here["present"] or here["state"] != "running" or here["migrating"]:
            return f"its domain is not simply running on {row['source']} " \
                f"({self.told_states(ctxt, row)})"
        there = self._agents.presence(ctxt, row["destination"], server.id)
        if there["present"]:
            return f"a domain of it is left on {row['destination']} " \
                f"({self.told_states(ctxt, row)})"
        providers = set(self._placement.allocations(server.id))
        if providers != {server.node}:
            return f"Placement has allocations of it on {', '.join(sorted(providers)) or 'none'}"
        bound = self._neutron.port_hosts(server.id)
        if bound - {row["source"]}:
            return f"ports of it are bound to {', '.join(sorted(bound - {row['source']}))}"
        return None


def _line(states: dict[str, str]) -> str:
    return ", ".join(f"{state} on {host}" for host, state in states.items())
