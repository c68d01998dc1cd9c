"""Which server of a group is taken now: one after the other as the plan orders them (design 6).

Used by source_stream.py, one Turns a group. A stream that waits is not read, so its guest just runs
on; nobody waits for one that has not come.
"""

import threading


class Turns:
    """Hands the turn on; a stream takes part from ``join`` to ``leave``, with its server's order.

    Streams of one order (multifd's channels) have the turn together.
    """

    def __init__(self):
        self._changed = threading.Condition()
        self._order: dict[int, int] = {}
        self._turn: int | None = None
        self._passed: set[int] = set()

    def join(self, stream: int, order: int) -> None:
        """Take part, at the place that the plan gives."""
        with self._changed:
            self._order[stream] = order

    def wait(self, stream: int, timeout_seconds: float | None = None) -> bool:
        """Return True once the stream may go, False after the timeout or when it has left."""
        def settled() -> bool:
            if self._turn is None and self._order.keys() - self._passed:
                self._turn = min(self._order[s] for s in self._order if s not in self._passed)
            return stream not in self._order or stream in self._passed \
                or self._order[stream] == self._turn
        with self._changed:
            return self._changed.wait_for(settled, timeout_seconds) and stream in self._order

    def pass_on(self, stream: int) -> None:
        """Let the next one begin; the stream itself may go on."""
        with self._changed:
            self._passed.add(stream)
            self._settle()

    def leave(self, stream: int) -> None:
        """Take part no longer; harmless to repeat."""
        with self._changed:
            self._order.pop(stream, None)
            self._passed.discard(stream)
            self._settle()

    def _settle(self) -> None:
        if not any(order == self._turn for stream, order in self._order.items()
                   if stream not in self._passed):
            self._turn = None
        self._changed.notify_all()
