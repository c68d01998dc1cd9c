"""What the relay of this host can work through: measured when first asked for, and again when idle.

Called by groups.py. The plan leaves a link that is faster than that to plain streams, where what
crosses has too little in common. Nothing of a guest is read: the stream is made up.
"""

import collections
import dataclasses
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable

import numpy as np
from oslo_log import log

from nova_batch_migrate.relay import decoder, encoder, layout, settings, wire

LOG = log.getLogger(__name__)

_PAGES = 8192
_PIECE_BYTES = 32 << 10
_DICTIONARY_BYTES = 96 << 20
#: Measurements of which the best counts; one after each batch.
_KEPT = 5


@dataclasses.dataclass(frozen=True)
class Speed:
    """Raw bytes of streams per second of processor time, TLS on, nothing compressed."""

    #: Of content that the dictionary does not hold, and of content that it does.
    new_bytes_per_second: float
    known_bytes_per_second: float

    def as_dict(self) -> dict[str, float]:
        return dataclasses.asdict(self)


def measure(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> Speed:
    """Return the speed of the slower end, from two streams of the same 32 MiB.

    Takes about a third of a second of one core and 300 MB for as long. OSError where the
    certificates do not let this host speak with itself.
    """
    near, far = _connected(server, client, host)
    with near, far:
        ends = _Ends(near, far)
        stream = _stream(np.random.default_rng(1).integers(
            0, 1 << 64, (_PAGES, layout.PAGE_BYTES // 8), np.uint64))
        ends.carry(1, stream[:len(stream) // 8])
        new, known = ends.carry(2, stream), ends.carry(3, stream)
    return Speed(len(stream) / new, len(stream) / known)


class Repeated:
    """The best of the latest measurements of one host: what runs beside one only slows it down.

    ``measure`` returns a Speed, or raises OSError.
    """

    def __init__(self, measure: Callable[[], Speed]):
        self._measure = measure
        self._lock = threading.Lock()
        #: None until somebody has asked.
        self._found: collections.deque[Speed] | None = None

    def best(self) -> dict[str, float] | None:
        """Return the speed as an agent tells it, None where it can't be measured."""
        with self._lock:
            if self._found is None:
                self._found = collections.deque(maxlen=_KEPT)
                self._look()
            if not self._found:
                return None
            return Speed(*map(max, zip(*map(dataclasses.astuple, self._found), strict=True))
                         ).as_dict()

    def again(self) -> None:
        """Measure once more; nothing where nobody has asked yet."""
        with self._lock:
            if self._found is not None:
                self._look()

    def _look(self) -> None:
        try:
            found = self._measure()
        except OSError as error:
            LOG.warning("the relay's speed could not be measured, so no plan reckons with it: %s",
                        error)
            return
        LOG.info("this relay works through %.0f MB/s of content that is new to it, %.0f MB/s of "
                 "other", found.new_bytes_per_second / 1e6, found.known_bytes_per_second / 1e6)
        self._found.append(found)


class _Ends:
    """Both ends of a log in one thread, with a TLS connection between them."""

    def __init__(self, near: ssl.SSLSocket, far: ssl.SSLSocket):
        self._near, self._far = near, far
        self._encoder = encoder.Encoder(settings.LogSettings(
            dictionary_bytes=_DICTIONARY_BYTES, level=None, credit_bytes=1 << 30,
            under_way_bytes=1 << 30))
        self._decoder = decoder.Decoder(max_dictionary_bytes=_DICTIONARY_BYTES)
        self._reader = wire.FrameReader()
        self._buffer = memoryview(bytearray(_PIECE_BYTES))
        self._across(self._encoder.hello())

    def carry(self, number: int, stream: bytes) -> float:
        """Carry a stream; return the processor seconds of the end that needs more."""
        self._across(self._encoder.open_stream(number, str(number)))
        here = there = 0.0
        for at in range(0, len(stream), encoder.ROUND0_BLOCK_BYTES):
            begun = time.thread_time()
            frames = self._encoder.feed(number, stream[at:at + encoder.ROUND0_BLOCK_BYTES])
            here += time.thread_time() - begun
            sent, received = self._across(frames)
            here, there = here + sent, there + received
        self._across(self._encoder.end(number))
        return max(here, there)

    def _across(self, frames: list[bytes]) -> tuple[float, float]:
        sent = received = 0.0
        for frame in frames:
            for at in range(0, len(frame), _PIECE_BYTES):
                piece = frame[at:at + _PIECE_BYTES]
                begun = time.thread_time()
                self._near.sendall(piece)
                sent += time.thread_time() - begun
                begun = time.thread_time()
                left = len(piece)
                while left:
                    taken = self._far.recv_into(self._buffer[:left])
                    left -= taken
                    for complete in self._reader.feed(self._buffer[:taken]):
                        self._decoder.feed(complete)
                received += time.thread_time() - begun
        return sent, received


def _connected(server: ssl.SSLContext, client: ssl.SSLContext, host: str
               ) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    one, two = socket.socketpair()
    near = client.wrap_socket(one, server_hostname=host, do_handshake_on_connect=False)
    far = server.wrap_socket(two, server_side=True, do_handshake_on_connect=False)
    waiting = [near, far]
    for each in waiting:
        each.setblocking(False)
    while waiting:
        for each in list(waiting):
            try:
                each.do_handshake()
                waiting.remove(each)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                continue
    for each in (near, far):
        each.setblocking(True)
    return near, far


def _stream(pages: np.ndarray) -> bytes:
    """Return a migration stream with one RAM block of these pages."""
    name, size = b"pc.ram", pages.nbytes
    block = bytes([len(name)]) + name
    footer = struct.pack(">BI", 0x7E, 2)
    out = [b"QEVM", struct.pack(">IBIB3sII", 3, 1, 2, 3, b"ram", 0, 4),
           struct.pack(">Q", size | 4), block, struct.pack(">QQ", size, 0x10), footer,
           struct.pack(">BI", 2, 2)]
    for index, page in enumerate(pages):
        flags = 8 | (0x20 if index else 0)
        out += [struct.pack(">Q", index * layout.PAGE_BYTES | flags), b"" if index else block,
                page.tobytes()]
    return b"".join((*out, struct.pack(">Q", 0x10), footer))
