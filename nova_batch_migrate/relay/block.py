"""A block of a stream as it crosses: runs, how each page's content crosses, and the rest in full.

Encoder and decoder meet here. Columns of numbers, each as difference from what is expected, so
that the compressor behind has little to do. Everything read is checked: CodecError.
"""
import dataclasses
import struct
from typing import NamedTuple

import numpy as np

from nova_batch_migrate.relay.layout import BITMAP_BYTES, PAGE_BYTES, SIZES, Op, Run
from nova_batch_migrate.relay.wire import CodecError

MAX_RAW_BYTES = 8 << 20
_LAST_OP = max(Op)
# raw bytes; counts of runs, op groups, pages in the literal and the raw part, deltas, words,
# verbatim bytes; wire bytes of control and literal part; flags
_HEADER = struct.Struct("<IIIIIIIIIIB3x")
CONTROL_COMPRESSED, CONTROL_ANEW, LITERALS_COMPRESSED, LITERALS_ANEW = 1, 2, 4, 8
LATE = 16           # what is new goes into the second ring


class Shape(NamedTuple):
    """The head of a block: how much of everything there is."""

    raw_bytes: int
    runs: int
    groups: int
    literals: int
    raws: int
    deltas: int
    words: int
    verbatim: int
    control_bytes: int = 0
    literal_bytes: int = 0
    flags: int = 0

    @property
    def plain_control_bytes(self) -> int:
        """Bytes of the control part before compression."""
        return (self.runs * 13 + self.groups * 11 + self.deltas * BITMAP_BYTES + self.words * 8
                + self.verbatim)

    def pack(self) -> bytes:
        return _HEADER.pack(*self)


def read_shape(payload) -> tuple[Shape, int]:
    """Return the head of a block and where its parts begin; CodecError if it can't be one."""
    if len(payload) < _HEADER.size:
        raise CodecError("a block is shorter than its head")
    shape = Shape(*_HEADER.unpack_from(payload))
    if shape.raw_bytes > MAX_RAW_BYTES:
        raise CodecError(f"a block of {shape.raw_bytes} raw bytes is over {MAX_RAW_BYTES}")
    pages = shape.raw_bytes // PAGE_BYTES
    if (shape.literals + shape.raws + shape.deltas > pages or shape.groups > pages
            or shape.words > shape.deltas * PAGE_BYTES // 8 or shape.verbatim > shape.raw_bytes
            or shape.runs > shape.raw_bytes):
        raise CodecError("a block's head says more than its raw bytes can hold")
    if len(payload) != (_HEADER.size + shape.control_bytes + shape.literal_bytes
                        + shape.raws * PAGE_BYTES):
        raise CodecError("a block's parts do not add up to its length")
    return shape, _HEADER.size


@dataclasses.dataclass(frozen=True)
class Control:
    """The control part of a block."""

    run_kinds: np.ndarray       # u8
    run_counts: np.ndarray      # i64: pages or records, bytes if verbatim
    run_headers: np.ndarray     # u64: header of the first record, 0 where there is none
    page_ops: np.ndarray        # u8 per page
    page_seqs: np.ndarray       # i64 per page, -1 where it is sent in full
    bitmaps: np.ndarray         # u8 (deltas, BITMAP_BYTES)
    words: np.ndarray           # u64
    verbatim: np.ndarray        # u8

    def pack(self) -> tuple[bytes, int]:
        """Return the plain control part and the number of op groups."""
        groups, counts, seqs = _group(self.page_ops, self.page_seqs)
        headers = _differences(self.run_headers, *_header_steps(self.run_kinds, self.run_counts))
        parts = (self.run_kinds, self.run_counts.astype("<u4"), _columns(headers),
                 groups, counts.astype("<u2"),
                 _columns(_differences(seqs, counts, groups >= Op.REFERENCE)),
                 self.bitmaps, _columns(self.words), self.verbatim)
        return b"".join(part.tobytes() for part in parts), len(groups)


