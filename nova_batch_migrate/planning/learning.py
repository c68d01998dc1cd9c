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
    #: Of a stream that a relay was to carry; null in the second: none carried it.
    projected_wire_bytes: float = 0.0
    actual_wire_bytes: float | None = None


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
    #: Wire bytes of the streams that relays carried, as a multiple of the projected ones; null: too
    #: few were carried.
    wire_factor: float | None = None


@dataclasses.dataclass(frozen=True)
class NovaStay(Value):
    """A completed migration's time in Nova's hands; seconds, the first two since any epoch."""

    issued_seconds: float
    finished_seconds: float
    nova_seconds: float
    #: Of them, before the stream; None: nobody saw it begin.
    before_seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class NovaPace(Value):
    """Nova's own work around a stream: what a migration costs that has Nova for itself."""

    seconds: float
    before_share: float
    #: By what share of its time each further migration delays the others (projection.NovaWork).
    sharing: float


#: What a migration that streams, or is behind its stream, weighs on one before its own: others
#: before their streams keep the same services busy (measured with four at once on two cores).
_REST_WEIGHT = 0.25


def beside_before(before: float, rest: float) -> float:
    """Return how much others weigh on a migration before its stream: those there, and the rest."""
    return before + _REST_WEIGHT * rest


#: Values of `sharing` that are tried, and how much better than none one has to explain the times.
_SHARINGS = tuple(0.05 * step for step in range(41))
_CLEARLY_BETTER = 0.8


def learn_nova(stays: Sequence[NovaStay], usual_before_share: float) -> NovaPace | None:
    """Return how Nova works, from the latest migrations; None while they are too few.

    Each stretch in Nova's hands was as long as its work times 1 + sharing x (how many others were
    under way meanwhile, on average; `beside_before`). Taken is the sharing for which the work of
    all comes out most alike; none at all where it does not explain the times clearly better.
    """
    latest = list(stays)[-MOST_MIGRATIONS:]
    if len(latest) < LEAST_MIGRATIONS:
        return None
    ends = [_ends(stay, usual_before_share) for stay in latest]
    lengths = [(before[1] - before[0], behind[1] - behind[0]) for before, behind in ends]
    others = [_beside(ends, at) for at in range(len(ends))]

    def works(sharing: float) -> list[tuple[float, float]]:
        return [tuple(length / (1.0 + sharing * beside)
                      for length, beside in zip(pair, besides, strict=True))
                for pair, besides in zip(lengths, others, strict=True)]

    def spread(sharing: float) -> float:
        found = 0.0
        for parts in zip(*works(sharing), strict=True):
            middle = statistics.median(parts)
            found += statistics.fmean(abs(part - middle) for part in parts) / (middle or 1.0)
        return found

    sharing = min(_SHARINGS, key=lambda tried: (round(spread(tried), 3), tried))
    if spread(sharing) > _CLEARLY_BETTER * spread(0.0):
        sharing = 0.0
    before, behind = (statistics.median(parts) for parts in zip(*works(sharing), strict=True))
    seconds = before + behind
    return NovaPace(seconds=round(seconds, 3),
                    before_share=round(before / seconds, 3) if seconds else usual_before_share,
                    sharing=round(sharing, 2))


def _ends(stay: NovaStay, usual_before_share: float) -> tuple[tuple[float, float], ...]:
    """Return when Nova worked on a migration: before the stream, and behind it."""
    before = stay.before_seconds
    if before is None:
        before = usual_before_share * stay.nova_seconds
    behind = max(0.0, stay.nova_seconds - before)
    return ((stay.issued_seconds, stay.issued_seconds + before),
            (stay.finished_seconds - behind, stay.finished_seconds))


def _beside(ends: list, own: int) -> tuple[float, float]:
    """Return how much others weighed on a migration before its stream, and behind it."""
    before, behind = ends[own]
    rest = [pair for at, pair in enumerate(ends) if at != own]
    at_start = _overlap(before, [start for start, _ in rest])
    later = _overlap(before, [(start[1], end[1]) for start, end in rest])
    return (beside_before(at_start, later),
            _overlap(behind, [(start[0], end[1]) for start, end in rest]))


def _overlap(stretch: tuple[float, float], others: list[tuple[float, float]]) -> float:
    """Return how many of the others' stretches ran during this one, on average."""
    begun, ended = stretch
    if ended <= begun:
        return 0.0
    return sum(max(0.0, min(ended, until) - max(begun, since))
               for since, until in others) / (ended - begun)


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
        migrations=len(latest), stream_factor=factor, wire_factor=_wire_factor(latest),
        stream_factor_spread=_MEDIAN_TO_DEVIATION * statistics.median(distances),
        downtime_seconds=statistics.median(
            [f.actual_downtime_seconds - f.projected_downtime_seconds for f in latest
             if f.actual_downtime_seconds is not None] or [0.0]))


def _wire_factor(latest: Sequence[Finished]) -> float | None:
    """Return the wire bytes of all relayed ones together, as a multiple of the projected ones.

    Together: who brings common content and who refers to it is a matter of which stream was
    quicker, and what one crosses with more the other crosses with less.
    """
    relayed = [f for f in latest if f.projected_wire_bytes and f.actual_wire_bytes is not None]
    if len(relayed) < LEAST_MIGRATIONS:
        return None
    return _bounded(sum(f.actual_wire_bytes for f in relayed)
                    / sum(f.projected_wire_bytes for f in relayed))


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
