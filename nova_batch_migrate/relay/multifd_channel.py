"""A multifd connection of a QEMU migration without compression: packets of addresses, then pages.

Chosen by qemu_stream under its magic. QEMU's migration/multifd.h is the format's source; the
packet of 9.0 and later (zero pages listed behind the normal ones) has the same length.
"""
import numpy as np

from nova_batch_migrate.relay.layout import PAGE_BYTES, Run
from nova_batch_migrate.relay.main_channel import block_key
from nova_batch_migrate.relay.runs import (
    Channel,
    Cursor,
    NeedMore,
    Progress,
    Runs,
    Unknown,
)

MAGIC = b"\x11\x22\x33\x44"
VERSION = 1
HELLO_BYTES = 64
PACKET_BYTES = 320
NAME_BYTES = 256
FLAG_SYNC = 1
PACKET_PAGES = 128         # places for addresses, sent whether used or not (512 KiB of pages)
BLOCK_SHIFT = 44            # a block's place among the others, above every offset in it


class MultifdChannel(Channel):
    """Parser of a multifd connection."""

    def __init__(self):
        self.progress = Progress()
        self.hits: dict[str, int] = {}
        self._next = self._hello
        self._offsets = np.empty(0, np.int64)   # of pages of the packet that are still to come
        self._key = 0
        self._names: list[bytes] = []
        self._passed = 0            # pages so far, zero pages too

    @property
    def phase(self) -> str:
        return "later" if self.progress.round else "round0"

    def step(self, data: memoryview, at: int, end: int, runs: Runs, offset: int) -> int:
        return self._next(data, at, end, runs)

    def _hello(self, data, at, end, runs) -> int:
        cursor = Cursor(data, at, end)
        cursor.take(4)
        if cursor.number(4) != VERSION:
            raise Unknown
        cursor.take(HELLO_BYTES - 8)
        runs.verbatim(at, HELLO_BYTES)
        self.ram_offset = HELLO_BYTES
        self._hit("multifd hello")
        self._next = self._packet
        return cursor.at

    def _packet(self, data, at, end, runs) -> int:
        cursor = Cursor(data, at, end)
        magic, version, flags = bytes(cursor.take(4)), cursor.number(4), cursor.number(4)
        allocated, normal = cursor.number(4), cursor.number(4)
        cursor.take(12)         # length and number of the packet
        zeros = cursor.number(4)        # before 9.0: they are on the main connection
        if magic != MAGIC or version != VERSION or flags & ~FLAG_SYNC:
            raise Unknown           # compressed, or device state
        if normal + zeros > allocated or allocated > PACKET_PAGES:
            raise Unknown
        cursor.take(PACKET_BYTES - 36 - NAME_BYTES)
        name = bytes(cursor.take(NAME_BYTES)).partition(b"\0")[0]
        offsets = np.frombuffer(cursor.take(8 * PACKET_PAGES), ">i8")[:normal].astype(np.int64)
        if normal and not 0 <= int(offsets.min()) <= int(offsets.max()) < 1 << BLOCK_SHIFT:
            raise Unknown
        runs.verbatim(at, cursor.at - at)
        self._hit("multifd packet")
        self._passed += normal + zeros
        if normal:
            self._key, self._offsets, self._next = block_key(name), offsets, self._pages
            self._note(name, offsets)
        if not self.progress.round:
            # places do not add up to bytes here: count pages
            self.progress.round0_bytes = self._passed * PAGE_BYTES
        return cursor.at

    def _note(self, name: bytes, offsets: np.ndarray) -> None:
        if name not in self._names:
            self._names.append(name)
        # in a packet pages have no order: those found to be zero were taken out of the middle
        base = self._names.index(name) << BLOCK_SHIFT
        first, last = int(offsets.min()), int(offsets.max())
        if base + first == self.progress.end - PAGE_BYTES:
            # QEMU 7.2 begins a packet with the page that ended the one before: no new round
            first += PAGE_BYTES
        # a run without content over all of them: where it lies is what counts
        self.progress.note(np.array([(Run.ZERO, 0, (last - first) // PAGE_BYTES + 1, first, 0)],
                                    np.int64), base)
        if self.progress.round:
            self.progress.changed_pages += len(offsets)

    def _pages(self, data, at, end, runs) -> int:
        count = min((end - at) // PAGE_BYTES, len(self._offsets))
        if not count:
            raise NeedMore
        here = self._offsets[:count]
        steps = np.flatnonzero(np.diff(here) != PAGE_BYTES) + 1
        for first, last in zip((0, *steps.tolist()), (*steps.tolist(), count), strict=True):
            runs.append(Run.BARE, at + first * PAGE_BYTES, last - first, int(here[first]),
                        self._key)
        self._hit("multifd page", count)
        self._offsets = self._offsets[count:]
        if not len(self._offsets):
            self._next = self._packet
        return at + count * PAGE_BYTES
