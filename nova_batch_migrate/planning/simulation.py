"""What becomes of a group's streams: each load's outcome, simulated over a shared link.

Called by planning.projection. Runs the C extension where it is built, else planning.reference, with
the same results. Never judges an outcome.
"""

import array
import math
import typing
from collections.abc import Sequence

from nova_batch_migrate.planning import reference
from nova_batch_migrate.planning.conditions import Link, NovaWork, Timing
from nova_batch_migrate.planning.stream import StreamLoad

try:
    from nova_batch_migrate.planning import _speed
except ImportError:  # no compiler where it was installed
    _speed = None


#: What stands for a cycle, or for what a relay makes of pages, where there is none.
_NO_CYCLE, _NO_RELAY = (0.0,) * 5, (0.0,) * 6


class Outcome(typing.NamedTuple):
    """One member's way: waiting for its turn, Nova, its stream."""

    #: Else it failed: Nova gave up, or nothing would ever change any more.
    completed: bool
    #: From the start of the group until it is issued.
    queue_seconds: float
    nova_seconds: float
    #: From the start of the stream, set-up included.
    stream_seconds: float
    #: What QEMU wrote, and what of it crossed the link.
    sent_bytes: float
    wire_bytes: float
    rounds: int
    downtime_seconds: float
    #: Since the start of the stream; None: Nova did not give up.
    aborted_at: float | None

    @property
    def seconds(self) -> float:
        """Seconds from the start of the group until the member is done."""
        return self.queue_seconds + self.nova_seconds + self.stream_seconds


def simulate(loads: Sequence[StreamLoad], link: Link, timing: Timing) -> list[Outcome]:
    """Run the migrations, issued in this order, until each has completed or failed.

    A failed one gives its place to the next.
    """
    if timing.parallel == 1 and timing.begins_seconds is None:
        return _one_by_one(loads, link, timing)
    return _run(loads, link, timing)


def each_alone(loads: Sequence[StreamLoad], link: Link, timing: Timing) -> list[Outcome]:
    """Run each of the migrations as if there were no other; Nova's seconds are not in it."""
    known = timing.memo.setdefault(link, {})
    new = {id(load): load for load in loads if id(load) not in known}
    if new:
        alone = Timing(1, NovaWork(0.0), timing.setup_seconds)
        for load, outcome in zip(new.values(), _run(list(new.values()), link, alone, True),
                                 strict=True):
            # The load is kept with its outcome, so that no other gets its id.
            known[id(load)] = load, outcome
    return [known[id(load)][1] for load in loads]


def _one_by_one(loads: Sequence[StreamLoad], link: Link, timing: Timing) -> list[Outcome]:
    """Return the same for streams that never overlap: each alone, behind the others."""
    outcomes, now = [], 0.0
    for outcome in each_alone(loads, link, timing):
        outcomes.append(outcome._replace(queue_seconds=now, nova_seconds=timing.nova.seconds))
        now = outcomes[-1].seconds
    return outcomes


def _run(loads: Sequence[StreamLoad], link: Link, timing: Timing, alone: bool = False
         ) -> list[Outcome]:
    """Simulate the loads by C or by Python; `alone`: a relay knows no turns of theirs."""
    found = (reference.simulate(loads, link, timing, alone) if _speed is None
             else _speed.simulate(*_tables(loads, link, timing, alone)))
    return [Outcome(*fields) for fields in found]


def _tables(loads: Sequence[StreamLoad], link: Link, timing: Timing, alone: bool
            ) -> tuple[array.array, array.array, array.array, array.array]:
    """Return loads, downtime steps, link and timing as _speed.c wants them: rows of doubles."""
    rows, steps = array.array("d"), array.array("d")
    begun: dict[int, int] = {}
    for load in loads:
        schedule, dirty, cycle, wire, socket = (load.schedule, load.dirty, load.cycle, load.wire,
                                                load.socket)
        first = begun.get(id(schedule))
        if first is None:
            first = begun[id(schedule)] = len(steps) // 2
            for step in schedule.steps:
                steps.extend(step)
        timeout = schedule.timeout_seconds
        rows.extend((
            load.content_pages, load.zero_pages, dirty.rate_pages_per_second,
            dirty.working_set_pages, dirty.hot_rate_pages_per_second, dirty.hot_pages,
            math.inf if timeout is None else timeout, schedule.auto_converge,
            load.disk_bytes, load.disk_write_bytes_per_second,
            *(_NO_CYCLE if cycle is None else (
                cycle.period_seconds, cycle.quiet_begins_seconds, cycle.quiet_lasts_seconds,
                cycle.quiet_factor, cycle.busy_factor)),
            *(_NO_RELAY if wire is None else (
                1.0, wire.page_bytes(True), wire.page_bytes(False), wire.raw_bytes_per_second,
                wire.seconds_per_byte, wire.slowing_seconds)),
            socket.base_bytes, socket.seconds, socket.most_bytes, socket.room_bytes,
            first, len(schedule.steps)))
    nova, begins = timing.nova, timing.begins_seconds
    return (rows, steps,
            array.array("d", (link.free, link.cap, link.stream_cap, link.relay)),
            array.array("d", (timing.parallel, nova.seconds, nova.before_share, nova.sharing,
                              timing.setup_seconds, math.nan if begins is None else begins,
                              not alone, nova.at_once)))
