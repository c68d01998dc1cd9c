"""Takes migration streams at the other end of the link and drops them, through a benchmark's codec.

Made by Rig.sink. It takes bytes at the speed at which the codec's output leaves a link of the given
rate, so that a guest's later rounds are those of that contender.
"""
import socket
import threading
import time
from collections.abc import Callable

CHUNK_BYTES = 256 << 10
BUCKET_SECONDS = 0.02


class Sink:
    """A listening socket and a thread per connection; all share one link of `bytes_per_second`.

    `consume(connection number, chunk) -> bytes on the wire` is called for each chunk under a lock;
    an empty chunk is the end of the stream. `dry(connection number)`, if there is one, is called
    when the source has nothing more to say for now, as a relay would have to flush.
    """

    def __init__(self, listening: socket.socket, consume: Callable[[int, memoryview], int],
                 bytes_per_second: float = 0, dry: Callable[[int], int] | None = None):
        self._listening, self._consume, self._rate = listening, consume, bytes_per_second
        self._dry = dry
        self._lock = threading.Lock()
        self._free_at = time.monotonic()
        self.raw_bytes = self.wire_bytes = self.connections = self.open = 0
        self.errors: list[str] = []
        self.taken = threading.Event()     # the first connection is there
        self.port = listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self.open += 1
            self.taken.set()
            threading.Thread(target=self._take, args=(connection, self.connections),
                             daemon=True).start()

    def _take(self, connection: socket.socket, number: int) -> None:
        buffer = memoryview(bytearray(CHUNK_BYTES))
        try:
            while got := self._fill(connection, buffer, number):
                self._pass(got, self._consume, number, buffer[:got])
            self._pass(0, self._consume, number, buffer[:0])
        except Exception as error:       # whoever reads the result has to know of it
            self.errors.append(f"{type(error).__name__}: {error}")
        finally:
            connection.close()
            self.open -= 1

    def _fill(self, connection: socket.socket, buffer: memoryview, number: int) -> int:
        """Take what is there, up to a whole buffer; wait only for the first byte."""
        filled = 0
        while filled < len(buffer):
            try:
                got = connection.recv_into(buffer[filled:], 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if filled:
                    break
                if self._dry:
                    self._pass(0, self._dry, number)
                got = connection.recv_into(buffer)
            if not got:
                break
            filled += got
        return filled

    def _pass(self, raw: int, codec: Callable[..., int], *arguments) -> None:
        with self._lock:
            wire = codec(*arguments)
            self.raw_bytes += raw
            self.wire_bytes += wire
            if not self._rate:
                return
            now = time.monotonic()
            self._free_at = max(self._free_at, now - BUCKET_SECONDS) + wire / self._rate
            wait = self._free_at - now
        if wait > 0:
            time.sleep(wait)

    def drained(self, seconds: float = 10) -> None:
        """Wait until every connection has ended."""
        end = time.monotonic() + seconds
        while self.open and time.monotonic() < end:
            time.sleep(0.01)

    def close(self) -> None:
        """Accept no more."""
        self._listening.close()
