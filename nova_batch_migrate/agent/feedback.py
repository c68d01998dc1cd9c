"""What running migrations showed of their servers' dirty rates, for measuring them again.

Fed by manager.progress, read by measurement.py after an attempt that was aborted or failed. Holds a
few numbers per server, in memory only; asks nobody.
"""

import dataclasses
import threading
import time

from nova_batch_migrate.planning.telemetry import DirtyWindow

#: An attempt tells nothing of a server's load so long afterwards.
KEEP_SECONDS = 900.0
_MOST_WINDOWS = 50
#: QEMU counts afresh at a sync of the dirty log that is at least so long after the last count.
_LEAST_WINDOW_SECONDS = 1.0


@dataclasses.dataclass
class _Seen:
    iteration: int
    elapsed_seconds: float
    dirty_pages_per_second: int
    at: float
    windows: list[DirtyWindow]


class Feedback:
    """Counters of libvirt's jobs turned into windows of touched pages; for several threads."""

    def __init__(self, now=time.monotonic):
        self._now = now
        self._lock = threading.Lock()
        self._seen: dict[str, _Seen] = {}

    def note(self, server_id: str, job: dict) -> None:
        """Take the counters of a migration that runs (libvirt's names, as jobStats gives them).

        QEMU's dirty-pages-rate is that between the last two syncs of the dirty log: distinct pages
        by the seconds between them, which are those in which the iteration stood.
        """
        iteration = job.get("memory_iteration", 0)
        elapsed = job.get("time_elapsed", 0) / 1000
        rate = job.get("memory_dirty_rate", 0)
        with self._lock:
            seen = self._seen.get(server_id)
            if seen is None or elapsed < seen.elapsed_seconds or iteration < seen.iteration:
                seen = self._seen[server_id] = _Seen(iteration, 0.0, 0, self._now(), [])
            seen.at = self._now()
            if iteration == seen.iteration:
                return
            seconds = elapsed - seen.elapsed_seconds
            # one sync, of which QEMU gave the rate; several are no single window
            if iteration == seen.iteration + 1 and seconds >= _LEAST_WINDOW_SECONDS \
                    and rate != seen.dirty_pages_per_second:
                seen.windows = [*seen.windows, DirtyWindow(
                    seconds, float(rate * seconds), "migration")][-_MOST_WINDOWS:]
            seen.iteration, seen.elapsed_seconds = iteration, elapsed
            seen.dirty_pages_per_second = rate

    def windows(self, server_id: str) -> list[DirtyWindow]:
        """Return the windows of a server's latest attempt, if it is not long ago."""
        with self._lock:
            self._seen = {i: seen for i, seen in self._seen.items()
                          if self._now() - seen.at < KEEP_SECONDS}
            seen = self._seen.get(server_id)
            return list(seen.windows) if seen else []
