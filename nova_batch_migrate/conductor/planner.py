"""Turns a batch's telemetry and Nova's present truth into a plan, and the plan into rows.

Called by the reconciler. The planning itself is ``nova_batch_migrate.planning``, pure; here is the
asking of Nova and Placement and the writing to the database.
"""

import concurrent.futures
import dataclasses
import datetime
import time
from collections.abc import Collection

from oslo_log import log
from oslo_utils import timeutils

from nova_batch_migrate import context, exception
from nova_batch_migrate.conductor import keeping, lessons, loading, survey
from nova_batch_migrate.db import api as db
from nova_batch_migrate.planning import plan as planning
from nova_batch_migrate.planning import request as plan_request
from nova_batch_migrate.planning import source, telemetry
from nova_batch_migrate.planning.result import PlanGroup

LOG = log.getLogger(__name__)
MIB = 1024 * 1024
UNACCOUNTED_DISK_GB = 1 << 30
#: Of Nova, Placement and the relays, for one plan.
QUESTIONS_AT_ONCE = 4
#: Answers that came while servers were measured are not asked for again behind that.
ANSWERS_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class Answers:
    """What Nova, Placement and the relays say of hosts, whatever is measured of servers there."""

    sources: tuple[str, ...]
    #: Possible destinations, and what is free at those that Placement knows.
    names: tuple[str, ...]
    capacity: dict[str, dict]
    groups: tuple[dict, ...]
    relays: tuple[plan_request.RelayHost, ...]
    #: Servers of the sources (clients.nova.ServerInfo).
    servers: tuple
    #: Of the monotonic clock.
    at: float


@dataclasses.dataclass(frozen=True)
class _UnderWay:
    """A group of which servers migrate; ``left``: destinations of those that have yet to begin."""

    index: int
    relayed: bool
    left: dict[str, str]


