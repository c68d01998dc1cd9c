"""make_plan: from telemetry and limits to ordered groups with destinations, times and reasons.

Called by the conductor, and by anybody with the JSON of a request. Pure: the same request gives
the same plan (design 3).
"""

import collections
import dataclasses
from collections.abc import Sequence

from nova_batch_migrate import exception
from nova_batch_migrate.planning import (
    deadlines,
    explaining,
    grouping,
    ordering,
    relaying,
    synchronized,
    timing,
)
from nova_batch_migrate.planning.grouping import Grouping
from nova_batch_migrate.planning.placement import Place, Room, place_groups
from nova_batch_migrate.planning.request import Movable, PlanRequest, Staying
from nova_batch_migrate.planning.result import Plan, PlanGroup, PlanMember, Projection
from nova_batch_migrate.planning.source import Source
from nova_batch_migrate.planning.telemetry import ServerTelemetry

__all__ = ("Plan", "PlanRequest", "make_plan")

#: Nova is seldom ten times as fast as it is at other times: exp(5) is 150 times.
MOST_DEVIATION = 5.0


def make_plan(request: PlanRequest) -> Plan:
    """Plan the batch: who goes in which group, where to, in which order, how long, and why.

    Servers that do not converge, or find no room, are added to `staying`. Raises PlanningError
    for a request that contradicts itself.
    """
    asked = request
    _check(request)
    request = _all_named(request)
    sources = _sources(request)
    staying = [*request.staying, *_nowhere(asked, request)]
    groups: dict[str, list[Grouping]] = {}
    dictionary_bytes = request.dictionary_bytes if request.relay else 0
    with_relay = None if request.relays is None else {relay.host for relay in request.relays}
    room = Room(request.destinations, request.movable, dictionary_bytes, with_relay)
    sets = synchronized.merged(request.synchronized)
    refused = synchronized.refusals(request)
    for source in sources:
        able, reasons = _able(source, sets, refused)
        staying += _stay(source, reasons)
        groups[source.name] = source.groups(able, room, sets)
    places, homeless = place_groups(
        [[source.movable[i] for i in group.servers]
         for source in sources for group in groups[source.name]], request.destinations,
        [source.name if source.relays(group.servers) else None
         for source in sources for group in groups[source.name]], dictionary_bytes, with_relay)
    homeless |= synchronized.cascade(sets, homeless)
    planned: list[PlanGroup] = []
    for source in sources:
        lost = {i: why for i, why in homeless.items() if i in source.servers}
        staying += _stay(source, lost)
        kept = _beside(source, _without(groups[source.name], lost), places, request, True)
        kept = _by_way(source, kept, places, request)
        lost = {i: why for group in kept if group.synchronized for i, why in
                synchronized.unrelayed(source.unrelayed, group.servers).items()}
        staying += _stay(source, lost)
        kept = _without(kept, lost)
        # with a relay they would have converged
        lost = {i: explaining.why_not(source, i) for group in kept for i in group.servers
                if source.alone(i).verdict != "converges"}
        lost |= synchronized.cascade(sets, lost)
        staying += _stay(source, {i: why for i, why in lost.items() if i in source.servers})
        kept = _beside(source, _without(kept, lost), places, request, False)
        planned += _plan_source(source, kept, places, request, len(planned))
    seconds = ordering.whole_seconds(planned, request.destinations)
    relayed = any(m.projection.relay for group in planned for m in group.members)
    return Plan(
        strategy=request.strategy, relay=relayed,
        notes=(*explaining.notes(request, sources, relayed or not planned),
               *deadlines.notes(request, planned, seconds)),
        groups=tuple(planned), staying=tuple(staying), projected_seconds=seconds,
        raw_bytes=sum(g.raw_bytes for g in planned),
        wire_bytes=sum(g.wire_bytes for g in planned),
        deadline_met=deadlines.met(request, seconds),
        learned_seconds=ordering.whole_seconds_by(
            lambda projection: projection.learned_seconds, planned, request.destinations)
        if planned else None,
        request=asked)


