"""How long migrations will take: pre-copy of a group's members, simulated over a shared link.

Called by planning.plan for every group ([0052]-[0059], design 3). Common content is discounted if
and only if a relay carries the streams (WireRates). Never decides who migrates.
"""

import collections
import dataclasses
import math
from collections.abc import Sequence

from nova_batch_migrate.planning import allocation, dirty_model, learning, nova_schedule
from nova_batch_migrate.planning.cycle import Cycle
from nova_batch_migrate.planning.replay import Hits
from nova_batch_migrate.planning.result import Projection
from nova_batch_migrate.planning.stream import (
    CAPPED_STEP_SECONDS,
    PAGE_WIRE_BYTES,
    Stream,
    StreamLoad,
    WireRates,
)
from nova_batch_migrate.planning.telemetry import (
    PAGE_BYTES,
    Bandwidth,
    DirtyModel,
    MigrationOptions,
    ServerTelemetry,
)

#: What the goodput may be off, either way, by where its figure is from.
LINK_ERRORS = {"tc": 0.015, "option": 0.03, "ethtool": 0.03, "unknown": 0.3}
#: Other traffic never starves a TCP stream: this share of the link is left at the least.
LEAST_LINK_SHARE = 0.1
#: Where the agent knows nothing of the link: gigabit Ethernet's goodput.
UNKNOWN_LINK_BYTES_PER_SECOND = 117e6
#: Firmware, its tables and the ROMs of devices are RAM blocks of their own, outside of guest RAM.
FIRMWARE_PAGES = 125
MIB = 1024 ** 2
#: A later round, for the share of touched pages that have changed.
_A_ROUND_SECONDS = 1.0
#: Share of Nova's own seconds that pass before the stream; the rest comes behind it.
NOVA_SECONDS_BEFORE = 0.5
#: A relay lets a stream in its later rounds go before others for so long; it may never end.
_URGENT_SECONDS = 20.0
#: How far before the point at which QEMU would switch over a relay slows down (relay.pacing).
_RELAY_MARGIN = 1.5
#: So long a relay lets a stream wait for one that goes before it in the plan.
_GRACE_SECONDS = 0.5
#: A relay does not begin a further stream for less than this share of the wire.
_LEAST_SHARE = 0.05


@dataclasses.dataclass(frozen=True)
class Link:
    """What the streams of one source get, in bytes per second of their payload."""

    #: What other traffic leaves.
    free: float
    #: The operator's cap on all streams of this source together.
    cap: float = math.inf
    #: The cap on each of them (Nova's live_migration_bandwidth).
    stream_cap: float = math.inf
    #: Through a relay streams run one after the other, each at full speed, and the cap is held by
    #: the relay: for the last copy as well.
    relay: bool = False
    #: What `free` may be off, as a share of it.
    error: float = 0.03

    def scaled(self, factor: float) -> "Link":
        """Return the link with what was measured times `factor`; a cap is no measurement."""
        return dataclasses.replace(self, free=self.free * factor)

    def rates(self, streams: int) -> tuple[float, float]:
        """Return what each of so many streams gets: under the caps, and in its last copy.

        QEMU lifts its caps for the last copy, the guest being stopped.
        """
        if self.relay:
            rate = min(self.free, self.cap)
            return rate, rate
        streams = max(1, streams)
        return min(self.stream_cap, min(self.free, self.cap) / streams), self.free / streams


@dataclasses.dataclass(frozen=True)
class MemberLoad:
    """A stream's load at its nominal, best and worst."""

    nominal: StreamLoad
    best: StreamLoad
    worst: StreamLoad
    #: False: nothing was measured, so there is no upper end of the interval.
    measured: bool = True


