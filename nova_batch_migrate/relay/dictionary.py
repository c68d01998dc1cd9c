"""The mirrored dictionary of a log: two rings of pages under absolute numbers.

Encoder and decoder hold one each; what they do to it is decided by the log alone, so both hold the
same pages under the same numbers. The second, small ring takes what guests send again because they
have written it: hardly anything of that is ever in another guest, and it comes without an end. It
lies in the last slots of the first one, which may take them as well.
Memory is set aside once. Never looks at a clock, never waits.
"""
import contextlib
import ctypes
import mmap
import queue
import weakref
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from nova_batch_migrate.relay import kernel
from nova_batch_migrate.relay.layout import BITMAP_BYTES, LATE, PAGE_BYTES

#: linux/mman.h; Python has no name for it.
_MADV_POPULATE_WRITE = 23
_POPULATE_BYTES = 4 << 20
#: Of a store: a huge page of most processors, and what sizes that are no multiple of it may take.
_PART_BYTES, _SPARE_PARTS = 2 << 20, 16
#: Of buffers that nobody uses: those of two or three logs.
_KEPT_BYTES = 256 << 20
NOBODY = -1         # owner of pages that were there before any stream
#: One in so many slots is of the second ring, too.
LATE_SHARE = 8


def _huge(size_bytes: int) -> mmap.mmap:
    """Return zeroed memory, in huge pages if there are any: page by page it is slow to find."""
    # private: shared anonymous memory gets small pages only, unless the host is told otherwise
    area = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):
        area.madvise(mmap.MADV_HUGEPAGE)
    return area


def buffer(size_bytes: int) -> np.ndarray:
    """Return zero bytes for what is gone through page by page; memory as far as it is used."""
    return np.frombuffer(_huge(max(1, size_bytes)), np.uint8)[:size_bytes]


class Areas:
    """Buffers that serve again and again, whoever has them; any thread may ask for one.

    To find memory costs the kernel as much as filling it, and more where it has to make room for a
    huge page. A buffer is free again when nothing refers to it any more; what it held is still
    there.
    """

    def __init__(self):
        #: By their size.
        self._free: dict[int, queue.SimpleQueue[mmap.mmap]] = {}

    def buffer(self, size_bytes: int) -> np.ndarray:
        """Return bytes of any content for what is gone through page by page."""
        size = _whole_parts(max(1, size_bytes))
        free = self._free.setdefault(size, queue.SimpleQueue())
        try:
            area = free.get_nowait()
        except queue.Empty:
            area = _huge(size)
        # all that is made of it refers to this
        whole = np.frombuffer(area, np.uint8)
        weakref.finalize(whole, self._give_back, size, area).atexit = False
        return whole[:size_bytes]

    def _give_back(self, size: int, area: mmap.mmap) -> None:
        kept = sum(each * free.qsize() for each, free in list(self._free.items()))
        if kept + size <= _KEPT_BYTES:
            self._free[size].put(area)

    def release(self) -> None:
        """Give the kernel back what nobody uses."""
        for free in list(self._free.values()):
            with contextlib.suppress(queue.Empty):
                while True:
                    free.get_nowait()


