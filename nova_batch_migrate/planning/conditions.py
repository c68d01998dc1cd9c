"""Under what conditions a group's streams run: the link they share, Nova around them.

Made by planning.projection, read by planning.simulation and planning.reference. Knows no stream.
"""

import dataclasses
import math

#: Share of Nova's own seconds that pass before the stream; the rest comes behind it.
NOVA_SECONDS_BEFORE = 0.5
#: A migration that streams, or is behind its stream, weighs on one before its own: others
#: before their streams keep the same services busy (measured with four at once on two cores).
_REST_WEIGHT = 0.25
#: Where Nova is asked for a few at once, the first of a group has it for itself until its stream
#: begins, but no longer than this: the link is idle meanwhile.
FIRST_ALONE_SECONDS = 10.0
#: So many more may be on their way to the end of their streams than Nova is asked to prepare at
#: once: one streams, the next waits for that. Others would wait, too, and be watched meanwhile.
BESIDE_PREPARING = 2


def beside_before(before: float, rest: float) -> float:
    """Return how much others weigh on a migration before its stream: those there, and the rest."""
    return before + _REST_WEIGHT * rest


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
class NovaWork:
    """Nova's own work around a stream, in seconds of a migration that has Nova for itself."""

    seconds: float
    before_share: float = NOVA_SECONDS_BEFORE
    #: By what share of the time each further migration under way delays one in Nova's hands: its
    #: services share processors, and some of them with guests.
    sharing: float = 0.0
    #: Migrations that it works on at once before their streams, the first of them alone; further
    #: ones wait to be issued, also while BESIDE_PREPARING more have not come to their streams' end.
    at_once: float = math.inf
    #: Standard deviation of the logarithm of the seconds: another hour, another load of Nova.
    deviation: float = 0.0

    def off(self, deviations: float) -> "NovaWork":
        """Return the work as it is so many standard deviations off."""
        return dataclasses.replace(self, seconds=self.seconds * math.exp(
            deviations * self.deviation))

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
    #: Link -> id of the load -> its run alone.
    memo: dict = dataclasses.field(default_factory=dict, compare=False)
