"""The codec's inner loops in plain Python: what _speed.c does, on the same arrays.

Used where the C extension is not built, and by tests as the measure of it. Signatures, results and
errors are those of the extension; only the hash differs, which nobody outside sees. Here is the
encoder's part.
"""
import os
import time

import numpy as np
import xxhash

from nova_batch_migrate.relay import block
from nova_batch_migrate.relay.layout import (
    HEADER_BYTES,
    LATE,
    PAGE_BYTES,
    PAGE_WORDS,
    RECORD_BYTES,
    SIZES,
    Op,
    Run,
    Stop,
)
from nova_batch_migrate.relay.reference_decoding import apply_block, place

__all__ = ["apply_block", "list_pages", "list_recurring", "match_pages", "note_runs",
           "pack_control", "pump", "scan_records"]

ZERO_CONTINUE = 0x22
PAGE_CONTINUE = 0x28
RAW_SAMPLES, RAW_SAMPLE_BYTES, RAW_DISTINCT = 4, 64, 140
KEY_FACTOR = 0x9E3779B97F4A7C15
MASK, _LOW = (1 << 64) - 1, (1 << 32) - 1
(SCALAR_NEXT, SCALAR_PINNED, SCALAR_RING, SCALAR_BLOCK, SCALAR_LATE_NEXT, SCALAR_LATE_RING,
 SCALAR_LATE) = range(7)


def scan_records(data, start: int, end: int, block: int, runs, row: int, rows: int):
    """Find runs of page and zero records; return where they end, the next row, and why (Stop)."""
    view = memoryview(data)
    if not 0 <= start <= end or row < 0:
        raise ValueError("start lies outside of the data")
    if end > len(view) or rows > len(runs):
        raise ValueError("data or runs is shorter than what it has to hold")
    kind, expected = None, 0
    while start + HEADER_BYTES <= end:
        header = int.from_bytes(view[start:start + HEADER_BYTES], "big")
        flags = header & (PAGE_BYTES - 1)
        if flags not in (ZERO_CONTINUE, PAGE_CONTINUE):
            return start, row, Stop.OTHER
        this = Run.ZERO if flags == ZERO_CONTINUE else Run.PAGES
        size = SIZES[this]
        if start + size > end:
            break
        if this is Run.ZERO and view[start + HEADER_BYTES]:
            return start, row, Stop.OTHER
        if this is kind and header == expected:
            runs[row - 1, 2] += 1
        else:
            if row >= rows:
                return start, row, Stop.FULL
            runs[row] = this, start, 1, _signed(header), block
            row += 1
            kind = this
        expected = (header + PAGE_BYTES) & MASK
        start += size
    return start, row, Stop.MORE


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def looks_random(page: bytes) -> bool:
    """Say whether samples of a page hold so many different bytes that compression is no use."""
    step = PAGE_BYTES // RAW_SAMPLES
    sample = b"".join(page[at:at + RAW_SAMPLE_BYTES] for at in range(0, PAGE_BYTES, step))
    return len(set(sample)) >= RAW_DISTINCT


