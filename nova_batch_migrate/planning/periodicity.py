"""Finds the period of a dirty rate and its quiet stretch in a series of samples ([0072]).

Called by the agent on its history and on what it followed. Pure: samples need no even distance, and
uneven ones show periods far below it; what two periods explain alike is called neither.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy

from nova_batch_migrate.planning.telemetry import Periodicity

#: Fewer samples, or fewer periods among them, show no period.
LEAST_SAMPLES = 20
LEAST_CYCLES = 2.5
#: Samples of a window see a period of less than so many windows only blurred.
_LEAST_WINDOWS = 4.0
#: Trial frequencies to one over the time that the series spans.
_OVERSAMPLING = 6
_COARSE_BINS = 24
_FINE_BINS = 72
#: A second period that explains so much of what the best one does: they can't be told apart.
_RIVAL_SHARE = 0.85
#: A quiet stretch has at most this share of the mean rate, or there is nothing to wait for.
_QUIET_SHARE = 0.5
#: A box that explains less of the variance is no ground for waiting.
_LEAST_EXPLAINED = 0.35
_LEAST_BLOCKS = 2
#: A stretch is no shorter than this part of the period and of the samples.
_SHORTEST = 12
_LEAST_INSIDE = 4
#: A single burst shall not pass for a period.
_CLIP_PERCENTILE = 95


@dataclasses.dataclass(frozen=True)
class _Fit:
    """A box: in every period a stretch of one level, the rest of another."""

    frequency: float
    #: Share of the variance that it explains.
    explained: float
    #: Where the stretch begins and how long it lasts, as shares of the period.
    begins: float
    lasts: float


def find(at_seconds: Sequence[float], pages_per_second: Sequence[float],
         window_seconds: float) -> Periodicity | None:
    """Return period, quiet stretch and confidence; None where no period shows.

    ``at_seconds`` are the begins of windows of ``window_seconds``, seconds since the epoch; samples
    that are not finite are left out. The method is that of box least squares (Kovács, Zucker and
    Mazeh 2002): for each trial period the samples are folded, and the stretch is sought whose
    level differs most from the rest. Confidence is one less the chance that noise, correlated as
    the residuals are, does as well, times the share of periods that agree.
    """
    at, rates = _clean(at_seconds, pages_per_second, window_seconds)
    if len(at) < LEAST_SAMPLES or not rates.any():
        return None
    origin, span = at[0], at[-1] - at[0]
    highest = 1 / (_LEAST_WINDOWS * window_seconds)
    trials = numpy.arange(LEAST_CYCLES / span, highest, 1 / (_OVERSAMPLING * span)) \
        if span > 0 else numpy.empty(0)
    levels = _levels(at, rates)
    if not len(trials) or not levels.any():
        return None
    times = at - origin
    explained, _, _ = _boxes(times, levels, trials, _COARSE_BINS)
    peak = int(explained.argmax())
    if _has_rival(trials, explained, peak, 2 / span):
        return None
    fit = _refined(times, levels, trials[peak], 1 / (_OVERSAMPLING * span))
    if fit.explained < _LEAST_EXPLAINED:
        return None
    return _described(times, rates, levels, fit, origin, len(trials))


def _clean(at_seconds, pages_per_second, window_seconds):
    at = numpy.asarray(at_seconds, dtype=float) + window_seconds / 2
    rates = numpy.asarray(pages_per_second, dtype=float)
    kept = numpy.isfinite(at) & numpy.isfinite(rates) & (rates >= 0)
    at, order = numpy.unique(at[kept], return_index=True)
    return at, rates[kept][order]


def _levels(at: numpy.ndarray, rates: numpy.ndarray) -> numpy.ndarray:
    """Return the samples with even noise, without outliers, mean and drift."""
    levels = numpy.sqrt(numpy.minimum(rates, numpy.percentile(rates, _CLIP_PERCENTILE)))
    if numpy.ptp(levels) <= 1e-9 * levels.max():
        return numpy.zeros_like(levels)
    slope, offset = numpy.polyfit(at - at[0], levels, 1)
    return levels - offset - slope * (at - at[0])


def _boxes(times, levels, trials, bins: int):
    """Return per trial frequency what its best box explains, and the box's begin and length."""
    phases = numpy.floor(numpy.outer(trials, times) % 1.0 * bins).astype(int) % bins
    cells = (phases + bins * numpy.arange(len(trials))[:, None]).ravel()
    shape = (len(trials), bins)
    counts = numpy.bincount(cells, minlength=len(trials) * bins).reshape(shape)
    sums = numpy.bincount(cells, numpy.tile(levels, len(trials)),
                          minlength=len(trials) * bins).reshape(shape)
    counted = _running(counts)
    summed = _running(sums)
    total, samples = levels.sum(), len(levels)
    least = max(_LEAST_INSIDE, samples // _SHORTEST)
    variance = ((levels - levels.mean()) ** 2).sum()
    best = numpy.zeros(len(trials))
    begins, lasts = numpy.zeros(len(trials), dtype=int), numpy.ones(len(trials), dtype=int)
    for length in range(bins // _SHORTEST, bins - bins // _SHORTEST + 1):
        inside = counted[:, length:length + bins] - counted[:, :bins]
        sum_inside = summed[:, length:length + bins] - summed[:, :bins]
        outside = samples - inside
        usable = (inside >= least) & (outside >= least)
        with numpy.errstate(divide="ignore", invalid="ignore"):
            gained = numpy.where(usable, (sum_inside - inside * total / samples) ** 2
                                 * samples / (inside * outside), 0.0) / variance
        at = gained.argmax(axis=1)
        value = gained[numpy.arange(len(trials)), at]
        better = value > best
        best, begins, lasts = (numpy.where(better, new, old) for new, old in (
            (value, best), (at, begins), (length, lasts)))
    return best, begins / bins, lasts / bins


def _running(cells: numpy.ndarray) -> numpy.ndarray:
    """Return running sums over two turns, so that a box may go over the period's end."""
    twice = numpy.concatenate((cells, cells), axis=1)
    return numpy.concatenate((numpy.zeros((len(cells), 1), dtype=cells.dtype),
                              twice.cumsum(axis=1)), axis=1)


def _has_rival(trials, explained, peak: int, width: float) -> bool:
    """Say whether a period that is none of its multiples explains nearly as much."""
    ratio = trials / trials[peak]
    near = numpy.abs(trials - trials[peak]) < width
    for factor in (1 / 3, 1 / 2, 2 / 3, 3 / 2, 2.0, 3.0):
        near |= numpy.abs(ratio - factor) * trials[peak] < width * max(1.0, factor)
    return bool((explained[~near] > _RIVAL_SHARE * explained[peak]).any())


def _refined(times, levels, frequency: float, step: float) -> _Fit:
    """Narrow the frequency down, then the box in finer bins."""
    for _ in range(2):
        trials = frequency + step * numpy.linspace(-1, 1, 21)
        explained, _, _ = _boxes(times, levels, trials, _FINE_BINS)
        # Equal ones lie beside each other: their middle is the least wrong.
        best = numpy.flatnonzero(explained >= explained.max() - 1e-9)
        frequency = float(trials[best[len(best) // 2]])
        step /= 7
    explained, begins, lasts = _boxes(times, levels, numpy.array([frequency]), _FINE_BINS)
    return _Fit(frequency, float(explained[0]), float(begins[0]), float(lasts[0]))


def _described(times, rates, levels, fit: _Fit, origin: float, trials: int) -> Periodicity | None:
    phases = times * fit.frequency
    inside = (phases - fit.begins) % 1.0 < fit.lasts
    begins, lasts = fit.begins, fit.lasts
    if rates[inside].mean() > rates[~inside].mean():
        inside, begins, lasts = ~inside, (fit.begins + fit.lasts) % 1.0, 1.0 - fit.lasts
    quiet, busy = rates[inside].mean(), rates[~inside].mean()
    mean = lasts * quiet + (1 - lasts) * busy
    if quiet > _QUIET_SHARE * mean:
        return None
    period = 1 / fit.frequency
    model = numpy.where(inside, levels[inside].mean(), levels[~inside].mean())
    confidence = _certainty(levels - model, inside, fit.explained, trials) \
        * _agreement(levels, inside, numpy.floor(phases - begins))
    return Periodicity(
        period_seconds=period, minimum_begins_seconds=(origin + begins * period) % period,
        minimum_lasts_seconds=lasts * period, minimum_pages_per_second=float(quiet),
        mean_pages_per_second=float(mean), confidence=confidence)


def _certainty(residuals, inside, explained: float, trials: int) -> float:
    """Return one less the chance that noise explains as much under some trial period and box.

    Few samples on one side, as of rare bursts, count as few.
    """
    spread = float((residuals ** 2).sum())
    correlation = float((residuals[1:] * residuals[:-1]).sum()) / spread if spread > 0 else 0.0
    # what a box leaves over of nearly all the variance are its edges
    correlation = min(0.95, max(0.0, correlation)) * min(1.0, 4 * (1 - explained))
    samples = min(len(residuals), 4 * int(min(inside.sum(), (~inside).sum())))
    independent = samples * (1 - correlation) / (1 + correlation)
    likelihood = -independent / 2 * math.log(max(1e-12, 1 - explained))
    return max(0.0, -math.expm1(min(0.0, math.log(trials * _COARSE_BINS ** 2) - likelihood)))


def _agreement(levels, inside, cycles) -> float:
    """Return the share of periods whose quiet stretch is below the rest.

    Where samples are rarer than periods, periods behind each other count as one until there are
    two samples on both sides; fewer than two such show nothing.
    """
    verdicts, block = [], numpy.zeros(len(levels), dtype=bool)
    for cycle in numpy.unique(cycles):
        block |= cycles == cycle
        quiet, busy = levels[block & inside], levels[block & ~inside]
        if len(quiet) >= 2 and len(busy) >= 2:
            verdicts.append(quiet.mean() < busy.mean())
            block = numpy.zeros(len(levels), dtype=bool)
    return float(numpy.mean(verdicts)) if len(verdicts) >= _LEAST_BLOCKS else 0.0
