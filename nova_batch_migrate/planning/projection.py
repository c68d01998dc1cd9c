"""How long migrations will take: loads, links, verdicts and intervals of a group's members.

Called by planning.plan for every group ([0052]-[0059], design 3); planning.simulation runs them.
Common content is discounted if and only if a relay carries the streams (WireRates). Never decides
who migrates.
"""

import dataclasses
import math
from collections.abc import Sequence

from nova_batch_migrate.planning import (
    allocation,
    dirty_model,
    evidence,
    learning,
    nova_schedule,
)
from nova_batch_migrate.planning.conditions import Link, NovaWork, Timing
from nova_batch_migrate.planning.cycle import Cycle
from nova_batch_migrate.planning.relay_pace import RelayPace
from nova_batch_migrate.planning.replay import Hits
from nova_batch_migrate.planning.result import Projection
from nova_batch_migrate.planning.simulation import Outcome, each_alone, simulate
from nova_batch_migrate.planning.stream import (
    CAPPED_STEP_SECONDS,
    PAGE_WIRE_BYTES,
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
#: A guest also writes pages with what they held (stacks, queues of its kernel): dirty in every
#: round, and the same at every look. So many of each vCPU, written so often, made 109 projections
#: the truest (Linux 6.1 and 6.12, one vCPU); with 10 or more one near the boundary was 19 % off.
UNSEEN_HOT_PAGES, UNSEEN_WRITES_PER_SECOND = 5.0, 80.0
_SEES_CONTENT = ("content-diff", "page-sampling", "history")
MIB = 1024 ** 2
#: No page crosses for less of its size: pages for nothing would cross in no time.
LEAST_RATIO = 1e-3
#: What a page takes whose content a relay's compression finds far back, as a share of its size.
FAR_RATIO = 0.01
#: A later round, for the share of touched pages that have changed.
_A_ROUND_SECONDS = 1.0
#: How far before the point at which QEMU would switch over a relay slows down (relay.pacing).
_RELAY_MARGIN = 1.5


@dataclasses.dataclass(frozen=True)
class MemberLoad:
    """A stream's load at its nominal, best and worst."""

    nominal: StreamLoad
    best: StreamLoad
    worst: StreamLoad
    #: False: nothing was measured, so there is no upper end of the interval.
    measured: bool = True


@dataclasses.dataclass(frozen=True)
class Alone:
    """How a migration without any other goes."""

    verdict: str
    #: Nova's included.
    projected_seconds: float
    #: As in Projection.
    abort_at_seconds: float | None


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
    schedule = nova_schedule.schedule(options, size_gib)
    disk_bytes = sum(disk.allocated_bytes for disk in disks)
    disk_rate = sum(disk.write_bytes_per_second for disk in disks)

    def load(content: int, factor: float) -> StreamLoad:
        return StreamLoad(content + FIRMWARE_PAGES, total - content,
                          dirty_model.scaled(dirty, factor, total), schedule, disk_bytes, disk_rate,
                          cycle, wire)

    error = dirty.relative_error
    return MemberLoad(load(content, 1.0), load(content if measured else 0, 1.0 / (1.0 + error)),
                      load(content, 1.0 + error), measured)


def with_relay(member: MemberLoad, wire: WireRates | None, bounded: bool = True,
               pace: RelayPace | None = None) -> MemberLoad:
    """Return the load as it is at another place in the order of its group.

    `pace`: what relays take beside the link; None: nobody knows, nothing is reckoned. Not
    `bounded`: best and worst, which tell the interval, are left as they are.
    """
    def through(load: StreamLoad, deviations: float) -> StreamLoad:
        if pace is None or wire is None:
            return load.through(wire)
        return load.through(dataclasses.replace(wire, seconds_per_byte=pace.off(deviations)))

    nominal = through(member.nominal, 0.0)
    if not bounded:
        return MemberLoad(nominal, member.best, member.worst, member.measured)
    return MemberLoad(nominal, through(member.best, -evidence.NINETY_PERCENT),
                      through(member.worst, evidence.NINETY_PERCENT), member.measured)


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
    later = 0.0
    if server.touched and (touched := server.touched.pages(_A_ROUND_SECONDS)):
        later = max(0.0, 1 - server.changed.pages(_A_ROUND_SECONDS) / touched)
    return WireRates(reference_share=min(1.0, max(0.0, hits.reference_share)),
                     later_reference_share=later,
                     unchanged_ratio=_new_ratio(server, hits, own_share),
                     changed_ratio=_ratio(server.compress_changed),
                     raw_bytes_per_second=raw_bytes_per_second,
                     slowing_seconds=_RELAY_MARGIN * downtime_seconds)


def _new_ratio(server: ServerTelemetry, hits: Hits, own_share: float | None) -> float:
    """Return how far those pages of round 0 compress that are no references.

    They are its own, those in common that it is the first to bring, and those that a dictionary had
    no room for, which compression finds. Its own are like those of a server of its kind, as far as
    one has gone before.
    """
    usual = _ratio(server.compress_unchanged)
    new = 1.0 - hits.reference_share
    if new <= 0:
        return usual
    far = min(hits.far_share, new)
    if own_share is None or server.compress_own is None:
        return _ratio(usual + far / new * (FAR_RATIO - usual))
    own = min(own_share, new - far)
    behind = server.compress_own_behind_like
    shared = 1.0 - own_share - hits.self_share
    kin = 0.0 if behind is None or shared <= 0 else min(
        1.0, (hits.cross_share + far) / shared)
    own_ratio = server.compress_own if behind is None else (
        kin * behind + (1.0 - kin) * server.compress_own)
    first_ratio = usual if server.compress_shared is None else server.compress_shared
    return _ratio((own * own_ratio + far * FAR_RATIO + (new - own - far) * first_ratio) / new)


def _ratio(measured: float | None) -> float:
    return 1.0 if measured is None else min(1.0, max(LEAST_RATIO, measured))


def _activity(server: ServerTelemetry) -> tuple[DirtyModel, Cycle | None]:
    """Return what makes rounds: the model of the mean, and the cycle around it if there is one.

    Windows of some seconds fall into one part of a longer period; the history holds all of it.
    """
    if server.state == "paused":
        return DirtyModel(), None
    history = server.history
    cycle = Cycle.of(history.periodicity) if history else None
    model = server.round_model
    if cycle is not None and history.model is not None:
        model = history.model
    if model.source in _SEES_CONTENT:
        unseen = UNSEEN_HOT_PAGES * max(1, server.vcpus)
        model = dataclasses.replace(
            model, hot_pages=model.hot_pages + unseen,
            hot_rate_pages_per_second=(model.hot_rate_pages_per_second
                                       + unseen * UNSEEN_WRITES_PER_SECOND))
    return model, cycle


def project(members: Sequence[MemberLoad], link: Link, parallel: int, nova: NovaWork | float,
            setup_seconds: float, begins_seconds: float | None = None,
            learned: learning.Learned | None = None, memo: dict | None = None,
            bounded: bool = True) -> tuple[Projection, ...]:
    """Project members that are issued in this order, at most `parallel` at once.

    The interval (90 %) comes from two more simulations: everything dirties less, the link and Nova
    are faster, and the other way round, each by its own uncertainty; it is never narrower than
    QEMU's step. What finished migrations have taught goes into fields of its own. `memo` keeps runs
    of these very loads from one call to the next. Not `bounded`: without the intervals, for a third
    of the work.
    """
    nova = nova if isinstance(nova, NovaWork) else NovaWork(nova)
    timing = Timing(parallel, nova, setup_seconds, begins_seconds, {} if memo is None else memo)
    nominal = simulate([m.nominal for m in members], link, timing)
    intervals = (_intervals(members, link, timing, nominal) if bounded
                 else [(0.0, None)] * len(nominal))
    projections = []
    for member, found, interval in zip(members, nominal, intervals, strict=True):
        verdict, abort_at = _verdict(found, member.nominal, link, setup_seconds)
        seconds, bounds = learning.corrected(learned, found.stream_seconds, found.queue_seconds,
                                             found.nova_seconds, interval)
        projections.append(Projection(
            stream_seconds=found.stream_seconds, queue_seconds=found.queue_seconds,
            nova_seconds=found.nova_seconds, projected_seconds=found.seconds,
            raw_bytes=round(found.sent_bytes), wire_bytes=round(found.wire_bytes),
            rounds=found.rounds, downtime_seconds=found.downtime_seconds,
            verdict=verdict, abort_at_seconds=abort_at, interval_seconds=interval,
            learned_seconds=seconds, learned_interval_seconds=bounds,
            learned_downtime_seconds=None if learned is None else max(
                0.0, found.downtime_seconds + learned.downtime_seconds),
            learned_wire_bytes=None if (
                learned is None or learned.wire_factor is None or member.nominal.wire is None
            ) else round(found.wire_bytes * learned.wire_factor),
            relay=member.nominal.wire is not None,
            relay_seconds_per_byte=0.0 if member.nominal.wire is None
            else member.nominal.wire.seconds_per_byte))
    return tuple(projections)


def without_others(members: Sequence[MemberLoad], link: Link, nova: NovaWork, setup_seconds: float,
                   memo: dict | None = None) -> list[Alone]:
    """Return how each of these migrations would go if it were the only one.

    All in one simulation: many servers are asked about. `memo` as in `project`.
    """
    timing = Timing(1, nova, setup_seconds, None, {} if memo is None else memo)
    told = []
    for member, found in zip(members, each_alone([m.nominal for m in members], link, timing),
                             strict=True):
        verdict, abort_at = _verdict(found, member.nominal, link, setup_seconds)
        told.append(Alone(verdict, nova.seconds + found.stream_seconds, abort_at))
    return told


def alone(member: MemberLoad, link: Link, setup_seconds: float) -> tuple[str, float, float]:
    """Return verdict, seconds and wire bytes of one stream that has the link for itself.

    Without Nova's seconds.
    """
    found, = simulate([member.nominal], link, Timing(1, NovaWork(0.0), setup_seconds))
    verdict, _ = _verdict(found, member.nominal, link, setup_seconds)
    return verdict, found.stream_seconds, found.wire_bytes


def _intervals(members: Sequence[MemberLoad], link: Link, timing: Timing,
               nominal: Sequence[Outcome]) -> list[tuple[float, float | None]]:
    """Return the interval of each member; [0, null] for all where one does not converge."""
    if not all(found.completed for found in nominal):
        return [(0.0, None)] * len(nominal)
    best, worst = (
        simulate(loads, link.scaled(1 + side * link.error), dataclasses.replace(
            timing, nova=timing.nova.off(-side * evidence.NINETY_PERCENT)))
        for side, loads in ((1, [m.best for m in members]), (-1, [m.worst for m in members])))
    intervals = []
    # Who waits behind an unmeasured or endless one has no upper end either.
    bounded = True
    for member, found, fast, slow in zip(members, nominal, best, worst, strict=True):
        bounded = bounded and member.measured and slow.completed
        total, low, high = found.seconds, fast.seconds, slow.seconds
        intervals.append((max(0.0, min(low, total - CAPPED_STEP_SECONDS)),
                          max(high, total + CAPPED_STEP_SECONDS) if bounded else None))
    return intervals


def _verdict(found: Outcome, load: StreamLoad, link: Link, setup_seconds: float
             ) -> tuple[str, float | None]:
    """Say how a load's stream ended, and if it failed what would have become of it.

    nova-aborts: it converges, but after Nova's timeout. never: the guest dirties at least as fast
    as the link carries. needs-help: only a downtime above all that Nova allows would end it, or
    Nova's own force-complete at the timeout.
    """
    if found.completed:
        return "converges", None
    rate = link.rates(1)[0]
    if found.aborted_at is not None and load.schedule.force_complete:
        return "needs-help", None
    patient = dataclasses.replace(
        load, schedule=dataclasses.replace(load.schedule, timeout_seconds=None))
    patiently, = simulate([patient], link, Timing(1, NovaWork(0.0), setup_seconds))
    if found.aborted_at is not None and patiently.completed:
        return "nova-aborts", found.aborted_at
    dirtied = load.dirty.total_rate_pages_per_second * PAGE_WIRE_BYTES
    endless = max(dirtied, load.disk_write_bytes_per_second if load.disk_bytes else 0) >= rate
    return ("never" if endless else "needs-help"), found.aborted_at
