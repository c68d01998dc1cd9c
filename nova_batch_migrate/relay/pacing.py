"""How fast bytes leave and how fast QEMU's are taken: the operator's cap, and truth for QEMU.

Used by source.py. QEMU takes the speed at which its bytes go for the speed of the link, and stops
the guest when it believes that the rest fits into the allowed downtime; the relay must not let it
believe in a link that is faster than what changed content will meet.
"""

import threading
import time

#: Bytes that may leave at once after a pause, in seconds of the cap: QEMU looks at 0.1 s.
BURST_SECONDS = 0.01
_LEAST_BURST_BYTES = 16 << 10
#: What the kernel may hold of a stream that is far from its end, in seconds of the wire: a relay
#: that gets its core late would else leave the wire idle.
AHEAD_SECONDS = 0.05
#: How far before the point at which QEMU would switch over the taking slows down.
MARGIN = 1.5
#: Of the content that changes in later rounds, before any was seen: it may not compress at all.
WORST_RATIO = 1.0
#: Nor may content that hardly changes make QEMU believe in a link without end.
_LEAST_RATIO = 0.02
_LEAST_CHANGED_BYTES = 1 << 20
_RATE_WINDOW_SECONDS = 0.1
#: No link of migrations is slower: who sends less without being busy had little to send.
_LEAST_LINK_BYTES_PER_SECOND = 1e6
_KEPT_WINDOWS = 20
#: Of a window, what was spent in sending where the link is what sending waited for.
_BUSY_SHARE = 0.5
#: On a fast link, a window in which less was sent without that says nothing of how fast it leaves:
#: each call takes some 50 us, for one byte as for 64 KiB, and longer where other threads run.
_TELLING_BYTES = 1 << 20


class TokenBucket:
    """Holds wire bytes to a rate, over all threads that share it; None for no cap."""

    def __init__(self, bytes_per_second: float | None, clock=time.monotonic, sleep=time.sleep):
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._rate = bytes_per_second
        #: When the bytes let through so far will have been paid for.
        self._paid_until = clock()

    @property
    def bytes_per_second(self) -> float | None:
        return self._rate

    def set_rate(self, bytes_per_second: float | None) -> None:
        """Change the cap; what waits now waits as the old one said."""
        with self._lock:
            self._rate = bytes_per_second
            self._paid_until = self._clock()

    def take(self, size_bytes: int, ahead_seconds: float = 0.0) -> None:
        """Return when so many bytes may leave, or so much earlier: the kernel then holds them."""
        with self._lock:
            if not self._rate:
                return
            now = self._clock()
            burst = max(BURST_SECONDS, _LEAST_BURST_BYTES / self._rate)
            self._paid_until = max(self._paid_until, now - burst) + size_bytes / self._rate
            wait = self._paid_until - now - ahead_seconds
        if wait > 0:
            self._sleep(wait)


class WireRate:
    """The speed at which wire bytes leave while there is always something to send.

    The best of the last windows of 0.1 s. One in which we had little to send says nothing of the
    link and drives none out: else what crosses as references would make the link look slow, what
    is taken slower for that even slower, and so on. ``assumed`` counts until there is a window.
    ``is_fast``: windows of few bytes do not tell how fast they leave, either.
    """

    def __init__(self, assumed_bytes_per_second: float | None, is_fast: bool = False):
        self._telling_bytes = _TELLING_BYTES if is_fast else 0
        self._windows: list[float] = []
        self._best = assumed_bytes_per_second
        self._begun: float | None = None
        self._bytes, self._busy = 0, 0.0
        #: Of the last window, bytes per second of sending.
        self._sending: float | None = None

    def sent(self, size_bytes: int, begun: float, ended: float) -> None:
        """Count bytes whose sending took from ``begun`` to ``ended`` (seconds of one clock)."""
        if self._begun is None or begun - self._begun > 2 * _RATE_WINDOW_SECONDS:
            self._begun, self._bytes, self._busy = begun, 0, 0.0
        self._bytes += size_bytes
        self._busy += ended - begun
        lasted = ended - self._begun
        if lasted >= _RATE_WINDOW_SECONDS:
            rate = self._bytes / lasted
            is_busy = self._busy >= _BUSY_SHARE * lasted
            if self._busy > 0 and (is_busy or self._bytes >= self._telling_bytes):
                self._sending = self._bytes / self._busy
            known = max(self._windows, default=self._best or _LEAST_LINK_BYTES_PER_SECOND)
            if is_busy or rate >= known:
                self._windows.append(rate)
                del self._windows[:-_KEPT_WINDOWS]
                self._best = max(self._windows)
            self._begun, self._bytes, self._busy = ended, 0, 0.0

    def bytes_per_second(self, cap: float | None = None) -> float | None:
        """Return what the link gives, never more than the cap; None while nothing is known."""
        return _no_more(self._best, cap)

    def sending_bytes_per_second(self, cap: float | None = None) -> float | None:
        """Return how fast what is sent leaves, however long it took to make."""
        return _no_more(self._sending or self._best, cap)


def _no_more(rate: float | None, cap: float | None) -> float | None:
    return min(rate, cap) if rate and cap else rate or cap or None


def taking_speed(remaining_bytes: int | None, changed_bytes_per_second: float,
                 downtime_seconds: float) -> float:
    """Return the most bytes/s to take of a stream now.

    ``remaining_bytes`` of round 0, None in later rounds; ``changed_bytes_per_second`` is the speed
    at which changed content leaves. In round 0 the taking slows down so that what is left is
    always more than QEMU would send within the downtime; it ends at the true speed.
    """
    if remaining_bytes is None or downtime_seconds <= 0:
        return changed_bytes_per_second
    return max(changed_bytes_per_second, remaining_bytes / (MARGIN * downtime_seconds))


def changed_ratio(raw_bytes: int, wire_bytes: int) -> float:
    """Return wire bytes per byte of changed content, of what later rounds have sent until now."""
    if raw_bytes < _LEAST_CHANGED_BYTES:
        return WORST_RATIO
    return max(_LEAST_RATIO, min(WORST_RATIO, wire_bytes / raw_bytes))


class Pace:
    """Holds the taking of one stream to a speed that may change with every chunk."""

    def __init__(self, clock=time.monotonic, sleep=time.sleep):
        self._clock, self._sleep = clock, sleep
        self._free_at = self._window_begun = clock()
        self._waited = 0.0
        #: Of the last 0.1 s, what was spent in waiting here.
        self.waited_share = 0.0

    def took(self, size_bytes: int, bytes_per_second: float | None) -> None:
        """Wait until the next chunk may be taken, ``size_bytes`` having been taken just now."""
        now = self._clock()
        if not bytes_per_second:
            self._free_at = now
            return
        # time that passed in sending counts; time in which QEMU had nothing is not saved up
        self._free_at = max(self._free_at, now - _RATE_WINDOW_SECONDS / 5) \
            + size_bytes / bytes_per_second
        wait = max(0.0, self._free_at - now)
        if wait:
            self._sleep(wait)
        self._waited += wait
        lasted = now + wait - self._window_begun
        if lasted >= _RATE_WINDOW_SECONDS:
            self.waited_share = self._waited / lasted
            self._window_begun, self._waited = now + wait, 0.0
