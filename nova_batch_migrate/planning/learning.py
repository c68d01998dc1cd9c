"""What finished migrations of a cloud teach about the next ones.

The conductor gives the latest of them and puts what comes out into the request of the next plan;
projection adds it in fields of its own. Never changes a projection that was made.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence

from nova_batch_migrate.planning.values import SignedFloat, Value

#: Fewer teach nothing.
LEAST_MIGRATIONS = 3
#: Only the latest count: clouds change.
MOST_MIGRATIONS = 30
#: A normal distribution has 90 % within so many standard deviations.
_NINETY_PERCENT = 1.645
#: From the median of distances to the standard deviation of a normal distribution.
_MEDIAN_TO_DEVIATION = 1.4826
#: No correction goes further: what is off by more is a wrong measurement, not a lesson.
_LEAST_FACTOR, _MOST_FACTOR = 0.5, 2.0


@dataclasses.dataclass(frozen=True)
class Finished(Value):
    """A completed migration: as projected when it was issued, and as it went."""

    projected_stream_seconds: float
    actual_stream_seconds: float
    projected_downtime_seconds: float = 0.0
    actual_downtime_seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Learned(Value):
    """How migrations of this cloud differ from their projections."""

    migrations: int
    #: Actual seconds of a stream as a multiple of the projected ones: median, and the standard
    #: deviation around it.
    stream_factor: float
    stream_factor_spread: float
    #: Actual downtime less the projected one, median: libvirt's finish, mostly.
    downtime_seconds: SignedFloat = 0.0


def learn(finished: Sequence[Finished]) -> Learned | None:
    """Return what the latest migrations teach (latest last); None while they are too few.

    Medians, because a single migration that met another load says nothing about the next.
    """
    latest = [f for f in finished if f.projected_stream_seconds > 0][-MOST_MIGRATIONS:]
    if len(latest) < LEAST_MIGRATIONS:
        return None
    factors = [f.actual_stream_seconds / f.projected_stream_seconds for f in latest]
    factor = _bounded(statistics.median(factors))
    distances = [abs(value - factor) for value in factors]
    return Learned(
        migrations=len(latest), stream_factor=factor,
        stream_factor_spread=_MEDIAN_TO_DEVIATION * statistics.median(distances),
        downtime_seconds=statistics.median(
            [f.actual_downtime_seconds - f.projected_downtime_seconds for f in latest
             if f.actual_downtime_seconds is not None] or [0.0]))


def corrected(learned: Learned | None, stream_seconds: float, queue_seconds: float,
              nova_seconds: float, interval: tuple[float, float | None]
              ) -> tuple[float | None, tuple[float, float | None] | None]:
    """Return the projected seconds with what was learned, and their 90 % interval.

    Waiting for others is waiting for their streams: it stretches alike. The interval is the given
    one, moved, and widened by how much migrations scattered; their scatter and the given one are
    independent of each other.
    """
    if learned is None:
        return None, None
    streams = queue_seconds + stream_seconds
    seconds = nova_seconds + streams * learned.stream_factor
    moved = seconds - (nova_seconds + streams)
    scatter = _NINETY_PERCENT * learned.stream_factor_spread * streams
    low = seconds - math.hypot(seconds - (interval[0] + moved), scatter)
    high = None if interval[1] is None else (
        seconds + math.hypot(interval[1] + moved - seconds, scatter))
    return seconds, (max(0.0, low), high)


def _bounded(factor: float) -> float:
    return min(_MOST_FACTOR, max(_LEAST_FACTOR, factor))