class Book:
    """The dictionary's arrays with what matching does to them."""

    def __init__(self, arrays, pages: int):
        (self.scalars, self.ring, self.seqs, self.hashes, self.written, self.referred, self.owners,
         self.shared, self.nexts, self.heads, self.version_keys, self.version_seqs) = (
            memoryview(array) for array in arrays)
        self.bytes = self.ring.cast("B")
        self.head_mask = len(self.heads) - 1
        self.version_mask = len(self.version_keys) - 1
        self.pinned, self.size = self.scalars[SCALAR_PINNED], self.scalars[SCALAR_RING]
        self.late_size, late = self.scalars[SCALAR_LATE_RING], self.scalars[SCALAR_LATE]
        self.block = self.scalars[SCALAR_BLOCK]
        if (not 0 <= self.late_size <= self.size or self.scalars[SCALAR_LATE_NEXT] < LATE
                or self.pinned + self.size != len(self.seqs)):
            raise ValueError("the dictionary's arrays do not fit each other")
        if pages > (self.late_size if late else self.size):
            raise ValueError("more pages in a block than the ring holds, or an impossible limit")
        #: The scalar that numbers what is new.
        self.following = SCALAR_LATE_NEXT if late else SCALAR_NEXT
        self.guard = self.scalars[SCALAR_NEXT] + (0 if late else pages) - self.size
        self.late_guard = self.scalars[SCALAR_LATE_NEXT] + (pages if late else 0) - self.late_size

    def content(self, slot: int) -> bytes:
        return bytes(self.bytes[slot * PAGE_BYTES:(slot + 1) * PAGE_BYTES])

    def slot_of(self, seq: int) -> int:
        return place(seq, self.pinned, self.size, self.late_size)

    def live(self, seq: int) -> int:
        """Return the slot of a number that may be referred to in this block, or -1."""
        following, guard = (SCALAR_LATE_NEXT, self.late_guard) if seq >= LATE else (
            SCALAR_NEXT, self.guard)
        if seq < 0 or seq >= self.scalars[following] or self.pinned <= seq < guard:
            return -1
        slot = self.slot_of(seq)
        return slot if self.seqs[slot] == seq else -1

    def base(self, seq: int) -> int:
        """Return the slot of a number that was there before this block, or -1."""
        slot = self.live(seq)
        return slot if slot >= 0 and self.written[slot] < self.block else -1

    def unlink(self, slot: int) -> None:
        head = self.hashes[slot] & self.head_mask
        at = self.heads[head]
        if at == slot:
            self.heads[head] = self.nexts[slot]
            return
        while at >= 0:
            following = self.nexts[at]
            if following == slot:
                self.nexts[at] = self.nexts[slot]
                return
            at = following

    def write(self, slot: int, seq: int, page_hash: int, owner: int, page: bytes) -> None:
        if self.seqs[slot] >= 0:
            self.unlink(slot)
        self.bytes[slot * PAGE_BYTES:(slot + 1) * PAGE_BYTES] = page
        self.seqs[slot], self.owners[slot] = seq, owner
        self.written[slot], self.referred[slot], self.shared[slot] = self.block, -1, 0
        self.hashes[slot] = page_hash
        head = page_hash & self.head_mask
        self.nexts[slot] = self.heads[head]
        self.heads[head] = slot

    def append(self, page_hash: int, owner: int, page: bytes) -> int:
        seq = self.scalars[self.following]
        self.scalars[self.following] = seq + 1
        self.write(self.slot_of(seq), seq, page_hash, owner, page)
        return seq

    def find(self, page_hash: int, page: bytes) -> int:
        slot = self.heads[page_hash & self.head_mask]
        while slot >= 0:
            if (self.hashes[slot] == page_hash and self.live(self.seqs[slot]) == slot
                    and self.content(slot) == page):
                return slot
            slot = self.nexts[slot]
        return -1


class _Matcher:
    """One call's worth of matching: a book, the buffers to fill and what was found."""

    def __init__(self, book: Book, owner: int, most_words: int, admit, outputs):
        # whether each page goes in that is new, or by what that is told
        self.admit = admit
        self.lent = 0
        self.book, self.owner, self.most_words = book, owner, most_words
        self.kinds, self.seqs, self.bitmaps, self.words, self.literals, self.raws = outputs
        self.self_found = self.cross_found = 0
        self.delta_count = self.word_count = self.literal_count = self.raw_count = 0

    def match(self, i: int, page: bytes, page_hash: int | None, version: int, predicted: int
              ) -> tuple[int, int]:
        """Return the number under which the page is held now (-1: none) and the next guess."""
        book = self.book
        slot = book.live(predicted)
        if slot >= 0 and book.content(slot) == page:
            return self._refer(i, slot), predicted + 1
        if page_hash is None:
            page_hash = xxhash.xxh3_64_intdigest(page)
        slot = book.find(page_hash, page)
        if slot >= 0:
            seq = self._refer(i, slot)
            return seq, seq + 1
        base, difference = self._nearest(page, version, predicted)
        if base >= 0:
            seq = book.seqs[base]
            held = self._delta(i, base, difference, version, page_hash, page)
            return held, seq + 1
        random, admit = looks_random(page), self._let_in(i, page)
        self.kinds[i] = (Op.LITERAL if admit else Op.TRANSIENT) + random
        self.seqs[i] = -1
        if random:
            self.raws[self.raw_count] = np.frombuffer(page, np.uint8)
            self.raw_count += 1
        else:
            self.literals[self.literal_count] = np.frombuffer(page, np.uint8)
            self.literal_count += 1
        held = book.append(page_hash, self.owner, page) if admit else -1
        return held, predicted + 1 if predicted >= 0 else -1

    def _refer(self, i: int, slot: int) -> int:
        book = self.book
        self.kinds[i] = Op.REFERENCE
        book.referred[slot], book.shared[slot] = book.block, 1
        if book.owners[slot] == self.owner:
            self.self_found += 1
        else:
            self.cross_found += 1
        self.seqs[i] = book.seqs[slot]
        return book.seqs[slot]

    def _nearest(self, page: bytes, version: int, successor: int):
        """Return the slot of the nearer base and page - base in words; (-1, None): too far."""
        best, difference, most = -1, None, self.most_words
        words = np.frombuffer(page, np.uint64)
        first = self.book.base(version)
        for number, slot in enumerate((first, self.book.base(successor))):
            if most <= 0 or slot < 0 or (number and slot == first):
                continue
            here = words - np.frombuffer(self.book.content(slot), np.uint64)
            changed = int(np.count_nonzero(here))
            if changed <= most:
                best, difference, most = slot, here, changed - 1
        return best, difference

    def _let_in(self, i: int, page: bytes) -> bool:
        """Tell whether a page that is new is let in."""
        if not isinstance(self.admit, tuple):
            return self.admit is None or bool(self.admit[i])
        hashes, seed, lends = self.admit
        listed = _is_listed(page, hashes, seed)
        self.lent += lends and not listed
        return listed or lends

    def _delta(self, i, base, difference, version, page_hash, page) -> int:
        book, seq = self.book, self.book.seqs[base]
        changed = difference[difference != 0]
        self.seqs[i] = seq
        self.bitmaps[self.delta_count] = np.packbits(difference != 0, bitorder="little")
        self.words[self.word_count:self.word_count + len(changed)] = changed
        self.delta_count += 1
        self.word_count += len(changed)
        if (seq == version and book.owners[base] == self.owner and not book.shared[base]
                and book.referred[base] < book.block):
            self.kinds[i] = Op.UPDATE
            book.write(base, seq, page_hash, self.owner, page)
            return seq
        if not self._let_in(i, page):
            self.kinds[i] = Op.TRANSIENT_DELTA
            return seq      # the base of its next version, too
        self.kinds[i] = Op.DELTA
        return book.append(page_hash, self.owner, page)


