"""One source host as the planner sees it: its link, its loads, what may migrate together.

Used by planning.plan only. Remembers projections, since strategies ask for them again and again.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from nova_batch_migrate.planning import (
    allocation,
    commonality,
    doubt,
    grouping,
    helped,
    ordering,
    projection,
    relaying,
    replay,
    timing,
)
from nova_batch_migrate.planning.placement import Room
from nova_batch_migrate.planning.request import Movable, PlanRequest
from nova_batch_migrate.planning.result import Projection, Wait
from nova_batch_migrate.planning.scope import Scope
from nova_batch_migrate.planning.telemetry import PAGE_BYTES, HostTelemetry, ServerTelemetry

MIB = 1024 ** 2
#: Up to so many servers in all, groups are searched for as well as can be.
THOROUGH_SERVERS = 500
#: Most migrations at once where the plan chooses: with five, libvirt as it is installed starves
#: nova-compute's connection. What the end has to become for one more, which takes of the others'
#: link.
MOST_AT_ONCE, WORTH_ONE_MORE = 4, 0.97
#: Past the relays a link carries more for others to share: the end has to be so much sooner.
WORTH_MORE_BYTES = 0.95


class Source:
    """A source host with the servers that are to leave it."""

    def __init__(self, host: HostTelemetry, movable: Sequence[Movable], request: PlanRequest,
                 sources: int):
        host, self.doubts = doubt.believable(host)
        ids = {server.id for server in movable}
        self.name = host.host
        self.options = host.options
        self.bandwidth = host.bandwidth
        self.servers: dict[str, ServerTelemetry] = {s.id: s for s in host.servers if s.id in ids}
        self.movable = {server.id: server for server in movable}
        self.known = commonality.of_host(host)
        self.told_apart = [f"{self.name}: {words}" for words in commonality.told_apart(
            host, list(self.servers))]
        self.scope = Scope(request.dedup_scope, host.servers)
        cap = request.max_bandwidth_bytes_per_second
        plain, relayed = (projection.usable_link(
            host.bandwidth, host.options, cap / sources if cap else None, relay)
            for relay in (False, True))
        self._links = {False: plain, True: relayed}
        #: Why relays do not carry the streams of these servers; all others they do.
        self.unrelayed: dict[str, str] = {}
        no_relay = "" if not request.relay else relaying.not_leaving(request, host)
        if no_relay is not None:
            self.unrelayed = dict.fromkeys(self.servers, no_relay)
        self.replay = replay.Replay(host, request.dedup_scope, request.dictionary_bytes,
                                    self.known) if no_relay is None else None
        most = host.options.max_concurrent
        plainly = min(request.max_parallel or MOST_AT_ONCE, most,
                      math.inf if not cap else cap / sources // allocation.LEAST_BYTES_PER_SECOND)
        self._parallel = {False: max(1, int(plainly)), True: max(1, min(
            request.relay_max_parallel or request.max_parallel or most, most))}
        self._at_once: dict[tuple[str, ...], int] = {}
        self.request = request
        self._loads = {
            s.id: projection.member_load(s, self.movable[s.id].memory_bytes, host.options)
            for s in self.servers.values()}
        #: Who waits for its quiet moment when its turn has come, and for which ([0072]).
        self.waits: dict[str, Wait] = {}
        if request.max_wait_seconds > 0 and request.now_seconds is not None:
            self._find_waits()
        self._projected: dict[tuple, tuple[Projection, ...]] = {}
        self._alone: dict[str, projection.Alone] = {}
        self._own_shares: dict[str, float | None] = {}
        self._runs: dict = {}
        #: Verdict and downtime of those that are completed by force.
        self._helped: dict[str, tuple[projection.Alone, helped.Helped]] = {}
        if request.on_non_convergence in ("pause", "post-copy"):
            self._find_help()

    def _find_waits(self) -> None:
        """Let those wait whose whole stream fits into a quiet stretch, and gains by it."""
        request = self.request
        # members of a set go when all do
        bound = {i for members in request.synchronized for i in members}
        for server_id, load in self._loads.items():
            periodicity = timing.periodicity_of(self.servers[server_id])
            if periodicity is None or load.nominal.cycle is None or server_id in bound:
                continue
            quiet = projection.while_quiet(load)
            link = self.link([server_id])
            verdict, seconds, _ = projection.alone(quiet, link, request.setup_seconds)
            usual, usual_seconds, _ = projection.alone(load, link, request.setup_seconds)
            if verdict != "converges":
                continue
            wait = timing.best_moment(
                periodicity, seconds, request.nova.seconds * request.nova.before_share,
                usual_seconds if usual == "converges" else None, request.max_wait_seconds,
                self.servers[server_id].name)
            if wait is not None:
                self.waits[server_id] = wait
                self._loads[server_id] = quiet

    def _find_help(self) -> None:
        """Let those that do not converge by themselves be completed by force, where permitted."""
        request = self.request
        if helped.refusal(request.on_non_convergence, self.options, self.name):
            return
        bound = {i for members in request.synchronized for i in members}
        for server_id in self.servers:
            found = self.alone(server_id)
            if found.verdict == "converges" or server_id in bound:
                continue
            out = helped.help_out(self._loads[server_id], self.link([server_id]),
                                  request.setup_seconds, request.on_non_convergence)
            if out is not None:
                self._helped[server_id] = found, out
                self._loads[server_id] = out.load
                del self._alone[server_id]

    def relays(self, ids: Sequence[str]) -> bool:
        """Return whether relays carry the streams of all of these."""
        return not any(i in self.unrelayed for i in ids)

    def leave_out(self, reasons: Mapping[str, str]) -> None:
        """Let these servers (id -> reason) go without a relay."""
        self.unrelayed |= reasons
        for server_id in reasons:
            self._alone.pop(server_id, None)

    def link(self, ids: Sequence[str]) -> projection.Link:
        """Return the link as it is for these, which relays carry or do not."""
        return self._links[self.relays(ids)]

    def parallel(self, ids: Sequence[str]) -> int:
        """Return how many streams of these may run at once."""
        return self._parallel[self.relays(ids)]

    def at_once(self, ids: Sequence[str]) -> int:
        """Return how many streams of these run at once, in this order.

        As many as may; where nobody has said how many and no relay lets them through one by one,
        one more as long as they end sooner by it: Nova works on the next while one streams, yet
        streams share the link and guests dirty more pages for it.
        """
        return min(len(ids), self._parallel[True]) if self.relays(ids) else self._plain_at_once(ids)

    def _plain_at_once(self, ids: Sequence[str]) -> int:
        """Return the same of these if they go past relays, whether some carry them now or not."""
        if self.request.max_parallel is not None:
            return min(len(ids), self._parallel[False])
        return self._soonest(tuple(ids))

    def _soonest(self, ids: tuple[str, ...]) -> int:
        """Return how many of these, past relays, are worth having under way at once.

        Whose stream fits its quiet moment, or is completed by force, was reckoned with the whole
        link.
        """
        if ids not in self._at_once:
            undivided = any(i in self.waits or i in self._helped for i in ids)
            most = 1 if undivided else min(len(ids), self._parallel[False])
            number, end = 1, self._plain_seconds(ids, 1)
            for more in range(2, most + 1):
                sooner = self._plain_seconds(ids, more)
                # three at once of four are no better than two, but four may be
                if sooner <= WORTH_ONE_MORE ** (more - number) * end:
                    number, end = more, sooner
            self._at_once[ids] = number
        return self._at_once[ids]

    def _plain_seconds(self, ids: Sequence[str], parallel: int) -> float:
        """Return when these are done without relays; who does not converge so goes alone."""
        left, alone = list(ids), 0.0
        while True:
            found = self._plainly(left, parallel)
            failing = [i for i, projection in zip(left, found, strict=True)
                       if projection.verdict != "converges"]
            if not failing or len(left) == 1:
                return _last_done(found) + alone
            alone += _last_done(self._plainly(failing[-1:], 1))
            left.remove(failing[-1])

    def _plainly(self, ids: Sequence[str], parallel: int) -> tuple[Projection, ...]:
        return self._project(ids, parallel, None, bounded=False, relayed=False)

    def past_relays(self, ids: Sequence[str], parallel: int, destinations: Mapping[str, str]
                    ) -> dict[str, str]:
        """Return who of a group goes past the relays that could carry it, and why (id -> reason).

        A link that is faster than the relays is held up by them; what they save may outweigh that,
        for all, for some or for none. Those who go past are a group of their own, and groups go one
        after the other. What finished streams took beside their link and their relays counts: all
        share processors. Of contents that were not read nobody knows what relays save: only relays
        that are slower than the link by themselves are then compared with it.
        """
        pace, rate = self.request.learned_relay, self.link(ids).rates(1)[0]
        unread = not all(self.measured(i) and self.servers[i].contents_read for i in ids)
        beside = pace.seconds_per_byte if pace and not unread else 0.0
        through = self.project(ids, parallel, destinations)
        sooner = WORTH_MORE_BYTES * _last_done(through)
        raw_bytes = sum(projection.raw_bytes for projection in through)
        if self.request.nova.seconds + raw_bytes / rate >= sooner:
            return {}

        def told(server_id: str, share: float) -> float:
            return relaying.speed(self.request, (self.name, destinations[server_id]), share)

        def speed(server_id: str, share: float) -> float:
            seconds = max(1.0 / told(server_id, share), (1.0 - share) / rate) + beside
            return 1.0 / seconds if seconds else math.inf

        shares = {i: hit.reference_share
                  for i, hit in zip(ids, self.replay.hits(ids, destinations), strict=True)}
        if unread and all(told(i, shares[i]) >= rate for i in ids):
            return {}
        # who comes first finds nothing, but the others find what it brings
        unlike = tuple(i for i in ids if speed(
            i, max(shares[i], 1.0 - (self._own_share(i) or 0.0))) < rate)
        best, past = min(((self._parted_seconds(ids, past, parallel, destinations), past)
                          for past in {unlike, tuple(ids)} - {()}),
                         key=lambda option: (option[0], len(option[1])))
        if best > sooner:
            return {}
        what = "its group has" if len(past) == len(ids) else "it has"
        return {i: f"the link carries {rate / MIB:.0f} MiB/s, the relays work through "
                   f"{speed(i, shares[i]) / MIB:.0f} MiB/s of it, and what {what} in common saves "
                   f"less than that costs: {best:.1f} s instead of {_last_done(through):.1f} s"
                for i in past}

    def _parted_seconds(self, ids: Sequence[str], past: Sequence[str], parallel: int,
                        destinations: Mapping[str, str]) -> float:
        """Return how long a group takes of which some go past the relays; inf: they can't."""
        rest = [i for i in ids if i not in past]
        through = self.project(rest, parallel, destinations) if rest else ()
        if any(p.verdict != "converges" for p in (*self._plainly(past, 1), *through)):
            return math.inf
        return (_last_done(through) if through else 0.0) + sum(
            self._plain_seconds(part, self._plain_at_once(part))
            for part in grouping.in_parts(past))

    @property
    def plain_link(self) -> projection.Link:
        """Return the link as it is without relays."""
        return self._links[False]

    def unaided(self, server_id: str) -> projection.Alone:
        """Return how the server would migrate without any other, and not completed by force."""
        return self._helped[server_id][0] if server_id in self._helped else self.alone(server_id)

    def help_of(self, server_id: str) -> str | None:
        """Return by which means the server's migration is completed by force; None: by none."""
        return self.request.on_non_convergence if server_id in self._helped else None

    def told(self, server_id: str, projected: Projection) -> Projection:
        """Return the projection as it is shown: with the verdict and the cost of being helped."""
        if server_id not in self._helped:
            return projected
        unhelped, out = self._helped[server_id]
        return dataclasses.replace(
            projected, verdict=unhelped.verdict, abort_at_seconds=unhelped.abort_at_seconds,
            downtime_seconds=out.downtime_seconds, help=self.request.on_non_convergence)

    def identity(self, server_id: str) -> tuple[str, str]:
        """Return what breaks ties: name, then id."""
        return self.servers[server_id].name, server_id

    def measured(self, server_id: str) -> bool:
        """Return whether there is telemetry of the server's memory."""
        return self.servers[server_id].error is None

    def project(self, ids: Sequence[str], parallel: int | None = None,
                destinations: Mapping[str, str] | None = None, begins: float | None = None
                ) -> tuple[Projection, ...]:
        """Project these servers as one group, issued in the order given.

        `parallel` streams at once, where that is not the number for this source. What a relay
        sends once depends on where they go; without `destinations` all go to the same. With
        `begins`, in seconds from now, periodic dirty rates are met where they are then.
        """
        relayed = self.relays(ids)
        parallel = min(len(ids), parallel or self.at_once(ids))
        where = at = None
        if relayed and destinations is not None:
            where = tuple(destinations[i] for i in ids)
            if len(set(where)) == 1 and self.request.relays is None:
                where = destinations = None
        if begins is not None and self.request.now_seconds is not None and self._periodic(ids):
            at = self.request.now_seconds + begins
        key = (relayed, parallel, where, at, *ids)
        if key not in self._projected:
            self._projected[key] = self._project(ids, parallel, destinations, at, relayed=relayed)
        return self._projected[key]

    def _project(self, ids: Sequence[str], parallel: int, destinations: Mapping[str, str] | None,
                 at: float | None = None, bounded: bool = True, *, relayed: bool
                 ) -> tuple[Projection, ...]:
        request = self.request
        members = self._members(ids, destinations, bounded) if relayed else [
            self._loads[i] for i in ids]
        preparing = self._preparing(ids) if relayed else math.inf
        nova = dataclasses.replace(request.nova, at_once=preparing) if relayed else request.nova
        return projection.project(
            members, self._links[relayed], parallel, nova,
            request.setup_seconds, at, request.learned_relayed if relayed else request.learned,
            memo=None if relayed else self._runs, bounded=bounded)

    def _preparing(self, ids: Sequence[str]) -> float:
        """Return how many Nova prepares at once; of a set that moves together all."""
        together = any(not members.isdisjoint(ids)
                       for members in map(frozenset, self.request.synchronized))
        return math.inf if together else self.request.relay_max_preparing or math.inf

    def _periodic(self, ids: Sequence[str]) -> bool:
        return any(self._loads[i].nominal.cycle is not None for i in ids)

    def alone(self, server_id: str) -> projection.Alone:
        """Return how the server would migrate without any other."""
        if server_id not in self._alone:
            self._find_alone()
        return self._alone[server_id]

    def _find_alone(self) -> None:
        """Look at all servers that were not looked at yet: at once they cost the least."""
        request = self.request
        for relayed in (False, True):
            ids = [i for i in self.servers
                   if i not in self._alone and self.relays([i]) is relayed]
            if ids:
                members = ([self._loads[i] for i in ids] if not relayed else
                           [self._carried(i, self.replay.alone(i), [], False) for i in ids])
                found = projection.without_others(
                    members, self._links[relayed], request.nova, request.setup_seconds,
                    None if relayed else self._runs)
                self._alone |= zip(ids, found, strict=True)

    def _members(self, ids: Sequence[str], destinations: Mapping[str, str] | None,
                 bounded: bool) -> list[projection.MemberLoad]:
        """Return the loads of streams that relays carry."""
        return [self._carried(i, hit, [destinations[i]] if destinations else [], bounded)
                for i, hit in zip(ids, self.replay.hits(ids, destinations), strict=True)]

    def _carried(self, server_id: str, hit: replay.Hits, destination: Sequence[str],
                 bounded: bool) -> projection.MemberLoad:
        speed = relaying.speed(self.request, (self.name, *destination), hit.reference_share)
        return projection.with_relay(self._loads[server_id], projection.wire_rates(
            self.servers[server_id], hit, self._own_share(server_id), speed,
            self.options.downtime_ms / 1000), bounded, self.request.learned_relay)

    def _own_share(self, server_id: str) -> float | None:
        """Return the share of a server's content that no other has; None where nobody counted."""
        if server_id not in self._own_shares:
            server = self.servers[server_id]
            share = None
            if server.content_pages and server.contents_read:
                own = server.distinct_pages - self.known.shared_pages(server_id)
                share = min(1.0, max(0.0, own) / server.content_pages)
            self._own_shares[server_id] = share
        return self._own_shares[server_id]

    def parallel_of(self, group: grouping.Grouping) -> int:
        """Return how many streams of the group run at once; all of a set that moves together."""
        if group.synchronized:
            return max(self.parallel(group.servers), len(group.servers))
        return self.at_once(group.order or self.in_order(group.servers))

    def deadline(self, ids: Sequence[str]) -> float | None:
        """Return the earliest of these servers' own deadlines, in seconds from now."""
        return min((self.movable[i].deadline_seconds for i in ids
                    if self.movable[i].deadline_seconds is not None), default=None)

    def alone_seconds(self, server_id: str) -> float:
        """Return the projected seconds of the server without any other."""
        return self.alone(server_id).projected_seconds

    def in_order(self, ids: Sequence[str], begins: float = 0.0) -> list[str]:
        """Sort ascending by the projected time of each alone [0061]; unmeasured ones last.

        Deadlines of their own count from now, while these begin in `begins` seconds.
        """
        def left(server_id: str) -> float | None:
            deadline = self.movable[server_id].deadline_seconds
            return None if deadline is None else deadline - begins

        return ordering.ascending(ids, self.alone_seconds, self.identity,
                                  lambda i: not self.measured(i), left)

    def together_seconds(self, ids: Sequence[str]) -> float | None:
        """Return the projected seconds of a group, None if a member does not converge in it."""
        projections = self.project(self.in_order(ids))
        if any(p.verdict != "converges" for p in projections):
            return None
        return max(p.projected_seconds for p in projections)

    def groups(self, ids: Sequence[str], room: Room, sets: Sequence[Sequence[str]] = ()
               ) -> list[grouping.Grouping]:
        """Group these servers by the strategy of the request; unmeasured ones go alone, last.

        Each of the `sets` that move together is a group of its own.
        """
        able = set(ids)
        together = [grouping.Grouping(tuple(members), "they move together (synchronized)", True)
                    for members in sets if members[0] in able]
        able -= {i for group in together for i in group.servers}
        groups = self._grouped([self.servers[i] for i in ids if i in able and self.measured(i)],
                               room)
        alone = [i for i in ids if i in able and not self.measured(i)]
        return [*together, *groups, *(
            grouping.Grouping((i,), "alone: its memory could not be measured")
            for i in self.in_order(alone))]

    def _grouped(self, servers: list[ServerTelemetry], room: Room) -> list[grouping.Grouping]:
        request, ids = self.request, [server.id for server in servers]
        relayed = bool(ids) and self.relays(ids)

        def fits(members: Sequence[str]) -> bool:
            return room.fit_together([self.movable[i] for i in members],
                                     self.name if relayed else None)

        if request.strategy == "none":
            return grouping.none(servers, self.alone_seconds, self.parallel(ids))
        if request.strategy == "pair":
            return grouping.pair(servers, self.known, self.scope, fits, self.together_seconds,
                                 request.dictionary_bytes)
        thorough = len(request.movable) <= THOROUGH_SERVERS
        if relayed:
            return grouping.relayed(servers, self.known, self.scope, fits,
                                    request.dictionary_bytes, self.replay, self.in_order, thorough)
        return grouping.group(servers, self.known, self.scope, fits, request.dictionary_bytes,
                              max(self.parallel(ids), grouping.MOST_MEMBERS), thorough)

    def common_bytes(self, destinations: dict[str, str]) -> int:
        """Return the contents that servers (id -> destination) bring more than once.

        Counted per destination, and within the scope whose content may be shared.
        """
        parts: dict[tuple[str, str], list[str]] = {}
        for server_id, host in destinations.items():
            part = self.servers[server_id].project_id if self.scope.by_project else ""
            parts.setdefault((host, part), []).append(server_id)
        if self.scope.dedup_scope == "off":
            return 0
        return round(sum(self.known.recurring_pages(ids) for ids in parts.values())) * PAGE_BYTES


def _last_done(projections: Sequence[Projection]) -> float:
    return max(p.projected_seconds for p in projections)
