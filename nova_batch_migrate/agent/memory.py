"""Guest RAM of a running QEMU, read page by page from outside, and only where a page is present.

Used by scan.py inside the privileged process. Never writes, never touches a page that the kernel
does not report as present: a read would populate holes of memfd and hugetlb guests and bring pages
back from swap (design 5).
"""

import contextlib
import ctypes
import dataclasses
import mmap
import os
import re
import time
from collections.abc import Callable

import numpy

try:
    from nova_batch_migrate.agent import _speed
except ImportError:
    # it was built without a compiler
    _speed = None

PAGE_BYTES = 4096
#: Most pages looked at and read in one step: 2 MiB, so that one buffer serves all guests.
SLICE_PAGES = 512

_PRESENT = numpy.uint64(1 << 63)
_SWAPPED = numpy.uint64(1 << 62)
_MAPS_LINE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ ([0-9a-f]+):([0-9a-f]+) (\d+)")
_STAT_BLOCK_BYTES = 512
#: RAM of up to this many pages is asked page by page what is present: it takes 8 ms.
_COUNTED_PAGES = 1 << 18
#: So much of the time in which nothing was read is made up for at most.
_MADE_UP_SECONDS = 0.5


class GuestMemoryError(Exception):
    """The memory of this guest can't be read; the text says why."""


@dataclasses.dataclass(frozen=True)
class Block:
    """One mapping of guest RAM: a memory backend of QEMU (all of RAM, a NUMA cell, a DIMM)."""

    address: int
    size_bytes: int
    #: (device, inode) of the file behind it (memfd, hugetlbfs, shared memory); None: anonymous.
    file: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Slice:
    """Up to SLICE_PAGES pages of guest RAM that lie behind each other in QEMU's address space."""

    address: int
    pages: int
    #: Number of its first page, counted through all blocks in order of address.
    first_page: int = 0


def qemu_pid(pid_file: str, server_id: str) -> int:
    """Return the process id of the QEMU that runs the domain with this UUID.

    The file is libvirt's; the command line must name the same UUID, so that a stale file or a
    recycled process id is no way into another process. Raises GuestMemoryError.
    """
    try:
        with open(pid_file, encoding="ascii") as opened:
            pid = int(opened.read())
        with open(f"/proc/{pid}/cmdline", "rb") as opened:
            arguments = opened.read().split(b"\0")
    except (OSError, ValueError) as error:
        raise GuestMemoryError(f"no QEMU process found through {pid_file}: {error}") from error
    if (b"-uuid", server_id.encode()) not in zip(arguments, arguments[1:], strict=False):
        raise GuestMemoryError(f"process {pid} named by {pid_file} is not the QEMU of {server_id}")
    return pid


def find_ram(pid: int, blocks_bytes: list[int]) -> list[Block]:
    """Find guest RAM in /proc/PID/maps; return its blocks in order of address.

    ``blocks_bytes`` are the sizes of QEMU's memory backends: all of RAM, or one per NUMA cell, and
    one per memory device. QEMU puts an inaccessible page behind each of them, so no neighbour
    changes their size; memory that can be executed is TCG's code buffer. Raises GuestMemoryError
    where sizes are not found as often as wanted, or are found more often.
    """
    found: dict[int, list[Block]] = {}
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as opened:
            for line in opened:
                start, end, permissions, major, minor, inode = _MAPS_LINE.match(line).groups()
                if permissions.startswith("rw-"):
                    address, size = int(start, 16), int(end, 16) - int(start, 16)
                    device = os.makedev(int(major, 16), int(minor, 16))
                    found.setdefault(size, []).append(Block(
                        address, size, (device, int(inode)) if int(inode) else None))
    except OSError as error:
        raise GuestMemoryError(f"cannot read the mappings of process {pid}: {error}") from error
    ram = []
    for size in sorted(set(blocks_bytes)):
        wanted, blocks = blocks_bytes.count(size), found.get(size, [])
        if len(blocks) != wanted:
            raise GuestMemoryError(
                f"guest RAM is not to be told apart in process {pid}: {wanted} mapping(s) of "
                f"{size} bytes wanted, {len(blocks)} found")
        ram.extend(blocks)
    return sorted(ram, key=lambda block: block.address)


class Pace:
    """Bounds how fast guest memory is read, by sleeping [read_mib_s].

    Its one thread reads nothing while it compares or compresses. Some of that time can be made up
    for afterwards: over a few seconds the bound holds, and less of them is waited for.
    """

    def __init__(self, bytes_per_second: float):
        self._bytes_per_second = bytes_per_second
        self._free_at = time.monotonic()
        self._unused_seconds = 0.0

    def spend(self, size_bytes: int, makes_up: bool = False) -> None:
        """Wait until the bytes spent before have had their time; then take ``size_bytes``.

        With ``makes_up`` they take less time where there was time that nobody used.
        """
        now = time.monotonic()
        if self._free_at > now:
            time.sleep(self._free_at - now)
        else:
            self._unused_seconds = min(_MADE_UP_SECONDS,
                                       self._unused_seconds + now - self._free_at)
            self._free_at = now
        seconds = size_bytes / self._bytes_per_second
        if makes_up:
            made_up = min(seconds, self._unused_seconds)
            self._unused_seconds -= made_up
            seconds -= made_up
        self._free_at += seconds


