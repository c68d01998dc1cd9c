"""The destination's end of a log: frames in, migration streams out.

Driven by the daemon of the destination host; holds no thread, socket or clock and never waits. A
peer may send anything: what can't be raises CodecError and the connection has to end.
"""
import dataclasses
import enum

import numpy as np

from nova_batch_migrate.relay import block, kernel
from nova_batch_migrate.relay.compression import Decompressor
from nova_batch_migrate.relay.dictionary import Memory, Pages, buffer
from nova_batch_migrate.relay.encoder import CREDIT, MAX_BLOCK_BYTES, MAX_ITEM_BYTES
from nova_batch_migrate.relay.layout import PAGE_BYTES
from nova_batch_migrate.relay.settings import CONTROL_WINDOW_LOG, Agreement, checksum
from nova_batch_migrate.relay.wire import CodecError, Frame, Kind

# Of blocks that were handed out and came back: what is kept for the next ones.
_KEPT_ROOMS = 8
_ROOM_BYTES = MAX_BLOCK_BYTES + MAX_ITEM_BYTES
# CREDIT frames go back when a part of one stream's window was delivered, of all streams together.
CREDIT_SHARE = 4


class Event(enum.Enum):
    """What a delivery is."""

    OPEN = "open"       # data: metadata
    DATA = "data"       # data: bytes for QEMU
    END = "end"         # the source has closed its side
    ABORT = "abort"     # data: why; break the connection to QEMU


@dataclasses.dataclass(frozen=True)
class Delivery:
    """Something for the daemon to do with a stream."""

    stream: int
    event: Event
    data: bytes | memoryview = b""


@dataclasses.dataclass
class _Stream:
    decoded: int = 0        # raw bytes handed out
    delivered: int = 0      # raw bytes that QEMU has taken
    told: int = 0           # raw bytes that the peer knows of
    open: bool = True


