"""One migration stream as a state machine: set-up, disks, pre-copy, last copy.

Driven by planning.projection, which gives each stream its share of the link. Never looks at
another stream.

QEMU tests for the end once in a step: when what remains is under S = downtime limit x
bandwidth, it reads the dirty log, and switches over if what remains is still under S; otherwise
it goes on with the pages just found. Between two such tests nothing happens but sending, so the
state jumps from test to test; the result is that of stepping through.
"""

import dataclasses
import math

from nova_batch_migrate.planning.nova_schedule import NovaSchedule
from nova_batch_migrate.planning.telemetry import PAGE_BYTES, DirtyModel

#: Under a cap QEMU sends a portion in every 0.1 s (measured so); without one it sends for 50 ms
#: at the most before it tests (MAX_WAIT in its migration/ram.c).
CAPPED_STEP_SECONDS = 0.1
FREE_STEP_SECONDS = 0.05
#: A page on the wire, and what QEMU sends for a zero page.
PAGE_WIRE_BYTES = PAGE_BYTES + 8
ZERO_PAGE_WIRE_BYTES = 9
#: Reading a page that was never touched faults first; 4.7 GiB/s was measured with small pages.
ZERO_SCAN_BYTES_PER_SECOND = 4 * 1024 ** 3
#: The state of the devices follows the last page.
DEVICE_STATE_BYTES = 200 * 1024
#: QEMU's throttling: when twice, over at least a second, the guest dirtied more than this share
#: of what was sent, it is slowed by 20 %, then by 10 % more each time, to 99 % at most.
THROTTLE_PERIOD_SECONDS = 1.0
THROTTLE_SHARE, THROTTLE_FIRST, THROTTLE_MORE, THROTTLE_MOST = 0.5, 0.2, 0.1, 0.99
_EPSILON = 1e-9
#: Tests without an end or a repetition; far beyond what converges.
_MOST_ROUNDS = 100_000


@dataclasses.dataclass(frozen=True)
class StreamLoad:
    """What one server asks of its stream."""

    content_pages: float
    zero_pages: float
    #: Of pages that make rounds.
    dirty: DirtyModel
    schedule: NovaSchedule
    #: Copied before the memory (no shared storage), and what the guest writes to them meanwhile.
    disk_bytes: float = 0.0
    disk_write_bytes_per_second: float = 0.0