class Buffer:
    """Room for a slice, written by the kernel and read as ``view``.

    One huge page where the kernel gives it: guests on huge pages are read twice as fast into one.
    """

    def __init__(self):
        size = SLICE_PAGES * PAGE_BYTES
        held = mmap.mmap(-1, 2 * size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):
            # a kernel without transparent huge pages
            held.madvise(mmap.MADV_HUGEPAGE)
        begin = ctypes.addressof(ctypes.c_char.from_buffer(held))
        self.view = memoryview(held)[-begin % size:][:size]
        self.address = begin + -begin % size

    def fill(self, pid: int, runs: numpy.ndarray) -> int:
        """Read runs of a process behind each other; return how many bytes came.

        ``runs`` are rows of address and bytes (uint64), at most IOV_MAX (1024). process_vm_readv
        copies once where /proc/PID/mem copies twice: it is twice as fast.
        """
        local = numpy.array([self.address, runs[:, 1].sum()], dtype=numpy.uint64)
        got = _libc.process_vm_readv(pid, local.ctypes.data, 1, runs.ctypes.data, len(runs), 0)
        if got < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return got


_libc = ctypes.CDLL(None, use_errno=True)
_libc.process_vm_readv.restype = ctypes.c_ssize_t
_libc.process_vm_readv.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong,
                                   ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]