class Planner:
    """Makes and stores plans; ``nova`` and ``placement`` are the clients.

    Keeps answers that came before their plan; a conductor that has none asks.
    """

    def __init__(self, conf, nova, placement, relays):
        self._conf = conf
        self._nova = nova
        self._placement = placement
        self._relays = relays
        self._known: dict[str, Answers] = {}

    def ask_ahead(self, batch: dict, sources: Collection[str]) -> None:
        """Ask what a first plan needs beside what is being measured, so that nobody waits for it.

        Once for each batch; where an answer does not come, the plan asks again.
        """
        now = time.monotonic()
        self._known = {batch_id: found for batch_id, found in self._known.items()
                       if now - found.at < ANSWERS_SECONDS}
        if batch["id"] in self._known:
            return
        try:
            self._known[batch["id"]] = self._ask(batch, sorted(sources))
        except exception.BatchMigrateError as error:
            LOG.info("batch %s: the plan will ask again: %s", batch["id"], error)

    def _answers(self, batch: dict, sources: list[str]) -> Answers:
        found = self._known.pop(batch["id"], None)
        if found is not None and found.sources == tuple(sources) \
                and time.monotonic() - found.at < ANSWERS_SECONDS:
            return found
        return self._ask(batch, sources)

    def _ask(self, batch: dict, sources: list[str]) -> Answers:
        names = self.destinations(batch)
        # none of these waits for another's answer, and migrations wait for all
        with concurrent.futures.ThreadPoolExecutor(QUESTIONS_AT_ONCE) as beside:
            capacity = beside.submit(self._free_capacity, names) if sources else None
            groups = beside.submit(self._nova.server_groups) if sources else None
            relays = beside.submit(self._relays_of, batch, sources, names)
            servers = [server for host in sources for server in self._nova.servers_on(host)]
        return Answers(tuple(sources), tuple(names), capacity.result() if capacity else {},
                       tuple(groups.result()) if groups else (), relays.result(), tuple(servers),
                       time.monotonic())

    def destinations(self, batch: dict) -> list[str]:
        """Return the hosts this batch may move servers to: up, enabled, nobody's source."""
        wanted = set(batch["request"]["target_hosts"])
        excluded = set(batch["request"]["exclude_hosts"]) | set(batch["request"]["hosts"])
        hosts = sorted(service["host"] for service in self._nova.compute_services()
                       if service["state"] == "up" and service["status"] == "enabled")
        hosts = [host for host in hosts
                 if host not in excluded and (not wanted or host in wanted)]
        claimed = db.claims_of([(db.HOST, host) for host in hosts])
        return [host for host in hosts if (db.HOST, host) not in claimed]

    def step(self, ctxt, batch: dict) -> None:
        """Plan what has yet to move, and note what the next passes need of the plan."""
        fresh = db.get_batch(batch["id"])
        current = db.servers_of(batch["id"])
        first_group = max((row["group_index"] for row in current
                           if row["group_index"] is not None), default=-1) + 1
        plan = self.make(fresh, current, first_group)
        kind = "planned" if fresh["first_plan"] is None else "replanned"
        db.add_event(
            batch["id"], kind,
            f"{sum(len(group.members) for group in plan.groups)} servers in {len(plan.groups)} "
            f"groups, {plan.projected_seconds:.0f} s, {len(plan.staying)} stay",
            request_id=ctxt.request_id)
        if batch["control"]["replan"]:
            batch["control"] = batch["control"] | {"replan": False}
            db.update_batch(batch["id"], {"control": batch["control"]})
        keeping.save(batch, **loading.go_on(batch, timeutils.utcnow()))
        # a set of an earlier plan may still be on its way
        still = {row["group_index"] for row in current if row["status"] in ("waiting", "migrating")}
        relayed = {group.index for group in plan.groups
                   if any(member.projection.relay for member in group.members)}
        keeping.save(batch, measure=None, surveyed=False,
                   told=loading.told(plan, fresh["first_plan"]),
                   projected_seconds=loading.spent_seconds(batch, timeutils.utcnow())
                   + plan.projected_seconds,
                   relayed=sorted({*batch["state"].get("relayed", ()), *relayed}),
                   at_once={**batch["state"].get("at_once", {}), **{
                       str(group.index): group.parallel for group in plan.groups
                       if group.index not in relayed}},
                   together=[*(index for index in batch["state"].get("together", ())
                               if index in still),
                             *(group.index for group in plan.groups if group.synchronized)],
                   dirty={server.id: round(server.round_model.rate_pages_per_second
                                           * telemetry.PAGE_BYTES)
                          for host in plan.request.hosts for server in host.servers},
                   limits={host.host: host.options.max_concurrent for host in plan.request.hosts},
                   plan_groups={group.source: min(g.index for g in plan.groups
                                                  if g.source == group.source)
                                for group in plan.groups})

    def make(self, batch: dict, rows: list[dict], first_group: int) -> planning.Plan:
        """Plan what is still pending; groups are numbered from ``first_group`` on, also in it.

        Not what is left of a group under way, if the plan leaves it as it is.
        """
        pending = {row["server_id"]: row for row in rows if row["status"] == "pending"}
        hosts = [self._telemetry(batch, host, pending) for host in
                 sorted({row["source"] for row in pending.values()})]
        # one that is on its host though it could not be measured goes by its memory size
        plannable = {server.id for host in hosts for server in host.servers
                     if server.error is None or server.host == host.host}
        told = self._answers(batch, [host.host for host in hosts])
        names, capacity, groups = told.names, told.capacity, told.groups
        relays = _usable(told.relays, {host.host for host in hosts}, capacity)
        servers = {server.id: server for server in told.servers if server.id in pending}
        holding = self._members_elsewhere(groups, pending)
        max_parallel = (batch["request"]["max_parallel"] or self._conf.conductor.max_parallel
                        or None)
        relay_max_parallel = batch["request"]["max_parallel"] or loading.ALL_AT_ONCE
        taught = lessons.lessons(
            self._conf, timeutils.utcnow(), hosts,
            sum(row["status"] != "skipped" for row in rows), relays,
            relay_max_parallel if relays else max_parallel or source.MOST_AT_ONCE)
        request = plan_request.PlanRequest(
            hosts=tuple(hosts),
            movable=tuple(_movable(servers[server_id], names, groups)
                          for server_id in sorted(servers) if server_id in plannable),
            destinations=tuple(
                _destination(name, capacity, holding.get(name, ()),
                             self._conf.conductor.max_inbound or None)
                for name in names if name in capacity),
            staying=tuple(_stayed(row) for row in rows if row["status"] == "skipped")
            + tuple(_unmeasured(pending[server_id], hosts) for server_id in sorted(pending)
                    if server_id not in plannable),
            strategy=batch["request"]["strategy"],
            max_parallel=max_parallel,
            relay_max_parallel=relay_max_parallel,
            relay_max_preparing=self._conf.conductor.max_preparing or None,
            max_bandwidth_bytes_per_second=_bytes_per_second(batch["request"]),
            nova_seconds=self._conf.conductor.nova_seconds,
            nova_sharing=self._conf.conductor.nova_sharing,
            nova_deviation=taught.nova_deviation,
            learned_nova=taught.nova,
            setup_seconds=self._conf.conductor.setup_seconds,
            relay=bool(relays),
            relays=relays,
            dedup_scope=batch["request"]["dedup_scope"],
            dictionary_bytes=_dictionary_bytes(relays),
            on_non_convergence=batch["request"]["on_non_convergence"],
            learned=taught.learned,
            learned_relayed=taught.learned_relayed,
            learned_relay=taught.relay,
            synchronized=_synchronized(batch["request"], rows),
            deadline_seconds=_seconds_until(batch["request"].get("deadline")),
            max_wait_seconds=float(batch["request"].get("max_wait_seconds") or 0),
            now_seconds=timeutils.utcnow_ts(microsecond=True),
        )
        plan = planning.make_plan(request)
        under_way = _under_way(rows, batch["state"])
        plan = dataclasses.replace(plan, groups=tuple(
            dataclasses.replace(group, index=under_way[group.source].index
                                if _goes_on(group, plan.groups, under_way)
                                else group.index + first_group) for group in plan.groups))
        self._store(batch, pending, plan)
        return plan

    def _free_capacity(self, names: list[str]) -> dict[str, dict]:
        nodes = {hypervisor.host: hypervisor.node for hypervisor in self._nova.hypervisors()}
        return self._placement.free_capacity(names, nodes)

    def _relays_of(self, batch: dict, sources: list[str], destinations: list[str]
                   ) -> tuple[plan_request.RelayHost, ...]:
        """Return the hosts with a relay, if there is a way of this batch with one at both ends."""
        ctxt = context.service_context(batch["request_id"])
        found = {host: self._relays.describe(ctxt, host) for host in sources}
        if any(found.values()):
            found |= {host: self._relays.describe(ctxt, host) for host in destinations}
        if not any(found.get(host) for host in destinations):
            return ()
        return tuple(plan_request.RelayHost(host, **(relay.get("speed") or {}),
                                            dictionary_bytes=relay.get("dictionary_bytes"))
                     for host, relay in found.items() if relay)

    def _members_elsewhere(self, groups: Collection[dict], pending: dict
                           ) -> dict[str, tuple[str, ...]]:
        """Return the server groups with members on each host, of those that something leaves."""
        holding: dict[str, list[str]] = {}
        for group in groups:
            if not pending.keys() & set(group["members"]):
                continue
            for member in group["members"]:
                server = None if member in pending else self._nova.server(member)
                if server is not None and server.host:
                    holding.setdefault(server.host, []).append(group["id"])
        return {host: tuple(ids) for host, ids in holding.items()}

    def _telemetry(self, batch: dict, host: str, pending: dict) -> telemetry.HostTelemetry:
        stored = (batch["telemetry"] or {})[host]
        value = telemetry.HostTelemetry.from_dict(stored)
        return dataclasses.replace(
            value, servers=tuple(s for s in value.servers if s.id in pending))

    def _store(self, batch: dict, pending: dict, plan) -> None:
        """Write the plan to the batch and to its rows; a first projection is frozen."""
        for group in plan.groups:
            for member in group.members:
                projection = member.projection.to_dict()
                values = {"destination": member.destination,
                          "group_index": group.index,
                          "order_index": member.order, "current_projection": projection}
                if pending[member.server_id]["projection"] is None:
                    values["projection"] = projection
                db.update_server(batch["id"], member.server_id, values)
        for staying in plan.staying:
            if staying.server_id in pending:
                db.update_server(batch["id"], staying.server_id, {
                    "status": "skipped", "reason": staying.reason,
                    "certainty": staying.certainty, "command": staying.command})
        values = {"plan": plan.to_dict()}
        if batch["first_plan"] is None:
            values["first_plan"] = values["plan"]
        db.update_batch(batch["id"], values)


