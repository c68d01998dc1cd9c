"""The resource /os-batch-evacuate: one batch migration, its actions, plan and events.

For scripts (``BatchMigration.create(conn.compute)``...) and the command line of osc/. It only
speaks to the API; it never plans, waits or prints.
"""

from typing import Any, Self

from keystoneauth1 import adapter
from openstack import exceptions, resource, utils

from nova_batch_migrate.sdk import session as versioned

_BASE_PATH = "/os-batch-evacuate"


class _VersionedResource(resource.Resource):
    @classmethod
    def _get_session(cls, session: adapter.Adapter) -> adapter.Adapter:
        session = super()._get_session(session)
        if isinstance(session, versioned.VersionedAdapter):
            return session
        return versioned.VersionedAdapter(session)


class BatchMigration(_VersionedResource):
    """A request to move all servers of some hosts, or some servers, and what became of it."""

    resource_key = "batch_migration"
    resources_key = "batch_migrations"
    base_path = _BASE_PATH

    allow_create = True
    allow_fetch = True
    allow_list = True
    allow_delete = True

    _query_mapping = resource.QueryParameters("status", "host")

    # What was asked for.

    #: Source hosts to be emptied; ``servers`` is the other way to ask.
    hosts = resource.Body("hosts", type=list)
    #: In a request: names or ids of servers. In an answer: one dict per server (see the API
    #: reference), absent from lists.
    servers = resource.Body("servers", type=list)
    #: The names or ids that were asked for.
    servers_requested = resource.Body("servers_requested", type=list)
    #: Hosts that servers may go to; all others if empty.
    target_hosts = resource.Body("target_hosts", type=list)
    #: Hosts that servers must not go to.
    exclude_hosts = resource.Body("exclude_hosts", type=list)
    #: How groups are formed: ``group``, ``pair`` or ``none``.
    strategy = resource.Body("strategy")
    #: Whether to stop once the plan is there, until ``start``.
    plan_only = resource.Body("plan_only", type=bool)
    #: Migrations under way at once from one source host.
    max_parallel = resource.Body("max_parallel", type=int)
    #: Upper limit of the batch on the wire in MiB per second.
    max_bandwidth_mib_s = resource.Body("max_bandwidth_mib_s")
    #: What is done with a server whose migration can't converge.
    on_non_convergence = resource.Body("on_non_convergence")
    #: In a request: sets of servers that move together (lists of names or ids), or the word
    #: ``server-groups``.
    synchronized = resource.Body("synchronized")
    #: Between which servers content may be shared: ``project``, ``host`` or ``off``.
    dedup_scope = resource.Body("dedup_scope")
    #: Whether a server goes the plain way where relays fail it (``plain``) or stays (``refuse``).
    fallback = resource.Body("fallback")
    #: Whether locked servers are moved too.
    include_locked = resource.Body("include_locked", type=bool)
    #: Whether the source's compute service stays disabled afterwards.
    leave_disabled = resource.Body("leave_disabled", type=bool)
    #: Earliest start, ISO 8601 in UTC.
    not_before = resource.Body("not_before")
    #: When it should be done, ISO 8601 in UTC.
    deadline = resource.Body("deadline")
    #: Seconds that a server may wait for its quiet moment when its turn has come.
    max_wait_seconds = resource.Body("max_wait_seconds", type=int)
    #: Start at once on what is known of the servers, without measuring them first.
    urgent = resource.Body("urgent", type=bool)

    # What became of it.

    #: ``accepted measuring planned running paused aborting``, then ``completed partial aborted
    #: failed``.
    status = resource.Body("status")
    #: Bytes done of bytes planned, 0-100.
    progress = resource.Body("progress")
    #: Expected seconds until the batch is finished.
    eta_seconds = resource.Body("eta_seconds")
    #: Projected seconds of the first accepted plan.
    projected_seconds = resource.Body("projected_seconds")
    #: Projected seconds by what is known now.
    current_projected_seconds = resource.Body("current_projected_seconds")
    #: Seconds the batch took.
    actual_seconds = resource.Body("actual_seconds")
    #: Bytes the first accepted plan expects on the wire.
    projected_bytes = resource.Body("projected_bytes")
    #: Bytes QEMU sent.
    raw_bytes = resource.Body("raw_bytes")
    #: Bytes that crossed the link.
    wire_bytes = resource.Body("wire_bytes")
    #: What running migrations may send on the wire now, in all.
    bandwidth_bytes_per_second = resource.Body("bandwidth_bytes_per_second", type=int)
    #: What relays have counted, by group and destination, while they run and afterwards.
    relay_groups = resource.Body("relay_groups", type=list)
    #: Whether the plan, or at the end the batch, keeps the deadline; None without one.
    deadline_met = resource.Body("deadline_met", type=bool)
    #: Why the batch failed.
    error = resource.Body("error")
    #: Remarks on the plan or the run, for the operator.
    notes = resource.Body("notes", type=list)
    #: Who asked, and in which project.
    user_id = resource.Body("user_id")
    project_id = resource.Body("project_id")
    #: Times, ISO 8601 in UTC.
    created_at = resource.Body("created_at")
    updated_at = resource.Body("updated_at")
    started_at = resource.Body("started_at")
    finished_at = resource.Body("finished_at")

    def start(self, session: adapter.Adapter) -> Self:
        """Start moving by the plan; the batch must be ``planned``."""
        return self._action(session, "start")

    def pause(self, session: adapter.Adapter) -> Self:
        """Begin no further migrations; those under way go on."""
        return self._action(session, "pause")

    def resume(self, session: adapter.Adapter) -> Self:
        """Take up a paused batch again."""
        return self._action(session, "resume")

    def abort(self, session: adapter.Adapter, running: str = "finish") -> Self:
        """End the batch; ``running`` migrations ``finish`` or ``abort``."""
        return self._action(session, "abort", {"running": running})

    def replan(self, session: adapter.Adapter) -> Self:
        """Measure and plan again what is not moved yet."""
        return self._action(session, "replan")

    def fetch_plan(self, session: adapter.Adapter, whole: bool = True) -> dict[str, Any]:
        """Return groups, order, projections, who stays and why; ``whole``: and the telemetry.

        404 (``NotFoundException``) while there is no plan yet.
        """
        return self._fetch_part(session, "plan", {} if whole else {"request": "false"})

    def fetch_commonality(self, session: adapter.Adapter) -> dict[str, Any]:
        """Return the pairwise chart of memory in common, in bytes and shares (FIG. 3)."""
        return self._fetch_part(session, "commonality")

    def events(self, session: adapter.Adapter, **query: Any):
        """Yield what happened, oldest first, as :class:`BatchMigrationEvent`."""
        return BatchMigrationEvent.list(session, batch_id=self.id, **query)

    def _action(self, session: adapter.Adapter, name: str, params: dict | None = None) -> Self:
        session = self._get_session(session)
        response = session.post(
            utils.urljoin(self.base_path, self.id, "action"),
            json={name: params},
            microversion=self._get_microversion(session),
        )
        self._translate_response(response)
        return self

    def _fetch_part(
        self, session: adapter.Adapter, part: str, query: dict[str, str] | None = None
    ) -> dict[str, Any]:
        session = self._get_session(session)
        response = session.get(
            utils.urljoin(self.base_path, self.id, part),
            params=query or {},
            microversion=self._get_microversion(session),
        )
        exceptions.raise_from_response(response)
        return response.json()[part]


class BatchMigrationEvent(_VersionedResource):
    """One thing that happened in a batch migration."""

    resources_key = "events"
    base_path = _BASE_PATH + "/%(batch_id)s/events"

    allow_list = True

    #: The batch migration it belongs to.
    batch_id = resource.URI("batch_id")
    #: When, ISO 8601 in UTC.
    created_at = resource.Body("created_at")
    #: What kind of thing, for instance ``issued`` or ``completed``.
    kind = resource.Body("kind")
    #: The server concerned, if it is about one.
    server_id = resource.Body("server_id")
    #: What happened, in words.
    message = resource.Body("message")
    #: The request that caused it; Nova's logs know the same id.
    request_id = resource.Body("request_id")
