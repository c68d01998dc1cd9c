"""One migration stream as a state machine: set-up, disks, pre-copy, last copy.

Driven by planning.reference, which gives each stream its share of the link. Never looks at another
stream. _speed.c has its twin: whoever changes one changes the other.

QEMU tests for the end once in a step: when what remains is under S = downtime limit x
bandwidth, it reads the dirty log, and switches over if what remains is still under S; otherwise
it goes on with the pages just found. Between two such tests nothing happens but sending, so the
state jumps from test to test; the result is that of stepping through.

QEMU's bytes are in the socket before they are on the link. What fits there at once makes QEMU
believe that it is further than it is: it reads the dirty log earlier, and what is in the socket
when the guest is stopped adds to the downtime.
"""

import dataclasses
import math

from nova_batch_migrate.planning.cycle import Cycle
from nova_batch_migrate.planning.nova_schedule import NovaSchedule
from nova_batch_migrate.planning.telemetry import PAGE_BYTES, DirtyModel
from nova_batch_migrate.planning.throttle import Throttle

#: Under a cap QEMU sends a portion in every 0.1 s (measured so); without one it sends for 50 ms
#: (MAX_WAIT in its migration/ram.c) and then as long as its last write blocks: 53 to 75 ms were
#: measured at 10 to 200 MiB/s.
CAPPED_STEP_SECONDS = 0.1
FREE_STEP_SECONDS = 0.06
#: A page on the wire, and what QEMU sends for a zero page.
PAGE_WIRE_BYTES = PAGE_BYTES + 8
ZERO_PAGE_WIRE_BYTES = 9
#: Reading a page that was never touched faults first; 4.7 GiB/s was measured with small pages.
ZERO_SCAN_BYTES_PER_SECOND = 4 * 1024 ** 3
#: The state of the devices follows the last page.
DEVICE_STATE_BYTES = 200 * 1024
#: Loading it, and starting the guest.
FINISH_SECONDS = 0.01
#: Writes of guests scatter: what remains wanders around where the simulation has it, with a
#: standard deviation of the root of half the working set (in each round its pages are drawn anew,
#: and a share of them is forgotten), and so does what was just written. Where round after round
#: ends near S, it is a lucky one that ends a migration; so many are sure to bring that luck.
LUCKY_DEVIATIONS, LUCKY_ROUNDS = 1.5, 20
_EPSILON = 1e-9
#: Writing what fits the socket takes no time of the link, but some.
_WRITE_SECONDS = 0.002
#: A relay that takes less than this share of what the wire could carry lets the next stream begin.
_SLOWED_SHARE = 0.7
#: Steps in which its slowing down is followed, as a share of its time constant, and what is taken
#: in one on average, of what is left at its begin, in that time constant.
_SLOWED_STEP = 1.0
_SLOWED_MEAN = (1.0 - math.exp(-_SLOWED_STEP)) / _SLOWED_STEP
#: Tests without an end or a repetition; far beyond what converges.
_MOST_ROUNDS = 100_000


@dataclasses.dataclass(frozen=True)
class Socket:
    """What of a stream is between QEMU and the link, when QEMU itself has no cap.

    Measured with Linux' net.ipv4.tcp_wmem of 4 MiB: 1.3 to 2.9 MB, more on faster links.
    """

    #: bytes = the least of most_bytes and base_bytes + seconds x the speed of the link.
    base_bytes: float = 1.2e6
    seconds: float = 0.02
    most_bytes: float = 2.4e6
    #: Free of it whenever QEMU tests: so much is written without waiting for the link.
    room_bytes: float = 0.5e6

    def filled_bytes(self, rate: float) -> float:
        """Return what is under way at this speed of the link."""
        return min(self.most_bytes, self.base_bytes + self.seconds * rate)


@dataclasses.dataclass(frozen=True)
class WireRates:
    """What a relay makes of the pages: shares of them, and sizes as shares of the raw size."""

    #: Of the pages of round 0, those that cross as references to what was sent before.
    reference_share: float = 0.0
    #: The same of all later rounds.
    later_reference_share: float = 0.0
    unchanged_ratio: float = 1.0
    changed_ratio: float = 1.0
    #: What the relay itself can work through; raw.
    raw_bytes_per_second: float = math.inf
    #: Of round 0, what a raw byte takes beside the link and that: relay, QEMU and Nova share cores.
    seconds_per_byte: float = 0.0
    #: So that QEMU does not believe that the rest fits the downtime, the relay takes no more in a
    #: second than what is left of round 0 divided by this; 0 = it takes all.
    slowing_seconds: float = 0.0

    def page_bytes(self, first_round: bool) -> float:
        """Return the mean wire bytes of a page of round 0, or of a later round."""
        if first_round:
            return _mean_bytes(self.reference_share, self.unchanged_ratio)
        return _mean_bytes(self.later_reference_share, self.changed_ratio)