def _under_way(rows: list[dict], kept: dict) -> dict[str, _UnderWay]:
    """Return the group that is under way at each source, where that is no set."""
    found, relayed = {}, loading.relayed_groups(kept)
    for row in rows:
        index = row["group_index"]
        if row["status"] in ("waiting", "migrating") and index not in kept.get("together", ()):
            found[row["source"]] = _UnderWay(index, index in relayed, {
                each["server_id"]: each["destination"] for each in rows
                if each["status"] == "pending" and each["group_index"] == index})
    return found


def _goes_on(group: PlanGroup, groups: tuple[PlanGroup, ...], under_way: dict[str, _UnderWay]
             ) -> bool:
    """Tell whether a group is what is left of the one under way at its source.

    Relays are open for that one; with a number of its own it would not begin before all ended that
    migrates there.
    """
    present = under_way.get(group.source)
    return (present is not None and not group.synchronized
            and group.index == min(each.index for each in groups if each.source == group.source)
            and present.relayed == any(member.projection.relay for member in group.members)
            and all(present.left.get(member.server_id) == member.destination
                    for member in group.members))


def _usable(relays: tuple, sources: set[str], capacity: dict) -> tuple:
    """Return the relays of sources and of hosts with room; none where no such host has one."""
    if not any(each.host in capacity for each in relays):
        return ()
    return tuple(each for each in relays if each.host in sources or each.host in capacity)


