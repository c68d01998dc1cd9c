"""When a server with a periodic dirty rate is best migrated: in its quiet stretch ([0072]).

Used by planning.source for the plan and by the conductor when the server's turn comes. Has no
clock: "now" is passed in. Never decides how long anybody is willing to wait.
"""

from nova_batch_migrate.planning.result import Wait
from nova_batch_migrate.planning.telemetry import Periodicity, ServerTelemetry

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


def best_moment(periodicity: Periodicity, stream_seconds: float, lead_seconds: float,
                usual_seconds: float | None, patience_seconds: float, name: str = "it"
                ) -> Wait | None:
    """Return when to issue the migration so that its whole stream lies in the quiet stretch.

    ``stream_seconds`` is the stream while quiet, ``usual_seconds`` at the mean rate (None: it would
    not converge), ``lead_seconds`` pass from the call to Nova until the first page. None: the
    stream is longer than the stretch, too little would be saved, or the moment may come later than
    ``patience_seconds`` from now.
    """
    quiet = periodicity.minimum_lasts_seconds
    if stream_seconds > quiet:
        return None
    saved = None if usual_seconds is None else usual_seconds - stream_seconds
    if saved is not None and saved < LEAST_SAVING * usual_seconds:
        return None
    period = periodicity.period_seconds
    lasts = max(quiet - _STREAM_MARGIN * stream_seconds, _LEAST_OPEN_SHARE * quiet)
    if period - lasts > patience_seconds:
        return None
    gain = ("at its mean rate it would not converge" if saved is None
            else f"{saved:.1f} s of the stream less than at its mean rate")
    return Wait(
        period_seconds=period,
        opens_seconds=(periodicity.minimum_begins_seconds - lead_seconds) % period,
        lasts_seconds=lasts,
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