def usable_link(bandwidth: Bandwidth, options: MigrationOptions,
                batch_cap_bytes_per_second: float | None = None, relay: bool = False) -> Link:
    """Return what migrations of a host can use (design 5, bandwidth allocator [0040])."""
    link = bandwidth.link_bytes_per_second or UNKNOWN_LINK_BYTES_PER_SECOND
    goodput = bandwidth.goodput_bytes_per_second or link
    free = max(goodput - bandwidth.other_bytes_per_second, LEAST_LINK_SHARE * goodput)
    caps = [allocation.qemu_bytes_per_second(round(cap)) for cap in (
        (bandwidth.nova_cap_bytes_per_second or 0) / MIB, options.bandwidth_mib_s) if cap]
    cap = math.inf
    if batch_cap_bytes_per_second:
        # The operator's cap counts frames, as the link's speed does; streams are payload.
        cap = batch_cap_bytes_per_second * min(1.0, goodput / link)
        if not relay:
            cap = allocation.qemu_bytes_per_second(allocation.qemu_cap_mib(cap))
    return Link(free=free, cap=cap, stream_cap=min(caps, default=math.inf), relay=relay,
                error=LINK_ERRORS[bandwidth.source])


def member_load(server: ServerTelemetry, memory_bytes: int, options: MigrationOptions,
                wire: WireRates | None = None) -> MemberLoad:
    """Return the load of one server; one that was not measured counts as full and idle.

    `wire` is what a relay makes of its pages; None where none carries the stream.
    """
    disks = [disk for disk in server.disks if not disk.shared]
    size_gib = nova_schedule.data_gib(memory_bytes, disks)
    measured = server.error is None
    total = server.total_pages if measured and server.total_pages else memory_bytes // PAGE_BYTES
    content = min(server.content_pages, total) if measured else total
    dirty, cycle = _activity(server)
    nominal = StreamLoad(
        content_pages=content + FIRMWARE_PAGES, zero_pages=total - content,
        dirty=dirty_model.scaled(dirty, 1.0, total),
        schedule=nova_schedule.schedule(options, size_gib),
        disk_bytes=sum(disk.allocated_bytes for disk in disks),
        disk_write_bytes_per_second=sum(disk.write_bytes_per_second for disk in disks),
        cycle=cycle, wire=wire)
    error = dirty.relative_error
    best = dataclasses.replace(nominal, dirty=dirty_model.scaled(dirty, 1.0 / (1.0 + error), total))
    if not measured:
        best = dataclasses.replace(best, content_pages=FIRMWARE_PAGES, zero_pages=total)
    worst = dataclasses.replace(nominal, dirty=dirty_model.scaled(dirty, 1.0 + error, total))
    return MemberLoad(nominal, best, worst, measured)


def with_relay(member: MemberLoad, wire: WireRates | None, bounded: bool = True) -> MemberLoad:
    """Return the load as it is at another place in the order of its group.

    Not `bounded`: best and worst, which tell the interval, are left as they are.
    """
    if not bounded:
        return dataclasses.replace(member, nominal=dataclasses.replace(member.nominal, wire=wire))
    nominal, best, worst = (dataclasses.replace(load, wire=wire)
                            for load in (member.nominal, member.best, member.worst))
    return MemberLoad(nominal, best, worst, member.measured)


def while_quiet(member: MemberLoad) -> MemberLoad:
    """Return the load of a stream that lies in the quiet stretch of its cycle, from end to end."""
    def quiet(load: StreamLoad) -> StreamLoad:
        pages = load.content_pages + load.zero_pages
        return dataclasses.replace(
            load, dirty=dirty_model.scaled(load.dirty, load.cycle.quiet_factor, pages), cycle=None)

    return MemberLoad(quiet(member.nominal), quiet(member.best), quiet(member.worst),
                      member.measured)


