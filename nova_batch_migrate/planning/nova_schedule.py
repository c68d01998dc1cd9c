"""What Nova does to a running migration by the clock: downtime steps and completion timeout.

Used by the projection. Realises facts of nova/virt/libvirt/migration.py; never talks to Nova.
"""

import bisect
import dataclasses
import functools
from collections.abc import Iterable

from nova_batch_migrate.planning.telemetry import Disk, MigrationOptions

GIB = 1024 ** 3
#: Nova counts memory, and each copied disk, as at least this many GiB.
LEAST_GIB = 2.0


@dataclasses.dataclass(frozen=True)
class NovaSchedule:
    """Downtime limits by time since the start of the stream, and the end Nova puts to it."""

    #: (seconds, downtime limit in seconds), ascending; the first is at 0.
    steps: tuple[tuple[float, float], ...]
    #: None = Nova waits for ever.
    timeout_seconds: float | None
    #: Nova suspends the guest or switches to post-copy at the timeout, instead of aborting.
    force_complete: bool = False
    auto_converge: bool = False

    @functools.cached_property
    def _starts(self) -> list[float]:
        return [start for start, _ in self.steps]

    def downtime_at(self, seconds: float) -> float:
        """Return the downtime limit in seconds that holds `seconds` after the start."""
        return self.steps[max(1, bisect.bisect_right(self._starts, seconds)) - 1][1]

    def next_change(self, seconds: float) -> float | None:
        """Return when the limit changes next after `seconds`, None if it does not."""
        at = bisect.bisect_right(self._starts, seconds)
        return self._starts[at] if at < len(self._starts) else None


def data_gib(memory_bytes: int, disks: Iterable[Disk]) -> float:
    """Return what Nova takes as the size of a migration, for its steps and its timeout."""
    copied = [disk.allocated_bytes for disk in disks if not disk.shared]
    return sum(max(LEAST_GIB, size / GIB) for size in [memory_bytes, *copied])


@functools.lru_cache(maxsize=1024)
def schedule(options: MigrationOptions, size_gib: float) -> NovaSchedule:
    """Return the steps Nova will set for a migration of `size_gib`, in its own whole ms and s.

    Step i of 0..n comes at delay * size * i and allows base + i * (downtime - base) / n with
    base = downtime / n.
    """
    count = max(1, options.downtime_steps)
    delay_seconds = int(options.downtime_delay_seconds * size_gib)
    base_ms = options.downtime_ms / count
    rise_ms = (options.downtime_ms - base_ms) / count
    steps = tuple((float(delay_seconds * i), int(base_ms + rise_ms * i) / 1000)
                  for i in range(count + 1))
    timeout = int(options.completion_timeout_seconds_per_gib * size_gib)
    return NovaSchedule(
        steps=steps, timeout_seconds=float(timeout) if timeout else None,
        force_complete=options.timeout_action == "force_complete",
        # Nova drops auto-converge where it permits post-copy.
        auto_converge=options.permit_auto_converge and not options.permit_post_copy)
