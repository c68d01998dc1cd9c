"""The frames in which a log crosses the channel, and the errors of the relay's core.

Used by encoder, decoder and the daemon around them. Knows lengths and kinds, not what is inside.
"""
import dataclasses
import enum
import struct

import numpy as np

MAX_PAYLOAD_BYTES = 16 << 20
_HEADER = struct.Struct("!IBxxxIQ")     # payload length, kind, stream, number
HEADER_BYTES = _HEADER.size
_LONG_PART_BYTES = 32 << 10


class RelayError(ValueError):
    """Base of what the relay's core raises about what it was given."""


class WireError(RelayError):
    """Bytes of the channel are no frame of ours: end the connection."""


class CodecError(RelayError):
    """A frame says what can't be: end the connection, and the migrations of its log with it."""


class CannotTruncate(RelayError):
    """The peer stands where this end can't go back to: begin a new log."""


class Kind(enum.IntEnum):
    """What a frame is. The first five are numbered: they are the log."""

    OPEN = 1            # a stream begins; payload: the daemon's metadata
    DATA = 2            # a block of a stream
    END = 3             # a stream's source has closed its side
    ABORT = 4           # a stream is given up; payload: why
    SETUP = 5           # settings of the log, its first frame
    CREDIT = 16         # back: raw bytes delivered of a stream, and the last number applied
    RETURN = 17         # back: bytes of the return path
    RETURN_END = 18     # back: the destination has closed its side
    CONTROL = 32        # either way: the daemon's own


NUMBERED = frozenset((Kind.OPEN, Kind.DATA, Kind.END, Kind.ABORT, Kind.SETUP))


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """One frame; `number` is its place in the log (0: not part of it)."""

    kind: Kind
    stream: int = 0
    number: int = 0
    payload: bytes | memoryview = b""

    def pack(self) -> bytes:
        """Return the frame as it crosses; WireError if the payload is too long."""
        return packed(self.kind, self.stream, self.number, (self.payload,))


def packed(kind: Kind, stream: int, number: int, parts) -> bytes:
    """Return a frame whose payload is the buffers `parts`; WireError if it is too long."""
    return b"".join(pieces(kind, stream, number, parts))


def pieces(kind: Kind, stream: int, number: int, parts) -> tuple[bytes | memoryview, ...]:
    """Return a frame as buffers to send one after the other: long parts are not copied."""
    views = [view.cast("B") for view in map(memoryview, parts) if view.nbytes]
    short = next((i for i, view in enumerate(views) if len(view) >= _LONG_PART_BYTES), len(views))
    length = sum(map(len, views))
    if length > MAX_PAYLOAD_BYTES:
        raise WireError(f"a payload of {length} bytes is over {MAX_PAYLOAD_BYTES}")
    head = b"".join((_HEADER.pack(length, kind, stream, number), *views[:short]))
    return (head, *views[short:])


class FrameReader:
    """Cuts what comes from the channel into frames, whatever its chunking.

    `buffer` and `commit` let the caller read straight to where a frame's payload stays; `feed`
    copies.
    """

    def __init__(self, max_payload_bytes: int = MAX_PAYLOAD_BYTES):
        self._max = max_payload_bytes
        self._head = memoryview(bytearray(HEADER_BYTES))
        self._begin()

    def _begin(self) -> None:
        self._fields: tuple | None = None
        self._target, self._filled = self._head, 0

    def buffer(self) -> memoryview:
        """Return where the next bytes belong, never empty; not more than the frame needs."""
        return self._target[self._filled:]

    def commit(self, count: int) -> Frame | None:
        """Take `count` bytes that were written to `buffer`; return the frame that is complete.

        WireError at what can't be a frame.
        """
        self._filled += count
        if self._filled < len(self._target):
            return None
        if self._fields is None:
            length, kind, stream, number = _HEADER.unpack(self._head)
            if length > self._max:
                raise WireError(f"a frame of {length} bytes is over {self._max}")
            try:
                self._fields = Kind(kind), stream, number
            except ValueError:
                raise WireError(f"there is no frame kind {kind}") from None
            # not set to zero first: all of it is going to be written
            self._target, self._filled = memoryview(np.empty(length, np.uint8)), 0
            if length:
                return None
        frame = Frame(*self._fields, self._target)
        self._begin()
        return frame

    def feed(self, data) -> list[Frame]:
        """Return the frames that are complete now; WireError at what can't be one."""
        frames = []
        with memoryview(data) as view:
            at = 0
            while at < len(view):
                free = self.buffer()
                taken = min(len(view) - at, len(free))
                free[:taken] = view[at:at + taken]
                at += taken
                if frame := self.commit(taken):
                    frames.append(frame)
        return frames

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return self._filled + (HEADER_BYTES if self._fields else 0)
