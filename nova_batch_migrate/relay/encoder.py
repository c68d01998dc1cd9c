"""The source's end of a log: migration streams in, frames out.

Driven by the daemon of the source host, under its lock; holds no thread, socket or clock and never
waits. Whatever is fed comes out at the other side byte for byte.
"""
import collections
import dataclasses
import struct
from typing import NamedTuple

import numpy as np
import xxhash

from nova_batch_migrate.relay import dictionary, kernel, qemu_stream
from nova_batch_migrate.relay.block_writer import BlockWriter
from nova_batch_migrate.relay.layout import PAGE_BYTES
from nova_batch_migrate.relay.runs import Runs
from nova_batch_migrate.relay.settings import Agreement, LogSettings
from nova_batch_migrate.relay.statistics import Statistics
from nova_batch_migrate.relay.wire import CannotTruncate, CodecError, Frame, Kind, pieces

ROUND0_BLOCK_BYTES, MAX_BLOCK_BYTES = 1 << 20, 6 << 20
LATER_BLOCK_BYTES = 64 << 10
#: So many blocks and more are a dictionary's ring, where those of later rounds are not longer: to
#: what a block might push out it can't refer, and admission leaves room for two.
RING_BLOCKS = 64
# The longest thing a parser may want whole: a multifd packet of 4096 addresses, a record.
MAX_ITEM_BYTES = 128 << 10
STEP_BYTES = 8 << 10
#: A frame in buffers that belong behind each other.
_Pieces = tuple[bytes | memoryview, ...]
CREDIT = struct.Struct("<QQ")       # raw bytes delivered of the stream, last number applied


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a stream is, as the daemon's pacing and switch-over need it."""

    position: qemu_stream.Position
    raw_bytes: int          # fed
    wire_bytes: int
    held_bytes: int         # fed, and not in a frame yet


class _Stream:
    """One connection towards the destination: parser, bytes not yet in a block, credit."""

    def __init__(self, number: int, server: str, owner: int, most_block_bytes: int,
                 buffer: np.ndarray):
        self.number, self.server, self.owner = number, server, owner
        self.most_block_bytes = most_block_bytes
        self.parser = qemu_stream.QemuStream()
        self.runs = Runs()
        self.buffer = memoryview(buffer)
        self.filled = 0
        self.sent = 0               # of the buffer's first bytes: they crossed ahead of the item
        self.predicted = -1
        self.block_bytes: int | None = None
        self.fed = self.delivered = 0
        self.key = xxhash.xxh3_64_intdigest(server.encode())
        self.statistics = Statistics()

    @property
    def limit(self) -> int:
        """Raw bytes at which a block is made."""
        by_round = LATER_BLOCK_BYTES if self.parser.round else ROUND0_BLOCK_BYTES
        return min(self.block_bytes or by_round, self.most_block_bytes)

    def wanted(self) -> int:
        """Return the bytes of buffer to fill before the next block is tried."""
        if self.filled < self.limit:
            return self.limit - self.filled
        # an item longer than a block: let it grow
        return min(STEP_BYTES, len(self.buffer) - self.filled)


class _Sent(NamedTuple):
    """A frame that the peer has not said to have applied, and where the log stood behind it."""

    number: int
    stream: int
    size_bytes: int
    ends: tuple[int, int]


