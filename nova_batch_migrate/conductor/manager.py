"""What nova-batch-conductor answers over RPC: checks, writes wishes down, shows what is.

Called through ``rpcapi``. Never migrates anything itself: it commits, the reconciler acts.
"""

from __future__ import annotations  # "list" is a method here

import oslo_messaging as messaging
from oslo_log import log
from oslo_utils import timeutils

from nova_batch_migrate import exception
from nova_batch_migrate.conductor import loading, survey, views
from nova_batch_migrate.conductor import request as requests
from nova_batch_migrate.db import api as db
from nova_batch_migrate.planning import commonality, telemetry

LOG = log.getLogger(__name__)
STALE_PLAN_SECONDS = 600
BEFORE_THE_END = ("accepted", "measuring", "planned", "running", "paused", "aborting")
# action -> (statuses in which it works, the wish that is noted)
ACTIONS = {
    "start": (("planned",), {"started": True}),
    "pause": (("accepted", "measuring", "running", "paused"), {"paused": True}),
    "resume": (("accepted", "measuring", "running", "paused"), {"paused": False}),
    "abort": (BEFORE_THE_END, {}),
    "replan": (("planned", "running", "paused"), {"replan": True}),
}


# what a caller did wrong is his answer, no traceback in our log
_expected = messaging.expected_exceptions(exception.BatchMigrateError)