def wire_rates(server: ServerTelemetry, hits: Hits, own_share: float | None = None,
               raw_bytes_per_second: float = math.inf, downtime_seconds: float = 0.0) -> WireRates:
    """Return what a relay makes of a server's pages, behind those that went before it.

    `hits` are its references, `own_share` the share of its content that no other server has.
    `raw_bytes_per_second` is the most that the relay can work through; `downtime_seconds` the
    longest downtime that Nova allows, for which it slows a stream down towards the end of round 0.

    Pages that the guest changed are new to the relay; those that it only touched crossed before.
    What was not measured is taken not to compress.
    """
    touched = server.touched.pages(_A_ROUND_SECONDS) if server.touched else 0.0
    changed = server.changed.pages(_A_ROUND_SECONDS)
    return WireRates(reference_share=min(1.0, max(0.0, hits.reference_share)),
                     later_reference_share=max(0.0, 1 - changed / touched) if touched else 0.0,
                     unchanged_ratio=_new_ratio(server, hits, own_share),
                     changed_ratio=_ratio(server.compress_changed),
                     raw_bytes_per_second=raw_bytes_per_second,
                     slowing_seconds=_RELAY_MARGIN * downtime_seconds)


def _new_ratio(server: ServerTelemetry, hits: Hits, own_share: float | None) -> float:
    """Return how far those pages of round 0 compress that are no references.

    They are its own, and those in common that it is the first to bring. Its own are like those of
    a server of its kind, as far as one has gone before.
    """
    usual = _ratio(server.compress_unchanged)
    new = 1.0 - hits.reference_share
    if own_share is None or server.compress_own is None or new <= 0:
        return usual
    own = min(own_share, new)
    behind = server.compress_own_behind_like
    kin = 0.0 if behind is None or own_share >= 1 else min(1.0, hits.cross_share / (1 - own_share))
    own_ratio = server.compress_own if behind is None else (
        kin * behind + (1.0 - kin) * server.compress_own)
    first_ratio = usual if server.compress_shared is None else server.compress_shared
    return min(1.0, (own * own_ratio + (new - own) * first_ratio) / new)


def _ratio(measured: float | None) -> float:
    return 1.0 if measured is None else min(1.0, measured)


def _activity(server: ServerTelemetry) -> tuple[DirtyModel, Cycle | None]:
    """Return what makes rounds: the model of the mean, and the cycle around it if there is one.

    Windows of some seconds fall into one part of a longer period; the history holds all of it.
    """
    if server.state == "paused":
        return DirtyModel(), None
    history = server.history
    cycle = Cycle.of(history.periodicity) if history else None
    if cycle is not None and history.model is not None:
        return history.model, cycle
    return server.round_model, cycle


@dataclasses.dataclass(frozen=True)
class NovaWork:
    """Nova's own work around a stream, in seconds of a migration that has Nova for itself."""

    seconds: float
    before_share: float = NOVA_SECONDS_BEFORE
    #: By what share of the time each further migration under way delays one in Nova's hands: its
    #: services share processors, and some of them with guests.
    sharing: float = 0.0

    def pace(self, beside: float) -> float:
        """Return the seconds of work done in a second beside so many others (`beside_before`)."""
        return 1.0 / (1.0 + self.sharing * beside)


@dataclasses.dataclass(frozen=True)
class Timing:
    """When what happens around the streams of a group."""

    #: Migrations at once.
    parallel: int
    nova: NovaWork
    #: Of a stream, before its first page.
    setup_seconds: float
    #: When the group begins, in seconds since the epoch; None: cycles are averaged over.
    begins_seconds: float | None = None
    #: (id of the load, link) -> its run alone.
    memo: dict = dataclasses.field(default_factory=dict, compare=False)