def _mean_bytes(reference_share: float, ratio: float) -> float:
    return reference_share * REFERENCE_BYTES + (1.0 - reference_share) * ratio * PAGE_WIRE_BYTES


#: A reference: its number and the page's address.
REFERENCE_BYTES = 12


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
    #: When the guest writes much and when little; None = always the same.
    cycle: Cycle | None = None
    #: None = no relay carries the stream.
    wire: WireRates | None = None
    socket: Socket = Socket()

    def through(self, wire: WireRates | None) -> "StreamLoad":
        """Return the load as a relay carries it."""
        return StreamLoad(self.content_pages, self.zero_pages, self.dirty, self.schedule,
                          self.disk_bytes, self.disk_write_bytes_per_second, self.cycle, wire,
                          self.socket)


class Stream:
    """A stream from its start to `completed` or `failed`; seconds count from its start."""

    def __init__(self, load: StreamLoad, setup_seconds: float):
        self.load = load
        self.seconds = 0.0
        #: What the relay knows the wire to carry, where others share it; None: what is offered.
        self.wire_bytes_per_second: float | None = None
        #: When it starts, in the time of the load's cycle.
        self.begins_seconds = 0.0
        #: What QEMU wrote, and what of it crossed the link.
        self.sent_bytes = 0.0
        self.wire_bytes = 0.0
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
        #: Of them, the share that never crossed yet, and that crossed as it is now.
        self._mix(1.0, 0.0)
        #: Seconds in which a slowed relay takes what is left but for 1/e: zero pages are taken with
        #: the others, and cost nothing.
        self._slowing = 0.0
        if load.wire is not None and load.content_pages + load.zero_pages > 0:
            self._slowing = load.wire.slowing_seconds * load.content_pages / (
                load.content_pages + load.zero_pages)
        self._since_test = 0.0
        self._since_sync = 0.0
        self._throttle = Throttle() if load.schedule.auto_converge else None
        self._last_bytes_left = self._finish_left = 0.0
        #: Wire bytes in the socket all the time, and those written in advance beyond them.
        self._buffered: float | None = None
        self._ahead = 0.0
        #: (pages left, bytes ahead, near rounds, downtime limit) behind each reading of the log.
        self._seen: set[tuple[float, float, int, float]] = set()
        #: The downtime limit under which the tests repeat themselves without an end.
        self._repeats_under: float | None = None
        self._rate: float | None = None
        self._step_seconds = CAPPED_STEP_SECONDS
        self._room = 0.0
        self._near_rounds = 0

    def begins_within(self, seconds: float) -> bool:
        """Whether its first page is to come so soon."""
        return self.phase == "setup" and self._setup_left <= seconds

    @property
    def in_later_rounds(self) -> bool:
        """Whether pages are sent again, or the guest is stopped already."""
        return self.phase == "last" or (self.phase == "memory" and self.rounds > 0)

    def nearly_done(self, rate: float) -> bool:
        """Whether a relay at this speed of the wire takes less of it than the wire could carry."""
        if self.phase != "memory" or self.rounds:
            return self.in_later_rounds
        return self._slowing > 0 and self.wanted_rate(rate) < _SLOWED_SHARE * self._unslowed(rate)

    def wanted_rate(self, rate: float) -> float:
        """Return the wire bytes per second that it makes use of, of those offered."""
        if self.phase != "memory":
            return rate
        return self._memory_rate(rate) + self._mirror_rate()

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
            capped = rate < last_rate
            self._step_seconds = CAPPED_STEP_SECONDS if capped else FREE_STEP_SECONDS
            self._room = 0.0 if capped else self.load.socket.room_bytes
        wait = self._WAITS[self.phase](self, last_rate if self.phase == "last" else rate)
        timeout = self.load.schedule.timeout_seconds
        if timeout is not None and self.phase != "last":
            wait = min(wait, max(0.0, timeout - self.seconds))
        return wait

    def advance(self, seconds: float, rate: float, last_rate: float) -> None:
        """Let `seconds` pass, at most up to the next event, and take the event if it is there."""
        self.seconds += seconds
        self._PASSES[self.phase](self, seconds, last_rate if self.phase == "last" else rate)
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
        self._count(seconds * rate, seconds * rate)
        self._disk_left -= seconds * (rate - self.load.disk_write_bytes_per_second)
        if self._disk_left <= 1.0:
            self.phase = "memory"

    def _count(self, raw_bytes: float, wire_bytes: float) -> None:
        self.sent_bytes += raw_bytes
        self.wire_bytes += wire_bytes

    def _mirror_rate(self) -> float:
        return self.load.disk_write_bytes_per_second if self.load.disk_bytes > 0 else 0.0

    def _memory_rate(self, rate: float) -> float:
        """Return the wire bytes per second of memory, until the next event."""
        fast = self._unslowed(rate)
        if not self._slowing or self.rounds:
            return fast
        # what is left shrinks with what is taken
        taken = self._pages_left * _SLOWED_MEAN / self._slowing
        least = (self.wire_bytes_per_second or rate) / PAGE_WIRE_BYTES
        return min(fast, max(taken, least) * self._page)

    def _unslowed(self, rate: float) -> float:
        """Return the same as if the relay did not slow down: mirrored disk writes come off it."""
        if self.load.disk_bytes > 0:
            rate = max(0.0, rate - self.load.disk_write_bytes_per_second)
        if self.load.wire is None:
            return rate
        wire, page = self.load.wire, self._page
        rate = min(rate, wire.raw_bytes_per_second / PAGE_WIRE_BYTES * page)
        if self.rounds or not wire.seconds_per_byte:
            return rate
        return rate * page / (page + rate * PAGE_WIRE_BYTES * wire.seconds_per_byte)

    def _until_slower(self, rate: float) -> float:
        """Return the seconds until the relay takes less; inf where it does not slow down."""
        if not self._slowing or self.rounds:
            return math.inf
        fast = self._unslowed(rate) / self._page
        left = self._pages_left - fast * self._slowing
        return left / fast if left > 1e-6 * fast else _SLOWED_STEP * self._slowing

    def _mix(self, first_share: float, same_share: float) -> None:
        """Note what the pages that remain are, and what a page then takes.

        The first share is of round 0; the other is sent again though nobody wrote to it since: to
        a relay it is a reference.
        """
        self._first_share, self._same_share, wire = first_share, same_share, self.load.wire
        self._page = PAGE_WIRE_BYTES if wire is None else (
            first_share * wire.page_bytes(True) + same_share * REFERENCE_BYTES
            + (1.0 - first_share - same_share) * wire.page_bytes(False))

    def _switchover_pages(self, rate: float) -> float:
        """Return S: what may remain, in pages, for a last copy within the downtime limit.

        QEMU takes the speed at which its bytes are taken for that of the link.
        """
        taken = rate if self.load.wire is None else (
            self._memory_rate(rate) * PAGE_WIRE_BYTES / self._page)
        return self.load.schedule.downtime_at(self.seconds) * taken / PAGE_BYTES

    def _send(self, pages: float) -> None:
        pages = min(pages, self._pages_left)
        self._pages_left -= pages
        self._count(pages * PAGE_WIRE_BYTES, pages * self._page)
        if self._throttle:
            self._throttle.sent(pages)

    def _fill_socket(self, rate: float) -> None:
        """Write as much as the socket and the queue of the link take at once."""
        wanted = self.load.socket.filled_bytes(rate) if self._room else 0.0
        self._buffered = min(wanted, self._pages_left * self._page)
        self._send(self._buffered / self._page)

    def _wait_memory(self, rate: float) -> float:
        if self._buffered is None:
            self._fill_socket(rate)
        change = self.load.schedule.next_change(self.seconds)
        until_change = math.inf if change is None else change - self.seconds
        memory_rate, page = self._memory_rate(rate), self._page
        if self._repeats_under is not None or memory_rate <= 0:
            return until_change
        spare = self._pages_left - self._switchover_pages(rate)
        need = max(0.0, (spare * page + self._ahead) / memory_rate)
        step, passed = self._step_seconds, self._since_test
        tests = max(math.floor(passed / step + _EPSILON) + 1,
                    math.ceil((passed + need) / step - _EPSILON))
        wait = tests * step - passed
        if self._room:
            left = self._pages_left * page + self._ahead - self._room
            wait = min(wait, max(_WRITE_SECONDS, left / memory_rate))
        return min(until_change, wait, self._until_slower(rate))

    def _pass_memory(self, seconds: float, rate: float) -> None:
        self._count(seconds * self._mirror_rate(), seconds * self._mirror_rate())
        memory_rate = self._memory_rate(rate)
        if self._repeats_under is not None:
            wire = seconds * memory_rate
            self._count(wire * PAGE_WIRE_BYTES / self._page, wire)
            if self.load.schedule.downtime_at(self.seconds) != self._repeats_under:
                self._repeats_under = None
            return
        self._since_test += seconds
        self._since_sync += seconds
        if self._throttle:
            self._throttle.passed(seconds)
        paid = min(self._ahead, seconds * memory_rate)
        self._ahead -= paid
        self._send((seconds * memory_rate - paid) / self._page)
        left = self._pages_left * self._page
        exhausted = self._room > 0 and left + self._ahead <= self._room + 1.0
        if exhausted:
            self._ahead += left
            self._send(self._pages_left)
        tests = self._since_test / self._step_seconds
        if exhausted or abs(tests - round(tests)) < 1e-6:
            # QEMU also tests when nothing is left, whatever the downtime limit is
            if not self._pages_left or self._pages_left < self._switchover_pages(rate):
                self._since_test = 0.0
                self._sync(rate)

    def _sync(self, rate: float) -> None:
        """Read the dirty log, then switch over or go on."""
        dirtied = self._dirtied()
        all_pages = self.load.dirty.all_pages
        if all_pages > 0:
            # Of the pages just dirtied, those not sent yet are in what remains already.
            dirtied *= 1.0 - min(1.0, self._pages_left / all_pages)
        limit = self._switchover_pages(rate)
        least = self._least(self._pages_left, dirtied, limit)
        first = self._first_share * self._pages_left
        same = self._same_share * self._pages_left
        if not self.rounds:
            same += dirtied * (1.0 - self.load.dirty.written_after_sent(self._since_sync))
        self._pages_left += dirtied
        left = max(self._pages_left, _EPSILON)
        self._mix(first / left, same / left)
        self._since_sync = 0.0
        self.rounds += 1
        if self._throttle:
            self._throttle.dirtied(dirtied)
        if least < limit or not least:
            self._pages_left = min(self._pages_left, limit)
            self._stop(rate)
            return
        downtime = self.load.schedule.downtime_at(self.seconds)
        state = (round(self._pages_left, 1), round(self._ahead),
                 min(self._near_rounds, LUCKY_ROUNDS + 1), downtime)
        if state in self._seen and self._throttle is None and self.load.cycle is None:
            self._repeats_under = downtime
        self._seen.add(state)
        if self.rounds >= _MOST_ROUNDS:
            self.fail()

    def _least(self, left: float, dirtied: float, limit: float) -> float:
        """Return what remains in the luckiest of the rounds that ended near S until now."""
        if not self._room or left + dirtied > 2.0 * limit:
            return left + dirtied
        self._near_rounds += 1
        lucky = LUCKY_DEVIATIONS * min(1.0, (self._near_rounds - 1) / LUCKY_ROUNDS)
        return (max(0.0, left - lucky * math.sqrt(self.load.dirty.all_pages / 2.0))
                + max(0.0, dirtied - lucky * math.sqrt(dirtied)))

    def _dirtied(self) -> float:
        """Return the pages dirtied since the dirty log was read last."""
        seconds = self._since_sync
        if self.load.cycle is not None:
            end = self.begins_seconds + self.seconds
            seconds = self.load.cycle.busy_seconds(end - seconds, end)
        if self._throttle is not None:
            seconds *= 1.0 - self._throttle.share
        return self.load.dirty.pages(seconds)

    def _stop(self, rate: float) -> None:
        """Stop the guest: what remains, what is in the socket, the devices."""
        pages, page = self._pages_left, self._page
        self._count(pages * PAGE_WIRE_BYTES + DEVICE_STATE_BYTES, pages * page + DEVICE_STATE_BYTES)
        self._last_bytes_left = pages * page + self._buffered + self._ahead + DEVICE_STATE_BYTES
        self._finish_left = FINISH_SECONDS
        self.phase = "last"

    def _wait_last(self, rate: float) -> float:
        return self._last_bytes_left / rate + self._finish_left

    def _pass_last(self, seconds: float, rate: float) -> None:
        self.downtime_seconds += seconds
        self._last_bytes_left -= seconds * rate
        if self._last_bytes_left < 0:
            self._finish_left += self._last_bytes_left / rate
            self._last_bytes_left = 0.0
        if self._finish_left <= _EPSILON:
            self.phase = "completed"

    _WAITS = {"setup": _wait_setup, "disk": _wait_disk, "memory": _wait_memory,
              "last": _wait_last}
    _PASSES = {"setup": _pass_setup, "disk": _pass_disk, "memory": _pass_memory,
               "last": _pass_last}
