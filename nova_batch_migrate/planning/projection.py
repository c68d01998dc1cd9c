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


def wire_rates(server: ServerTelemetry, reference_share: float,
               raw_bytes_per_second: float = math.inf) -> WireRates:
    """Return what a relay makes of a server's pages; `reference_share` of round 0 it has already.

    `raw_bytes_per_second` is the most that it can work through.

    Pages that the guest changed are new to the relay; those that it only touched crossed before.
    What was not measured is taken not to compress.
    """
    def ratio(measured: float | None) -> float:
        return 1.0 if measured is None else min(1.0, measured)

    touched = server.touched.pages(_A_ROUND_SECONDS) if server.touched else 0.0
    changed = server.changed.pages(_A_ROUND_SECONDS)
    return WireRates(reference_share=min(1.0, max(0.0, reference_share)),
                     later_reference_share=max(0.0, 1 - changed / touched) if touched else 0.0,
                     unchanged_ratio=ratio(server.compress_unchanged),
                     changed_ratio=ratio(server.compress_changed),
                     raw_bytes_per_second=raw_bytes_per_second)


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
class Timing:
    """When what happens around the streams of a group."""

    #: Streams at once.
    parallel: int
    #: Nova's own seconds, before a stream, and those of the stream before its first page.
    nova_seconds: float
    setup_seconds: float
    #: When the group begins, in seconds since the epoch; None: cycles are averaged over.
    begins_seconds: float | None = None
    #: (id of the load, link) -> its run alone.
    memo: dict = dataclasses.field(default_factory=dict, compare=False)


def project(members: Sequence[MemberLoad], link: Link, parallel: int, nova_seconds: float,
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
    timing = Timing(parallel, nova_seconds, setup_seconds, begins_seconds,
                    {} if memo is None else memo)
    nominal = _simulate([m.nominal for m in members], link, timing)
    intervals = (_intervals(members, link, timing, nominal) if bounded
                 else [(0.0, None)] * len(nominal))
    projections = []
    for run, interval in zip(nominal, intervals, strict=True):
        stream = run.stream
        verdict, abort_at = _verdict(stream, link, setup_seconds)
        seconds, bounds = learning.corrected(learned, stream.seconds, run.queue_seconds,
                                             nova_seconds, interval)
        projections.append(Projection(
            stream_seconds=stream.seconds, queue_seconds=run.queue_seconds,
            nova_seconds=nova_seconds, projected_seconds=run.seconds(nova_seconds),
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
    run, = _simulate([member.nominal], link, Timing(1, 0.0, setup_seconds))
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
        total, low, high = (r.seconds(timing.nova_seconds) for r in (run, fast, slow))
        intervals.append((max(0.0, min(low, total - CAPPED_STEP_SECONDS)),
                          max(high, total + CAPPED_STEP_SECONDS) if bounded else None))
    return intervals


@dataclasses.dataclass(eq=False)
class _Run:
    """One member's way through the simulation."""

    stream: Stream
    #: Nova's own work comes before the stream: the link is free meanwhile.
    nova_left: float
    queue_seconds: float = math.inf
    #: Whether a relay holds it, and for how long without its having been looked at.
    held: bool = False
    held_seconds: float = 0.0

    def seconds(self, nova_seconds: float) -> float:
        """Return the seconds from the start of the group until the member is done."""
        return self.queue_seconds + nova_seconds + self.stream.seconds

    def wait(self, rate: float, last_rate: float) -> float:
        """Return the seconds until something happens to it; one that is held waits for its end."""
        if self.held:
            timeout = self.stream.load.schedule.timeout_seconds
            return math.inf if timeout is None else max(
                0.0, timeout - self.stream.seconds - self.held_seconds)
        return self.nova_left or self.stream.next_event(rate, last_rate)

    def advance(self, step: float, rate: float, last_rate: float) -> None:
        """Let `step` pass, at most up to the next event."""
        if self.nova_left:
            self.nova_left = max(0.0, self.nova_left - step)
        elif not self.held:
            self.stream.advance(step, rate, last_rate)
        else:
            self.held_seconds += step
            if self.wait(rate, last_rate) <= 1e-6:
                self.go_on()

    def go_on(self) -> None:
        """Let pass at once what passed while it was held."""
        if self.held_seconds:
            self.stream.next_event(0.0, 0.0)
            self.stream.advance(self.held_seconds, 0.0, 0.0)
            self.held_seconds = 0.0


def _simulate(loads: Sequence[StreamLoad], link: Link, timing: Timing) -> list[_Run]:
    """Run the streams over the link until each has completed or failed.

    A failed one gives its place to the next. Time goes from event to event of any stream. A relay
    takes one stream at a time, to its end; the others are held meanwhile.
    """
    if timing.parallel == 1 and timing.begins_seconds is None:
        return _one_by_one(loads, link, timing)
    runs = [_Run(_stream(load, timing), timing.nova_seconds) for load in loads]
    waiting = collections.deque(runs)
    active: list[_Run] = []
    turn: _Run | None = None
    now = 0.0
    while waiting or active:
        while waiting and len(active) < timing.parallel:
            run = waiting.popleft()
            run.queue_seconds = now
            run.stream.begins_seconds = (timing.begins_seconds or 0.0) + now + timing.nova_seconds
            active.append(run)
        moving = [run for run in active if run.stream.transferring]
        if link.relay and moving:
            turn = turn if turn in moving else moving[0]
            for run in moving:
                run.held = run is not turn
            turn.go_on()
        rates = link.rates(len(moving))
        step = min([run.wait(*rates) for run in active])
        if math.isinf(step):
            # Nothing will change any more, with the link as it is shared now.
            for run in active:
                run.stream.fail()
        else:
            now += step
            for run in active:
                run.advance(step, *rates)
        active = [run for run in active if not run.stream.ended]
    return runs


def _one_by_one(loads: Sequence[StreamLoad], link: Link, timing: Timing) -> list[_Run]:
    """Return the same for streams that never overlap: each alone, behind the others."""
    runs, now = [], 0.0
    for load in loads:
        key = (id(load), link)
        if key not in timing.memo:
            # The load is kept with its run, so that no other gets its id.
            timing.memo[key] = load, _alone(load, link, timing)
        _, run = timing.memo[key]
        runs.append(dataclasses.replace(run, queue_seconds=now))
        now = runs[-1].seconds(timing.nova_seconds)
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
    return _Run(stream, 0.0)


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
    run, = _simulate([patient], link, Timing(1, 0.0, setup_seconds))
    if stream.aborted_at is not None and run.stream.phase == "completed":
        return "nova-aborts", stream.aborted_at
    dirtied = load.dirty.total_rate_pages_per_second * PAGE_WIRE_BYTES
    endless = max(dirtied, load.disk_write_bytes_per_second if load.disk_bytes else 0) >= rate
    return ("never" if endless else "needs-help"), stream.aborted_at
