"""A dirty rate that goes up and down with a period, as a stream meets it ([0072]).

Made from telemetry's Periodicity; used by planning.stream and planning.projection. Knows no
clock: whoever asks says when.
"""

import dataclasses

from nova_batch_migrate.planning.telemetry import Periodicity

#: A period that is less sure is not counted on: the mean rate holds all the time.
LEAST_CONFIDENCE = 0.5


@dataclasses.dataclass(frozen=True)
class Cycle:
    """In each period a quiet stretch and a busy one; the mean over both is that of the model."""

    period_seconds: float
    #: Where in the period the quiet stretch begins, in seconds since the epoch.
    quiet_begins_seconds: float
    quiet_lasts_seconds: float
    #: The rates in both stretches, as a share of the mean.
    quiet_factor: float
    busy_factor: float

    @classmethod
    def of(cls, found: Periodicity | None) -> "Cycle | None":
        """Return the cycle of a periodicity that can be counted on, else None."""
        if (found is None or found.confidence < LEAST_CONFIDENCE
                or found.mean_pages_per_second <= 0
                or not 0 < found.minimum_lasts_seconds < found.period_seconds):
            return None
        share = found.minimum_lasts_seconds / found.period_seconds
        quiet = min(1.0, found.minimum_pages_per_second / found.mean_pages_per_second)
        return cls(found.period_seconds, found.minimum_begins_seconds,
                   found.minimum_lasts_seconds, quiet, (1.0 - share * quiet) / (1.0 - share))

    def busy_seconds(self, begin: float, end: float) -> float:
        """Return the seconds at the mean rate that dirty as much as from `begin` to `end`."""
        quiet = self._quiet_until(end) - self._quiet_until(begin)
        return quiet * self.quiet_factor + (end - begin - quiet) * self.busy_factor

    def _quiet_until(self, at: float) -> float:
        """Return the quiet seconds from a beginning of one of them, long ago, until `at`."""
        periods, rest = divmod(at - self.quiet_begins_seconds, self.period_seconds)
        return periods * self.quiet_lasts_seconds + min(rest, self.quiet_lasts_seconds)
