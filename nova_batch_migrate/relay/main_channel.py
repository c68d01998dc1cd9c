"""The main connection of a QEMU migration: sections, commands, and the records of guest RAM.

Chosen by qemu_stream under its magic. QEMU's docs/devel/migration and migration/ram.c are
the format's source; the numbers here are those of 7.2 and 10.0.
"""
import zlib

import numpy as np

from nova_batch_migrate.relay.layout import (
    HEADER_BYTES,
    PAGE_BYTES,
    ZERO_RECORD_BYTES,
    Run,
    Stop,
)
from nova_batch_migrate.relay.runs import (
    BeforeRamEnd,
    Channel,
    Cursor,
    NeedMore,
    Progress,
    Runs,
    Unknown,
)

MAGIC = b"QEVM"
VERSION = 3
# section types
END_OF_FILE, START, PART, END, FULL, SUBSECTION, DESCRIPTION, CONFIGURATION, COMMAND = range(9)
FOOTER = 0x7e
# open return path, ping, post-copy advise, switchover start; the others begin post-copy or COLO
COMMANDS = frozenset((1, 2, 3, 11))
# flags of a RAM record
ZERO, MEM_SIZE, PAGE, EOS, CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
XBZRLE, COMPRESSED, MULTIFD_FLUSH = 0x40, 0x100, 0x200
FLAGS = PAGE_BYTES - 1
MAX_CONFIGURATION_BYTES = 1 << 16
MAX_RECORD_BYTES = 2 * PAGE_BYTES
MAX_BLOCKS = 4096


def block_key(name: bytes) -> int:
    """Return a number for a RAM block's name, the same on every connection of a guest."""
    return (zlib.crc32(name) << 16 ^ zlib.adler32(name)) << 8 & (1 << 62) - 1