def project(members: Sequence[MemberLoad], link: Link, parallel: int, nova: NovaWork | float,
            setup_seconds: float, begins_seconds: float | None = None,
            learned: learning.Learned | None = None, memo: dict | None = None,
            bounded: bool = True) -> tuple[Projection, ...]:
    """Project members that are issued in this order, at most `parallel` at once.

    The interval (90 %) comes from two more simulations: everything dirties less and the link is
    faster, and the other way round, each by its own uncertainty; it is never narrower than QEMU's
    step. What finished migrations have taught goes into fields of its own. `memo` keeps runs of
    these very loads from one call to the next. Not `bounded`: without the intervals, for a third
    of the work.
    """
    nova = nova if isinstance(nova, NovaWork) else NovaWork(nova)
    timing = Timing(parallel, nova, setup_seconds, begins_seconds, {} if memo is None else memo)
    nominal = _simulate([m.nominal for m in members], link, timing)
    intervals = (_intervals(members, link, timing, nominal) if bounded
                 else [(0.0, None)] * len(nominal))
    projections = []
    for run, interval in zip(nominal, intervals, strict=True):
        stream = run.stream
        verdict, abort_at = _verdict(stream, link, setup_seconds)
        seconds, bounds = learning.corrected(learned, stream.seconds, run.queue_seconds,
                                             run.nova_seconds, interval)
        projections.append(Projection(
            stream_seconds=stream.seconds, queue_seconds=run.queue_seconds,
            nova_seconds=run.nova_seconds, projected_seconds=run.seconds,
            raw_bytes=round(stream.sent_bytes), wire_bytes=round(stream.wire_bytes),
            rounds=stream.rounds, downtime_seconds=stream.downtime_seconds,
            verdict=verdict, abort_at_seconds=abort_at, interval_seconds=interval,
            learned_seconds=seconds, learned_interval_seconds=bounds,
            learned_downtime_seconds=None if learned is None else max(
                0.0, stream.downtime_seconds + learned.downtime_seconds)))
    return tuple(projections)


def alone(member: MemberLoad, link: Link, setup_seconds: float) -> tuple[str, float, float]:
    """Return verdict, seconds and wire bytes of one stream that has the link for itself.

    One simulation instead of project's three; without Nova's seconds.
    """
    run, = _simulate([member.nominal], link, Timing(1, NovaWork(0.0), setup_seconds))
    verdict, _ = _verdict(run.stream, link, setup_seconds)
    return verdict, run.stream.seconds, run.stream.wire_bytes


def _intervals(members: Sequence[MemberLoad], link: Link, timing: Timing,
               nominal: list["_Run"]) -> list[tuple[float, float | None]]:
    """Return the interval of each member; [0, null] for all where one does not converge."""
    if any(run.stream.phase != "completed" for run in nominal):
        return [(0.0, None)] * len(nominal)
    best = _simulate([m.best for m in members], link.scaled(1 + link.error), timing)
    worst = _simulate([m.worst for m in members], link.scaled(1 - link.error), timing)
    intervals = []
    # Who waits behind an unmeasured or endless one has no upper end either.
    bounded = True
    for member, run, fast, slow in zip(members, nominal, best, worst, strict=True):
        bounded = bounded and member.measured and slow.stream.phase == "completed"
        total, low, high = run.seconds, fast.seconds, slow.seconds
        intervals.append((max(0.0, min(low, total - CAPPED_STEP_SECONDS)),
                          max(high, total + CAPPED_STEP_SECONDS) if bounded else None))
    return intervals


