"""Turns the runs of a block into its payload, through the log's dictionary and compression.

The encoder's inner half: knows neither streams nor credit.
"""
import dataclasses

import numpy as np
import xxhash

from nova_batch_migrate.relay import block
from nova_batch_migrate.relay.compression import Compressor
from nova_batch_migrate.relay.dictionary import Dictionary, Matches
from nova_batch_migrate.relay.layout import HEADER_BYTES, PAGE_BYTES, RECORD_BYTES, Run
from nova_batch_migrate.relay.settings import CONTROL_WINDOW_LOG, LogSettings

CONTROL_LEVEL = 1
MASK = (1 << 64) - 1


@dataclasses.dataclass(frozen=True)
class Written:
    """A block's payload and what became of its bytes."""

    parts: tuple            # buffers, the payload when joined; valid until the next block
    predicted: int
    pages: int
    zero_pages: int
    self_duplicates: int
    cross_server: int
    deltas: int
    full_pages: int
    verbatim_bytes: int
    literal_wire_bytes: int


class BlockWriter:
    """Dictionary, compression contexts and what the scan says of pages to come."""

    def __init__(self, settings: LogSettings, *, loops):
        self.dictionary = Dictionary(settings.dictionary_bytes, settings.static, loops=loops)
        self._most_delta_words = settings.most_delta_words
        self._level = settings.level
        self._literals = Compressor(settings.level or 1, settings.window_log, long_matches=True)
        self._control = Compressor(CONTROL_LEVEL, CONTROL_WINDOW_LOG, long_matches=False)
        self._recurring: tuple[int, np.ndarray] | None = None

    def set_level(self, level: int | None) -> None:
        """Set the level of pages in full; None: not compressed."""
        if level is not None and level != self._literals.level:
            self._literals.restart(level)
        self._level = level

    def set_recurring(self, seed: int, hashes: np.ndarray | None) -> None:
        """Admit in round 0 only pages whose seeded XXH3 is listed; None: all."""
        self._recurring = None if hashes is None else (seed, np.sort(hashes.astype(np.uint64)))

    def truncate(self, next_page: int, number: int) -> None:
        """Go back to what the log held behind its frame `number`."""
        self.dictionary.truncate(next_page, number)
        self._literals.restart()
        self._control.restart()

    def write(self, number: int, data: memoryview, table: np.ndarray, raw_bytes: int, *,
              key: int, owner: int, predicted: int, first_round: bool) -> Written:
        """Write the block `number` of the log: runs `table` over `data`, `raw_bytes` in all.

        key and owner: the guest's, for versions of its pages and for the counters.
        """
        offsets, keys = _pages(table, key)
        self.dictionary.begin_block(number)
        matches = self.dictionary.match(
            data, offsets, keys, owner=owner, predicted=predicted,
            most_words=self._most_delta_words,
            admit=self._admission(data, offsets) if first_round else None)
        verbatim = _verbatim(table, data)
        plain, groups = _control(table, matches, verbatim).pack()
        control, anew = self._control.compress(plain)
        flags = block.CONTROL_COMPRESSED | (block.CONTROL_ANEW if anew else 0)
        literals: object = matches.literals
        if len(matches.literals) and self._level is not None:
            literals, anew = self._literals.compress(matches.literals)
            flags |= block.LITERALS_COMPRESSED | (block.LITERALS_ANEW if anew else 0)
        literal_bytes = memoryview(literals).nbytes
        shape = block.Shape(raw_bytes, len(table), groups, len(matches.literals),
                            len(matches.raws), len(matches.bitmaps), len(matches.words),
                            len(verbatim), len(control), literal_bytes, flags)
        full = len(matches.literals) + len(matches.raws)
        return Written(
            (shape.pack(), control, literals, matches.raws), matches.predicted, len(offsets),
            int(table[table[:, 0] == Run.ZERO, 2].sum()), matches.self_duplicates,
            matches.cross_server, len(matches.bitmaps), full, len(verbatim),
            literal_bytes + len(matches.raws) * PAGE_BYTES)

    def _admission(self, data: memoryview, offsets: np.ndarray) -> np.ndarray | None:
        """Return for each page whether the scan has seen it twice; None: all are admitted."""
        if self._recurring is None:
            return None
        seed, listed = self._recurring
        if not len(listed):
            return np.zeros(len(offsets), np.uint8)
        digest = xxhash.xxh3_64_intdigest
        hashes = np.array([digest(data[at:at + PAGE_BYTES], seed) for at in offsets.tolist()],
                          np.uint64)
        places = np.minimum(np.searchsorted(listed, hashes), len(listed) - 1)
        return (listed[places] == hashes).astype(np.uint8)


def _pages(table: np.ndarray, key: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where the pages of runs lie, and a number for each page of the guest."""
    rows = table[table[:, 0] >= Run.PAGES]
    counts = rows[:, 2]
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    recorded = rows[:, 0] == Run.PAGES
    strides = np.where(recorded, RECORD_BYTES, PAGE_BYTES)
    first = rows[:, 1] + np.where(recorded, HEADER_BYTES, 0)
    offsets = np.repeat(first, counts) + within * np.repeat(strides, counts)
    # addresses without the flags; blocks and guests lie far from each other by their keys
    start = (rows[:, 3] & ~np.int64(PAGE_BYTES - 1)).astype(np.uint64)
    blocks = rows[:, 4].astype(np.uint64) * np.uint64(PAGE_BYTES) + np.uint64(key & MASK)
    keys = np.repeat(start + blocks, counts) + within.astype(np.uint64) * np.uint64(PAGE_BYTES)
    return offsets, keys


def _verbatim(table: np.ndarray, data: memoryview) -> np.ndarray:
    rows = table[table[:, 0] == Run.VERBATIM]
    if not len(rows):
        return np.empty(0, np.uint8)
    return np.frombuffer(b"".join(data[at:at + length]
                                  for at, length in rows[:, 1:3].tolist()), np.uint8)


def _control(table: np.ndarray, matches: Matches, verbatim: np.ndarray) -> block.Control:
    headers = np.where((table[:, 0] == Run.ZERO) | (table[:, 0] == Run.PAGES), table[:, 3], 0)
    return block.Control(table[:, 0].astype(np.uint8), table[:, 2], headers.astype(np.uint64),
                         matches.kinds, matches.seqs, matches.bitmaps, matches.words, verbatim)