class Stream:
    """A stream from its start to `completed` or `failed`; seconds count from its start."""

    def __init__(self, load: StreamLoad, setup_seconds: float):
        self.load = load
        self.seconds = 0.0
        self.sent_bytes = 0.0
        self.rounds = 0
        self.downtime_seconds = 0.0
        self.aborted_at: float | None = None
        #: setup -> disk -> memory -> last -> completed | failed
        self.phase = "setup"
        scan = load.zero_pages * PAGE_BYTES / ZERO_SCAN_BYTES_PER_SECOND
        self._setup_left = setup_seconds + scan
        self._disk_left = load.disk_bytes
        # A zero page costs no more than its 9 bytes of time: counted as so much of a page.
        self._pages_left = (load.content_pages
                            + load.zero_pages * ZERO_PAGE_WIRE_BYTES / PAGE_WIRE_BYTES)
        self._memory_seconds = 0.0
        self._since_sync = 0.0
        self._throttle = Throttle() if load.schedule.auto_converge else None
        self._last_bytes_left = 0.0
        #: (pages left, downtime limit) behind each reading of the dirty log.
        self._seen: set[tuple[float, float]] = set()
        #: The downtime limit under which the tests repeat themselves without an end.
        self._repeats_under: float | None = None
        self._rate: float | None = None
        self._step_seconds = CAPPED_STEP_SECONDS

    @property
    def transferring(self) -> bool:
        """Whether the stream takes a share of the link now."""
        return self.phase in ("disk", "memory", "last")

    @property
    def ended(self) -> bool:
        """Whether the stream is over, one way or the other."""
        return self.phase in ("completed", "failed")

    def fail(self) -> None:
        """End the stream: nothing will ever change any more."""
        self.phase = "failed"

    def next_event(self, rate: float, last_rate: float) -> float:
        """Return the seconds until something happens at these bytes per second; inf = never.

        A rate below that of the last copy is one that QEMU caps itself.
        """
        if rate != self._rate:
            # What repeated itself at another speed need not do so at this one.
            self._rate, self._repeats_under, self._seen = rate, None, set()
            self._step_seconds = CAPPED_STEP_SECONDS if rate < last_rate else FREE_STEP_SECONDS
        wait_of = {"setup": self._wait_setup, "disk": self._wait_disk,
                   "memory": self._wait_memory, "last": self._wait_last}[self.phase]
        wait = wait_of(last_rate if self.phase == "last" else rate)
        timeout = self.load.schedule.timeout_seconds
        if timeout is not None and self.phase != "last":
            wait = min(wait, max(0.0, timeout - self.seconds))
        return wait

    def advance(self, seconds: float, rate: float, last_rate: float) -> None:
        """Let `seconds` pass, at most up to the next event, and take the event if it is there."""
        self.seconds += seconds
        pass_of = {"setup": self._pass_setup, "disk": self._pass_disk,
                   "memory": self._pass_memory, "last": self._pass_last}[self.phase]
        pass_of(seconds, last_rate if self.phase == "last" else rate)
        timeout = self.load.schedule.timeout_seconds
        if (timeout is not None and self.phase in ("setup", "disk", "memory")
                and self.seconds >= timeout - _EPSILON):
            self.aborted_at = timeout
            self.phase = "failed"

    def _wait_setup(self, rate: float) -> float:
        return self._setup_left

    def _pass_setup(self, seconds: float, rate: float) -> None:
        self._setup_left -= seconds
        if self._setup_left <= _EPSILON:
            self.phase = "disk" if self._disk_left > 0 else "memory"

    def _wait_disk(self, rate: float) -> float:
        net = rate - self.load.disk_write_bytes_per_second
        return self._disk_left / net if net > 0 else math.inf

    def _pass_disk(self, seconds: float, rate: float) -> None:
        self.sent_bytes += seconds * rate
        self._disk_left -= seconds * (rate - self.load.disk_write_bytes_per_second)
        if self._disk_left <= 1.0:
            self.phase = "memory"

    def _page_rate(self, rate: float) -> float:
        """Return the pages per second of memory; mirrored disk writes come off the link."""
        return max(0.0, rate - self._mirror_rate()) / PAGE_WIRE_BYTES

    def _mirror_rate(self) -> float:
        return self.load.disk_write_bytes_per_second if self.load.disk_bytes > 0 else 0.0

    def _wait_memory(self, rate: float) -> float:
        change = self.load.schedule.next_change(self.seconds)
        until_change = math.inf if change is None else change - self.seconds
        pages_per_second = self._page_rate(rate)
        if self._repeats_under is not None or pages_per_second <= 0:
            return until_change
        spare = self._pages_left - self._switchover_pages(rate)
        need = max(0.0, spare / pages_per_second)
        step, passed = self._step_seconds, self._memory_seconds
        tests = max(math.floor(passed / step + _EPSILON) + 1,
                    math.ceil((passed + need) / step - _EPSILON))
        return min(until_change, tests * step - passed)

    def _switchover_pages(self, rate: float) -> float:
        """Return S: what may remain, in pages, for a last copy within the downtime limit."""
        return self.load.schedule.downtime_at(self.seconds) * rate / PAGE_BYTES

    def _pass_memory(self, seconds: float, rate: float) -> None:
        pages_per_second = self._page_rate(rate)
        self._memory_seconds += seconds
        self.sent_bytes += seconds * self._mirror_rate()
        if self._repeats_under is not None:
            self.sent_bytes += seconds * pages_per_second * PAGE_WIRE_BYTES
            if self.load.schedule.downtime_at(self.seconds) != self._repeats_under:
                self._repeats_under = None
            return
        self._since_sync += seconds
        pages = min(self._pages_left, seconds * pages_per_second)
        self._pages_left -= pages
        self.sent_bytes += pages * PAGE_WIRE_BYTES
        if self._throttle:
            self._throttle.sent(pages, seconds)
        tests = self._memory_seconds / self._step_seconds
        if abs(tests - round(tests)) < 1e-6 and self._pages_left < self._switchover_pages(rate):
            self._sync(rate)

    def _sync(self, rate: float) -> None:
        """Read the dirty log, then switch over or go on."""
        dirtied = self._dirty_model().pages(self._since_sync)
        working_set = self.load.dirty.working_set_pages
        if working_set > 0:
            # Of the pages just dirtied, those not sent yet are in what remains already.
            dirtied *= 1.0 - min(1.0, self._pages_left / working_set)
        self._pages_left += dirtied
        self._since_sync = 0.0
        self.rounds += 1
        if self._throttle:
            self._throttle.dirtied(dirtied)
        if self._pages_left < self._switchover_pages(rate):
            self._last_bytes_left = self._pages_left * PAGE_WIRE_BYTES + DEVICE_STATE_BYTES
            self.phase = "last"
            return
        limit = self.load.schedule.downtime_at(self.seconds)
        state = (round(self._pages_left, 1), limit)
        if state in self._seen and self._throttle is None:
            self._repeats_under = limit
        self._seen.add(state)
        if self.rounds >= _MOST_ROUNDS:
            self.fail()

    def _dirty_model(self) -> DirtyModel:
        if self._throttle is None:
            return self.load.dirty
        rate = self.load.dirty.rate_pages_per_second * (1.0 - self._throttle.share)
        return dataclasses.replace(self.load.dirty, rate_pages_per_second=rate)

    def _wait_last(self, rate: float) -> float:
        return self._last_bytes_left / rate

    def _pass_last(self, seconds: float, rate: float) -> None:
        self.downtime_seconds += seconds
        self.sent_bytes += seconds * rate
        self._last_bytes_left -= seconds * rate
        if self._last_bytes_left <= 1.0:
            self.phase = "completed"


class Throttle:
    """QEMU's auto-converge: how much the guest is slowed down, as a share."""

    def __init__(self):
        self.share = 0.0
        self._high_periods = 0
        self._seconds = self._sent = self._dirtied = 0.0

    def sent(self, pages: float, seconds: float) -> None:
        """Count pages sent in `seconds`."""
        self._sent += pages
        self._seconds += seconds

    def dirtied(self, pages: float) -> None:
        """Count pages found dirty; slow the guest if it dirties too much of what is sent."""
        self._dirtied += pages
        if self._seconds < THROTTLE_PERIOD_SECONDS:
            return
        if self._dirtied > THROTTLE_SHARE * self._sent:
            self._high_periods += 1
        if self._high_periods >= 2:
            self._high_periods = 0
            self.share = (THROTTLE_FIRST if self.share == 0.0
                          else min(THROTTLE_MOST, self.share + THROTTLE_MORE))
        self._seconds = self._sent = self._dirtied = 0.0
