"""How long relays work on a stream beside what its link takes, told from the cloud's latest ones.

The conductor gives what it has seen; what comes out goes into the request of the next plan. A relay
measures by itself what it can work through, with a core of its own. Where QEMU, Nova and the relays
share cores, their work does not fit beside the sending, and a stream takes longer than the slowest
of them.
"""

import dataclasses
import math
from collections.abc import Sequence

from nova_batch_migrate.planning import evidence
from nova_batch_migrate.planning.values import Value

#: Fewer tell nothing.
LEAST_STREAMS = 3
#: Standard deviation of the logarithm between batches: how busy the cores are, what is carried.
BATCH_DEVIATION = 0.3
#: So unlike, in doublings of load, are streams of another source host.
_OTHER_SOURCE = 0.5
#: Of a batch with so many raw bytes half of what it told is the streams' beginnings and ends.
_HALF_TOLD_BYTES = 1e9
#: A relay that took longer than this for a byte was held up by something else (20 MB/s).
_MOST_SECONDS_PER_BYTE = 5e-8


@dataclasses.dataclass(frozen=True)
class FirstPass:
    """Round 0 of a stream that a relay carried, from its turn until it was slowed down."""

    seconds: float
    raw_bytes: float
    #: What the link takes for the bytes that crossed, and what the relays by themselves need for
    #: the raw ones, as far as that is known.
    link_seconds: float
    relay_seconds: float = 0.0
    batch: str = ""
    source: str = ""
    #: How long ago it ended.
    age_seconds: float = 0.0

    @property
    def beside_seconds(self) -> float:
        """What it took longer than the slowest part would take alone; below 0: less."""
        return self.seconds - max(self.link_seconds, self.relay_seconds)


@dataclasses.dataclass(frozen=True)
class RelayPace(Value):
    """What streams through relays take beside their link."""

    #: Of round 0; of the raw bytes.
    seconds_per_byte: float
    #: Standard deviation of its logarithm, of a batch to come.
    deviation: float
    #: From so many.
    streams: int

    def off(self, deviations: float) -> float:
        """Return the seconds a byte that are so many standard deviations off."""
        return self.seconds_per_byte * math.exp(deviations * self.deviation)


def learn(passes: Sequence[FirstPass], sources: frozenset[str]) -> RelayPace | None:
    """Return what the next streams that leave these hosts will take; None: too few are known.

    All of a batch together, as what one stream waits for another one finds done. Batches count less
    the less they carried and the older they are, and those of other hosts less; a batch that its
    link alone held up counts as one that took nothing beside it.
    """
    batches: dict[str, list[FirstPass]] = {}
    for each in passes:
        if each.raw_bytes > 0:
            batches.setdefault(each.batch, []).append(each)
    streams = sum(map(len, batches.values()))
    if streams < LEAST_STREAMS:
        return None
    weighed = [(_weight(members, sources), _seconds_per_byte(members))
               for members in batches.values()]
    whole = sum(weight for weight, _ in weighed)
    mean = sum(weight * seconds for weight, seconds in weighed) / whole
    return RelayPace(seconds_per_byte=float(f"{mean:.3g}"),
                     deviation=round(BATCH_DEVIATION * math.sqrt(1.0 + 1.0 / whole), 3),
                     streams=streams)


def _weight(members: Sequence[FirstPass], sources: frozenset[str]) -> float:
    unlike = min(evidence.age(each.age_seconds)
                 + (0.0 if each.source in sources else _OTHER_SOURCE) for each in members)
    carried = sum(each.raw_bytes for each in members)
    return carried / (carried + _HALF_TOLD_BYTES) / (1.0 + unlike)


def _seconds_per_byte(members: Sequence[FirstPass]) -> float:
    found = (sum(each.beside_seconds for each in members)
             / sum(each.raw_bytes for each in members))
    return min(_MOST_SECONDS_PER_BYTE, max(0.0, found))
