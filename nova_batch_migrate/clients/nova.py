"""Nova's API as the conductor needs it: typed answers, two kinds of errors, every list complete.

Never decides anything about a batch, never waits for Nova to finish something.
"""

import re

from keystoneauth1 import exceptions as ks_exc
from oslo_utils import uuidutils

from nova_batch_migrate import exception
from nova_batch_migrate.clients import base, errors
from nova_batch_migrate.clients.types import Hypervisor, MigrationInfo, ServerInfo

# 2.68 took the force flag away: from there on a named host always passes the scheduler's filters.
MIN_MICROVERSION = (2, 68)
# 2.98 shows image properties, 2.100 scheduler hints; what came later changes nothing for us.
MAX_MICROVERSION = (2, 100)
# From 2.88 on Nova may ask every nova-compute for its uptime before it answers.
MAX_HYPERVISORS_MICROVERSION = (2, 87)
# The list of servers can be narrowed to those that are not locked.
LOCKED_MICROVERSION = (2, 73)
DISABLED_REASON_MAX = 255
_GROUPS_PAGE = 500


class NovaClient(base.ServiceClient):
    """Nova as the service user of ``[nova]``. Every call may raise NovaError's two kinds."""

    group = "nova"
    service_type = "compute"

    def __init__(self, conf):
        super().__init__(conf)
        self._version = None

    def _microversion(self, newest: tuple[int, int] | None) -> str:
        """Return the newest microversion both sides know, looked up once; refuse an old Nova."""
        if self._version is None:
            data = self._proxy().get_endpoint_data()
            offered = data.max_microversion if data is not None else None
            if offered is None:
                raise ks_exc.DiscoveryFailure(
                    "no microversions were found at the compute endpoint")
            if offered < MIN_MICROVERSION:
                raise exception.NovaPermanentError(
                    operation="be used",
                    reason=f"it offers microversion {_text(offered)} at most, "
                           f"{_text(MIN_MICROVERSION)} (Rocky) is the least that is needed; "
                           "upgrade Nova or check that [nova] leads to the right endpoint")
            self._version = min(offered, MAX_MICROVERSION)
        return _text(self._version if newest is None else min(self._version, newest))

    def compute_services(self) -> list[dict]:
        """Return the nova-compute services.

        Dicts of id, host, state (up, down, unknown), status (enabled, disabled, unknown),
        disabled_reason, zone, forced_down. Unknown: the database of its cell does not answer, so
        that an empty list of its servers means nothing.
        """
        body = self._get("list the compute services", "/os-services", {"binary": "nova-compute"})
        return [
            {"id": item.get("id"), "host": item["host"],
             "state": item.get("state", "unknown"), "status": item["status"].lower(),
             "disabled_reason": item.get("disabled_reason"), "zone": item.get("zone"),
             "forced_down": item.get("forced_down", False)}
            for item in body["services"]]

    def disable_service(self, service_id: str, reason: str) -> None:
        """Keep the scheduler away from a host; harmless when it is disabled so already.

        Replaces the reason of whoever disabled it before: look first. Cut to 255 characters.
        """
        self._update_service(service_id, "disable", {
            "status": "disabled", "disabled_reason": reason[:DISABLED_REASON_MAX]})

    def enable_service(self, service_id: str) -> None:
        """Let the scheduler use a host again; harmless when it is enabled already."""
        self._update_service(service_id, "enable", {"status": "enabled"})

    def hypervisors(self) -> list[Hypervisor]:
        """Return the hypervisors: which Placement provider a host is, and QEMU's version there."""
        items = self._paged("list the hypervisors", "/os-hypervisors/detail", "hypervisors", {},
                            marker="id", newest=MAX_HYPERVISORS_MICROVERSION)
        return [Hypervisor.from_api(item) for item in items]

    def servers_on(self, host: str) -> list[ServerInfo]:
        """Return every project's servers whose host is ``host``, also stopped and building ones.

        Servers of a cell that is down are missing: look at the service's state before you call a
        host empty.
        """
        return self._servers(f"list the servers of {host}", {"host": host})

    def at_rest_on(self, host: str, locked_too: bool = True) -> frozenset[str]:
        """Return the ids of servers on ``host`` that are active or paused there.

        By the plain list, which Nova answers from its databases: for each server that it shows in
        full it asks Neutron as well. Who is not among them may be anything, also on a cell that is
        down: `server` tells. A task that a server has is not told. Not ``locked_too``: only of
        those that are not locked; none where Nova can't tell.
        """
        params = {"all_tenants": "true", "host": host, "status": ["ACTIVE", "PAUSED"]}
        if not locked_too:
            self._microversion(None)
            if self._version < LOCKED_MICROVERSION:
                return frozenset()
            params["locked"] = "false"
        return frozenset(item["id"] for item in self._paged(
            f"list what is at rest on {host}", "/servers", "servers", params, marker="id"))

    def server(self, server_id: str) -> ServerInfo | None:
        """Return a server, or None when there is none (any more)."""
        operation = f"show server {server_id}"
        body = self._get(operation, f"/servers/{server_id}", none_if_missing=True)
        return None if body is None else _server(operation, body["server"])

    def find_server(self, name_or_id: str) -> ServerInfo | None:
        """Return the server with this id, else the only one with this name in any project.

        Raises InvalidInput, which names the ids, where several have the name.
        """
        if uuidutils.is_uuid_like(name_or_id):
            found = self.server(name_or_id)
            if found is not None:
                return found
        # Nova takes the name as a regular expression
        candidates = self._servers(f"look for the server {name_or_id}",
                                   {"name": f"^{re.escape(name_or_id)}$"})
        named = [server for server in candidates if server.name == name_or_id]
        if len(named) > 1:
            raise exception.InvalidInput(
                reason=f"{len(named)} servers are called {name_or_id}; give one of their ids: "
                       + ", ".join(server.id for server in named))
        return named[0] if named else None

    def migrations(self, server_id: str) -> list[MigrationInfo]:
        """Return every migration a server ever had, of all kinds and states, newest first.

        This is the truth about a migration, together with the server's host; it has no counters.
        Seen with Nova 34: the verdict comes up to some seconds after the server has its new host
        and no task any more; an abort in flight ends as 'error', not as 'cancelled'.
        """
        items = self._paged(f"list the migrations of server {server_id}", "/os-migrations",
                            "migrations", {"instance_uuid": server_id}, marker="uuid")
        return sorted((MigrationInfo.from_api(item) for item in items),
                      key=lambda migration: migration.id, reverse=True)

    def migrations_from(self, host: str, number: int) -> list[MigrationInfo]:
        """Return the latest live migrations that leave a host, newest first, so many at most.

        One call for all servers of a host that migrate; of what is not among them `migrations`
        tells.
        """
        body = self._get(f"list the migrations that leave {host}", "/os-migrations", {
            "source_compute": host, "migration_type": "live-migration", "limit": number})
        return sorted((MigrationInfo.from_api(item) for item in body["migrations"]),
                      key=lambda migration: migration.id, reverse=True)

    def live_migrate(self, server_id: str, host: str) -> str:
        """Ask Nova to live-migrate a server to ``host``, past the scheduler's filters.

        Returns Nova's request id: last_action_error finds what became of this very request. Nova
        answers before it checks anything. **After any NovaTransientError it may nevertheless have
        accepted**: read migrations() before asking again; a second migration is refused with 409
        only while the first still runs.
        """
        response = self._action(
            f"live-migrate server {server_id} to {host}", server_id,
            {"os-migrateLive": {"host": host, "block_migration": "auto"}})
        return response.headers.get("x-openstack-request-id", "")

    def abort_migration(self, server_id: str, migration_id: int) -> None:
        """Ask Nova to abort a live migration that is queued, preparing or running.

        NovaTransientError while it is still 'accepted', NovaPermanentError when it is over. May be
        repeated. Nova 34 leaves the server in ERROR behind it, running at the source.
        """
        self._request(f"abort migration {migration_id} of server {server_id}", "DELETE",
                      f"/servers/{server_id}/migrations/{migration_id}")

    def force_complete(self, server_id: str, migration_id: int) -> None:
        """Ask Nova to end a running pre-copy: it pauses the guest, or switches to post-copy.

        Which of both is Nova's to choose, by live_migration_permit_post_copy of the source. Works
        while the migration is 'running'; NovaError else.
        """
        self._request(f"complete migration {migration_id} of server {server_id} by force", "POST",
                      f"/servers/{server_id}/migrations/{migration_id}/action",
                      json={"force_complete": None})

    def reset_state_active(self, server_id: str) -> None:
        """Set a server's state to ACTIVE without any task, whatever it was.

        Nova checks nothing: whether the guest really runs is the caller's to know (healing,
        design section 4).
        """
        self._action(f"reset the state of server {server_id}", server_id,
                     {"os-resetState": {"state": "active"}})

    def server_groups(self) -> list[dict]:
        """Return all projects' server groups: dicts of id, name, policy, rules, members (ids).

        The policy anti-affinity may have the rule max_server_per_host.
        """
        groups = []
        while True:
            page = self._get(
                "list the server groups", "/os-server-groups",
                {"all_projects": "true", "limit": _GROUPS_PAGE, "offset": len(groups)},
            )["server_groups"]
            if not page:
                return [{key: group[key] for key in ("id", "name", "policy", "members")}
                        | {"rules": group.get("rules") or {}} for group in groups]
            groups.extend(page)

    def last_action_error(self, server_id: str, request_id: str | None = None) -> str | None:
        """Return why the server's last live migration was refused, or None.

        With ``request_id`` (from live_migrate) that very one. Nova answers os-migrateLive before
        it checks, so refusals are found only here; the compute hosts' words come before the
        scheduler's "No valid host", which hides them. None also for what failed or was aborted in
        flight: Nova 34 writes that into the log of the source's nova-compute and nowhere else.
        """
        path = f"/servers/{server_id}/os-instance-actions"
        operation = f"show the actions of server {server_id}"
        if request_id is None:
            listed = self._get(operation, path, none_if_missing=True) or {"instanceActions": ()}
            request_id = next((action["request_id"] for action in listed["instanceActions"]
                               if action["action"] == "live-migration"), None)
        if request_id is None:
            return None
        shown = self._get(operation, f"{path}/{request_id}", none_if_missing=True)
        if shown is None:
            return None
        failed = [event for event in shown["instanceAction"].get("events", ())
                  if event["result"] == "Error"]
        failed.sort(key=lambda event: event["event"].startswith("conductor_"))
        texts = dict.fromkeys(event.get("details") or event["event"] for event in failed)
        return "; ".join(texts) or None

    def _servers(self, operation: str, filters: dict) -> list[ServerInfo]:
        items = self._paged(operation, "/servers/detail", "servers",
                            {"all_tenants": "true"} | filters, marker="id")
        return [_server(operation, item) for item in items]

    def _action(self, operation: str, server_id: str, body: dict):
        return self._request(operation, "POST", f"/servers/{server_id}/action", json=body)

    def _update_service(self, service_id: str, verb: str, body: dict) -> None:
        self._request(f"{verb} the compute service {service_id}", "PUT",
                      f"/os-services/{service_id}", json=body)


def _server(operation: str, body: dict) -> ServerInfo:
    if body.get("status") == "UNKNOWN" and "flavor" not in body:
        raise exception.NovaTransientError(
            operation=operation, reason=f"the cell of server {body['id']} does not answer")
    try:
        return ServerInfo.from_api(body)
    except KeyError as error:
        raise exception.NovaPermanentError(
            operation=operation,
            reason=f"it hides {error} of servers from the user of [nova]; "
                   + errors.ADMIN_HINT) from error


def _text(microversion: tuple[int, int]) -> str:
    return ".".join(str(part) for part in microversion)