def _able(source: Source, sets, refused: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return who can migrate from the source, and why the others stay (id -> reason).

    Members of a set that moves together have to converge beside each other.
    """
    reasons = {i: refused[i] for i in source.servers if i in refused}
    reasons |= {i: explaining.why_not(source, i) for i in source.servers
                if i not in reasons and source.alone(i).verdict != "converges"}
    here = [members for members in sets if source.servers.keys() >= set(members)]
    reasons |= synchronized.cascade(here, reasons)
    for members in here:
        if members[0] in reasons:
            continue
        together = source.project(source.in_order(members), len(members))
        if any(projection.verdict != "converges" for projection in together):
            reasons.update(dict.fromkeys(
                members, f"it moves together with {len(members) - 1} others, and not all of them "
                         "converge while they share the link"))
    return [i for i in source.servers if i not in reasons], reasons


def _check(request: PlanRequest) -> None:
    if request.max_parallel is not None and request.max_parallel < 1:
        raise exception.PlanningError(reason="max_parallel must be at least 1")
    hosts = [host.host for host in request.hosts]
    measured = [server.id for host in request.hosts for server in host.servers]
    wanted = [server.id for server in request.movable]
    for what, names in (("host", hosts), ("server in the telemetry", measured),
                        ("movable server", wanted),
                        ("destination", [d.host for d in request.destinations])):
        twice = sorted(name for name, count in collections.Counter(names).items() if count > 1)
        if twice:
            raise exception.PlanningError(reason=f"{what} {', '.join(twice)} is there twice")
    cap = request.max_bandwidth_bytes_per_second
    if cap is not None and cap <= 0:
        raise exception.PlanningError(
            reason="max_bandwidth_bytes_per_second must be above 0; leave it out for no limit")
    if request.nova.before_share > 1:
        raise exception.PlanningError(
            reason="of Nova's seconds before_share is a share, and at most 1")
    if request.nova.deviation > MOST_DEVIATION:
        raise exception.PlanningError(
            reason="the deviation of Nova's seconds is that of a logarithm, and at most "
                   f"{MOST_DEVIATION:g}")


def _unnamed(request: PlanRequest) -> list[Movable]:
    """Return who is to move and is in no host's telemetry."""
    measured = {server.id for host in request.hosts for server in host.servers}
    return [movable for movable in request.movable if movable.id not in measured]


def _all_named(request: PlanRequest) -> PlanRequest:
    """Return the request with those that the telemetry lacks as not measured.

    Of several hosts nobody knows which one they are on: they are left out.
    """
    missing = _unnamed(request)
    if not missing:
        return request
    if len(request.hosts) != 1:
        lacking = {each.id for each in missing}
        return dataclasses.replace(request, movable=tuple(
            each for each in request.movable if each.id not in lacking))
    host = request.hosts[0]
    servers = tuple(ServerTelemetry(
        id=each.id, name=each.id, host=host.host, memory_bytes=each.memory_bytes, vcpus=each.vcpus,
        error="the telemetry lacks it; measure the host again") for each in missing)
    return dataclasses.replace(
        request, hosts=(dataclasses.replace(host, servers=(*host.servers, *servers)),))


def _nowhere(asked: PlanRequest, request: PlanRequest) -> list[Staying]:
    """Say of those that were left out that nobody knows where they are."""
    known = {each.id for each in request.movable}
    return [Staying(
        server_id=each.id, name=each.id, source="unknown", certainty="likely",
        reason="no host's telemetry names it, so it cannot be planned; measure its host again",
        command=f"openstack server migrate --live-migration --wait {each.id}")
        for each in sorted(asked.movable, key=lambda each: each.id) if each.id not in known]


def _sources(request: PlanRequest) -> list[Source]:
    """Return the hosts that something is to leave, by name; nobody moves to where it is."""
    leaving: dict[str, list[Movable]] = {}
    by_id = {server.id: server for server in request.movable}
    known = {destination.host for destination in request.destinations}
    for host in request.hosts:
        found = [by_id[s.id] for s in host.servers if s.id in by_id]
        if host.host in known:
            found = [_elsewhere(m, host.host) for m in found]
        if found:
            leaving[host.host] = found
    return [Source(host, leaving[host.host], request, len(leaving))
            for host in sorted(request.hosts, key=lambda h: h.host) if host.host in leaving]


def _elsewhere(movable: Movable, host: str) -> Movable:
    if host not in movable.destinations:
        return movable
    return dataclasses.replace(
        movable, destinations=tuple(d for d in movable.destinations if d != host))


def _stay(source: Source, reasons: dict[str, str]) -> list[Staying]:
    """Return why these servers stay; a cold migration would move them, stopped meanwhile."""
    return [Staying(
        server_id=i, name=source.servers[i].name, source=source.name,
        reason=reasons[i], certainty="likely",
        command=f"openstack server migrate --wait {i} && openstack server migration confirm {i}")
        for i in sorted(reasons, key=source.identity)]


def _without(groups: Sequence[Grouping], lost: dict[str, str]) -> list[Grouping]:
    kept = (_of(g, [i for i in g.servers if i not in lost]) for g in groups)
    return [group for group in kept if group.servers]


def _of(group: Grouping, ids: Sequence[str]) -> Grouping:
    """Return the group with these of its servers only."""
    if len(ids) == len(group.servers):
        return group
    left = set(ids)
    return dataclasses.replace(group, servers=tuple(ids),
                               order=tuple(i for i in group.order if i in left))


def _by_way(source: Source, groups: Sequence[Grouping], places: dict[str, Place],
            request: PlanRequest) -> list[Grouping]:
    """Part the groups into what goes through relays and what does not, now that places are known.

    A set that moves together goes one way as a whole.
    """
    parted = []
    for group in groups:
        if not source.relays(group.servers):
            parted.append(group)
            continue
        out = {i: why for i in group.servers
               if (why := relaying.not_arriving(request, places[i].host))}
        if out and group.synchronized:
            out = dict.fromkeys(group.servers, next(iter(out.values())))
        source.leave_out(out)
        carried = [i for i in group.servers if i not in out]
        # a set needs its relay, whether that pays or not
        if carried and not group.synchronized:
            through = _of(group, carried)
            order = through.order or source.in_order(carried)
            slow = source.past_relays(order, source.parallel_of(through),
                                      {i: places[i].host for i in order})
            source.leave_out(slow)
            out |= slow
            carried = [i for i in carried if i not in out]
        past = [i for i in group.order or source.in_order(group.servers) if i in out]
        parts = [carried, *([past] if group.synchronized else grouping.in_parts(past))]
        parted += [_of(group, part) for part in parts if part]
    return parted


def _beside(source: Source, groups: Sequence[Grouping], places: dict[str, Place],
            request: PlanRequest, relayed: bool) -> list[Grouping]:
    """Let those that go alone go beside each other where more may at once, up to eight.

    A group of one would wait for the end of the one before, and Nova's part with it. `relayed`:
    those that relays can carry, else those that go past them. Who has a deadline, waits for its
    quiet moment, is completed by force or could not be measured stays alone, and so do all of
    FIG. 6, whose groups are told to the letter.
    """
    def may(group: Grouping) -> bool:
        first, *others = group.servers
        return (not others and source.relays([first]) is relayed and source.measured(first)
                and first not in source.waits and source.help_of(first) is None
                and source.deadline([first]) is None)

    ids = [] if request.strategy == "pair" else source.in_order(
        [group.servers[0] for group in groups if may(group)])
    together = [each for each in (Grouping(
        tuple(part), f"{len(part)} beside each other, each with too little in common with any "
                     "other" if relayed else
                     f"{len(part)} beside each other: no relay sends once what they have in common")
        for part in grouping.in_parts(ids)) if _parallel(source, each, places, request) > 1]
    gathered = {i for group in together for i in group.servers}
    return [*(group for group in groups if group.servers[0] not in gathered), *together]


def _parallel(source: Source, group: Grouping, places: dict[str, Place],
              request: PlanRequest) -> int:
    """Return how many of a group are under way at once."""
    limit = ordering.inbound_parallel((places[i].host for i in group.servers),
                                      request.inbound_limits)
    return int(max(1, min(source.parallel_of(group), limit)))


def _plan_source(source: Source, groups: list[Grouping], places: dict[str, Place],
                 request: PlanRequest, first_index: int) -> list[PlanGroup]:
    """Order the groups of one source and its members, with projections.

    FIG. 6 brings its own order; all else goes by ascending projected time [0061], but for
    deadlines.
    """
    def parallel(group: Grouping) -> int:
        return _parallel(source, group, places, request)

    timed = _converging(source, groups, parallel)
    if request.strategy != "pair":
        timed = ordering.ascending(
            timed, seconds=lambda item: _last_done(item[2]),
            identity=lambda item: source.identity(item[1][0]),
            last=lambda item: not source.measured(item[1][0]),
            deadline=lambda item: source.deadline(item[1]))
    planned, begins = [], 0.0
    for at, (group, ids, projections) in enumerate(timed):
        if source.deadline(ids) is not None and begins:
            ids, projections = _ordered(source, group, parallel(group), begins)
        known = source.project(ids, parallel(group), {i: places[i].host for i in ids}, begins)
        if all(projection.verdict == "converges" for projection in known):
            projections = known
        waits, projections = _waited(source, request, ids, projections, begins)
        planned.append(_plan_group(source, first_index + at, group, ids, projections, places,
                                   waits, parallel(group)))
        begins += planned[-1].projected_seconds
    return planned


def _converging(source: Source, groups: list[Grouping], parallel
                ) -> list[tuple[Grouping, list[str], tuple[Projection, ...]]]:
    """Take out who converges alone but not beside the other streams of its group.

    Returns the groups with their members in order, and these members' projections.
    """
    result = []
    for group in groups:
        slow = []
        while True:
            order, projections = _ordered(source, group, parallel(group))
            failing = [i for i, projection in zip(order, projections, strict=True)
                       if projection.verdict != "converges"]
            if not failing or len(order) == 1 or group.synchronized:
                break
            slow.append(Grouping((failing[-1],),
                                 "alone: it does not converge beside other streams"))
            group = _of(group, [i for i in group.servers if i != failing[-1]])
        result += [(group, order, projections),
                   *((one, *_ordered(source, one, parallel(one))) for one in slow)]
    return result


def _ordered(source: Source, group: Grouping, parallel: int, begins: float = 0.0
             ) -> tuple[list[str], tuple[Projection, ...]]:
    """Order members by the dictionary where that saves more, but never against deadlines."""
    if group.order and source.deadline(group.servers) is None:
        order = list(group.order)
    else:
        order = source.in_order(group.servers, begins)
    return order, source.project(order, parallel)


def _last_done(projections: Sequence[Projection]) -> float:
    return max(p.projected_seconds for p in projections)


def _waited(source: Source, request: PlanRequest, ids: Sequence[str],
            projections: Sequence[Projection], begins: float
            ) -> tuple[list[float], tuple[Projection, ...]]:
    """Return how long each member waits for its quiet moment, and the projections with it.

    Others of the group go meanwhile: they wait for nobody.
    """
    waits, changed = [], []
    for server_id, projection in zip(ids, projections, strict=True):
        wait = source.waits.get(server_id)
        seconds = 0.0 if wait is None else timing.seconds_to_wait(
            wait, request.now_seconds + begins + projection.queue_seconds,
            request.max_wait_seconds)
        waits.append(seconds)
        changed.append(projection.later(seconds) if seconds else projection)
    return waits, tuple(changed)


def _plan_group(source: Source, index: int, group: Grouping, ids: Sequence[str],
                projections: Sequence[Projection], places: dict[str, Place],
                waits: Sequence[float], parallel: int) -> PlanGroup:
    members = tuple(
        PlanMember(server_id=i, name=source.servers[i].name, destination=places[i].host,
                   order=at, projection=source.told(i, projection),
                   reason=explaining.member_reason(source, i, at, group, places[i]),
                   wait=source.waits.get(i), wait_seconds=waits[at])
        for at, (i, projection) in enumerate(zip(ids, projections, strict=True)))
    return PlanGroup(
        index=index, source=source.name, members=members,
        projected_seconds=_last_done(projections),
        raw_bytes=sum(p.raw_bytes for p in projections),
        wire_bytes=sum(p.wire_bytes for p in projections),
        common_pages_bytes=source.common_bytes({i: places[i].host for i in ids}),
        reason=group.reason, synchronized=group.synchronized, parallel=parallel)