class GuestMemory:
    """The RAM of one guest, open for reading until :meth:`close`.

    The open pagemap stays bound to the process it was opened for; what was read counts only if that
    one is still there afterwards, whatever becomes of its id.
    """

    def __init__(self, pid: int, blocks_bytes: list[int]):
        self.blocks = find_ram(pid, blocks_bytes)
        self._pid = pid
        #: Whether the kernel is asked for presence alone: it takes a fifth of the time.
        self._scans = _speed is not None
        try:
            self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)
        except OSError as error:
            raise GuestMemoryError(f"cannot open the pagemap of process {pid}: {error}") from error

    def close(self) -> None:
        """Nothing can be read afterwards."""
        os.close(self._pagemap)

    @property
    def total_pages(self) -> int:
        return sum(block.size_bytes for block in self.blocks) // PAGE_BYTES

    def identity(self) -> tuple:
        """Return what tells this process and its RAM from any other."""
        try:
            with open(f"/proc/{self._pid}/stat", encoding="utf-8", errors="replace") as opened:
                started = opened.read().rpartition(")")[2].split()[19]
        except (OSError, IndexError) as error:
            raise GuestMemoryError(f"process {self._pid} ended: {error}") from error
        return self._pid, started, tuple(self.blocks)

    def resident_pages(self) -> int:
        """Return how many pages are present; of a large guest the whole process's, at most RAM's.
        """
        if self.total_pages <= _COUNTED_PAGES:
            return sum(int(numpy.count_nonzero(self.presence(part)[0]))
                       for part in self.slices(_COUNTED_PAGES))
        try:
            with open(f"/proc/{self._pid}/statm", encoding="ascii") as opened:
                resident = int(opened.read().split()[1])
        except (OSError, IndexError, ValueError) as error:
            raise GuestMemoryError(f"process {self._pid} ended: {error}") from error
        return min(self.total_pages, resident)

    def file_pages(self) -> int:
        """Return the pages that the files behind RAM occupy, be they mapped, unmapped or in swap.

        The kernel shows pages of shared memory that are in swap, or that only another process has
        mapped (vhost-user), as holes of QEMU; what the file holds beyond the present pages is them.
        0 without files in memory (memfd, tmpfs, hugetlbfs), or where QEMU holds none of them open.
        """
        # file systems on a device allocate ahead: what they occupy tells nothing
        wanted = {block.file for block in self.blocks if block.file and not os.major(block.file[0])}
        if not wanted:
            return 0
        held: dict[tuple[int, int], int] = {}
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{self._pid}/fd"):
                with contextlib.suppress(OSError):
                    status = os.stat(f"/proc/{self._pid}/fd/{name}")
                    held[status.st_dev, status.st_ino] = status.st_blocks * _STAT_BLOCK_BYTES
        return sum(held.get(file, 0) for file in wanted) // PAGE_BYTES

    def slices(self, pages: int = SLICE_PAGES) -> "Slices":
        """Return all of RAM as slices of so many pages, in order of address."""
        return Slices(self.blocks, pages)

    def page_address(self, page: int) -> int:
        """Return where a page lies, counted through all blocks."""
        for block in self.blocks:
            pages = block.size_bytes // PAGE_BYTES
            if page < pages:
                return block.address + page * PAGE_BYTES
            page -= pages
        raise GuestMemoryError(f"there is no page {page} behind the last block")

    def read_pages(self, pages: list[int], buffer: Buffer) -> list[bool]:
        """Read pages by number, at most SLICE_PAGES; those present lie packed in the buffer.

        Returns which these are. Raises GuestMemoryError when the guest is gone.
        """
        addresses = [self.page_address(page) for page in pages]
        present = [bool(self.entries(address, 1)[0] >= _PRESENT) for address in addresses]
        runs = numpy.array([(address, PAGE_BYTES) for address, is_present
                            in zip(addresses, present, strict=True) if is_present],
                           dtype=numpy.uint64)
        if len(runs):
            self._read_runs(Slice(addresses[0], 1), runs, buffer)
        return present

    def stretch(self, page: int, pages: int) -> Slice:
        """Return so many pages from one on, fewer where its block or a slice ends before."""
        address, first = self.page_address(page), page
        for block in self.blocks:
            if first < block.size_bytes // PAGE_BYTES:
                break
            first -= block.size_bytes // PAGE_BYTES
        return Slice(address, min(pages, SLICE_PAGES, block.size_bytes // PAGE_BYTES - first), page)

    def entries(self, address: int, pages: int) -> numpy.ndarray:
        """Return the kernel's pagemap entries (uint64) of pages behind each other."""
        size = pages * 8
        entries = os.pread(self._pagemap, size, address // PAGE_BYTES * 8)
        if len(entries) != size:
            raise GuestMemoryError("the guest's process ended")
        return numpy.frombuffer(entries, dtype=numpy.uint64)

    def presence(self, part: Slice) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Return two boolean arrays over the pages of a slice: present, and swapped out."""
        if self._scans:
            present, swapped = (numpy.empty(part.pages, dtype=bool) for _ in range(2))
            try:
                _speed.find_present(self._pagemap, part.address, present, swapped)
            except OSError:
                # a kernel before 6.7
                self._scans = False
            else:
                # of a process that ended the kernel finds nothing, and no fault with that
                self.entries(part.address, 1)
                return present, swapped
        flags = self.entries(part.address, part.pages)
        return flags >= _PRESENT, (flags & _SWAPPED) != 0

    def read_with(self, part: Slice, read: Callable[[int], int]) -> int:
        """Let `read` (process id -> bytes) read of a slice; its pages are the guest's only then.

        Raises GuestMemoryError when the guest is gone.
        """
        try:
            got = read(self._pid)
        except OSError as error:
            raise GuestMemoryError(f"guest memory could not be read: {error}") from error
        # had the process ended, this id could have been another's meanwhile
        self.entries(part.address, 1)
        return got

    def read(self, part: Slice, wanted: numpy.ndarray, buffer: Buffer) -> int:
        """Read the ``wanted`` pages (a boolean array) of a slice, packed; return how many bytes.

        Raises GuestMemoryError when the guest is gone.
        """
        # a run begins and ends where a page is unlike the one before it
        bounded = numpy.zeros(len(wanted) + 2, dtype=bool)
        bounded[1:-1] = wanted
        runs = numpy.flatnonzero(bounded[1:] != bounded[:-1]).reshape(-1, 2).astype(numpy.uint64)
        if not len(runs):
            return 0
        runs[:, 1] -= runs[:, 0]
        runs *= numpy.uint64(PAGE_BYTES)
        runs[:, 0] += numpy.uint64(part.address)
        return self._read_runs(part, runs, buffer)

    def _read_runs(self, part: Slice, runs: numpy.ndarray, buffer: Buffer) -> int:
        got = self.read_with(part, lambda pid: buffer.fill(pid, runs))
        if got != runs[:, 1].sum():
            raise GuestMemoryError("guest memory could not be read: it was unmapped meanwhile")
        return got


class Slices:
    """Slices of RAM by number, made when they are asked for: large guests have very many."""

    def __init__(self, blocks: list[Block], pages: int):
        self._pages = pages
        self._blocks, first_page, count = [], 0, 0
        for block in blocks:
            block_pages = block.size_bytes // PAGE_BYTES
            self._blocks.append((count, block.address, first_page, block_pages))
            count += -(-block_pages // pages)
            first_page += block_pages
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Slice:
        if not 0 <= index < self._count:
            raise IndexError(index)
        for before, address, first_page, block_pages in reversed(self._blocks):
            if index >= before:
                start = (index - before) * self._pages
                return Slice(address + start * PAGE_BYTES, min(self._pages, block_pages - start),
                             first_page + start)
        raise IndexError(index)
