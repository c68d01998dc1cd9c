"""Guest RAM of a running QEMU, read page by page from outside, and only where a page is present.

Used by scan.py inside the privileged process. Never writes, never touches a page that the kernel
does not report as present: a read would populate holes of memfd and hugetlb guests and bring pages
back from swap (design 5).
"""

import dataclasses
import os
import re
import time

import numpy

PAGE_BYTES = 4096
#: Pages looked at and read in one step: 2 MiB, so that one buffer serves all guests.
SLICE_PAGES = 512

_PRESENT = numpy.uint64(1 << 63)
_SWAPPED = numpy.uint64(1 << 62)
_MAPS_LINE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) ")


class GuestMemoryError(Exception):
    """The memory of this guest can't be read; the text says why."""


@dataclasses.dataclass(frozen=True)
class Slice:
    """Up to SLICE_PAGES pages of guest RAM that lie behind each other in QEMU's address space."""

    address: int
    pages: int


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


def find_ram(pid: int, blocks_bytes: list[int]) -> list[tuple[int, int]]:
    """Find guest RAM in /proc/PID/maps; return (address, bytes) per block, in order of address.

    ``blocks_bytes`` are the sizes of QEMU's memory backends: all of RAM, or one per NUMA cell. QEMU
    puts an inaccessible page behind each of them, so no neighbour changes their size; memory that
    can be executed is TCG's code buffer. Raises GuestMemoryError where sizes are not found as often
    as wanted, or are found more often.
    """
    found: dict[int, list[int]] = {}
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as opened:
            for line in opened:
                start, end, permissions = _MAPS_LINE.match(line).groups()
                if permissions.startswith("rw-"):
                    size = int(end, 16) - int(start, 16)
                    found.setdefault(size, []).append(int(start, 16))
    except OSError as error:
        raise GuestMemoryError(f"cannot read the mappings of process {pid}: {error}") from error
    ram = []
    for size in sorted(set(blocks_bytes)):
        wanted, addresses = blocks_bytes.count(size), found.get(size, [])
        if len(addresses) != wanted:
            raise GuestMemoryError(
                f"guest RAM is not to be told apart in process {pid}: {wanted} mapping(s) of "
                f"{size} bytes wanted, {len(addresses)} found")
        ram.extend((address, size) for address in addresses)
    return sorted(ram)


class Pace:
    """Bounds how fast guest memory is read, by sleeping [read_mib_s]."""

    def __init__(self, bytes_per_second: float):
        self._bytes_per_second = bytes_per_second
        self._free_at = time.monotonic()

    def spend(self, size_bytes: int) -> None:
        """Wait until the bytes spent before have had their time; then take ``size_bytes``."""
        now = time.monotonic()
        if self._free_at > now:
            time.sleep(self._free_at - now)
        self._free_at = max(now, self._free_at) + size_bytes / self._bytes_per_second


class GuestMemory:
    """The RAM of one guest, open for reading until :meth:`close`.

    Both files stay bound to the process they were opened for, whatever becomes of its id.
    """

    def __init__(self, pid: int, blocks_bytes: list[int]):
        self._ram = find_ram(pid, blocks_bytes)
        try:
            self._mem = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        except OSError as error:
            raise GuestMemoryError(f"cannot open the memory of process {pid}: {error}") from error
        try:
            self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)
        except OSError as error:
            os.close(self._mem)
            raise GuestMemoryError(f"cannot open the pagemap of process {pid}: {error}") from error

    def close(self) -> None:
        """Close both files; nothing can be read afterwards."""
        os.close(self._mem)
        os.close(self._pagemap)

    @property
    def total_pages(self) -> int:
        return sum(size for _, size in self._ram) // PAGE_BYTES

    def slices(self) -> list[Slice]:
        """Return all of RAM as slices, in order of address."""
        step = SLICE_PAGES * PAGE_BYTES
        return [
            Slice(address, min(step, start + size - address) // PAGE_BYTES)
            for start, size in self._ram
            for address in range(start, start + size, step)
        ]

    def presence(self, part: Slice) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Return two boolean arrays over the pages of a slice: present, and swapped out."""
        size = part.pages * 8
        entries = os.pread(self._pagemap, size, part.address // PAGE_BYTES * 8)
        if len(entries) != size:
            raise GuestMemoryError("the guest's process ended")
        flags = numpy.frombuffer(entries, dtype=numpy.uint64)
        return (flags & _PRESENT) != 0, (flags & _SWAPPED) != 0

    def read(self, part: Slice, wanted: numpy.ndarray, buffer: memoryview) -> int:
        """Read the ``wanted`` pages (a boolean array) of a slice, packed; return how many bytes.

        The buffer has room for a slice. Raises GuestMemoryError when the guest is gone.
        """
        edges = numpy.flatnonzero(numpy.diff(wanted, prepend=False, append=False))
        filled = 0
        for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            size = (last - first) * PAGE_BYTES
            try:
                got = os.preadv(self._mem, [buffer[filled:filled + size]],
                                part.address + first * PAGE_BYTES)
            except OSError as error:
                raise GuestMemoryError(f"guest memory could not be read: {error}") from error
            if got != size:
                raise GuestMemoryError("the guest's process ended")
            filled += size
        return filled