@dataclasses.dataclass(eq=False)
class _Run:
    """One member's way through the simulation: Nova, its stream, Nova again."""

    stream: Stream
    #: Nova's work before the stream and behind it: the link is free meanwhile.
    before_left: float = 0.0
    behind_left: float = 0.0
    queue_seconds: float = math.inf
    nova_seconds: float = 0.0
    #: Whether a relay holds it, and for how long without its having been looked at.
    held: bool = False
    held_seconds: float = 0.0
    #: A relay has let others begin beside it; since when it goes before them.
    passed_on: bool = False
    urgent_since: float | None = None
    #: What it gets of the link: while it sends, in its last copy.
    rates: tuple[float, float] = (0.0, 0.0)

    @property
    def seconds(self) -> float:
        """Seconds from the start of the group until the member is done."""
        return self.queue_seconds + self.nova_seconds + self.stream.seconds

    @property
    def in_nova(self) -> bool:
        """Whether Nova works on it, before its stream or behind it."""
        return self.before_left > 0 or (self.behind_left > 0
                                        and self.stream.phase == "completed")

    def nova_pace(self, nova: NovaWork, before: int, active: int) -> float:
        """Return how fast Nova works on it, of so many that are active and before their stream."""
        if not nova.sharing or not self.in_nova:
            return 1.0
        if self.before_left > 0:
            return nova.pace(learning.beside_before(before - 1, active - before))
        return nova.pace(active - 1)

    @property
    def ended(self) -> bool:
        """Whether it makes room for the next one."""
        return self.stream.phase == "failed" or (self.stream.ended and self.behind_left <= 0)

    def wait(self, nova_pace: float) -> float:
        """Return the seconds until something happens to it; one that is held waits for its end."""
        if self.in_nova:
            return (self.before_left or self.behind_left) / nova_pace
        if self.held:
            timeout = self.stream.load.schedule.timeout_seconds
            return math.inf if timeout is None else max(
                0.0, timeout - self.stream.seconds - self.held_seconds)
        return self.stream.next_event(*self.rates)

    def advance(self, step: float, nova_pace: float) -> None:
        """Let `step` pass, at most up to the next event."""
        if self.in_nova:
            self.nova_seconds += step
            left = (self.before_left or self.behind_left) - step * nova_pace
            left = 0.0 if left < 1e-9 else left
            if self.before_left:
                self.before_left = left
            else:
                self.behind_left = left
        elif not self.held:
            self.stream.advance(step, *self.rates)
        else:
            self.held_seconds += step
            if self.wait(nova_pace) <= 1e-6:
                self.go_on()

    def go_on(self) -> None:
        """Let pass at once what passed while it was held."""
        self.held = False
        if self.held_seconds:
            self.stream.next_event(0.0, 0.0)
            self.stream.advance(self.held_seconds, 0.0, 0.0)
            self.held_seconds = 0.0


def _simulate(loads: Sequence[StreamLoad], link: Link, timing: Timing) -> list[_Run]:
    """Run the migrations until each has completed or failed.

    A failed one gives its place to the next. Time goes from event to event of any of them.
    """
    if timing.parallel == 1 and timing.begins_seconds is None:
        return _one_by_one(loads, link, timing)
    nova = timing.nova
    before, behind = nova.seconds * nova.before_share, nova.seconds * (1 - nova.before_share)
    runs = [_Run(_stream(load, timing), before, behind) for load in loads]
    waiting = collections.deque(runs)
    active: list[_Run] = []
    turns = _Turns(link)
    now = 0.0
    while waiting or active:
        while waiting and len(active) < timing.parallel:
            run = waiting.popleft()
            run.queue_seconds = now
            run.stream.begins_seconds = (timing.begins_seconds or 0.0) + now + before
            active.append(run)
        moving = [run for run in active if run.stream.transferring]
        if link.relay:
            turns.share(active, now)
        rates = link.rates(len(moving))
        for run in active:
            if not link.relay or not run.stream.transferring:
                run.rates = rates
        at_start = sum(run.before_left > 0 for run in active)
        paces = [run.nova_pace(nova, at_start, len(active)) for run in active]
        step = min([run.wait(pace) for run, pace in zip(active, paces, strict=True)])
        if math.isinf(step):
            # Nothing will change any more, with the link as it is shared now.
            for run in active:
                run.stream.fail()
        else:
            now += step
            for run, pace in zip(active, paces, strict=True):
                run.advance(step, pace)
        active = [run for run in active if not run.ended]
    return runs