class _Tables:
    """Arrays that are read here and there, in one piece of memory."""

    _ALIGNED_BYTES = 64

    def __init__(self, size_bytes: int, new_buffer):
        self._area = new_buffer(size_bytes + 16 * self._ALIGNED_BYTES)
        self._at = 0

    def new(self, count: int, kind, value: int) -> np.ndarray:
        """Return an array of that many numbers, all of the same value."""
        size = count * np.dtype(kind).itemsize
        array = self._area[self._at:self._at + size].view(kind)
        self._at += -(-size // self._ALIGNED_BYTES) * self._ALIGNED_BYTES
        array[:] = value
        return array


class Memory:
    """Memory for a dictionary's pages, in huge pages if there are any.

    What `populate` does not reach in time is made when it is first written. ``buffer`` is where
    what belongs to the dictionary's log beside the pages has its buffers from.
    """

    def __init__(self, size_bytes: int, area: mmap.mmap | None = None, begin: int = 0,
                 areas: Areas | None = None):
        self.buffer = areas.buffer if areas else buffer
        pages = size_bytes // PAGE_BYTES
        self._area = area or _huge(pages * PAGE_BYTES)
        self._begin = begin
        #: What all that is made of it refers to.
        self.whole = np.frombuffer(self._area, np.uint8, pages * PAGE_BYTES, begin)
        self._pages = self.whole.reshape(pages, PAGE_BYTES)

    def pages(self, count: int) -> np.ndarray:
        """Return the first `count` pages; ValueError if there are not so many."""
        if count > len(self._pages):
            raise ValueError(f"{count} pages are more than the {len(self._pages)} set aside")
        return self._pages[:count]

    def populate(self) -> None:
        """Have the kernel find all of it now, beside whatever is done with it: no byte changes."""
        # mmap's own call keeps the interpreter to itself: connections would wait for all of it
        advise, begin = ctypes.CDLL(None).madvise, self.whole.ctypes.data
        for at in range(0, self.whole.nbytes, _POPULATE_BYTES):
            size = min(_POPULATE_BYTES, self.whole.nbytes - at)
            if advise(ctypes.c_void_p(begin + at), ctypes.c_size_t(size), _MADV_POPULATE_WRITE):
                return          # a kernel before 5.14


class Store:
    """Memory for all dictionaries of a relay: what one has left serves the next.

    So do their buffers. A part is free again when nothing refers
    to it any more, threads that come to their end included; what it held is behind no number of
    its next dictionary.
    """

    def __init__(self, size_bytes: int):
        #: Addresses; memory only where something was written.
        self._area = _huge(_whole_parts(size_bytes) + _SPARE_PARTS * _PART_BYTES)
        self._areas = Areas()
        self._free = [(0, len(self._area))]
        #: Filled whenever a reference goes, by whoever held it.
        self._returned: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()

    def memory(self, size_bytes: int) -> Memory:
        """Return memory for a dictionary; not for two threads at once.

        Its own where there is not so much in one piece: what a group had that was closed a moment
        ago may still be in use.
        """
        self._collect()
        wanted = _whole_parts(size_bytes)
        for index, (begin, end) in enumerate(self._free):
            if end - begin >= wanted:
                self._free[index:index + 1] = [(begin + wanted, end)] * (end - begin > wanted)
                found = Memory(size_bytes, self._area, begin, areas=self._areas)
                weakref.finalize(found.whole, self._returned.put,
                                 (begin, begin + wanted)).atexit = False
                return found
        return Memory(size_bytes, areas=self._areas)

    def free_bytes(self) -> int:
        """Return how much nobody uses; not for two threads at once."""
        self._collect()
        return sum(end - begin for begin, end in self._free)

    def release(self) -> None:
        """Give the kernel back what nobody uses; not for two threads at once."""
        self._collect()
        for begin, end in self._free:
            self._area.madvise(mmap.MADV_DONTNEED, begin, end - begin)
        self._areas.release()

    def _collect(self) -> None:
        """Put what has come back where it belongs."""
        while not self._returned.empty():
            self._free.append(self._returned.get())
        joined: list[tuple[int, int]] = []
        for begin, end in sorted(self._free):
            if joined and joined[-1][1] == begin:
                begin = joined.pop()[0]
            joined.append((begin, end))
        self._free = joined


def _whole_parts(size_bytes: int) -> int:
    return -(-size_bytes // _PART_BYTES) * _PART_BYTES


class Pages:
    """What both sides hold: pages, the number in each slot, the next number of either ring.

    The first `pinned` numbers are the static dictionary and never leave; the others go round, and
    so do those of the second ring, from LATE on.
    """

    def __init__(self, capacity_bytes: int, static: np.ndarray | None = None,
                 memory: Memory | None = None):
        pinned = 0 if static is None else len(static)
        slots = capacity_bytes // PAGE_BYTES
        if slots <= pinned:
            raise ValueError(f"a dictionary of {capacity_bytes} bytes has no room beside "
                             f"{pinned} static pages; set dictionary_bytes higher")
        self.pinned, self.ring = pinned, slots - pinned
        self.late_ring = self.ring // LATE_SHARE
        self.content = (memory or Memory(capacity_bytes)).pages(slots)
        self.seqs = np.full(slots, -1, np.int64)
        self.next, self.late_next = pinned, LATE
        if static is not None:
            self.content[:pinned] = static
            self.seqs[:pinned] = np.arange(pinned)

    @property
    def capacity_bytes(self) -> int:
        return len(self.content) * PAGE_BYTES


class Matches(NamedTuple):
    """What `Dictionary.match` made of some pages, in their order."""

    kinds: np.ndarray           # Op per page
    seqs: np.ndarray            # number referred to, -1 for pages in full
    bitmaps: np.ndarray         # per delta, which words differ
    words: np.ndarray           # the differences, deltas one after the other
    literals: np.ndarray        # pages to compress
    raws: np.ndarray            # pages that look random
    self_duplicates: int
    cross_server: int
    predicted: int              # the number that the next page is likely to be like
    lent: int                   # pages inserted by the last of three in `admit`


class Dictionary:
    """The encoder's side: pages, and how to find one.

    A page is found by what followed the last match, by its hash, or (to send the difference) by
    the last version of the same guest page. What is found is compared byte by byte.
    """

    def __init__(self, capacity_bytes: int, static: np.ndarray | None = None, *,
                 memory: Memory | None = None, loops=kernel):
        self.pages = Pages(capacity_bytes, static, memory)
        self._match = loops.match_pages
        self._new_buffer = memory.buffer if memory else buffer
        slots = len(self.pages.content)
        self._scalars = np.array([0, self.pages.pinned, self.pages.ring, 0, LATE,
                                  self.pages.late_ring, 0], np.int64)
        heads, versions = _power_of_two(slots), _power_of_two(4 * slots)
        tables = _Tables(slots * (8 + 8 + 8 + 4 + 1 + 4) + heads * 4 + versions * 16,
                         self._new_buffer)
        self._version_keys = tables.new(versions, np.uint64, 0)
        self._version_seqs = tables.new(versions, np.int64, -1)
        self._heads = tables.new(heads, np.int32, -1)
        self._hashes = tables.new(slots, np.uint64, 0)
        self._written = tables.new(slots, np.int64, -1)     # block in which the slot was written
        self._referred = tables.new(slots, np.int64, -1)    # last block that refers to it
        self._owners = tables.new(slots, np.int32, NOBODY)
        self._nexts = tables.new(slots, np.int32, -1)
        self._shared = tables.new(slots, np.uint8, 0)
        self._arrays = (self._scalars, self.pages.content, self.pages.seqs, self._hashes,
                        self._written, self._referred, self._owners, self._shared, self._nexts,
                        self._heads, self._version_keys, self._version_seqs)
        self._scratch, self._other_scratch = (_Scratch(0, self._new_buffer) for _ in range(2))
        if self.pages.pinned:
            self._index_static()

    def _index_static(self) -> None:
        """Enter the static pages by matching them against an empty dictionary of their own size."""
        pinned, scalars = self.pages.pinned, self._scalars.copy()
        static = self.pages.content[:pinned].copy()
        self.pages.seqs[:pinned] = -1
        for first in range(0, pinned, 256):
            part = static[first:first + 256]
            # as a ring of all slots with nothing in it: numbers and slots are the same
            self._scalars[:] = first, 0, len(self.pages.content), 0, LATE, 0, 0
            offsets = np.arange(len(part), dtype=np.int64) * PAGE_BYTES
            keys = np.zeros(len(part), np.uint64)
            scratch = self._room(len(part))
            self._match(self._arrays, part, offsets, keys, None, None, -1, NOBODY, 0, *scratch)
            if int(self._scalars[0]) != first + len(part):
                raise ValueError("static pages have to differ from each other")
        self._scalars[:] = scalars
        self._scalars[0] = pinned
        self._version_seqs[:] = -1
        self._shared[:] = 1

    def spare(self) -> None:
        """Leave the last matches alone until the call after this one."""
        self._scratch, self._other_scratch = self._other_scratch, self._scratch

    def _room(self, pages: int):
        if self._scratch.pages < pages:
            self._scratch = _Scratch(pages, self._new_buffer)
        return self._scratch.outputs

    @property
    def next(self) -> int:
        """The number that the next page inserted into the ring will have."""
        return int(self._scalars[0])

    @property
    def ends(self) -> tuple[int, int]:
        """The next numbers of the ring and of the second one."""
        return self.next, int(self._scalars[4])

    @property
    def fill_bytes(self) -> int:
        """Bytes of content held."""
        return int(np.count_nonzero(self.pages.seqs >= 0)) * PAGE_BYTES

    def would_lose(self, owners: Collection[int], count: int) -> bool:
        """Tell whether the next `count` insertions push out what one of these guests inserted."""
        pinned, ring = self.pages.pinned, self.pages.ring
        slots = pinned + (self.next - pinned + np.arange(count)) % ring
        return bool(((self.pages.seqs[slots] >= 0)
                     & np.isin(self._owners[slots], list(owners))).any())

    def has_room(self, count: int) -> bool:
        """Tell whether so many insertions push nothing out."""
        return self.next + count - self.pages.pinned <= self.pages.ring

    def has_late_room(self, owner: int, count: int, since: int) -> bool:
        """Tell whether the second ring can take so many pages of a guest.

        What they push out is not its own, or it has not sent that anew since block `since`.
        """
        if count > self.pages.late_ring:
            return False
        following = self.ends[1] - LATE
        slots = (len(self.pages.content) - self.pages.late_ring
                 + (following + np.arange(count)) % self.pages.late_ring)
        return not ((self.pages.seqs[slots] >= 0) & (self._owners[slots] == owner)
                    & (self._written[slots] >= since)).any()

    def begin_block(self, number: int, late: bool = False) -> None:
        """Say which block the pages matched from now on belong to; numbers grow.

        late: what is new goes into the second ring.
        """
        self._scalars[3], self._scalars[6] = number, late

    def match(self, data, offsets: np.ndarray, keys: np.ndarray, *, owner: int, predicted: int,
              most_words: int, hashes=None, admit=None) -> Matches:
        """Match the pages at `offsets` of `data`, insert what is new, and say how each crosses.

        keys: u64 per page, the same for the same page of the same guest. admit: u8 per page, 0: not
        to be inserted; or (hashes of `Recurring`, seed, whether the rest is inserted as well), by
        which only pages are judged that are new. The result is valid until the next call, or as
        `spare` has it.
        """
        kinds, seqs, bitmaps, words, literals, raws = scratch = self._room(len(offsets))
        predicted, own, cross, deltas, changed, literal, raw, lent = self._match(
            self._arrays, data, offsets, keys, hashes, admit, predicted, owner, most_words,
            *scratch)
        pages = len(offsets)
        return Matches(kinds[:pages], seqs[:pages], bitmaps[:deltas], words[:changed],
                       literals[:literal], raws[:raw], own, cross, predicted, lent)

    def truncate(self, ends: tuple[int, int], block: int) -> None:
        """Forget what was inserted from these `ends` on or written after `block`."""
        seqs = self.pages.seqs
        seqs[(seqs >= np.where(seqs >= LATE, ends[1], ends[0])) | (self._written > block)] = -1
        self._scalars[0], self._scalars[4] = ends
        self._heads[:] = -1
        self._nexts[:] = -1
        for slot in np.flatnonzero(self.pages.seqs >= 0)[::-1].tolist():
            head = int(self._hashes[slot]) & len(self._heads) - 1
            self._nexts[slot] = self._heads[head]
            self._heads[head] = slot


class _Scratch:
    """Buffers that a block's matches are written to, reused from block to block."""

    def __init__(self, pages: int, new_buffer):
        self.pages, size = pages, pages * PAGE_BYTES
        self.outputs = (
            np.empty(pages, np.uint8), np.empty(pages, np.int64),
            np.empty((pages, BITMAP_BYTES), np.uint8), new_buffer(size).view(np.uint64),
            *(new_buffer(size).reshape(pages, PAGE_BYTES) for _ in range(2)))


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length() if number > 1 else 1
