"""How much of a source's QEMU is taken at once, and how large the blocks made of it are.

Used by source_stream.py, one Portions a stream. Pure: it sees no socket, no clock and no lock; what
it decides by is handed in. How fast portions follow each other is pacing.py's.
"""

from collections.abc import Callable
from typing import NamedTuple

from nova_batch_migrate.relay import encoder

_EARLY_BYTES = 1 << 20
#: On a fast link: fewer calls for the same bytes, which are still gone within 25 ms. Where what
#: crosses of twice as many is, as many are taken: after a block the interpreter finds nothing in
#: the caches.
_FAST_BYTES, _FAST_SECONDS = encoder.MAX_BLOCK_BYTES // 2, 0.025
#: On a slow link, where so much is gone within 25 ms as it is known content: of the smaller blocks
#: the interpreter takes a third of the processor time.
_KNOWN_BYTES = 3 << 20
_LATE_BYTES = 64 << 10
#: A guest that stands still before so much of its memory has come has a while to wait for the rest:
#: on a fast link that is taken as before.
_TAIL_BYTES = 16 << 20
#: Of a member of a set on its way to the gate: four of them are taken at once for seconds, and each
#: taking costs a processor as much as encoding what it brought; and behind the gate, where what it
#: has left crosses while guests stand still.
_LED_BYTES, _GATE_BYTES = 128 << 10, 256 << 10
#: Behind round 0 and at the end, on a fast link: in so much time what is taken at once is gone.
_LATE_SECONDS = 0.001
#: On a slow one, where taking less costs as much processor time as encoding it.
_SLOW_LATE_SECONDS = 0.004
#: What a stream may put on the wire at once while others go beside it; never so much of its own
#: bytes that encoding them takes as long as that.
_SHARED_SECONDS, _SHARED_BYTES = 0.005, 512 << 10
#: Of a stream's own bytes, those by which it is told how many of them cross.
_SEEN_BYTES = 2 << 20
#: What of round 0 is worth to be woken for on a fast and on a slow link: half of what the kernel
#: holds of a stream (service.py). Woken by every packet a thread spends more on that than on taking
#: it.
_BULK_LEAST_BYTES, _SLOW_LEAST_BYTES = 512 << 10, 16 << 10


class Portion(NamedTuple):
    """What to take at once."""

    size_bytes: int
    #: Raw bytes at which a block of it is made; None: by the round.
    block_bytes: int | None = None


#: Of a connection that is no migration's.
PLAIN = Portion(_EARLY_BYTES)


class Portions:
    """Says how much of one stream to take, by how fast bytes leave and how many of its own cross.

    ``slow``: its link is one on which bytes count more than processor time; ``in_set``: it is a
    member's that moves together with others. ``crossed`` gives its raw bytes until now and the wire
    bytes they became.
    """

    def __init__(self, slow: bool, in_set: bool, crossed: Callable[[], tuple[int, int]]):
        self._slow, self._in_set = slow, in_set
        self._crossed = crossed
        self._most_bytes = _EARLY_BYTES if slow else _FAST_BYTES
        #: Raw and wire bytes when it was reckoned last how much of them crosses.
        self._seen, self._crossing = (0, 0), 1.0
        #: So many bytes wake who waits for some while round 0 comes.
        self.bulk_least_bytes = _SLOW_LEAST_BYTES if slow else _BULK_LEAST_BYTES
        if in_set:
            self.bulk_least_bytes = 1

    def near_end(self, round_: int, stopped: bool, ahead_bytes: int) -> bool:
        """Tell whether little is to lie in the relay: the guest waits, or soon will, for the rest.

        ``stopped``: the guest; ``ahead_bytes`` of its memory are still to come for the first time.
        """
        return round_ > 0 or stopped and (self._slow or self._in_set or ahead_bytes < _TAIL_BYTES)

    def early(self, sending_bytes_per_second: float | None, unhindered: bool) -> Portion:
        """Return what to take of round 0 while nobody else needs the wire.

        ``unhindered``: nothing but the wire holds the stream up, and its end is far.
        """
        more = encoder.MAX_BLOCK_BYTES
        if self._slow:
            more = _KNOWN_BYTES if unhindered and not self._in_set else _EARLY_BYTES
        if sending_bytes_per_second is None \
                or sending_bytes_per_second * _FAST_SECONDS < more * self.crossing_share():
            return _early(self._most_bytes)
        return _early(more)

    def shared(self, link_bytes_per_second: float) -> Portion:
        """Return what to take of round 0 beside others: of known content more."""
        wire_bytes = link_bytes_per_second * _SHARED_SECONDS
        known = wire_bytes / max(self.crossing_share(), 0.01)
        return _early(int(min(max(_LATE_BYTES, min(known, max(_SHARED_BYTES, wire_bytes))),
                              self._most_bytes)))

    def late(self, round_: int, sending_bytes_per_second: float | None) -> Portion:
        """Return what to take when little is to lie in the relay, on a fast link more.

        ``round_`` 0: what is left of it when the guest stands still comes in blocks of that round.
        """
        size = _LATE_BYTES
        if sending_bytes_per_second is None or self._in_set:
            pass
        elif self._slow:
            size = _gone_within(_SLOW_LATE_SECONDS, sending_bytes_per_second, _GATE_BYTES)
        elif round_ == 0:
            size = _EARLY_BYTES
        else:
            size = _gone_within(_LATE_SECONDS, sending_bytes_per_second, _EARLY_BYTES)
        return _late(round_, size)

    def led(self, round_: int, through: bool) -> Portion:
        """Return what to take of a set's member on its way to the gate, or ``through`` it."""
        return _late(round_, _GATE_BYTES if through else _LED_BYTES)

    def crossing_share(self) -> float:
        """Return wire bytes of raw bytes, by what was taken last; all of it while nobody knows."""
        raw, wire = self._crossed()
        if raw - self._seen[0] >= _SEEN_BYTES:
            self._crossing = (wire - self._seen[1]) / (raw - self._seen[0])
            self._seen = raw, wire
        return self._crossing


def _early(size_bytes: int) -> Portion:
    return Portion(size_bytes, None if size_bytes == _EARLY_BYTES else size_bytes)


def _late(round_: int, size_bytes: int) -> Portion:
    return Portion(size_bytes, size_bytes if round_ > 0 and size_bytes > _LATE_BYTES else None)


def _gone_within(seconds: float, bytes_per_second: float, most_bytes: int) -> int:
    """Return the power of two of bytes that leave in that time, within the bounds of late portions.
    """
    size = 1 << max(1, int(bytes_per_second * seconds)).bit_length() - 1
    return min(max(_LATE_BYTES, size), most_bytes)
