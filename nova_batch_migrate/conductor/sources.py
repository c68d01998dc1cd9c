"""The sources of a batch: kept free of new servers, listed again and again, opened again.

Called by the reconciler. What follows from a list is ``survey``, pure; here is the asking of Nova
and the writing to the database.
"""

from oslo_utils import timeutils

from nova_batch_migrate import exception
from nova_batch_migrate.conductor import keeping, loading, survey
from nova_batch_migrate.db import api as db

BUSY_PATIENCE_SECONDS = 300
SURVEY_PAUSE_SECONDS = 3


class Sources:
    """Keeps nothing; ``executor`` closes servers that are nobody's work any more."""

    def __init__(self, nova, executor):
        self._nova = nova
        self._executor = executor

    def disable(self, ctxt, batch: dict) -> None:
        """Keep new servers off the sources; remember which services were ours to disable."""
        services = {service["host"]: service for service in self._nova.compute_services()}
        for host in batch["request"]["hosts"]:
            service = services.get(host)
            if service is None or service["status"] == "disabled":
                continue
            # the intent first: a conductor that dies in between enables it again all the same
            batch["disabled_hosts"] = [*batch["disabled_hosts"], host]
            db.update_batch(batch["id"], {"disabled_hosts": batch["disabled_hosts"]})
            self._nova.disable_service(service["id"], f"batch migration {batch['id']}")
            db.add_event(batch["id"], "service-disabled",
                         f"compute service of {host} disabled: no new servers there",
                         request_id=ctxt.request_id)
        keeping.save(batch, sources_disabled=True)

    def enable(self, ctxt, batch: dict) -> None:
        """Enable again those services that this batch disabled."""
        services = {service["host"]: service for service in self._nova.compute_services()}
        for host in batch["disabled_hosts"]:
            service = services.get(host)
            ours = service and batch["id"] in (service["disabled_reason"] or "")
            if not ours:
                continue
            self._nova.enable_service(service["id"])
            db.add_event(batch["id"], "service-enabled", f"compute service of {host} enabled",
                         request_id=ctxt.request_id)

    def take_survey(self, ctxt, batch: dict, rows: dict) -> bool:
        """List the sources' servers again; returns whether the pass may go on."""
        last = batch["state"].get("surveyed_at")
        busy_since = batch["state"].get("busy_since")
        if busy_since and last and timeutils.utcnow().timestamp() < last + SURVEY_PAUSE_SECONDS:
            return False
        servers = self._servers(batch)
        looked = survey.survey(servers, self._nova.server_groups(),
                               batch["request"]["include_locked"])
        holders = self._held_by_others(rows, looked)
        looked = survey.leave_to_others(looked, holders)
        now = timeutils.utcnow()
        since = (busy_since or now.timestamp()) if looked.busy else None
        waiting = since is not None and now.timestamp() - since < BUSY_PATIENCE_SECONDS
        if not waiting:
            looked = survey.give_up_on_busy(looked, holders)
        arrived = self._join(ctxt, batch, rows, looked)
        for why in looked.staying:
            row = rows.get(why.server_id)
            if row is not None and row["status"] == "pending":
                self._executor.close(ctxt, batch, row, "skipped", why.reason, why.certainty,
                                     why.command)
        self._close_gone(ctxt, batch, rows, {server.id for server in servers})
        keeping.save(batch, surveyed=not arrived and not waiting, measure=None,
                   surveyed_at=now.timestamp(), busy_since=since if waiting else None)
        if arrived and batch["status"] in ("running", "paused"):
            keeping.set_status(ctxt, batch, "measuring")
        return True

    @staticmethod
    def _held_by_others(rows: dict, looked: survey.Survey) -> dict[str, str]:
        """Return which batch has each server that is not ours: {server id: batch id}."""
        new = [(db.SERVER, server.id) for server in looked.movable if server.id not in rows]
        return {server_id: holder for (_, server_id), holder in db.claims_of(new).items()}

    def _servers(self, batch: dict) -> list:
        request = batch["request"]
        if request["hosts"]:
            self._refuse_blindness(request["hosts"])
            return [server for host in request["hosts"] for server in self._nova.servers_on(host)]
        found = [self._nova.server(server_id) for server_id in batch["state"]["server_ids"]]
        sources = set(batch["state"]["sources"])
        return [server for server in found if server is not None and server.host in sources]

    def _refuse_blindness(self, hosts: list[str]) -> None:
        """A host whose cell doesn't answer shows no servers; that is not an empty host."""
        states = {service["host"]: service["state"] for service in self._nova.compute_services()}
        for host in hosts:
            if states.get(host, "unknown") == "unknown":
                raise exception.NovaTransientError(
                    operation=f"list the servers of {host}", reason="its cell does not answer")

    def _join(self, ctxt, batch: dict, rows: dict, looked: survey.Survey) -> bool:
        """Add servers that came to the sources since; True when one of them is to move."""
        new = [s for s in looked.movable if s.id not in rows]
        staying = [why for why in looked.staying if why.server_id not in rows]
        if not new and not staying:
            return False
        db.add_servers(
            batch["id"],
            [loading.new_row(server) for server in new]
            + [loading.staying_row(why) for why in staying],
            [(db.SERVER, server.id) for server in new])
        for server in new:
            db.add_event(batch["id"], "arrived", f"found on {server.host}", server.id,
                         ctxt.request_id)
        rows.update({row["server_id"]: row for row in db.servers_of(batch["id"])})
        return bool(new)

    def _close_gone(self, ctxt, batch: dict, rows: dict, here: set[str]) -> None:
        """Servers that left or were deleted before their turn are nobody's work any more.

        ``here``: those that were seen on a source just now.
        """
        for row in rows.values():
            if row["status"] != "pending" or row["server_id"] in here:
                continue
            server = self._nova.server(row["server_id"])
            if server is None:
                self._executor.close(ctxt, batch, row, "skipped", "the server was deleted")
            elif server.host != row["source"]:
                self._executor.complete(ctxt, batch, row, server.host, None)