class Decoder:
    """Decodes the streams of one log."""

    def __init__(self, static: np.ndarray | None = None,
                 max_dictionary_bytes: int = 512 << 20, *, memory: Memory | None = None,
                 loops=kernel):
        self._static, self._max_dictionary_bytes = static, max_dictionary_bytes
        self._memory = memory
        self._new_buffer = memory.buffer if memory else buffer
        self._apply_block = loops.apply_block
        self._broken = False
        self._agreement: Agreement | None = None
        self._pages: Pages | None = None
        self._literals: Decompressor | None = None
        self._control = Decompressor(CONTROL_WINDOW_LOG)
        self._room = np.empty(0, np.uint8)
        self._control_room = np.empty(0, np.uint8)
        self._rooms: list[np.ndarray] = []
        self._streams: dict[int, _Stream] = {}
        self.sequence = 0           # number of the last frame applied
        self._untold = 0            # raw bytes of all streams, delivered since the last credit

    def feed(self, frame: Frame) -> list[Delivery]:
        """Apply a frame of the log; CodecError ends the log. A frame sent again is passed over."""
        if frame.number <= self.sequence:
            return []
        if frame.number != self.sequence + 1:
            raise CodecError(f"frame {frame.number} of the log came behind {self.sequence}")
        if self._broken:
            raise CodecError("the log was broken by an earlier block")
        if (frame.kind is Kind.SETUP) != (self._agreement is None):
            raise CodecError("a log begins with its settings, and has them once")
        try:
            deliveries = self._apply(frame)
        except CodecError:
            raise
        except (ValueError, IndexError, OverflowError) as error:
            raise CodecError(f"a block can't be put together: {error}") from error
        self.sequence = frame.number
        return deliveries

    def _apply(self, frame: Frame) -> list[Delivery]:
        if frame.kind is Kind.SETUP:
            self._set_up(Agreement.unpack(frame.payload, self._max_dictionary_bytes))
            return []
        if frame.kind is Kind.OPEN:
            if frame.stream in self._streams:
                raise CodecError(f"stream {frame.stream} is opened again")
            self._streams[frame.stream] = _Stream()
            return [Delivery(frame.stream, Event.OPEN, bytes(frame.payload))]
        stream = self._streams.get(frame.stream)
        if stream is None or not stream.open:
            raise CodecError(f"stream {frame.stream} is not open")
        if frame.kind is Kind.DATA:
            data = self._block(frame.payload)
            stream.decoded += len(data)
            if stream.decoded - stream.delivered > self._agreement.credit_bytes:
                raise CodecError(f"stream {frame.stream} has overrun its credit")
            return [Delivery(frame.stream, Event.DATA, data)]
        if frame.kind not in (Kind.END, Kind.ABORT):
            raise CodecError(f"a frame of kind {frame.kind.name} does not belong to a log")
        stream.open = False
        event = Event.END if frame.kind is Kind.END else Event.ABORT
        return [Delivery(frame.stream, event, bytes(frame.payload))]

    def _set_up(self, agreement: Agreement) -> None:
        static = self._static if agreement.static_pages else None
        if agreement.static_pages and agreement.static_checksum != checksum(static):
            raise CodecError("the base images differ between the two hosts: begin the log without "
                             "a static dictionary")
        self._pages, self._static = Pages(agreement.dictionary_bytes, static, self._memory), None
        self._literals = Decompressor(agreement.window_log)
        self._agreement = agreement

    # credit

    def recycle(self, data: memoryview) -> None:
        """Take the data of a delivery back, of which nobody needs a byte any more.

        Fresh memory for every block would cost as much as filling it.
        """
        room = data.obj
        if isinstance(room, np.ndarray) and room.nbytes == _ROOM_BYTES \
                and len(self._rooms) < _KEPT_ROOMS:
            self._rooms.append(room)

    def delivered(self, stream: int, count: int) -> None:
        """Note that QEMU has taken `count` more raw bytes of a stream."""
        noted = self._streams[stream]
        if noted.delivered + count > noted.decoded:
            raise ValueError("more delivered than was decoded")
        noted.delivered += count
        self._untold += count

    def credits(self, everything: bool = False) -> list[bytes]:
        """Return the CREDIT frames that are due; all that is unsaid on request."""
        if self._agreement is None or self._untold < (
                1 if everything else self._agreement.credit_bytes // CREDIT_SHARE):
            return []
        self._untold = 0
        frames = []
        for number, stream in self._streams.items():
            if stream.delivered > stream.told:
                stream.told = stream.delivered
                frames.append(Frame(Kind.CREDIT, number, 0,
                                    CREDIT.pack(stream.delivered, self.sequence)).pack())
        return frames

    @property
    def fill_bytes(self) -> int:
        """Bytes of content that the dictionary holds."""
        return 0 if self._pages is None else (
            int(np.count_nonzero(self._pages.seqs >= 0)) * PAGE_BYTES)

    @property
    def broken(self) -> bool:
        """A block could not be applied: the dictionary is worth nothing, begin a new log."""
        return self._broken

    # blocks

    def _block(self, payload) -> memoryview:
        """Return the raw bytes of a block, and do to the dictionary what it says."""
        payload = memoryview(payload)
        shape, at = block.read_shape(payload)
        control_end = at + shape.control_bytes
        literals_end = control_end + shape.literal_bytes
        control = self._plain_control(payload[at:control_end], shape)
        literals = self._plain_literals(payload[control_end:literals_end], shape)
        out = self._out(shape.raw_bytes)
        self._broken = True
        pages, late = self._pages, bool(shape.flags & block.LATE)
        following = self._apply_block(
            out, control, (shape.runs, shape.groups, shape.deltas, shape.words, shape.verbatim),
            literals, payload[literals_end:], pages.content, pages.seqs,
            (pages.pinned, pages.next, pages.late_ring, pages.late_next), late)
        if late:
            pages.late_next = following
        else:
            pages.next = following
        self._broken = False
        return out

    def _out(self, size_bytes: int) -> memoryview:
        """Return memory for a block's raw bytes."""
        if size_bytes > _ROOM_BYTES:
            return memoryview(np.empty(size_bytes, np.uint8))
        room = self._rooms.pop() if self._rooms else self._new_buffer(_ROOM_BYTES)
        return memoryview(room)[:size_bytes]

    def _plain_control(self, packed: memoryview, shape: block.Shape):
        size = shape.plain_control_bytes
        if not shape.flags & block.CONTROL_COMPRESSED:
            return packed
        if len(self._control_room) < size:
            self._control_room = np.empty(size, np.uint8)
        plain = self._control_room[:size]
        self._control.decompress_into(packed, memoryview(plain),
                                      bool(shape.flags & block.CONTROL_ANEW))
        return plain

    def _plain_literals(self, packed: memoryview, shape: block.Shape):
        if not shape.flags & block.LITERALS_COMPRESSED:
            if len(packed) != shape.literals * PAGE_BYTES:
                raise CodecError("a block's pages do not add up to its length")
            return packed
        size = shape.literals * PAGE_BYTES
        if len(self._room) < size:
            self._room = np.empty(size, np.uint8)
        plain = self._room[:size]
        self._literals.decompress_into(packed, memoryview(plain),
                                       bool(shape.flags & block.LITERALS_ANEW))
        return plain
