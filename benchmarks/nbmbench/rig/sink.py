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
    an empty chunk is the end of the stream.
    """

    def __init__(self, listening: socket.socket, consume: Callable[[int, memoryview], int],
                 bytes_per_second: float = 0):
        self._listening, self._consume, self._rate = listening, consume, bytes_per_second
        self._lock = threading.Lock()
        self._free_at = time.monotonic()
        self.raw_bytes = self.wire_bytes = self.connections = self.open = 0
        self.errors: list[str] = []
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
            threading.Thread(target=self._take, args=(connection, self.connections),
                             daemon=True).start()

    def _take(self, connection: socket.socket, number: int) -> None:
        buffer = memoryview(bytearray(CHUNK_BYTES))
        try:
            while got := connection.recv_into(buffer):
                self._pass(number, buffer[:got])
            self._pass(number, buffer[:0])
        except Exception as error:       # whoever reads the result has to know of it
            self.errors.append(f"{type(error).__name__}: {error}")
        finally:
            connection.close()
            self.open -= 1

    def _pass(self, number: int, chunk: memoryview) -> None:
        with self._lock:
            wire = self._consume(number, chunk)
            self.raw_bytes += len(chunk)
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
