"""Who gets how much of the wire: shares of running streams by what each needs [0040].

Called by the conductor's allocator while migrations run, with links and caps as they are now.
Pure; never tunes anything itself.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

MIB = 1024 ** 2
#: A stream that gets less than this over what its guest dirties makes next to no headway.
CONVERGING = 1.25
#: Under a cap QEMU sends whole portions of 32 pages, each with 8 bytes before it, and looks at the
#: cap behind each; it counts anew ten times a second. (Measured with QEMU 10.0: capped at 1, 2, 4,
#: 8, 16, 32 MiB/s it sends 1.25, 2.51, 5.01, 8.77, 16.28, 32.56.)
PORTION_BYTES = 32 * (4096 + 8)
PORTIONS_A_SECOND = 10
#: Nobody gets less: a portion in each tenth of a second.
LEAST_BYTES_PER_SECOND = float(PORTION_BYTES * PORTIONS_A_SECOND)
#: Shares that would change by no more than this are left as they are.
HYSTERESIS = 0.1


def qemu_bytes_per_second(cap_mib_per_second: int) -> float:
    """Return what QEMU really sends under a cap, which is more than it was asked for."""
    portions = math.ceil(cap_mib_per_second * MIB / PORTIONS_A_SECOND / PORTION_BYTES)
    return float(portions * PORTIONS_A_SECOND * PORTION_BYTES)


def qemu_cap_mib(bytes_per_second: float) -> int:
    """Return the highest cap in libvirt's whole MiB/s under which QEMU keeps to the bytes/s.

    1 where no cap does: QEMU then sends LEAST_BYTES_PER_SECOND.
    """
    cap = max(1, int(bytes_per_second // MIB))
    while cap > 1 and qemu_bytes_per_second(cap) > bytes_per_second:
        cap -= 1
    return cap


@dataclasses.dataclass(frozen=True)
class Need:
    """What one stream still has to send; bytes are those of its payload."""

    id: str
    source: str
    remaining_bytes: float
    dirty_bytes_per_second: float = 0.0
    #: Nova's live_migration_bandwidth.
    most_bytes_per_second: float = math.inf

    @property
    def floor(self) -> float:
        """Return the least bytes per second at which the stream converges."""
        return min(self.most_bytes_per_second,
                   max(LEAST_BYTES_PER_SECOND, CONVERGING * self.dirty_bytes_per_second))

    @property
    def seconds_at_floor(self) -> float:
        """Return how long the stream lasts at its floor."""
        return self.remaining_bytes / self.floor


def shares(needs: Sequence[Need], links: Mapping[str, float], budget: float = math.inf,
           previous: Mapping[str, float] | None = None) -> dict[str, float]:
    """Return bytes per second by stream: `links` by source and the batch's `budget` are kept.

    First each stream gets what keeps its guest converging, those nearest to their end first where
    that is too much for all; what is left is divided by remaining bytes, so that streams which
    began together end together. Only where a link is too narrow for LEAST_BYTES_PER_SECOND each
    does the sum exceed it. `previous` shares stay where all of them are near enough and fit.
    """
    given = _floors(needs, links, budget)
    _fill(needs, links, budget, given)
    if previous and _near(needs, given, previous) and _fits(needs, links, budget, previous):
        return {need.id: previous[need.id] for need in needs}
    return given


def _floors(needs: Sequence[Need], links: Mapping[str, float], budget: float) -> dict[str, float]:
    given = {need.id: LEAST_BYTES_PER_SECOND for need in needs}
    left = _left(needs, links, budget, given)
    for need in sorted(needs, key=lambda n: (n.seconds_at_floor, n.id)):
        more = need.floor - given[need.id]
        if 0 < more <= min(left[None], left[need.source]):
            given[need.id] += more
            left[None] -= more
            left[need.source] -= more
    return given


def _left(needs: Sequence[Need], links: Mapping[str, float], budget: float,
          given: Mapping[str, float]) -> dict[str | None, float]:
    """Return what is left of each link, and of the budget under None; never below 0."""
    left: dict[str | None, float] = {None: budget, **links}
    for need in needs:
        left[None] -= given[need.id]
        left[need.source] = left.get(need.source, math.inf) - given[need.id]
    return {key: max(0.0, value) for key, value in left.items()}


def _fill(needs: Sequence[Need], links: Mapping[str, float], budget: float,
          given: dict[str, float]) -> None:
    """Raise all by remaining bytes until a link, the budget or a cap of their own stops each."""
    left = _left(needs, links, budget, given)
    rising = list(needs)
    while rising:
        weights: dict[str | None, float] = {}
        for need in rising:
            for key in (None, need.source):
                weights[key] = weights.get(key, 0.0) + _weight(need)
        step = min(*(left[key] / weight for key, weight in weights.items()),
                   *((need.most_bytes_per_second - given[need.id]) / _weight(need)
                     for need in rising))
        if math.isinf(step):
            given.update((need.id, math.inf) for need in rising)
            return
        for need in rising:
            given[need.id] += step * _weight(need)
        for key, weight in weights.items():
            left[key] -= step * weight
        rising = [need for need in rising
                  if given[need.id] < need.most_bytes_per_second * (1 - 1e-9)
                  and min(left[None], left[need.source]) > 1.0]


def _weight(need: Need) -> float:
    return max(need.remaining_bytes, LEAST_BYTES_PER_SECOND)


def _near(needs: Sequence[Need], given: Mapping[str, float],
          previous: Mapping[str, float]) -> bool:
    return previous.keys() == given.keys() and all(
        given[need.id] == previous[need.id]
        or abs(given[need.id] - previous[need.id]) <= HYSTERESIS * previous[need.id]
        for need in needs)


def _fits(needs: Sequence[Need], links: Mapping[str, float], budget: float,
          previous: Mapping[str, float]) -> bool:
    """Return whether shares of before keep the limits and guests converging as far as now."""
    sums: dict[str | None, float] = {}
    for need in needs:
        for key in (None, need.source):
            sums[key] = sums.get(key, 0.0) + previous[need.id]
    limits = {None: budget, **links}
    return all(total <= limits.get(key, math.inf) * (1 + 1e-9) for key, total in sums.items())