class _Turns:
    """Who of a group's streams a relay takes now, and how fast: what relay.turns does.

    One at a time, as they were issued. One that the relay slows down for the sake of its downtime,
    or that is in its later rounds, leaves what it does not need to the next; in its later rounds
    it goes before them.
    """

    def __init__(self, link: Link):
        self._link = link
        self._turn: _Run | None = None

    def share(self, active: list[_Run], now: float) -> None:
        """Set what each of the streams that transfer gets, and hold those that get nothing.

        `active` is in the order of the plan; who comes a little early lets those before it come.
        """
        moving = [run for run in active if run.stream.transferring]
        rate = self._link.rates(1)[0]
        urgent = []
        for run in moving:
            run.stream.wire_bytes_per_second = rate
            if run.passed_on or run.stream.nearly_done(rate):
                run.passed_on = True
            if run.stream.in_later_rounds:
                run.urgent_since = now if run.urgent_since is None else run.urgent_since
                if now - run.urgent_since < _URGENT_SECONDS:
                    urgent.append(run)
        if urgent:
            self._give(moving, {run: rate / len(urgent) for run in urgent})
            return
        late = [run for run in moving if run.passed_on]
        shares, left = {}, rate
        for at, run in enumerate(late):
            # Where all want more than there is, each has its part.
            shares[run] = min(run.stream.wanted_rate(rate), left / (len(late) - at))
            left -= shares[run]
        fresh = [run for run in moving if not run.passed_on]
        if fresh and self._turn not in fresh:
            self._turn = None if self._awaited(active, fresh[0]) else fresh[0]
        if fresh and self._turn is not None and left > _LEAST_SHARE * rate:
            shares[self._turn] = left
        elif late:
            # Nobody else wants it.
            shares = {run: rate if len(late) == 1 else share for run, share in shares.items()}
        self._give(moving, shares)

    @staticmethod
    def _awaited(active: list[_Run], first: _Run) -> bool:
        """Tell whether one that goes before the first of those there is about to come."""
        before = active[:active.index(first)]
        return any(not run.in_nova and run.stream.begins_within(_GRACE_SECONDS) for run in before)

    @staticmethod
    def _give(moving: list[_Run], shares: dict[_Run, float]) -> None:
        for run in moving:
            share = shares.get(run, 0.0)
            if share <= 0:
                run.held = True
                continue
            run.go_on()
            run.rates = (share, share)


def _one_by_one(loads: Sequence[StreamLoad], link: Link, timing: Timing) -> list[_Run]:
    """Return the same for streams that never overlap: each alone, behind the others."""
    runs, now = [], 0.0
    for load in loads:
        key = (id(load), link)
        if key not in timing.memo:
            # The load is kept with its run, so that no other gets its id.
            timing.memo[key] = load, _alone(load, link, timing)
        _, run = timing.memo[key]
        runs.append(dataclasses.replace(run, queue_seconds=now, nova_seconds=timing.nova.seconds))
        now = runs[-1].seconds
    return runs


def _alone(load: StreamLoad, link: Link, timing: Timing) -> _Run:
    """Run one stream that has the link for itself."""
    stream, rates = _stream(load, timing), link.rates(1)
    while not stream.ended:
        step = stream.next_event(*rates)
        if math.isinf(step):
            stream.fail()
        else:
            stream.advance(step, *rates)
    return _Run(stream)


def _stream(load: StreamLoad, timing: Timing) -> Stream:
    if timing.begins_seconds is None and load.cycle is not None:
        load = dataclasses.replace(load, cycle=None)
    return Stream(load, timing.setup_seconds)


def _verdict(stream: Stream, link: Link, setup_seconds: float) -> tuple[str, float | None]:
    """Say how the stream ended, and if it failed what would have become of it.

    nova-aborts: it converges, but after Nova's timeout. never: the guest dirties at least as fast
    as the link carries. needs-help: only a downtime above all that Nova allows would end it, or
    Nova's own force-complete at the timeout.
    """
    if stream.phase == "completed":
        return "converges", None
    load, rate = stream.load, link.rates(1)[0]
    if stream.aborted_at is not None and load.schedule.force_complete:
        return "needs-help", None
    patient = dataclasses.replace(
        load, schedule=dataclasses.replace(load.schedule, timeout_seconds=None))
    run, = _simulate([patient], link, Timing(1, NovaWork(0.0), setup_seconds))
    if stream.aborted_at is not None and run.stream.phase == "completed":
        return "nova-aborts", stream.aborted_at
    dirtied = load.dirty.total_rate_pages_per_second * PAGE_WIRE_BYTES
    endless = max(dirtied, load.disk_write_bytes_per_second if load.disk_bytes else 0) >= rate
    return ("never" if endless else "needs-help"), stream.aborted_at