def match_pages(arrays, data, offsets, keys, hashes, admit, predicted, owner, most_words,
                kinds, seqs, bitmaps, words, literals, raws):
    """Match pages with the dictionary and insert what is new.

    Fills kinds and seqs per page, bitmaps and words per delta, literals and raws with pages. admit:
    what is let in: u8 per page; (ascending u32 halves of hashes, seed, bool): what is listed there,
    and all else as well or not; None: all. Returns (next guess, self-duplicates, cross-server
    duplicates, deltas, words, literals, raws, what was let in that is not listed).
    """
    view = memoryview(data).cast("B")
    book = Book(arrays, len(offsets))
    if not 0 <= most_words <= PAGE_WORDS:
        raise ValueError("more pages in a block than the ring holds, or an impossible limit")
    matcher = _Matcher(book, owner, most_words, admit,
                       (kinds, seqs, bitmaps, words, literals, raws))
    for i, (offset, key) in enumerate(zip(offsets.tolist(), keys.tolist(), strict=True)):
        page = _page(view, offset)
        mixed = key * KEY_FACTOR & MASK
        at = (mixed ^ mixed >> 32) & book.version_mask
        version = book.version_seqs[at] if book.version_keys[at] == key else -1
        held, predicted = matcher.match(
            i, bytes(page),
            None if hashes is None else int(hashes[i]), version, predicted)
        book.version_keys[at], book.version_seqs[at] = key, held
    return (predicted, matcher.self_found, matcher.cross_found, matcher.delta_count,
            matcher.word_count, matcher.literal_count, matcher.raw_count, matcher.lent)


def list_recurring(data, offsets, hashes, seed: int, out) -> None:
    """Put 1 into out for each page at `offsets` whose content is listed, else 0."""
    view = memoryview(data).cast("B")
    if len(out) < len(offsets):
        raise ValueError("out is shorter than what it has to hold")
    for i, offset in enumerate(offsets.tolist()):
        out[i] = _is_listed(_page(view, offset), hashes, seed)


def _page(view: memoryview, offset: int) -> memoryview:
    if not 0 <= offset <= len(view) - PAGE_BYTES:
        raise ValueError("a page lies outside of the data")
    return view[offset:offset + PAGE_BYTES]


def _is_listed(page, hashes, seed: int) -> bool:
    """Tell whether the lower half of a page's XXH3 is in an ascending array."""
    found = xxhash.xxh3_64_intdigest(page, seed) & _LOW
    place = int(np.searchsorted(hashes, np.uint32(found)))
    return place < len(hashes) and int(hashes[place]) == found