def unpack(plain, shape: Shape) -> Control:
    """Read a plain control part; CodecError if its numbers can't be."""
    at = 0

    def take(kind: str, count: int) -> np.ndarray:
        nonlocal at
        array = np.frombuffer(plain, kind, count, at)
        at += array.nbytes
        return array

    kinds = take("u1", shape.runs)
    counts = take("<u4", shape.runs).astype(np.int64)
    headers = _numbers(take("u1", shape.runs * 8))
    ops = take("u1", shape.groups)
    op_counts = take("<u2", shape.groups).astype(np.int64)
    seqs = _numbers(take("u1", shape.groups * 8)).view(np.int64)
    bitmaps = take("u1", shape.deltas * BITMAP_BYTES).reshape(-1, BITMAP_BYTES)
    words = _numbers(take("u1", shape.words * 8))
    verbatim = take("u1", shape.verbatim)
    if (kinds > Run.BARE).any() or (ops > _LAST_OP).any():
        raise CodecError("a block holds a run or a page of a kind that does not exist")
    sizes = np.array([SIZES[run] for run in Run])[kinds]
    if int((sizes * counts).sum()) != shape.raw_bytes:
        raise CodecError("a block's runs do not add up to its raw bytes")
    pages = int(counts[kinds >= Run.PAGES].sum())
    if int(op_counts.sum()) != pages:
        raise CodecError("a block's operations do not add up to its pages")
    headers = _firsts(headers, *_header_steps(kinds, counts))
    seqs = _firsts(seqs, op_counts, ops >= Op.REFERENCE)
    page_ops = np.repeat(ops, op_counts)
    within = np.arange(pages) - np.repeat(np.cumsum(op_counts) - op_counts, op_counts)
    page_seqs = np.repeat(seqs, op_counts) + within
    page_seqs[page_ops < Op.REFERENCE] = -1
    return Control(kinds, counts, headers, page_ops, page_seqs, bitmaps, words, verbatim)


def _group(ops: np.ndarray, seqs: np.ndarray):
    """Fold neighbours of one kind, with numbers in sequence, into (kind, count, first number)."""
    if not len(ops):
        return ops, np.empty(0, np.int64), np.empty(0, np.int64)
    breaks = (ops[1:] != ops[:-1]) | ((ops[1:] >= Op.REFERENCE) & (seqs[1:] != seqs[:-1] + 1))
    starts = np.concatenate(((0,), np.flatnonzero(breaks) + 1))
    return ops[starts], np.diff(np.concatenate((starts, (len(ops),)))), seqs[starts]


def _differences(firsts: np.ndarray, steps: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return each known first number less the end of the known one before it; 0 for the others."""
    last = np.maximum.accumulate(np.where(known, np.arange(len(firsts)), -1))
    before = np.concatenate(((-1,), last[:-1]))[:len(firsts)]
    ends = firsts + steps
    expected = np.where(before >= 0, ends[before], 0).astype(firsts.dtype)
    return np.where(known, firsts - expected, 0).astype(firsts.dtype)


def _firsts(differences: np.ndarray, steps: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Undo _differences; a number that is not known comes out as the end before it."""
    moved = np.where(known, steps, 0).astype(differences.dtype)
    moved = np.concatenate((moved[:0], np.zeros(1, differences.dtype), moved[:-1]))
    return np.cumsum(differences + moved[:len(differences)], dtype=differences.dtype)


def _header_steps(kinds: np.ndarray, counts: np.ndarray):
    """Return by how much a run moves the header on, and which runs have one."""
    return (counts * PAGE_BYTES).astype(np.uint64), (kinds == Run.ZERO) | (kinds == Run.PAGES)


def _columns(numbers: np.ndarray) -> np.ndarray:
    """Return 8-byte numbers byte column by byte column: the high ones are nearly all alike."""
    return np.ascontiguousarray(numbers.astype(numbers.dtype.newbyteorder("<"), copy=False)
                                .view(np.uint8).reshape(-1, 8).T)


def _numbers(columns: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(columns.reshape(8, -1).T).view("<u8").reshape(-1)
