"""What finished migrations of a cloud teach about the streams of the next ones.

The conductor gives the latest of them and puts what comes out into the request of the next plan;
projection adds it in fields of its own. Never changes a projection that was made. Nova's own
seconds around a stream are planning.nova_pace.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence

from nova_batch_migrate.planning import evidence
from nova_batch_migrate.planning.values import SignedFloat, Value

#: Fewer teach nothing.
LEAST_MIGRATIONS = 3
#: No correction goes further: what is off by more is a wrong measurement, not a lesson.
_LEAST_FACTOR, _MOST_FACTOR = 0.5, 2.0
#: Seconds of streams are projected from what was measured.
_STREAMS = evidence.Scatter(assumed=0.3, batch=0.2, migration=0.2)
#: What a relay makes of streams is harder to see beforehand; of all that a batch sent together.
_WIRE = evidence.Scatter(assumed=0.3, batch=0.2, migration=0.1)
#: Shorter streams are mostly the set-up, and the conductor's looks at them.
_LEAST_SECONDS = 0.5
#: The projected downtime counts for as many batches as this.
_ASSUMED_BATCHES = 1


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
    #: Migrations of one batch met the same hour.
    batch: str = ""
    #: How long ago it ended.
    age_seconds: float = 0.0

    @property
    def relayed(self) -> bool | None:
        """Whether a relay carried it as planned; None: it went another way than planned."""
        planned, carried = bool(self.projected_wire_bytes), self.actual_wire_bytes is not None
        return carried if planned == carried else None


@dataclasses.dataclass(frozen=True)
class Learned(Value):
    """How migrations of this cloud differ from their projections."""

    migrations: int
    #: Actual seconds of a stream as a multiple of the projected ones, as far as that is sure: the
    #: less and the older the migrations are, the nearer to 1; and the standard deviation around it.
    stream_factor: float
    stream_factor_spread: float
    #: Actual downtime less the projected one, median of the batches: libvirt's finish, mostly.
    downtime_seconds: SignedFloat = 0.0
    #: Wire bytes of the streams that relays carried, as a multiple of the projected ones; null: no
    #: relay carried these.
    wire_factor: float | None = None


def learn(finished: Sequence[Finished], relay: bool = False) -> Learned | None:
    """Return what migrations through relays, or past them, teach; None while they are too few.

    Only of those that went the way they were planned to go: who was to be carried and was not had
    another stream. How much they weigh is told by planning.evidence.
    """
    alike = [each for each in finished
             if each.projected_stream_seconds > 0 and each.relayed is relay]
    if len(alike) < LEAST_MIGRATIONS:
        return None
    found = evidence.estimate(
        [evidence.Seen(math.log(max(_LEAST_SECONDS, each.actual_stream_seconds)
                                / max(_LEAST_SECONDS, each.projected_stream_seconds)),
                       each.batch, evidence.age(each.age_seconds)) for each in alike], _STREAMS)
    factor = _bounded(math.exp(found.mean))
    return Learned(
        migrations=len(alike), stream_factor=round(factor, 3),
        # of a logarithm, so a share of the factor; of a single one in a batch to come
        stream_factor_spread=round(
            factor * math.hypot(found.deviation, _STREAMS.migration), 3),
        downtime_seconds=round(_downtime(alike), 4), wire_factor=_wire_factor(alike) if relay
        else None)


def _downtime(alike: Sequence[Finished]) -> float:
    batches = _batches([each for each in alike if each.actual_downtime_seconds is not None])
    if not batches:
        return 0.0
    return statistics.median(
        statistics.median(each.actual_downtime_seconds - each.projected_downtime_seconds
                          for each in members) for members in batches
    ) * len(batches) / (len(batches) + _ASSUMED_BATCHES)


def _wire_factor(relayed: Sequence[Finished]) -> float:
    """Return the wire bytes of each batch's streams together, as a multiple of the projected ones.

    Together: who brings common content and who refers to it is a matter of which stream was
    quicker, and what one crosses with more the other crosses with less.
    """
    found = evidence.estimate([evidence.Seen(
        math.log(max(1.0, sum(each.actual_wire_bytes for each in members))
                 / sum(each.projected_wire_bytes for each in members)),
        members[0].batch, evidence.age(members[0].age_seconds))
        for members in _batches(relayed)], _WIRE)
    return round(_bounded(math.exp(found.mean)), 3)


def _batches(alike: Sequence[Finished]) -> list[list[Finished]]:
    found: dict[str, list[Finished]] = {}
    for each in alike:
        found.setdefault(each.batch, []).append(each)
    return list(found.values())


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
    scatter = evidence.NINETY_PERCENT * learned.stream_factor_spread * streams
    low = seconds - math.hypot(seconds - (interval[0] + moved), scatter)
    high = None if interval[1] is None else (
        seconds + math.hypot(interval[1] + moved - seconds, scatter))
    return seconds, (max(0.0, low), high)


def _bounded(factor: float) -> float:
    return min(_MOST_FACTOR, max(_LEAST_FACTOR, factor))
