"""The frames in which a log crosses the channel, and the errors of the relay's core.

Used by encoder, decoder and the daemon around them. Knows lengths and kinds, not what is inside.
"""
import dataclasses
import enum
import struct

MAX_PAYLOAD_BYTES = 16 << 20
_HEADER = struct.Struct("!IBxxxIQ")     # payload length, kind, stream, number
HEADER_BYTES = _HEADER.size


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
    length = sum(memoryview(part).nbytes for part in parts)
    if length > MAX_PAYLOAD_BYTES:
        raise WireError(f"a payload of {length} bytes is over {MAX_PAYLOAD_BYTES}")
    return b"".join((_HEADER.pack(length, kind, stream, number), *parts))


class FrameReader:
    """Cuts what comes from the channel into frames, whatever its chunking."""

    def __init__(self, max_payload_bytes: int = MAX_PAYLOAD_BYTES):
        self._max = max_payload_bytes
        self._held = bytearray()

    def feed(self, data) -> list[Frame]:
        """Return the frames that are complete now; WireError at what can't be one."""
        self._held += data
        held, frames, at = memoryview(self._held), [], 0
        try:
            while len(held) - at >= HEADER_BYTES:
                length, kind, stream, number = _HEADER.unpack_from(held, at)
                if length > self._max:
                    raise WireError(f"a frame of {length} bytes is over {self._max}")
                if len(held) - at - HEADER_BYTES < length:
                    break
                try:
                    kind = Kind(kind)
                except ValueError:
                    raise WireError(f"there is no frame kind {kind}") from None
                at += HEADER_BYTES
                frames.append(Frame(kind, stream, number, bytes(held[at:at + length])))
                at += length
        finally:
            held.release()
        del self._held[:at]
        return frames

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._held)
