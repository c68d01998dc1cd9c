"""Takes bytes off a connection of the source's QEMU: what wakes it, and how long it rests.

Used by source_stream.py from the thread that takes the stream's bytes, one Intake a connection. It
knows nothing of what the bytes are.
"""

import select
import socket
import struct
import time
from collections.abc import Collection

_LINGER_MS = 2
#: Behind the gate of a set all QEMUs want a processor at once, and none rests before it is at its
#: end.
_GATE_LINGER_MS = 6
#: There the kernel may take more of QEMU at once than service.py lets it until then: with so little
#: both are woken for every packet.
_GATE_BUFFER_BYTES = 64 << 10
#: The rest of a page is waited for longer: no QEMU can use the beginning alone, and in two parts it
#: is no page any more. QEMU writes without regard to pages, and on a busy host, or held to a speed
#: (every 0.1 s), it pauses anywhere.
_REST_MS, _IDLE_MS = 250, 1000
#: The longest that a block of round 0 is waited for while some of it comes.
_BULK_SECONDS = 0.02


class Intake:
    """The receiving end of one connection; timeout and low-water mark of its socket are set here.

    ``bulk_least_bytes`` wake who waits while round 0 comes.
    """

    def __init__(self, connection: socket.socket, bulk_least_bytes: int):
        self._connection = connection
        self._bulk_least_bytes = bulk_least_bytes
        self._poll: select.poll | None = None
        self._lingers_ms = 0
        self._least_bytes = 1
        self._hurries = False

    def begin(self) -> None:
        """Wait for bytes from now on, for as long as is usual."""
        self._poll = select.poll()
        self._poll.register(self._connection, select.POLLIN)
        self._linger(_LINGER_MS)

    def first(self, begins: Collection[bytes]) -> bytes:
        """Wait for the first bytes and return them, still to be taken.

        As many as one of ``begins`` has, all of one length; fewer where they are none of these.
        """
        size = max(map(len, begins))
        came = self._connection.recv(size, socket.MSG_PEEK)
        if any(each.startswith(came) for each in begins):
            came = self._connection.recv(size, socket.MSG_PEEK | socket.MSG_WAITALL)
        return came

    def take(self, buffer: memoryview, memory: bool, late: bool) -> int:
        """Take what comes; return how many bytes, 0 at the end, BlockingIOError where none came.

        Of ``memory`` a full buffer is waited for, and of round 0 (not ``late``) longest.
        """
        self._wake_for(self._bulk_least_bytes if memory and not late else 1)
        if memory:
            return fill(self._connection, buffer, 0.0 if late else _BULK_SECONDS)
        return self._connection.recv_into(buffer, 0, socket.MSG_DONTWAIT)

    def comes_soon(self) -> bool:
        """Return whether a byte, or the end, comes before the stream counts as dry."""
        self._wake_for(1)
        return bool(self._poll.poll(_LINGER_MS))

    def comes(self, begun: bool) -> bool:
        """Return whether one comes later; ``begun``: the rest of a record that was begun."""
        return bool(self._poll.poll(_REST_MS if begun else _IDLE_MS))

    def hurry(self, at_end: bool) -> None:
        """Let the kernel take more, and wait longer for it until it is ``at_end``."""
        if not self._hurries:
            self._hurries = True
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _GATE_BUFFER_BYTES)
        self._linger(_LINGER_MS if at_end else _GATE_LINGER_MS)

    def _wake_for(self, size_bytes: int) -> None:
        """Let who waits for bytes of the connection be woken by so many, or by its end."""
        if size_bytes != self._least_bytes:
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)
            self._least_bytes = size_bytes

    def _linger(self, milliseconds: int) -> None:
        """Wait so long for more of a block that has begun to come."""
        if milliseconds != self._lingers_ms:
            self._lingers_ms = milliseconds
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO,
                                        struct.pack("ll", 0, 1000 * milliseconds))


def fill(connection: socket.socket, buffer: memoryview, seconds: float) -> int:
    """Take bytes until the buffer is full or the connection's timeout passes without one.

    After ``seconds`` that timeout, once more, is all that is waited for. Returns how many; 0 at the
    end, BlockingIOError where nothing came.
    """
    taken, until = 0, time.monotonic() + seconds
    try:
        # the kernel waits for as long as its timeout in all, and returns what came until then
        while got := connection.recv_into(buffer[taken:], 0, socket.MSG_WAITALL):
            taken += got
            if taken == len(buffer) or time.monotonic() > until:
                break
    except BlockingIOError:
        if not taken:
            raise
    return taken
