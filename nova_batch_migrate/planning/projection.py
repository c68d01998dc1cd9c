"""How long migrations will take: pre-copy of a group's members, simulated over a shared link.

Called by planning.plan for every group ([0052]-[0059], design 3). Without a relay common content
crosses once per server, so commonality gives no discount here. Never decides who migrates.
"""

import collections
import dataclasses
import math
from collections.abc import Sequence

from nova_batch_migrate.planning import nova_schedule
from nova_batch_migrate.planning.result import Projection
from nova_batch_migrate.planning.stream import (
    CAPPED_STEP_SECONDS,
    PAGE_WIRE_BYTES,
    Stream,
    StreamLoad,
)
from nova_batch_migrate.planning.telemetry import (
    PAGE_BYTES,
    Bandwidth,
    DirtyModel,
    MigrationOptions,
    ServerTelemetry,
)

#: What a measured goodput may be off, either way.
LINK_ERROR = 0.03
#: Other traffic never starves a TCP stream: this share of the link is left at the least.
LEAST_LINK_SHARE = 0.1
#: Where the agent knows nothing of the link: gigabit Ethernet's goodput.
UNKNOWN_LINK_BYTES_PER_SECOND = 117e6
#: Firmware, its tables and the ROMs of devices are RAM blocks of their own, outside of guest RAM.
FIRMWARE_PAGES = 125
MIB = 1024 ** 2


@dataclasses.dataclass(frozen=True)
class Link:
    """What the streams of one source get, in bytes per second."""

    #: What other traffic leaves.
    free: float
    #: The operator's cap on all streams of this source together.
    cap: float = math.inf
    #: The cap on each of them (Nova's live_migration_bandwidth).
    stream_cap: float = math.inf

    def scaled(self, factor: float) -> "Link":
        """Return the link with what was measured times `factor`; a cap is no measurement."""
        return dataclasses.replace(self, free=self.free * factor)

    def rates(self, streams: int) -> tuple[float, float]:
        """Return what each of so many streams gets: under the caps, and in its last copy.

        QEMU lifts its caps for the last copy, the guest being stopped.
        """
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
                batch_cap_bytes_per_second: float | None = None) -> Link:
    """Return what migrations of a host can use (design 5, bandwidth allocator [0040])."""
    goodput = bandwidth.goodput_bytes_per_second or bandwidth.link_bytes_per_second
    goodput = goodput or UNKNOWN_LINK_BYTES_PER_SECOND
    free = max(goodput - bandwidth.other_bytes_per_second, LEAST_LINK_SHARE * goodput)
    caps = [cap for cap in (bandwidth.nova_cap_bytes_per_second, options.bandwidth_mib_s * MIB)
            if cap]
    return Link(free=free, cap=batch_cap_bytes_per_second or math.inf,
                stream_cap=min(caps, default=math.inf))


def member_load(server: ServerTelemetry, memory_bytes: int,
                options: MigrationOptions) -> MemberLoad:
    """Return the load of one server; one that was not measured counts as full and idle."""
    disks = [disk for disk in server.disks if not disk.shared]
    size_gib = nova_schedule.data_gib(memory_bytes, disks)
    measured = server.error is None
    total = server.total_pages if measured and server.total_pages else memory_bytes // PAGE_BYTES
    content = min(server.content_pages, total) if measured else total
    dirty = DirtyModel() if server.state == "paused" else server.round_model
    nominal = StreamLoad(
        content_pages=content + FIRMWARE_PAGES, zero_pages=total - content,
        dirty=_scaled(dirty, 1.0, total),
        schedule=nova_schedule.schedule(options, size_gib),
        disk_bytes=sum(disk.allocated_bytes for disk in disks),
        disk_write_bytes_per_second=sum(disk.write_bytes_per_second for disk in disks))
    error = dirty.relative_error
    best = dataclasses.replace(nominal, dirty=_scaled(dirty, 1.0 / (1.0 + error), total))
    if not measured:
        best = dataclasses.replace(best, content_pages=FIRMWARE_PAGES, zero_pages=total)
    worst = dataclasses.replace(nominal, dirty=_scaled(dirty, 1.0 + error, total))
    return MemberLoad(nominal, best, worst, measured)


def _scaled(dirty: DirtyModel, factor: float, total_pages: float) -> DirtyModel:
    return dataclasses.replace(
        dirty, rate_pages_per_second=dirty.rate_pages_per_second * factor,
        working_set_pages=min(dirty.working_set_pages * factor, total_pages),
        hot_rate_pages_per_second=dirty.hot_rate_pages_per_second * factor,
        hot_pages=min(dirty.hot_pages * factor, total_pages))


