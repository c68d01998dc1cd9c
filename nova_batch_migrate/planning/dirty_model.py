"""Fit of the saturating dirty model to measured windows (design 3, [0053], [0054]).

Called by the agent after its windows. Never measures; the model itself is telemetry.DirtyModel.
"""

import math
from collections.abc import Sequence

import numpy

from nova_batch_migrate.planning.telemetry import DirtyModel, DirtyWindow

#: No fit is trusted closer than this: dirty rates drift between measuring and migrating.
LEAST_ERROR = 0.03
#: With windows of one length the working set is a guess, and so is what longer times dirty.
ONE_LENGTH_ERROR = 0.5
#: Page sampling answers in whole MiB/s: half a step is the rounding.
SAMPLING_ROUNDING_PAGES_PER_SECOND = 128.0
#: A window this much shorter than W/r is a straight line: W can't be seen in it.
_STRAIGHT = 1e-3
#: A window this much longer than W/r shows W and only a lower bound of r.
_FLAT = 6.0


def fit(windows: Sequence[DirtyWindow], memory_pages: int | None = None) -> DirtyModel:
    """Return the model that fits the windows best, with its relative error.

    Windows of one source are used: the one with more lengths, content-diff at a tie. The working
    set is bounded by `memory_pages` where that is given. A single length can't show saturation:
    the working set is then taken as large as memory allows, which projects too much rather than
    too little.
    """
    windows = _of_best_source([w for w in windows if w.seconds > 0])
    if not windows:
        return DirtyModel()
    source = windows[0].source
    seconds = numpy.array([w.seconds for w in windows], dtype=float)
    pages = numpy.array([w.changed_pages for w in windows], dtype=float)
    if memory_pages is not None:
        # All of memory changed: leave room for the logarithm below.
        pages = numpy.minimum(pages, 0.999 * memory_pages)
    if not pages.any():
        return DirtyModel(0.0, 0.0, 0.0, source)
    rate, working_set = _least_squares(seconds, pages)
    if memory_pages is not None and working_set > memory_pages:
        working_set = float(memory_pages)
        rate = _rate_for(working_set, seconds, pages)
    error = _relative_error(DirtyModel(rate, working_set), seconds, pages, source)
    return DirtyModel(rate, working_set, error, source)


def _of_best_source(windows: list[DirtyWindow]) -> list[DirtyWindow]:
    by_source: dict[str, list[DirtyWindow]] = {}
    for window in windows:
        by_source.setdefault(window.source, []).append(window)
    if not by_source:
        return []
    # The name is the tie-break: content-diff sorts before page-sampling.
    return min(by_source.values(),
               key=lambda group: (-len({w.seconds for w in group}), group[0].source))


def _least_squares(seconds, pages) -> tuple[float, float]:
    """Return r and W of the least squared relative error over k = r/W.

    For a given k the best W is a quotient of sums, so one dimension is searched: a logarithmic
    grid, narrowed around its best point until it stands.
    """
    weights = 1.0 / numpy.maximum(pages, 1.0) ** 2

    def best_working_set(k):
        shape = -numpy.expm1(-numpy.outer(k, seconds))
        working_set = (shape * pages * weights).sum(1) / (shape ** 2 * weights).sum(1)
        misses = ((working_set[:, None] * shape - pages) ** 2 * weights).sum(1)
        return working_set, misses

    if len(set(seconds.tolist())) == 1:
        low = high = _STRAIGHT / seconds[0]
    else:
        low, high = _STRAIGHT / seconds.max(), _FLAT / seconds.min()
    for _ in range(12):
        k = numpy.geomspace(low, high, 65)
        working_set, misses = best_working_set(k)
        best = int(misses.argmin())
        low, high = k[max(0, best - 1)], k[min(64, best + 1)]
    return float(k[best] * working_set[best]), float(working_set[best])


def _rate_for(working_set: float, seconds, pages) -> float:
    """Return the r that fits when W is known: each window gives one, the mean counts."""
    rates = -working_set / seconds * numpy.log1p(-numpy.minimum(pages / working_set, 0.999))
    return float(rates.mean())


def _relative_error(model: DirtyModel, seconds, pages, source: str) -> float:
    fitted = numpy.array([model.pages(float(s)) for s in seconds])
    misses = (fitted - pages) / numpy.maximum(pages, 1.0)
    error = max(LEAST_ERROR, math.sqrt(float((misses ** 2).mean())),
                1.0 / math.sqrt(float(pages.sum())))
    if source == "page-sampling":
        rounding = SAMPLING_ROUNDING_PAGES_PER_SECOND * seconds / numpy.maximum(pages, 1.0)
        error = max(error, float(rounding.mean()))
    if len(set(seconds.tolist())) == 1:
        error = max(error, ONE_LENGTH_ERROR)
    return min(1.0, error)