class Encoder:
    """Encodes the streams of one log."""

    def __init__(self, settings: LogSettings, *, memory: dictionary.Memory | None = None,
                 loops=kernel):
        self._agreement = Agreement.of(settings)
        # the writer's dictionary has the static pages now
        self._settings = dataclasses.replace(settings, static=None)
        self._writer = BlockWriter(settings, memory=memory, loops=loops)
        self._new_buffer = memory.buffer if memory else dictionary.buffer
        self._most_block_bytes = max(
            LATER_BLOCK_BYTES, self._writer.dictionary.pages.ring * PAGE_BYTES // RING_BLOCKS)
        self._streams: dict[int, _Stream] = {}
        self._closed: dict[int, _Stream] = {}
        self._owners: dict[str, int] = {}
        self._under_way: collections.deque[_Sent] = collections.deque()
        self._under_way_bytes = 0
        self._applied = 0
        self._applied_ends = self._writer.dictionary.ends
        self.sequence = 0           # number of the last frame of the log

    # streams

    def hello(self) -> list[bytes]:
        """Return the log's first frame; call once, before any stream is opened."""
        return _whole([self._frame(Kind.SETUP, 0, self._agreement.pack())])

    def open_stream(self, stream: int, server: str, metadata: bytes = b"") -> list[bytes]:
        """Begin a stream; metadata reaches the peer's daemon untouched."""
        if stream in self._streams or stream in self._closed:
            raise ValueError(f"stream {stream} has been there already")
        owner = self._owners.setdefault(server, len(self._owners))
        self._writer.begin_guest(owner, server)
        self._streams[stream] = _Stream(stream, server, owner, self._most_block_bytes,
                                        self._new_buffer(MAX_BLOCK_BYTES + MAX_ITEM_BYTES))
        return _whole([self._frame(Kind.OPEN, stream, metadata)])

    def room(self, stream: int) -> int:
        """Return how many raw bytes may be fed now; 0: stop reading the source."""
        if self._under_way_bytes >= self._settings.under_way_bytes:
            return 0
        opened = self._streams[stream]
        return max(0, self._settings.credit_bytes - (opened.fed - opened.delivered))

    def feed(self, stream: int, data) -> list[bytes]:
        """Take bytes of a stream; return the frames that are complete with them."""
        frames = []
        with memoryview(data) as view:
            at = 0
            while at < len(view):
                with self.buffer(stream) as free:
                    taken = min(len(view) - at, len(free))
                    free[:taken] = view[at:at + taken]
                frames += _whole(self.commit(stream, taken))
                at += taken
        return frames

    def buffer(self, stream: int) -> memoryview:
        """Return where the stream's next bytes may be written, for `recv_into`: never empty.

        Release it before `commit`. Spares the copy that `feed` makes.
        """
        opened = self._streams[stream]
        return opened.buffer[opened.filled:opened.filled + opened.wanted()]

    def commit(self, stream: int, count: int) -> list[_Pieces]:
        """Take `count` bytes that were written to `buffer`; return the frames complete now.

        As the buffers that they are made of, the encoder's own: they keep until the next call but
        one of `commit` or `flush`.
        """
        opened = self._streams[stream]
        opened.filled += count
        opened.fed += count
        opened.statistics.raw_bytes += count
        return self._encode(opened) if opened.filled >= opened.limit else []

    def flush(self, stream: int, rest: bool = True) -> list[bytes]:
        """Let what was fed so far go: the source has run dry.

        ``rest``: the beginning of an incomplete record, too. A page that crosses in two parts is
        none any more: it is neither found nor kept.
        """
        opened = self._streams[stream]
        frames = _whole(self._encode(opened))
        if rest and opened.filled > opened.sent:
            frames += _whole([self._rest(opened)])
        return frames

    def end(self, stream: int) -> list[bytes]:
        """The source has closed its side; the stream's credit and counters stay to be asked for."""
        return [*self.flush(stream), *_whole([self._close(stream, Kind.END, b"")])]

    def abort(self, stream: int, reason: str) -> list[bytes]:
        """Give a stream up; the peer breaks its connection to QEMU. Nothing if it is over here."""
        if stream not in self._streams:
            return []
        return _whole([self._close(stream, Kind.ABORT, reason.encode()[:1024])])

    def forgo(self, server: str) -> None:
        """Expect no stream of a server any more: what is kept for it may go. From any thread."""
        self._writer.end_guest(server)

    def _close(self, stream: int, kind: Kind, payload: bytes) -> _Pieces:
        self._take_out(stream).buffer = memoryview(b"")
        return self._frame(kind, stream, payload)

    def _take_out(self, stream: int) -> _Stream:
        """Count a stream with those that are over, and with its last one its server."""
        opened = self._closed[stream] = self._streams.pop(stream)
        if all(other.server != opened.server for other in self._streams.values()):
            self._writer.end_guest(opened.server)
        return opened

    # settings that change

    def set_block_bytes(self, stream: int, block_bytes: int | None) -> None:
        """Set the raw bytes of a stream's blocks; None: by its round.

        In a small dictionary they are shorter.
        """
        if block_bytes is not None and not PAGE_BYTES <= block_bytes <= MAX_BLOCK_BYTES:
            raise ValueError(f"a block of {block_bytes} bytes is not within {PAGE_BYTES}.."
                             f"{MAX_BLOCK_BYTES}")
        self._streams[stream].block_bytes = block_bytes

    def set_level(self, level: int | None) -> None:
        """Set the zstd level of pages in full; another number begins a new context."""
        self._writer.set_level(level)

    # what comes back

    def on_frame(self, frame: Frame) -> None:
        """Take a CREDIT frame; CodecError if it says what can't be."""
        if frame.kind is not Kind.CREDIT or len(frame.payload) != CREDIT.size:
            raise CodecError("what came back is no credit")
        delivered, applied = CREDIT.unpack(frame.payload)
        opened = self._streams.get(frame.stream) or self._closed.get(frame.stream)
        if opened is None or delivered > opened.fed or applied > self.sequence:
            raise CodecError("credit for what was never sent")
        opened.delivered = max(opened.delivered, delivered)
        self._forget(applied)

    def _forget(self, applied: int) -> None:
        while self._under_way and self._under_way[0].number <= applied:
            sent = self._under_way.popleft()
            self._under_way_bytes -= sent.size_bytes
            self._applied, self._applied_ends = sent.number, sent.ends

    def truncate(self, last_number: int) -> list[int]:
        """Cut the log behind what the peer has; return the streams that lost bytes: end them.

        Both dictionaries then hold the same pages again; compression begins anew.
        """
        # without its first frame a log has not begun
        if not max(1, self._applied) <= last_number <= self.sequence:
            raise CannotTruncate(f"the log can be cut from {self._applied} to {self.sequence}, "
                                 f"not at {last_number}: begin a new log")
        self._forget(last_number)
        lost = sorted({sent.stream for sent in self._under_way} - {0})
        self._under_way.clear()
        self._under_way_bytes = 0
        self.sequence = last_number
        self._writer.truncate(self._applied_ends, last_number)
        for stream in lost:
            if stream in self._streams:
                self._take_out(stream)
        for opened in self._streams.values():
            opened.predicted = -1
        return lost

    # what is known

    def progress(self, stream: int) -> Progress:
        """Return where a stream is."""
        opened = self._stream(stream)
        return Progress(opened.parser.position, opened.fed, opened.statistics.wire_bytes,
                        opened.filled - opened.sent)

    def parser(self, stream: int) -> qemu_stream.QemuStream:
        """Return the parser of a stream, for what it has seen."""
        return self._stream(stream).parser

    def statistics(self, stream: int | None = None) -> Statistics:
        """Return the counters of a stream, or of the log."""
        if stream is not None:
            return Statistics(**vars(self._stream(stream).statistics))
        total = Statistics()
        for opened in (*self._streams.values(), *self._closed.values()):
            total.add(opened.statistics)
        return total

    def crossed(self, stream: int) -> tuple[int, int]:
        """Return how many raw bytes of a stream were fed, and wire bytes made of them."""
        counted = self._stream(stream).statistics
        return counted.raw_bytes, counted.wire_bytes

    @property
    def fill_bytes(self) -> int:
        """Bytes of content that the dictionary holds."""
        return self._writer.dictionary.fill_bytes

    @property
    def under_way_bytes(self) -> int:
        """Wire bytes that the peer has not said to have applied."""
        return self._under_way_bytes

    def _stream(self, stream: int) -> _Stream:
        return self._streams.get(stream) or self._closed[stream]

    # blocks

    def _encode(self, opened: _Stream) -> list[_Pieces]:
        """Make blocks of all that is complete in the buffer; keep the rest at its beginning."""
        frames, at = [], 0
        self._writer.spare()
        data = opened.buffer
        while at < opened.filled:
            opened.runs.clear()
            turn = opened.parser.round
            following = opened.parser.parse(data, at, opened.filled, opened.runs)
            if following == at:
                break
            opened.runs.clip(opened.sent)
            # the next block is written to the same buffers
            frames = [(each,) for each in _whole(frames)]
            frames.append(self._block(opened, data, following - at - opened.sent, turn))
            opened.sent, at = 0, following
            if opened.parser.starved:
                break
        left = opened.filled - at
        if at:
            data[:left] = data[at:opened.filled]
        opened.filled = left
        return frames

    def _rest(self, opened: _Stream) -> _Pieces:
        """Make a block of the beginning of an item, as it is."""
        runs = Runs(1)
        runs.verbatim(opened.sent, opened.filled - opened.sent)
        opened.runs, kept = runs, opened.runs
        turn = opened.parser.round
        frame = self._block(opened, opened.buffer, opened.filled - opened.sent, turn)
        opened.runs, opened.sent = kept, opened.filled
        return frame

    def _block(self, opened: _Stream, data: memoryview, raw_bytes: int, turn: int) -> _Pieces:
        """Make the frame of a block from the stream's runs, and count what became of it."""
        written = self._writer.write(
            self.sequence + 1, data, opened.runs.table, raw_bytes, key=opened.key,
            owner=opened.owner, predicted=opened.predicted, turn=turn)
        opened.predicted = written.predicted
        frame = self._frame(Kind.DATA, opened.number, *written.parts)
        size = self._under_way[-1].size_bytes
        statistics = opened.statistics
        statistics.wire_bytes += size
        statistics.zero_bytes += written.zero_pages * PAGE_BYTES
        statistics.self_duplicate_bytes += written.self_duplicates * PAGE_BYTES
        statistics.cross_server_bytes += written.cross_server * PAGE_BYTES
        statistics.delta_bytes += written.deltas * PAGE_BYTES
        statistics.literal_bytes += written.full_pages * PAGE_BYTES
        statistics.verbatim_bytes += written.verbatim_bytes
        statistics.literal_wire_bytes += written.literal_wire_bytes
        statistics.reference_wire_bytes += size - written.literal_wire_bytes
        if opened.parser.round:
            statistics.changed_raw_bytes += written.pages * PAGE_BYTES
            statistics.changed_wire_bytes += size
        return frame

    def _frame(self, kind: Kind, stream: int, *parts) -> _Pieces:
        """Number a frame of the log and remember it until the peer has it."""
        self.sequence += 1
        frame = pieces(kind, stream, self.sequence, parts)
        size = sum(map(len, frame))
        self._under_way.append(_Sent(self.sequence, stream, size, self._writer.dictionary.ends))
        self._under_way_bytes += size
        return frame


def _whole(frames: list[_Pieces]) -> list[bytes]:
    """Return frames in one piece each, which nobody writes over."""
    return [b"".join(frame) for frame in frames]