def _dictionary_bytes(relays: tuple[plan_request.RelayHost, ...]) -> int:
    """Return what the relays have for dictionaries, the least of them; a usual one's where untold.
    """
    return min((each.dictionary_bytes for each in relays if each.dictionary_bytes),
               default=plan_request.PlanRequest.dictionary_bytes)


def _movable(server, destinations: Collection[str], groups: Collection[dict]
             ) -> plan_request.Movable:
    """``groups``: Nova's server groups; their policies hold against planned moves too."""
    mine = {group["policy"]: group for group in groups if server.id in group["members"]}
    anti = mine.get("anti-affinity")

    def named(policy: str) -> str | None:
        return mine[policy]["id"] if policy in mine else None

    return plan_request.Movable(
        id=server.id, destinations=tuple(host for host in destinations if host != server.host),
        memory_bytes=server.memory_bytes, vcpus=server.vcpus, disk_gb=server.disk_gb,
        anti_affinity_group=named("anti-affinity"),
        anti_affinity_most=int(anti["rules"].get("max_server_per_host", 1)) if anti else 1,
        soft_anti_affinity_group=named("soft-anti-affinity"),
        soft_affinity_group=named("soft-affinity"))


def _synchronized(request: dict, rows: list[dict]) -> tuple[tuple[str, ...], ...]:
    """Return the sets that move together, without strangers and who has moved.

    Who has to stay is still in it: then all of the set stay.
    """
    left_here = {row["server_id"] for row in rows if row["status"] != "completed"}
    left = (tuple(i for i in members if i in left_here)
            for members in request.get("synchronized") or [])
    return tuple(members for members in left if len(members) > 1)


def _seconds_until(moment: str | None) -> float | None:
    if moment is None:
        return None
    left = datetime.datetime.fromisoformat(moment) - timeutils.utcnow()
    return max(0.0, round(left.total_seconds(), 1))


def _destination(host: str, capacity: dict, server_groups: tuple[str, ...],
                 inbound_limit: int | None) -> plan_request.Destination:
    free = capacity[host]
    # pinned and shared processors are told apart only by the scheduler
    disk_gb = UNACCOUNTED_DISK_GB if free["disk_gb"] is None else free["disk_gb"]
    return plan_request.Destination(
        host=host, free_memory_bytes=free["memory_bytes"],
        free_vcpus=free["vcpus"] + free["pcpus"], free_disk_gb=disk_gb,
        server_groups=server_groups, inbound_limit=inbound_limit)


def _stayed(row: dict) -> plan_request.Staying:
    return plan_request.Staying(
        server_id=row["server_id"], name=row["name"], source=row["source"], reason=row["reason"],
        certainty=row["certainty"] or survey.CERTAIN, command=row["command"])


def _unmeasured(row: dict, hosts: list) -> plan_request.Staying:
    errors = {server.id: server.error for host in hosts for server in host.servers}
    return plan_request.Staying(
        server_id=row["server_id"], name=row["name"], source=row["source"],
        reason="it could not be measured, so nothing is promised: "
               + (errors.get(row["server_id"]) or "the agent sent no figures for it"),
        certainty=survey.LIKELY,
        command=f"openstack server migrate --live-migration --wait {row['server_id']}")


def _bytes_per_second(request: dict) -> float | None:
    cap = request["max_bandwidth_mib_s"]
    return None if cap is None else cap * MIB