class MainChannel(Channel):
    """Parser of the main connection."""

    def __init__(self):
        self.progress = Progress()
        self.ram_bytes = 0
        self.ram_end_offset = -1
        self.hits: dict[str, int] = {}
        self._next = self._file_header
        self._ram_section: int | None = None
        self._last_part = False
        self._announced = False
        self._bases: dict[bytes, int] = {}      # block name: guest memory before it
        self._block = b""
        self._key = 0

    @property
    def phase(self) -> str:
        if self.ram_end_offset >= 0:
            return "ram-end"
        if not self.ram_bytes:
            return "head"
        return "later" if self.progress.round else "round0"

    def step(self, data: memoryview, at: int, end: int, runs: Runs, offset: int) -> int:
        return self._next(data, at, end, runs, offset)

    def _file_header(self, data, at, end, runs, offset) -> int:
        cursor = Cursor(data, at, end)
        cursor.take(len(MAGIC))
        if cursor.number(4) != VERSION:
            raise Unknown
        runs.verbatim(at, cursor.at - at)
        self._next = self._section
        self._hit("file header")
        return cursor.at

    def _section(self, data, at, end, runs, offset) -> int:
        cursor = Cursor(data, at, end)
        kind = cursor.number(1)
        following, what = self._section, f"section {kind:02x}"
        if kind == CONFIGURATION:
            length = cursor.number(4)
            if length > MAX_CONFIGURATION_BYTES:
                raise Unknown
            cursor.take(length)
        elif kind == SUBSECTION:
            self._configuration_subsection(cursor)
        elif kind == COMMAND:
            command, length = cursor.number(2), cursor.number(2)
            if command not in COMMANDS:
                raise Unknown
            cursor.take(length)
        elif kind == FOOTER:
            cursor.take(4)
        elif kind == START:
            following = self._start(cursor)
            self.ram_offset = offset
        elif kind in (PART, END):
            if cursor.number(4) != self._ram_section:
                raise Unknown
            following = self._records
            self._ram_end(kind, offset)
        else:
            # device state has no length, and behind it comes no RAM
            raise Unknown
        runs.verbatim(at, cursor.at - at)
        self._hit(what)
        self._next = following
        return cursor.at

    def _ram_end(self, kind: int, offset: int) -> None:
        self._last_part = kind == END
        if self._last_part and not self._announced:
            self._announced = True
            raise BeforeRamEnd
        if self._last_part:
            self.ram_end_offset = offset

    def _start(self, cursor: Cursor):
        section, name = cursor.number(4), cursor.name()
        cursor.take(8)
        if name != b"ram":
            raise Unknown
        self._ram_section = section
        return self._records

    @staticmethod
    def _configuration_subsection(cursor: Cursor) -> None:
        name = cursor.name()
        cursor.take(4)
        if name == b"configuration/target-page-bits":
            cursor.take(4)
        elif name == b"configuration/uuid":
            cursor.take(16)
        elif name == b"configuration/capabilities":
            count = cursor.number(4)
            if count > FLAGS:
                raise Unknown
            for _ in range(count):
                cursor.name()
        else:
            raise Unknown

    def _records(self, data, at, end, runs, offset) -> int:
        first = runs.count
        following, stop = runs.scan(data, at, end, self._key)
        if runs.count > first:
            self._note(runs.table[first:])
            self.starved = stop == Stop.MORE
            return following
        self.starved = False
        if stop == Stop.MORE and end - at >= HEADER_BYTES:
            raise NeedMore
        return self._record(Cursor(data, at, end), runs)

    def _note(self, table: np.ndarray) -> None:
        """Tell progress and counts about runs of records of the current block."""
        pages, zeros = self.progress.note(table, self._bases.get(self._block, 0))
        self._hit("page", pages)
        self._hit("zero", zeros)

    def _record(self, cursor: Cursor, runs: Runs) -> int:
        """Take a record that is not one of a run."""
        at = cursor.at
        header = cursor.number(8)
        flags, address = header & FLAGS, header & ~FLAGS
        kind = flags & ~CONTINUE
        page = 0
        if address >> 62:
            raise Unknown
        if kind == MEM_SIZE and not flags & CONTINUE:
            self._mem_size(cursor, address)
        elif kind == EOS:
            self._next = self._section
            self._hit("eos")
        elif kind == MULTIFD_FLUSH:
            self._hit("multifd flush")
        elif kind in (PAGE, ZERO, XBZRLE, COMPRESSED):
            block = self._block if flags & CONTINUE else cursor.name()
            page = self._content(cursor, kind)
            if block != self._block:
                self._block, self._key = block, block_key(block)
        else:
            raise Unknown
        runs.verbatim(at, cursor.at - at - page)
        if kind in (PAGE, ZERO):
            self._note(np.array([(Run.PAGES if page else Run.ZERO, 0, 1, address, 0)], np.int64))
        if page:
            runs.append(Run.BARE, cursor.at - page, 1, address, self._key)
        return cursor.at

    def _content(self, cursor: Cursor, kind: int) -> int:
        """Take what follows a record's header; return the bytes at its end that are a page."""
        if kind == PAGE:
            cursor.take(PAGE_BYTES)
            return PAGE_BYTES
        if kind == ZERO:
            cursor.take(ZERO_RECORD_BYTES - HEADER_BYTES)
            return 0
        if kind == XBZRLE:
            cursor.take(1)
            length = cursor.number(2)
            self._hit("xbzrle")
        else:
            length = cursor.number(4)
            self._hit("compressed")
        if length > MAX_RECORD_BYTES:
            raise Unknown
        cursor.take(length)
        return 0

    def _mem_size(self, cursor: Cursor, total: int) -> None:
        bases, before = {}, 0
        while before < total:
            name, size = cursor.name(), cursor.number(8)
            if not size or len(bases) == MAX_BLOCKS:
                raise Unknown
            bases[name] = before
            before += size
        self._bases, self.ram_bytes = bases, total
        self._hit("mem size")