def project(members: Sequence[MemberLoad], link: Link, parallel: int, nova_seconds: float,
            setup_seconds: float) -> tuple[Projection, ...]:
    """Project members that are issued in this order, at most `parallel` at once.

    The interval comes from two more simulations: everything dirties less and the link is faster,
    and the other way round, each by its own uncertainty; it is never narrower than QEMU's step.
    """
    timing = (parallel, nova_seconds, setup_seconds)
    nominal = _simulate([m.nominal for m in members], link, *timing)
    intervals = _intervals(members, link, timing, nominal)
    projections = []
    for run, interval in zip(nominal, intervals, strict=True):
        verdict, abort_at = _verdict(run.stream, link, setup_seconds)
        projections.append(Projection(
            stream_seconds=run.stream.seconds, queue_seconds=run.queue_seconds,
            nova_seconds=nova_seconds, projected_seconds=run.seconds(nova_seconds),
            raw_bytes=round(run.stream.sent_bytes), wire_bytes=round(run.stream.sent_bytes),
            rounds=run.stream.rounds, downtime_seconds=run.stream.downtime_seconds,
            verdict=verdict, abort_at_seconds=abort_at, interval_seconds=interval))
    return tuple(projections)


def _intervals(members: Sequence[MemberLoad], link: Link, timing: tuple[int, float, float],
               nominal: list["_Run"]) -> list[tuple[float, float | None]]:
    """Return the interval of each member; [0, null] for all where one does not converge."""
    if any(run.stream.phase != "completed" for run in nominal):
        return [(0.0, None)] * len(nominal)
    best = _simulate([m.best for m in members], link.scaled(1 + LINK_ERROR), *timing)
    worst = _simulate([m.worst for m in members], link.scaled(1 - LINK_ERROR), *timing)
    intervals = []
    # Who waits behind an unmeasured or endless one has no upper end either.
    bounded = True
    for member, run, fast, slow in zip(members, nominal, best, worst, strict=True):
        bounded = bounded and member.measured and slow.stream.phase == "completed"
        total, low, high = (r.seconds(timing[1]) for r in (run, fast, slow))
        intervals.append((max(0.0, min(low, total - CAPPED_STEP_SECONDS)),
                          max(high, total + CAPPED_STEP_SECONDS) if bounded else None))
    return intervals


@dataclasses.dataclass
class _Run:
    """One member's way through the simulation."""

    stream: Stream
    #: Nova's own work comes before the stream: the link is free meanwhile.
    nova_left: float
    queue_seconds: float = math.inf

    def seconds(self, nova_seconds: float) -> float:
        """Return the seconds from the start of the group until the member is done."""
        return self.queue_seconds + nova_seconds + self.stream.seconds


def _simulate(loads: Sequence[StreamLoad], link: Link, parallel: int, nova_seconds: float,
              setup_seconds: float) -> list[_Run]:
    """Run the streams over the link until each has completed or failed.

    A failed one gives its place to the next. Time goes from event to event of any stream.
    """
    runs = [_Run(Stream(load, setup_seconds), nova_seconds) for load in loads]
    waiting = collections.deque(runs)
    active: list[_Run] = []
    now = 0.0
    while waiting or active:
        while waiting and len(active) < parallel:
            run = waiting.popleft()
            run.queue_seconds = now
            active.append(run)
        rates = link.rates(sum(run.stream.transferring for run in active))
        step = min(run.nova_left or run.stream.next_event(*rates) for run in active)
        if math.isinf(step):
            # Nothing will change any more, with the link as it is shared now.
            for run in active:
                run.stream.fail()
        else:
            now += step
            for run in active:
                if run.nova_left:
                    run.nova_left = max(0.0, run.nova_left - step)
                else:
                    run.stream.advance(step, *rates)
        active = [run for run in active if not run.stream.ended]
    return runs


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
    run, = _simulate([patient], link, 1, 0.0, setup_seconds)
    if stream.aborted_at is not None and run.stream.phase == "completed":
        return "nova-aborts", stream.aborted_at
    dirtied = load.dirty.total_rate_pages_per_second * PAGE_WIRE_BYTES
    endless = max(dirtied, load.disk_write_bytes_per_second if load.disk_bytes else 0) >= rate
    return ("never" if endless else "needs-help"), stream.aborted_at
