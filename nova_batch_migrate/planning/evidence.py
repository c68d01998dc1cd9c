"""How far finished migrations move what was assumed before them.

Used by planning.learning and planning.nova_pace. A value here is the logarithm of how many times
something was what was expected of it; 0 is "as expected". What others ran under is never quite
what the next will run under, so a value counts less the more unlike it is, and there is a bound to
what all unlike ones count together, however many they are.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence

#: A normal distribution has 90 % within so many standard deviations.
NINETY_PERCENT = 1.645
#: In so many days a cloud drifts as far as to a load twice as large.
DAYS_LIKE_A_DOUBLING = 7.0
_DAY_SECONDS = 86400.0
#: A value further off than so many standard deviations pulls no harder than one so far off.
_ODD_DEVIATIONS = 1.0
_ROUNDS = 8


@dataclasses.dataclass(frozen=True)
class Scatter:
    """Standard deviations of logarithms: what is known before, and how values scatter."""

    #: Of what is assumed without any migration.
    assumed: float
    #: Between batches that ran under like circumstances: another hour, another load.
    batch: float
    #: Between migrations of one batch.
    migration: float
    #: What twice the load, or its half, may add to it.
    doubling: float = 0.25


@dataclasses.dataclass(frozen=True)
class Seen:
    """What one migration showed."""

    value: float
    #: Migrations of one batch met the same hour, and tell little more than one.
    batch: str = ""
    #: How far from the next migrations it is: in doublings of load, and what counts alike.
    unlike: float = 0.0


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What is to be expected of the next: mean and standard deviation of the logarithm.

    The deviation is that of a single batch to come, so it never gets smaller than batches scatter.
    """

    mean: float
    deviation: float


def age(seconds: float) -> float:
    """Return how unlike the present something is that is so many seconds old."""
    return max(0.0, seconds) / _DAY_SECONDS / DAYS_LIKE_A_DOUBLING


def doublings(one: float, other: float) -> float:
    """Return how many times the one has to be doubled or halved to be the other; both above 0."""
    return abs(math.log2(one / other))


def estimate(seen: Sequence[Seen], scatter: Scatter) -> Estimate:
    """Return what the values seen make of the assumption that all is as expected.

    Each batch counts once, by its median. From the most unlike one to the likest the mean is led on
    as a random walk would be (a Kalman filter of one state): whatever was gathered further out gets
    less sure with each step, so there is a bound to what all unlike ones together weigh. At last
    the assumption itself counts as one more value, of its own deviation.
    """
    batches = _batches(seen, scatter)
    mean = 0.0
    for _ in range(_ROUNDS):
        mean, precision = _filtered(batches, mean, scatter)
    return Estimate(mean, math.hypot(1.0 / math.sqrt(precision), scatter.batch))


def _batches(seen: Sequence[Seen], scatter: Scatter) -> list[tuple[float, float, float]]:
    """Return (unlike, value, variance) of each batch, the most unlike first."""
    found: dict[str, list[Seen]] = {}
    for each in seen:
        found.setdefault(each.batch, []).append(each)
    return sorted(((statistics.fmean(each.unlike for each in members),
                    statistics.median(each.value for each in members),
                    scatter.batch ** 2 + scatter.migration ** 2 / len(members))
                   for members in found.values()), reverse=True)


def _filtered(batches: Sequence[tuple[float, float, float]], expected: float, scatter: Scatter
              ) -> tuple[float, float]:
    """Return mean and precision; who is far from what is `expected` counts less (Huber)."""
    mean, precision, at = 0.0, 0.0, 0.0

    def led_on(unlike: float) -> float:
        if not precision:
            return 0.0
        return 1.0 / (1.0 / precision + scatter.doubling ** 2 * max(0.0, at - unlike))

    for unlike, value, variance in batches:
        precision, at = led_on(unlike), unlike
        off = abs(value - expected) / math.sqrt(variance + scatter.doubling ** 2 * unlike)
        weight = min(1.0, _ODD_DEVIATIONS / off) / variance if off else 1.0 / variance
        mean = (precision * mean + weight * value) / (precision + weight)
        precision += weight
    precision = led_on(0.0)
    assumed = 1.0 / scatter.assumed ** 2
    return precision * mean / (precision + assumed), precision + assumed