class ConductorManager:
    """The RPC endpoint, version 1.0; ``wake`` tells the service that there is work."""

    target = messaging.Target(version="1.0")

    def __init__(self, conf, nova, through, wake):
        self._conf = conf
        self._relays = through
        self._nova = nova
        self._wake = wake

    @_expected
    def create(self, ctxt, request: dict) -> dict:
        """Check names against Nova, commit the batch, return it."""
        asked = self._resolve(requests.normalize(request))
        servers = self._servers(asked)
        groups = self._nova.server_groups() if servers else []
        asked["synchronized"] = requests.resolve_sets(asked["synchronized"], servers, groups)
        if asked["synchronized"]:
            self._refuse_without_relays(ctxt, asked, {server.host for server in servers})
        looked = survey.survey(servers, groups, asked["include_locked"])
        rows = [loading.new_row(s) for s in (*looked.movable, *looked.busy)]
        rows += [loading.staying_row(why) for why in looked.staying]
        sources = asked["hosts"] or sorted({server.host for server in servers})
        row = db.create_batch(
            {"request": asked, "user_id": ctxt.user_id, "project_id": ctxt.project_id,
             "request_id": ctxt.request_id,
             "state": {"server_ids": [server.id for server in servers], "sources": sources}},
            rows, [] if asked["plan_only"] else _claims(asked, rows), asked["hosts"])
        db.add_event(row["id"], "created", f"{len(rows)} servers on {', '.join(sources)}",
                     request_id=ctxt.request_id)
        self._wake(row["id"], empty=not rows and not asked["plan_only"])
        return self._view(row["id"])

    @_expected
    def get(self, ctxt, batch_id: str) -> dict:
        return self._view(batch_id)

    @_expected
    def list(self, ctxt, filters: dict, limit: int | None, marker: str | None) -> list[dict]:
        status = filters.get("status")
        rows = db.list_batches(statuses=[status] if status else None, host=filters.get("host"),
                               limit=limit, marker=marker)
        return [views.batch(row, None, timeutils.utcnow()) for row in rows]

    @_expected
    def plan(self, ctxt, batch_id: str, whole: bool = True) -> dict:
        """Return the current plan; one made anew also shows the first, the promise, as ``first``.

        Without its request where it is not to be shown ``whole``: the telemetry in it may be
        megabytes. Before there is a plan: InvalidBatchState.
        """
        row = db.get_batch(batch_id)
        if row["plan"] is None:
            raise self._too_early(row, "show the plan of")
        plan = row["plan"] if whole else _without_request(row["plan"])
        if row["plan"] == row["first_plan"]:
            return plan
        return plan | {"first": _without_request(row["first_plan"])}

    @_expected
    def commonality(self, ctxt, batch_id: str) -> dict:
        """Return the chart of FIG. 3 [0047] over all that was measured."""
        row = db.get_batch(batch_id)
        if not row["telemetry"]:
            raise self._too_early(row, "show the commonality of")
        return commonality.chart([telemetry.HostTelemetry.from_dict(host)
                                  for _, host in sorted(row["telemetry"].items())])

    @_expected
    def events(self, ctxt, batch_id: str, limit: int | None, marker: int | None) -> list[dict]:
        db.get_batch(batch_id, heavy=False)
        return [views.event(row) for row in db.events_of(batch_id, limit, marker)]

    @_expected
    def action(self, ctxt, batch_id: str, action: str, params: dict) -> dict:
        """Note an operator's wish; the reconciler acts on it within its next pass."""
        allowed, wish = ACTIONS[action]
        if action == "abort":
            wish = {"abort": params.get("running", "finish")}
        while True:
            row = db.get_batch(batch_id, heavy=False)
            if row["status"] not in allowed:
                raise exception.InvalidBatchState(action=action, batch_id=batch_id,
                                                  status=row["status"],
                                                  allowed=", ".join(allowed))
            if action == "start":
                wish = self._start(row)
            control = {"control": row["control"] | wish}
            if db.update_batch(batch_id, control, expected_version=row["version"]):
                break
        if action != "start":
            kind = {"pause": "paused", "resume": "resumed", "abort": "abort-requested",
                    "replan": "replanned"}[action]
            db.add_event(batch_id, kind, f"asked for by {ctxt.user_id}",
                         request_id=ctxt.request_id)
        self._wake(batch_id)
        return self._view(batch_id)

    @_expected
    def delete(self, ctxt, batch_id: str) -> None:
        """Forget a batch that has ended, or a plan that was never started."""
        row = db.get_batch(batch_id, heavy=False)
        waits = row["status"] == "planned" and not row["control"]["started"]
        if row["status"] in BEFORE_THE_END and not waits:
            raise exception.InvalidBatchState(
                action="delete", batch_id=batch_id, status=row["status"],
                allowed="planned, completed, partial, aborted, failed (abort it first)")
        db.delete_batch(batch_id)

    # ---- helpers -------------------------------------------------------------------------------

    def _start(self, row: dict) -> dict:
        """Take the claims of a plan that is to be executed; plan again when it is stale."""
        servers = [server for server in db.servers_of(row["id"])
                   if server["status"] == "pending"]
        db.add_servers(row["id"], [], _claims(row["request"], servers))
        age = timeutils.delta_seconds(row["updated_at"], timeutils.utcnow())
        return {"started": True, "replan": age > STALE_PLAN_SECONDS}

    def _refuse_without_relays(self, ctxt, asked: dict, sources: set[str]) -> None:
        """Only relays hold servers running until all of a set are there."""
        targets = asked["target_hosts"] or [
            service["host"] for service in self._nova.compute_services()
            if service["state"] == "up" and service["status"] == "enabled"]
        hosts = sources | set(targets) - set(asked["exclude_hosts"])
        silent = [host for host in sorted(hosts) if self._relays.describe(ctxt, host) is None]
        if silent or asked["dedup_scope"] == "off":
            raise exception.InvalidInput(
                reason="synchronized needs a nova-batch-relay that answers on each of "
                       f"{', '.join(sorted(hosts))}"
                       + (f" ({', '.join(silent)}: none)" if silent else "")
                       + ", and a dedup_scope other than off. Start "
                       "them, name target_hosts that have one, or leave synchronized out.")

    def _resolve(self, asked: dict) -> dict:
        """Check every host and server against Nova; servers become ids."""
        services = {service["host"]: service for service in self._nova.compute_services()}
        for host in (*asked["hosts"], *asked["target_hosts"], *asked["exclude_hosts"]):
            if host not in services:
                raise exception.HostNotFound(host=host)
        for host in asked["hosts"]:
            if services[host]["state"] != "up":
                raise exception.InvalidInput(
                    reason=f"nova-compute of {host} is {services[host]['state']}, so nothing can "
                           "be live-migrated from it. Start it again, or rebuild its servers "
                           "elsewhere with: openstack server evacuate SERVER")
        for host in asked["target_hosts"]:
            service = services[host]
            if service["state"] != "up" or service["status"] != "enabled":
                raise exception.InvalidInput(
                    reason=f"target host {host} is {service['state']} and {service['status']}; "
                           "name one that is up and enabled, or leave target_hosts out.")
            holder = db.claims_of([(db.HOST, host)]).get((db.HOST, host))
            if holder:
                raise exception.BatchConflict(
                    reason=f"Target host {host} is being emptied by batch migration {holder}; "
                           "name another target.")
        return asked

    def _servers(self, asked: dict) -> list:
        if asked["hosts"]:
            return [server for host in asked["hosts"] for server in self._nova.servers_on(host)]
        servers = []
        for name in asked["servers"]:
            server = self._nova.find_server(name)
            if server is None:
                raise exception.ServerNotFound(server=name)
            if server.host in asked["target_hosts"]:
                raise exception.InvalidInput(
                    reason=f"server {name} is on target host {server.host} already.")
            servers.append(server)
        return servers

    def _view(self, batch_id: str) -> dict:
        return views.batch(db.get_batch(batch_id, heavy=False), db.servers_of(batch_id),
                           timeutils.utcnow())

    @staticmethod
    def _too_early(row: dict, action: str) -> exception.InvalidBatchState:
        return exception.InvalidBatchState(
            action=action, batch_id=row["id"], status=row["status"],
            allowed="planned or later, once it has been measured")


def _claims(asked: dict, rows: list[dict]) -> list[tuple[str, str]]:
    return [(db.HOST, host) for host in asked["hosts"]] + [
        (db.SERVER, row["server_id"]) for row in rows if row["status"] == "pending"]


def _without_request(plan: dict) -> dict:
    return {key: value for key, value in plan.items() if key != "request"}
