"""Turns the runs of a block into its payload, through the log's dictionary and compression.

The encoder's inner half: knows neither streams nor credit.
"""
from typing import NamedTuple

import numpy as np

from nova_batch_migrate.relay import block
from nova_batch_migrate.relay.admission import Admission
from nova_batch_migrate.relay.compression import FAST_LEVEL, Compressor
from nova_batch_migrate.relay.dictionary import Dictionary, Matches, Memory
from nova_batch_migrate.relay.layout import PAGE_BYTES
from nova_batch_migrate.relay.settings import CONTROL_WINDOW_LOG, LogSettings

_CONTROL_LEVEL, _CONTROL_ALONE_BYTES = 3, 32 << 10


class Written(NamedTuple):
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
    """Dictionary, what goes into it, and compression contexts."""

    def __init__(self, settings: LogSettings, *, memory: Memory | None, loops):
        self.dictionary = Dictionary(settings.dictionary_bytes, settings.static, memory=memory,
                                     loops=loops)
        self._most_delta_words = settings.most_delta_words
        self._level = settings.level
        self._literals = Compressor(settings.level or 1, settings.window_log, long_matches=True)
        self._control = Compressor(_control_level(self._literals.level), CONTROL_WINDOW_LOG,
                                   long_matches=False, alone_bytes=_CONTROL_ALONE_BYTES)
        self._admission = Admission(self.dictionary, settings.recurring, settings.kept_for,
                                    loops)
        #: Of guests, by their servers: before their first block, and behind their last.
        self.begin_guest, self.end_guest = self._admission.begin, self._admission.end
        self._list_pages, self._pack_control = loops.list_pages, loops.pack_control
        self._offsets, self._keys = np.empty(0, np.int64), np.empty(0, np.uint64)
        self._plain = self._other_plain = np.empty(0, np.uint8)

    def set_level(self, level: int | None) -> None:
        """Set the level of pages in full; None: nothing of a block is compressed."""
        if level is not None and level != self._literals.level:
            self._literals.restart(level)
            if _control_level(level) != self._control.level:
                self._control.restart(_control_level(level))
        self._level = level

    def truncate(self, ends: tuple[int, int], number: int) -> None:
        """Go back to what the log held behind its frame `number`."""
        self.dictionary.truncate(ends, number)
        self._literals.restart()
        self._control.restart()

    def spare(self) -> None:
        """Leave what was written last alone until the call after this one."""
        self.dictionary.spare()
        self._plain, self._other_plain = self._other_plain, self._plain

    def write(self, number: int, data: memoryview, table: np.ndarray, raw_bytes: int, *,
              key: int, owner: int, predicted: int, turn: int) -> Written:
        """Write the block `number` of the log: runs `table` over `data`, `raw_bytes` in all.

        key and owner: the guest's, for versions of its pages and for the counters. turn: its round.
        """
        offsets, keys, zeros, verbatim = self._listed(table, raw_bytes, key)
        late = False
        if turn:
            late, admit = self._admission.choose_late(len(offsets), owner, turn, number)
        else:
            admit = self._admission.choose(data, offsets, owner)
            if self._admission.has_refused:
                # what the dictionary has no room for may come again all the same
                self._literals.look_far()
        self.dictionary.begin_block(number, late)
        matches = self.dictionary.match(data, offsets, keys, owner=owner, predicted=predicted,
                                        most_words=self._most_delta_words, admit=admit)
        if not turn:
            self._admission.count(owner, matches)
        plain, groups = self._control_part(table, data, matches, verbatim)
        control, flags = plain, block.LATE if late else 0
        if self._level is not None:
            control, anew = self._control.compress(plain)
            flags |= block.CONTROL_COMPRESSED | (block.CONTROL_ANEW if anew else 0)
        literals: object = matches.literals
        if len(matches.literals) and self._level is not None:
            literals, anew = self._literals.compress(matches.literals)
            flags |= block.LITERALS_COMPRESSED | (block.LITERALS_ANEW if anew else 0)
        literal_bytes = memoryview(literals).nbytes
        shape = block.Shape(raw_bytes, len(table), groups, len(matches.literals),
                            len(matches.raws), len(matches.bitmaps), len(matches.words),
                            verbatim, len(control), literal_bytes, flags)
        full = len(matches.literals) + len(matches.raws)
        return Written(
            (shape.pack(), control, literals, matches.raws), matches.predicted, len(offsets),
            zeros, matches.self_duplicates,
            matches.cross_server, len(matches.bitmaps), full, verbatim,
            literal_bytes + len(matches.raws) * PAGE_BYTES)

    def _listed(self, table: np.ndarray, raw_bytes: int, key: int):
        """Return where the pages of runs lie, their keys, and counts: zero pages, other bytes."""
        most = raw_bytes // PAGE_BYTES
        if len(self._offsets) < most:
            self._offsets, self._keys = np.empty(most, np.int64), np.empty(most, np.uint64)
        pages, zeros, verbatim = self._list_pages(table, key, self._offsets, self._keys)
        return self._offsets[:pages], self._keys[:pages], zeros, verbatim

    def _control_part(self, table: np.ndarray, data: memoryview, matches: Matches, verbatim: int):
        """Return the plain control part and the number of its op groups."""
        most = block.Shape(0, len(table), len(matches.kinds), 0, 0, len(matches.bitmaps),
                           len(matches.words), verbatim).plain_control_bytes
        if len(self._plain) < most:
            self._plain = np.empty(most, np.uint8)
        size, groups = self._pack_control(self._plain, table, data, matches.kinds, matches.seqs,
                                          matches.bitmaps, matches.words)
        return self._plain[:size], groups


def _control_level(level: int) -> int:
    """Return the level of the control part beside pages at a level."""
    return level if level <= FAST_LEVEL else _CONTROL_LEVEL
