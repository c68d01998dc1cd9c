"""When a server with a periodic dirty rate is best migrated: in its quiet stretch ([0072]).

Used by planning.source for the plan and by the conductor when the server's turn comes. Has no
clock: "now" is passed in. Never decides how long anybody is willing to wait.
"""

import dataclasses
import math

from nova_batch_migrate.planning.result import Wait
from nova_batch_migrate.planning.telemetry import (
    PAGE_BYTES,
    DirtyModel,
    Periodicity,
    ServerTelemetry,
)

#: A period that is less certain is not waited for.
LEAST_CONFIDENCE = 0.9
#: A wait that saves less than this share of the stream is not worth its trouble.
LEAST_SAVING = 0.05
#: A stream may take this much longer than projected and still end in the quiet stretch.
_STREAM_MARGIN = 1.1
#: Of the quiet stretch; the moment stays open at least that long, or a late look would miss it.
_LEAST_OPEN_SHARE = 0.1


def periodicity_of(server: ServerTelemetry) -> Periodicity | None:
    """Return the server's periodicity if it is certain enough to be waited for."""
    found = server.history and server.history.periodicity
    return found if found and found.confidence >= LEAST_CONFIDENCE else None


def at_rate(server: ServerTelemetry, pages_per_second: float) -> ServerTelemetry:
    """Return the server as it is while it dirties so many distinct pages per second of a window.

    Its working set is the largest that was seen: one short measurement may have met a quiet moment.
    """
    history = server.history
    window = history.window_seconds
    known = [server.changed, *([history.model] if history.model else [])]
    working_set = max(*(model.all_pages for model in known),
                      2 * pages_per_second * window, 1.0)
    total_pages = server.total_pages or server.memory_bytes // PAGE_BYTES or working_set
    model = _saturating(pages_per_second, window, min(working_set, total_pages),
                        max(known[0].relative_error, 0.05), history.source)
    touched = server.touched
    if touched is not None:
        before = server.changed.pages(window)
        factor = max(1.0, touched.pages(window) / before) if before > 0 else 1.0
        touched = scaled(model, factor, total_pages, touched.source)
    return dataclasses.replace(server, changed=model, touched=touched)


def scaled(model: DirtyModel, factor: float, total_pages: float, source: str) -> DirtyModel:
    """Return a model of so many times the pages, bounded by memory."""
    return dataclasses.replace(
        model, rate_pages_per_second=model.rate_pages_per_second * factor,
        working_set_pages=min(model.working_set_pages * factor, total_pages),
        hot_rate_pages_per_second=model.hot_rate_pages_per_second * factor,
        hot_pages=min(model.hot_pages * factor, total_pages), source=source)


def _saturating(pages_per_second: float, window: float, working_set: float, error: float,
                source: str) -> DirtyModel:
    """Return the model that dirties this many distinct pages per second in a window."""
    if pages_per_second <= 0:
        return DirtyModel(0.0, 0.0, error, source)
    share = min(0.999, pages_per_second * window / working_set)
    # r from N(T) = W (1 - exp(-rT/W))
    rate = -working_set / window * math.log1p(-share)
    return DirtyModel(rate, working_set, error, source)


def best_moment(periodicity: Periodicity, stream_seconds: float, lead_seconds: float,
                usual_seconds: float | None, name: str = "it") -> Wait | None:
    """Return when to issue the migration so that its whole stream lies in the quiet stretch.

    ``stream_seconds`` is the stream while quiet, ``usual_seconds`` at the mean rate (None: it would
    not converge), ``lead_seconds`` pass from the call to Nova until the first page. None: the
    stream is longer than the stretch, or too little would be saved.
    """
    quiet = periodicity.minimum_lasts_seconds
    if stream_seconds > quiet:
        return None
    saved = None if usual_seconds is None else usual_seconds - stream_seconds
    if saved is not None and saved < LEAST_SAVING * usual_seconds:
        return None
    period = periodicity.period_seconds
    gain = ("at its mean rate it would not converge" if saved is None
            else f"{saved:.1f} s of the stream less than at its mean rate")
    return Wait(
        period_seconds=period,
        opens_seconds=(periodicity.minimum_begins_seconds - lead_seconds) % period,
        lasts_seconds=max(quiet - _STREAM_MARGIN * stream_seconds, _LEAST_OPEN_SHARE * quiet),
        saved_seconds=saved,
        reason=f"{name} writes {periodicity.minimum_pages_per_second:.0f} pages/s in "
               f"{quiet:.0f} of every {period:.0f} s, {periodicity.mean_pages_per_second:.0f} "
               f"pages/s on average (confidence {periodicity.confidence:.2f}): {gain} [0072]")


def seconds_until(wait: Wait, now_seconds: float) -> float:
    """Return the seconds from now (since the epoch) until the moment opens; 0 while it is open."""
    since = (now_seconds - wait.opens_seconds) % wait.period_seconds
    return 0.0 if since <= wait.lasts_seconds else wait.period_seconds - since


def seconds_to_wait(wait: Wait | None, now_seconds: float, patience_seconds: float) -> float:
    """Return how long to wait from now; 0 where the moment comes later than anybody waits."""
    seconds = seconds_until(wait, now_seconds) if wait is not None else 0.0
    return seconds if seconds <= patience_seconds else 0.0