def list_pages(runs, guest: int, offsets, keys):
    """Fill in where the pages of runs lie, and a number for each page of the guest.

    Returns (pages, zero pages, verbatim bytes).
    """
    kinds, counts = runs[:, 0], runs[:, 2]
    if ((kinds < Run.VERBATIM) | (kinds > Run.BARE) | (counts < 0)).any():
        raise ValueError("a run of a kind or a length that does not exist")
    rows = runs[kinds >= Run.PAGES]
    first, counts_of = rows[:, 1], rows[:, 2]
    pages = int(counts_of.sum())
    if pages > min(len(offsets), len(keys)):
        raise ValueError("offsets or keys is shorter than what it has to hold")
    within = np.arange(pages) - np.repeat(np.cumsum(counts_of) - counts_of, counts_of)
    recorded = rows[:, 0] == Run.PAGES
    strides = np.where(recorded, RECORD_BYTES, PAGE_BYTES)
    first = first + np.where(recorded, HEADER_BYTES, 0)
    offsets[:pages] = np.repeat(first, counts_of) + within * np.repeat(strides, counts_of)
    # addresses without the flags; blocks and guests lie far from each other by their keys
    start = (rows[:, 3] & ~np.int64(PAGE_BYTES - 1)).astype(np.uint64)
    blocks = rows[:, 4].astype(np.uint64) * np.uint64(PAGE_BYTES) + np.uint64(guest & MASK)
    keys[:pages] = (np.repeat(start + blocks, counts_of)
                    + within.astype(np.uint64) * np.uint64(PAGE_BYTES))
    return (pages, int(counts[kinds == Run.ZERO].sum()),
            int(counts[kinds == Run.VERBATIM].sum()))


def note_runs(runs, base: int, end: int, turn: int):
    """Tell how far runs of records have come in guest memory, and in which round.

    base: bytes of guest memory before their block; end: where the last run before ended; turn: the
    round in which that was. Returns (round, end, end of round 0 or -1, changed pages, pages, zero
    pages).
    """
    first_round, changed, pages, zeros = -1, 0, 0, 0
    for kind, _, count, header, _ in runs.tolist():
        content = count if kind == Run.PAGES else 0
        place = _wrapped((header & ~(PAGE_BYTES - 1)) + base)
        turn += place < end
        end = _wrapped(place + count * PAGE_BYTES)
        pages += content
        zeros += count - content
        if turn:
            changed += content
        else:
            first_round = max(first_round, end, 0)
    return turn, end, first_round, changed, pages, zeros


def _wrapped(number: int) -> int:
    return _signed(number & MASK)


def pack_control(out, runs, data, kinds, seqs, bitmaps, words):
    """Write a block's control part as block.Control.pack does; return its bytes and op groups."""
    view = memoryview(data).cast("B")
    if (len(kinds) > 0xffff or ((runs[:, 0] < Run.VERBATIM) | (runs[:, 0] > Run.BARE)
                                | (runs[:, 2] < 0) | (runs[:, 2] > 0xffffffff)).any()):
        raise ValueError("a run of a kind or a length that does not exist")
    pieces = []
    for kind, offset, length, _, _ in runs.tolist():
        if kind == Run.VERBATIM:
            if not 0 <= offset <= len(view) - length:
                raise ValueError("bytes of a run lie outside of the data")
            pieces.append(view[offset:offset + length])
    recorded = (runs[:, 0] == Run.ZERO) | (runs[:, 0] == Run.PAGES)
    packed, groups = block.Control(
        runs[:, 0].astype(np.uint8), runs[:, 2],
        np.where(recorded, runs[:, 3], 0).astype(np.uint64), kinds, seqs, bitmaps, words,
        np.frombuffer(b"".join(pieces), np.uint8)).pack()
    if len(out) < len(packed):
        raise ValueError("out is shorter than what it has to hold")
    out[:len(packed)] = np.frombuffer(packed, np.uint8)
    return len(packed), groups


def pump(source: int, target: int, reader: int, writer: int, chunk: int, rest: int, moved
         ) -> None:
    """Splice from one descriptor to another through a pipe, until the source ends.

    Behind a piece of a 32nd to half of a chunk it rests for so many microseconds: of a stream that
    flows, more goes on in one call then. moved[0] grows meanwhile; OSError from either side.
    """
    if chunk <= 0 or not 0 <= rest < 1_000_000:
        raise ValueError("a chunk is of one byte or more, a rest shorter than a second")
    while taken := os.splice(source, writer, chunk):
        rests = rest and chunk // 32 <= taken < chunk // 2
        while taken:
            given = os.splice(reader, target, taken)
            taken -= given
            moved[0] += given
        if rests:
            time.sleep(rest / 1e6)
