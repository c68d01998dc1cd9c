"""What the parsers of a migration's connections are made of: cursor, runs, progress.

Used by main_channel, multifd_channel and qemu_stream. Knows nothing of any format.
"""
import numpy as np

from nova_batch_migrate.relay import kernel
from nova_batch_migrate.relay.layout import PAGE_BYTES, RUN_COLUMNS, SIZES, Run, Stop


class NeedMore(Exception):
    """The data end inside something; nothing of it was taken."""


class Unknown(Exception):
    """Something that this parser does not know."""


class BeforeRamEnd(Exception):
    """The header of the last RAM section comes next; a second call takes it."""


class Cursor:
    """Takes fields off the data of one call; NeedMore where they end."""

    def __init__(self, data: memoryview, at: int, end: int):
        self.data, self.at, self.end = data, at, end

    def take(self, count: int) -> memoryview:
        if self.end - self.at < count:
            raise NeedMore
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def name(self) -> bytes:
        return bytes(self.take(self.number(1)))


class Runs:
    """The runs of a block: rows (kind, offset, count, header, block key), verbatim ones merged."""

    def __init__(self, rows: int = 1024):
        self._table = np.empty((rows, RUN_COLUMNS), np.int64)
        self.count = 0

    def clear(self) -> None:
        self.count = 0

    @property
    def table(self) -> np.ndarray:
        return self._table[:self.count]

    def verbatim(self, offset: int, length: int) -> None:
        if self.count:
            last = self._table[self.count - 1]
            if last[0] == Run.VERBATIM and last[1] + last[2] == offset:
                last[2] += length
                return
        if length:
            self.append(Run.VERBATIM, offset, length, 0, 0)

    def append(self, kind: Run, offset: int, count: int, header: int, block: int) -> None:
        if self.count == len(self._table):
            self._grow()
        self._table[self.count] = kind, offset, count, header, block
        self.count += 1

    def scan(self, data, start: int, end: int, block: int) -> tuple[int, int]:
        """Append the runs of records that begin at `start`; return where they end and a Stop."""
        while True:
            start, self.count, stop = kernel.scan_records(
                data, start, end, block, self._table, self.count, len(self._table))
            if stop != Stop.FULL:
                return start, stop
            self._grow()

    def clip(self, sent: int) -> None:
        """Take away the first `sent` bytes, which lie within the first item."""
        first, rest = 0, []
        while sent and first < self.count:
            kind, offset, count, header, block = self._table[first].tolist()
            first += 1
            if kind == Run.VERBATIM:
                taken = min(sent, count)
                if taken < count:
                    rest.append((kind, offset + taken, count - taken, 0, 0))
                sent -= taken
                continue
            # the end of a record whose beginning has crossed is no page any more
            size = SIZES[kind]
            rest.append((Run.VERBATIM, offset + sent, size - sent, 0, 0))
            if count > 1:
                rest.append((kind, offset + size, count - 1, header + PAGE_BYTES, block))
            sent = 0
        if first:
            kept = self._table[first:self.count]
            self.count = len(rest) + len(kept)
            self._table = np.concatenate((np.array(rest, np.int64).reshape(-1, RUN_COLUMNS), kept,
                                          self._table[:8]))

    def _grow(self) -> None:
        self._table = np.concatenate((self._table, np.empty_like(self._table)))


class Progress:
    """Rounds of a connection, told from the order of its pages: QEMU goes up, then starts anew."""

    def __init__(self):
        self.round = self.round0_bytes = self.changed_pages = 0
        self.end = 0                # where the last run ended, as `note` reckons places

    def note(self, runs: np.ndarray, base: int) -> tuple[int, int]:
        """Note runs of records of a RAM block that has `base` bytes of guest memory before it.

        Returns how many pages have content, and how many are zero.
        """
        self.round, self.end, first, changed, pages, zeros = kernel.note_runs(
            runs, base, self.end, self.round)
        if first >= 0:
            self.round0_bytes = first
        self.changed_pages += changed
        return pages, zeros


class Channel:
    """What a kind of connection has to offer: one step at a time, and where it is."""

    progress: Progress
    ram_bytes = 0
    phase = "head"
    ram_offset = -1             # raw offset of the first thing behind the head
    ram_end_offset = -1
    hits: dict[str, int]        # how often each kind of thing was seen
    # The last step took all that there is whole: the rest is a part of a record.
    starved = False

    def step(self, data: memoryview, at: int, end: int, runs: Runs, offset: int) -> int:
        """Append the run of what begins at `at` (raw offset `offset`); return where it ends."""
        raise NotImplementedError

    def _hit(self, what: str, count: int = 1) -> None:
        self.hits[what] = self.hits.get(what, 0) + count
