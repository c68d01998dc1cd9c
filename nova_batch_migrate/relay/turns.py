"""Which server of a group is taken now: one after the other as the plan orders them (design 6).

Used by source_stream.py, one Turns a group. A stream that waits is not read, so its guest just runs
on; nobody waits long for one that has not come. One that can't fill the wire any more passes its
turn on, and has the wire first while it goes on beside those that came after it.
"""

import threading
import time
from collections.abc import Iterable

#: Migrations that were asked for together come in any order, this close to each other: a share of
#: what the first one took from the opening of its group on, Nova's work and all, within bounds.
GRACE_SHARE, GRACE_SECONDS, MOST_GRACE_SECONDS = 0.25, 0.5, 2.0
#: A stream of which nothing was taken for so long does not need the wire now.
_IDLE_SECONDS = 0.02
#: So long a stream in its later rounds goes before others. One that has not converged by then
#: shares with them: it may never do.
URGENT_SECONDS = 20.0


class Turns:
    """Hands the turn on; a stream takes part from ``join`` to ``leave``, with its server's order.

    Streams of one order (multifd's channels) have the turn together. ``expected`` are the orders of
    all that may come.
    """

    def __init__(self, expected: Iterable[int] = (), clock=time.monotonic):
        self._clock = clock
        self._missing = set(expected)
        self._begun = clock()
        self._grace_seconds: float | None = None
        self._joined: dict[int, float] = {}
        self._changed = threading.Condition()
        self._order: dict[int, int] = {}
        self._turn: int | None = None
        self._passed: set[int] = set()
        #: When a stream in its later rounds came there, and when bytes of it were taken last.
        self._urgent: dict[int, tuple[float, float]] = {}

    def join(self, stream: int, order: int) -> None:
        """Take part, at the place that the plan gives."""
        with self._changed:
            self._order[stream] = order
            self._joined[stream] = now = self._clock()
            if self._grace_seconds is None:
                self._grace_seconds = min(MOST_GRACE_SECONDS, max(
                    GRACE_SECONDS, GRACE_SHARE * (now - self._begun)))
            self._missing.discard(order)
            self._changed.notify_all()

    def forgo(self, order: int) -> None:
        """Expect no stream of a server any more."""
        with self._changed:
            self._missing.discard(order)
            self._changed.notify_all()

    def wait(self, stream: int, timeout_seconds: float | None = None) -> bool:
        """Return True once the stream may go, False after the timeout or when it has left."""
        def settled() -> bool:
            if self._turn is None:
                self._choose()
            return stream not in self._order or stream in self._passed \
                or self._order[stream] == self._turn
        with self._changed:
            return self._changed.wait_for(settled, timeout_seconds) and stream in self._order

    def _choose(self) -> None:
        """Give the free turn to the first that is there, unless one before it is still to come."""
        there = [stream for stream in self._order if stream not in self._passed]
        if not there:
            return
        first = min(there, key=self._order.__getitem__)
        since = min(self._joined[stream] for stream in there)
        early = any(order < self._order[first] for order in self._missing)
        if not early or self._clock() - since >= self._grace_seconds:
            self._turn = self._order[first]

    def pass_on(self, stream: int) -> None:
        """Let the next one begin; the stream itself may go on."""
        with self._changed:
            if stream in self._order and stream not in self._passed:
                self._passed.add(stream)
                self._settle()

    def urge(self, stream: int) -> None:
        """Say that bytes of a later round were taken just now: the stream is to end soon."""
        now = self._clock()
        # one thread a stream: no lock
        self._urgent[stream] = self._urgent.get(stream, (now,))[0], now

    def others_are_urgent(self, stream: int) -> bool:
        """Tell whether a stream is to leave the wire to one that is about to end."""
        now = self._clock()
        return any(other != stream and now - last < _IDLE_SECONDS and now - since < URGENT_SECONDS
                   for other, (since, last) in list(self._urgent.items()))

    @property
    def crowded(self) -> bool:
        """Whether several streams go at once, so that each should take little at a time."""
        return len(self._passed) > 0

    @property
    def alone(self) -> bool:
        """Whether there is no other stream, be it waiting."""
        return len(self._order) <= 1

    def leave(self, stream: int) -> None:
        """Take part no longer; harmless to repeat."""
        with self._changed:
            self._order.pop(stream, None)
            self._joined.pop(stream, None)
            self._passed.discard(stream)
            self._urgent.pop(stream, None)
            self._settle()

    def _settle(self) -> None:
        if not any(order == self._turn for stream, order in self._order.items()
                   if stream not in self._passed):
            self._turn = None
        self._changed.notify_all()
