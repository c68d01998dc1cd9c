"""Fit of the saturating dirty model to measured windows (design 3, [0053], [0054]).

Called by the agent after its windows. Never measures; the model itself is telemetry.DirtyModel.
"""

import dataclasses
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
#: How far a count may be off beyond its own scatter, as a share of it.
_COUNT_ERROR = 0.01
#: Hot pages are dirtied at least so many times as often as the others, each of them.
_HOT_RATIO = 4.0
#: What one more unknown has to explain of the squared misses, in units of the scatter.
_LEAST_GAIN = 4.0
_GRID, _NARROWINGS = 33, 6
#: A count further off than its scatter allows is of pages that are written in turn, or in phases:
#: it speaks against no model more than this.
_MOST_OF_COUNT = 9.0
#: The count of hot pages and the fit of the others are taken in turn until they agree.
_TURNS = 4


@dataclasses.dataclass(frozen=True)
class Always:
    """Pages that were changed in every one of some gaps that followed each other.

    A page that is written now and then is seldom among them, where the gaps are short; a hot one
    always is. Counts of changed pages alone tell hot pages from others only by the difference of
    large numbers.
    """

    gaps_seconds: tuple[float, ...]
    pages: float


def fit(windows: Sequence[DirtyWindow], memory_pages: int | None = None,
        always: Always | None = None) -> DirtyModel:
    """Return the model that fits the windows best, with its relative error.

    Windows of one source are used: the one with more lengths, content-diff at a tie. The working
    set is bounded by `memory_pages` where that is given. A single length can't show saturation:
    the working set is then taken as large as memory allows, which projects too much rather than
    too little. From three lengths on a few pages that are always hot are told apart from many
    that are written now and then: by counting them where `always` is given and the windows don't
    speak against it, else by the shape of the windows.
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
    lengths = len(set(seconds.tolist()))
    model = _bounded(_one_component(seconds, pages), seconds, pages, memory_pages)
    if lengths > 2:
        model = _with_hot_pages(model, seconds, pages, memory_pages, always)
    error = _relative_error(model, seconds, pages, source)
    return DirtyModel(model.rate_pages_per_second, model.working_set_pages, error, source,
                      model.hot_rate_pages_per_second, model.hot_pages)


def scaled(model: DirtyModel, factor: float, total_pages: float) -> DirtyModel:
    """Return the model of so many times the pages, bounded by memory."""
    return DirtyModel(
        model.rate_pages_per_second * factor, min(model.working_set_pages * factor, total_pages),
        model.relative_error, model.source, model.hot_rate_pages_per_second * factor,
        min(model.hot_pages * factor, total_pages))


def _of_best_source(windows: list[DirtyWindow]) -> list[DirtyWindow]:
    by_source: dict[str, list[DirtyWindow]] = {}
    for window in windows:
        by_source.setdefault(window.source, []).append(window)
    if not by_source:
        return []
    # The name is the tie-break: content-diff sorts before page-sampling.
    return min(by_source.values(),
               key=lambda group: (-len({w.seconds for w in group}), group[0].source))


def _weights(pages):
    """Return one over the variance of each count: its own scatter and a share of it."""
    return 1.0 / (numpy.maximum(pages, 1.0) + (_COUNT_ERROR * pages) ** 2)


def _misses(model: DirtyModel, seconds, pages, always: Always | None) -> float:
    fitted = numpy.array([model.pages(float(s)) for s in seconds])
    misses = float(((fitted - pages) ** 2 * _weights(pages)).sum())
    if always is None:
        return misses
    by_chance = _in_every_gap(model.rate_pages_per_second, model.working_set_pages, always)
    hot = _in_every_gap(model.hot_rate_pages_per_second, model.hot_pages, always)
    miss = (by_chance + hot - always.pages) ** 2 / max(1.0, by_chance)
    return misses + min(miss, _MOST_OF_COUNT)


def _in_every_gap(rate: float, working_set: float, always: Always) -> float:
    """Return how many of these pages are changed in every gap."""
    if not working_set:
        return 0.0
    gaps = numpy.array(always.gaps_seconds)
    return working_set * float(numpy.prod(-numpy.expm1(-rate / working_set * gaps)))


def _one_component(seconds, pages) -> DirtyModel:
    """Return r and W of the least weighted squares over k = r/W.

    For a given k the best W is a quotient of sums, so one dimension is searched: a logarithmic
    grid, narrowed around its best point until it stands.
    """
    weights = _weights(pages)
    if len(set(seconds.tolist())) == 1:
        low = high = _STRAIGHT / seconds[0]
    else:
        low, high = _STRAIGHT / seconds.max(), _FLAT / seconds.min()
    for _ in range(2 * _NARROWINGS):
        k = numpy.geomspace(low, high, 2 * _GRID)
        shape = -numpy.expm1(-numpy.outer(k, seconds))
        working_set = (shape * pages * weights).sum(1) / (shape ** 2 * weights).sum(1)
        misses = ((working_set[:, None] * shape - pages) ** 2 * weights).sum(1)
        best = int(misses.argmin())
        low, high = k[max(0, best - 1)], k[min(len(k) - 1, best + 1)]
    return DirtyModel(float(k[best] * working_set[best]), float(working_set[best]))


def _with_hot_pages(model: DirtyModel, seconds, pages, memory_pages: int | None,
                    always: Always | None) -> DirtyModel:
    """Return the model with hot pages as well, where that explains the windows better.

    First those that are dirty again in any window, however short: they cost one unknown, and none
    where they were counted. Pages in between, written slower than that, cost another one and have
    to be worth it.
    """
    fastest = _FLAT / seconds.min()
    candidates = [(0.0, _two_components(seconds, pages, (fastest, fastest))),
                  (_LEAST_GAIN, _two_components(seconds, pages, (
                      _HOT_RATIO * _STRAIGHT / seconds.max(), _HOT_RATIO * fastest)))]
    if always is not None:
        candidates.append((0.0, _counted(seconds, pages, always, fastest)))
    least = _misses(model, seconds, pages, always)
    for gain, other in candidates:
        if other is None or (memory_pages is not None and other.all_pages > memory_pages):
            continue
        misses = _misses(other, seconds, pages, always) + gain
        if misses < least:
            model, least = other, misses
    return model


def _counted(seconds, pages, always: Always, hot_k: float) -> DirtyModel | None:
    """Return the model with as many hot pages as were counted beyond what the others explain."""
    of_hot = _in_every_gap(hot_k, 1.0, always)
    hot_pages = 0.0
    for _ in range(_TURNS):
        others = pages + hot_pages * numpy.expm1(-hot_k * seconds)
        if others.min() <= 0:
            return None
        broad = _one_component(seconds, others)
        by_chance = _in_every_gap(broad.rate_pages_per_second, broad.working_set_pages, always)
        hot_pages = max(0.0, always.pages - by_chance) / of_hot
    if not hot_pages:
        return broad
    return DirtyModel(broad.rate_pages_per_second, broad.working_set_pages, 0.0, "none",
                      hot_k * hot_pages, hot_pages)


def _two_components(seconds, pages, hot_range: tuple[float, float]) -> DirtyModel | None:
    """Return the best sum of two such models: the broad one, and hot pages dirtied far oftener.

    Their pages follow from the two k by linear least squares; the grid of the k is narrowed as
    for one. None where no pair has two positive parts.
    """
    weights = _weights(pages)
    broad_range = (_STRAIGHT / seconds.max(), _FLAT / seconds.min())
    best = None
    for _ in range(_NARROWINGS):
        broad_k, hot_k = (k.ravel() for k in numpy.meshgrid(
            numpy.geomspace(*broad_range, _GRID),
            numpy.geomspace(*hot_range, _GRID if hot_range[0] < hot_range[1] else 1)))
        valid = hot_k >= _HOT_RATIO * broad_k
        broad_k, hot_k = broad_k[valid], hot_k[valid]
        broad, hot = (-numpy.expm1(-numpy.outer(k, seconds)) for k in (broad_k, hot_k))
        bb, hh, bh = ((one * other * weights).sum(1)
                      for one, other in ((broad, broad), (hot, hot), (broad, hot)))
        bp, hp = ((one * pages * weights).sum(1) for one in (broad, hot))
        determinant = numpy.maximum(bb * hh - bh ** 2, 1e-12 * bb * hh)
        working_set = (bp * hh - hp * bh) / determinant
        hot_pages = (hp * bb - bp * bh) / determinant
        fitted = working_set[:, None] * broad + hot_pages[:, None] * hot
        misses = ((fitted - pages) ** 2 * weights).sum(1)
        misses[(working_set <= 0) | (hot_pages <= 0)] = math.inf
        at = int(misses.argmin())
        if math.isinf(misses[at]):
            break
        if best is None or misses[at] <= best[0]:
            best = (misses[at], broad_k[at], working_set[at], hot_k[at], hot_pages[at])
        broad_range = _around(broad_range, best[1])
        hot_range = _around(hot_range, best[3])
    if best is None:
        return None
    _, broad_rate, working_set, hot_rate, hot_pages = map(float, best)
    return DirtyModel(broad_rate * working_set, working_set, 0.0, "none",
                      hot_rate * hot_pages, hot_pages)


def _around(limits: tuple[float, float], centre: float) -> tuple[float, float]:
    """Return a quarter (in logarithms) of a range, around a point of it."""
    reach = (limits[1] / limits[0]) ** 0.125
    return centre / reach, centre * reach


def _bounded(model: DirtyModel, seconds, pages, memory_pages: int | None) -> DirtyModel:
    """Return the model with a working set that memory can hold, its rate fitted to that."""
    if memory_pages is None or model.working_set_pages <= memory_pages:
        return model
    rates = -memory_pages / seconds * numpy.log1p(-numpy.minimum(pages / memory_pages, 0.999))
    return DirtyModel(float(rates.mean()), float(memory_pages))


def _relative_error(model: DirtyModel, seconds, pages, source: str) -> float:
    fitted = numpy.array([model.pages(float(s)) for s in seconds])
    misses = (fitted - pages) / numpy.maximum(pages, 1.0)
    share = pages / pages.sum()
    error = max(LEAST_ERROR, math.sqrt(float((misses ** 2 * share).sum())),
                1.0 / math.sqrt(float(pages.sum())))
    if source == "page-sampling":
        rounding = SAMPLING_ROUNDING_PAGES_PER_SECOND * seconds / numpy.maximum(pages, 1.0)
        error = max(error, float(rounding.mean()))
    if len(set(seconds.tolist())) == 1:
        error = max(error, ONE_LENGTH_ERROR)
    return min(1.0, error)
