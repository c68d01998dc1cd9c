"""The codec's inner loops in plain Python: what _speed.c does, on the same arrays.

Used where the C extension is not built, and by tests as the measure of it. Signatures, results and
errors are those of the extension; only the hash differs, which nobody outside sees.
"""
import numpy as np
import xxhash

from nova_batch_migrate.relay.layout import (
    HEADER_BYTES,
    PAGE_BYTES,
    PAGE_WORDS,
    RECORD_BYTES,
    ZERO_RECORD_BYTES,
    Op,
    Run,
    Stop,
)

ZERO_CONTINUE = 0x22
PAGE_CONTINUE = 0x28
RAW_SAMPLES, RAW_SAMPLE_BYTES, RAW_DISTINCT = 4, 64, 140
KEY_FACTOR = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
SCALAR_NEXT, SCALAR_PINNED, SCALAR_RING, SCALAR_BLOCK = range(4)
SIZES = {Run.VERBATIM: 1, Run.ZERO: ZERO_RECORD_BYTES, Run.PAGES: RECORD_BYTES,
         Run.BARE: PAGE_BYTES}


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
        self.block = self.scalars[SCALAR_BLOCK]
        if pages > self.size:
            raise ValueError("more pages in a block than the ring holds, or an impossible limit")
        self.guard = self.scalars[SCALAR_NEXT] + pages - self.size

    def content(self, slot: int) -> bytes:
        return bytes(self.bytes[slot * PAGE_BYTES:(slot + 1) * PAGE_BYTES])

    def slot_of(self, seq: int) -> int:
        return seq if seq < self.pinned else self.pinned + (seq - self.pinned) % self.size

    def live(self, seq: int) -> int:
        """Return the slot of a number that may be referred to in this block, or -1."""
        if seq < 0 or seq >= self.scalars[SCALAR_NEXT] or self.pinned <= seq < self.guard:
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
        seq = self.scalars[SCALAR_NEXT]
        self.scalars[SCALAR_NEXT] = seq + 1
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

    def __init__(self, book: Book, owner: int, most_words: int, outputs):
        self.book, self.owner, self.most_words = book, owner, most_words
        self.kinds, self.seqs, self.bitmaps, self.words, self.literals, self.raws = outputs
        self.self_found = self.cross_found = 0
        self.delta_count = self.word_count = self.literal_count = self.raw_count = 0

    def match(self, i: int, page: bytes, page_hash: int | None, version: int, predicted: int,
              admit: bool) -> tuple[int, int]:
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
            return self._delta(i, base, difference, version, page_hash, page), seq + 1
        random = looks_random(page)
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
        self.kinds[i] = Op.DELTA
        return book.append(page_hash, self.owner, page)


def match_pages(arrays, data, offsets, keys, hashes, admit, predicted, owner, most_words,
                kinds, seqs, bitmaps, words, literals, raws):
    """Match pages with the dictionary and insert what is new.

    Fills kinds and seqs per page, bitmaps and words per delta, literals and raws with pages.
    Returns (next guess, self-duplicates, cross-server duplicates, deltas, words, literals, raws).
    """
    view = memoryview(data)
    book = Book(arrays, len(offsets))
    if not 0 <= most_words <= PAGE_WORDS:
        raise ValueError("more pages in a block than the ring holds, or an impossible limit")
    matcher = _Matcher(book, owner, most_words, (kinds, seqs, bitmaps, words, literals, raws))
    for i, (offset, key) in enumerate(zip(offsets.tolist(), keys.tolist(), strict=True)):
        if not 0 <= offset <= len(view) - PAGE_BYTES:
            raise ValueError("a page lies outside of the data")
        mixed = key * KEY_FACTOR & MASK
        at = (mixed ^ mixed >> 32) & book.version_mask
        version = book.version_seqs[at] if book.version_keys[at] == key else -1
        held, predicted = matcher.match(
            i, bytes(view[offset:offset + PAGE_BYTES]),
            None if hashes is None else int(hashes[i]), version, predicted,
            admit is None or bool(admit[i]))
        book.version_keys[at], book.version_seqs[at] = key, held
    return (predicted, matcher.self_found, matcher.cross_found, matcher.delta_count,
            matcher.word_count, matcher.literal_count, matcher.raw_count)


def rebuild(out, kinds, counts, headers, verbatim, ring, slots, transient) -> None:
    """Put a block of a stream together; a slot below zero is -1 - index of a transient page."""
    out, verbatim = np.frombuffer(out, np.uint8), np.frombuffer(verbatim, np.uint8)
    at = page = taken = 0
    for kind, count, header in zip(kinds.tolist(), counts.tolist(), headers.tolist(), strict=True):
        size = SIZES.get(kind)
        if size is None or count < 0 or (len(out) - at) // size < count:
            raise ValueError("runs, pages and length of the block do not fit each other")
        target = out[at:at + count * size]
        at += count * size
        if kind == Run.VERBATIM:
            if count > len(verbatim) - taken:
                raise ValueError("runs, pages and length of the block do not fit each other")
            target[:] = verbatim[taken:taken + count]
            taken += count
            continue
        target = target.reshape(count, size)
        if kind != Run.BARE:
            numbers = np.uint64(header) + np.arange(count, dtype=np.uint64) * np.uint64(PAGE_BYTES)
            target[:, :HEADER_BYTES] = numbers.astype(">u8")[:, None].view(np.uint8)
        if kind == Run.ZERO:
            target[:, HEADER_BYTES:] = 0
            continue
        chosen = slots[page:page + count]
        if len(chosen) < count:
            raise ValueError("runs, pages and length of the block do not fit each other")
        _place(target[:, size - PAGE_BYTES:], chosen, ring, transient)
        page += count
    if at != len(out) or page != len(slots) or taken != len(verbatim):
        raise ValueError("runs, pages and length of the block do not fit each other")


def _place(target, slots, ring, transient) -> None:
    for source, which, numbers in ((ring, slots >= 0, slots), (transient, slots < 0, -1 - slots)):
        if not which.any():
            continue
        numbers = numbers[which]
        if int(numbers.max()) >= len(source):
            raise ValueError("runs, pages and length of the block do not fit each other")
        target[which] = source[numbers]


