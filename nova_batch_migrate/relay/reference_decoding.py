"""The decoder's part of reference.py: a block put together in plain Python, as _speed.c does it.

Nothing is imported from here but by reference.py.
"""
import numpy as np

from nova_batch_migrate.relay import block
from nova_batch_migrate.relay.layout import HEADER_BYTES, LATE, PAGE_BYTES, SIZES, Op, Run


def place(seq: int, pinned: int, ring: int, late_ring: int) -> int:
    """Return the slot of a number."""
    if seq >= LATE:
        return pinned + ring - late_ring + (seq - LATE) % late_ring
    return seq if seq < pinned else pinned + (seq - pinned) % ring


class _Shelf:
    """The decoder's pages while a block is put together."""

    def __init__(self, content, seqs, rings, late: bool):
        self.pinned, following, self.late_size, late_following = rings
        self.size = len(seqs) - self.pinned
        if (not 0 <= self.pinned <= following < LATE or self.size < 1
                or not 0 <= self.late_size <= self.size
                or late_following < LATE or late and not self.late_size
                or len(content) < len(seqs)):
            raise ValueError("the dictionary's arrays do not fit each other")
        self.content, self.seqs = content, seqs
        self.next, self.late, self.inserted = [following, late_following], bool(late), 0

    def _slot_of(self, seq: int) -> int:
        return place(seq, self.pinned, self.size, self.late_size)

    def held(self, seq: int) -> int:
        if 0 <= seq < self.next[seq >= LATE]:
            slot = self._slot_of(seq)
            if self.seqs[slot] == seq:
                return slot
        raise ValueError("a reference to a page that is not there")

    def insert(self, page) -> None:
        if self.inserted == (self.late_size if self.late else self.size):
            raise ValueError("more new pages in a block than the ring holds")
        slot = self._slot_of(self.next[self.late])
        self.seqs[slot], self.content[slot] = self.next[self.late], page
        self.next[self.late] += 1
        self.inserted += 1


def apply_block(out, control, counts, literals, raws, content, seqs, rings, late: bool):
    """Put a block of a stream together and bring the dictionary to its end.

    counts: runs, groups, deltas, words, verbatim bytes. rings: pinned slots, next number, slots of
    the second ring, its next number. late: the second ring takes what is new. Returns the next
    number of the ring that does. What does not fit: ValueError, and the dictionary is worth
    nothing any more.
    """
    runs, groups, deltas, words, verbatim = counts
    out, literals, raws = (np.frombuffer(buffer, np.uint8) if len(buffer) else np.empty(0, np.uint8)
                           for buffer in (out, literals, raws))
    if len(literals) % PAGE_BYTES or len(raws) % PAGE_BYTES or min(counts) < 0:
        raise ValueError("a block's parts are not of their sizes")
    literals, raws = literals.reshape(-1, PAGE_BYTES), raws.reshape(-1, PAGE_BYTES)
    shape = block.Shape(len(out), runs, groups, len(literals), len(raws), deltas, words, verbatim)
    if shape.plain_control_bytes != len(control):
        raise ValueError("a block's control part is not of its size")
    shelf = _Shelf(content, seqs, rings, late)
    read = block.unpack(control, shape)
    pages = _Pages(read, literals, raws, shelf)
    at = taken = page = 0
    for kind, count, header in zip(read.run_kinds.tolist(), read.run_counts.tolist(),
                                   read.run_headers.tolist(), strict=True):
        size = SIZES[kind]
        target = out[at:at + count * size]
        at += count * size
        if kind == Run.VERBATIM:
            if count > verbatim - taken:
                raise ValueError("a block's bytes do not add up")
            target[:] = read.verbatim[taken:taken + count]
            taken += count
            continue
        target = target.reshape(count, size)
        if kind != Run.BARE:
            numbers = np.uint64(header) + np.arange(count, dtype=np.uint64) * np.uint64(PAGE_BYTES)
            target[:, :HEADER_BYTES] = numbers.astype(">u8")[:, None].view(np.uint8)
        if kind == Run.ZERO:
            target[:, HEADER_BYTES:] = 0
            continue
        for row in target[:, size - PAGE_BYTES:]:
            pages.put(page, row)
            page += 1
    if taken != verbatim:
        raise ValueError("a block's bytes do not add up")
    pages.done()
    return shelf.next[shelf.late]


class _Pages:
    """Makes the pages of a block in their order, from what came with it and the dictionary."""

    def __init__(self, control, literals, raws, shelf: _Shelf):
        self._ops, self._seqs = control.page_ops.tolist(), control.page_seqs.tolist()
        self._literals, self._raws = iter(literals), iter(raws)
        self._bitmaps = iter(np.unpackbits(control.bitmaps, axis=1, bitorder="little").astype(bool))
        self._words, self._word = control.words, 0
        self._shelf = shelf

    def put(self, number: int, target) -> None:
        """Write page `number` of the block to its place."""
        op, shelf = self._ops[number], self._shelf
        if op < Op.REFERENCE:
            compressed = op in (Op.LITERAL, Op.TRANSIENT)
            target[:] = self._next(self._literals if compressed else self._raws)
            if op < Op.TRANSIENT:
                shelf.insert(target)
            return
        slot = shelf.held(self._seqs[number])
        if op == Op.REFERENCE:
            target[:] = shelf.content[slot]
            return
        target[:] = self._patched(shelf.content[slot])
        if op == Op.DELTA:
            shelf.insert(target)
        elif op == Op.UPDATE:
            shelf.content[slot] = target

    def _patched(self, base):
        changed = self._next(self._bitmaps)
        count = int(changed.sum())
        if count > len(self._words) - self._word:
            raise ValueError("a block's differences do not fit its bitmaps")
        result = np.frombuffer(base.tobytes(), np.uint64).copy()
        result[changed] += self._words[self._word:self._word + count]
        self._word += count
        return result.view(np.uint8)

    @staticmethod
    def _next(pages):
        found = next(pages, None)
        if found is None:
            raise ValueError("a block's operations do not fit what came with them")
        return found

    def done(self) -> None:
        """Raise ValueError if something is left."""
        if self._word != len(self._words) or any(
                next(left, None) is not None
                for left in (self._literals, self._raws, self._bitmaps)):
            raise ValueError("a block's operations do not fit what came with them")
