"""A host of guests that are not there, scanned by the agent's code: what a large host costs it.

Run as a program by telemetry_cost in a process of its own, so that its peak memory can be told.
Only the reading is played: pages have contents by their numbers, families have most of them in
common. Everything behind it is the code of production, at its rate.
"""
import dataclasses
import json
import pathlib
import sys
import time

import numpy

from nova_batch_migrate import privsep
from nova_batch_migrate.agent import fingerprint, guest_scan, memory, scan
from nova_batch_migrate.agent.memory import PAGE_BYTES

#: Of each guest's pages: in common with its family, changed between two looks.
FAMILY_SHARE = 0.5
FAMILIES = 5
BUSY_SHARE = 0.01


class GuestMemory:
    """RAM of which every page is present and none is zero."""

    def __init__(self, number: int, pages: int):
        self.blocks = [memory.Block(1 << 44, pages * PAGE_BYTES)]
        self._number, self._pages = number, pages
        self._family_pages = int(FAMILY_SHARE * pages)

    total_pages = property(lambda self: self._pages)

    def identity(self) -> tuple:
        return (self._number,)

    def resident_pages(self) -> int:
        return self._pages

    def file_pages(self) -> int:
        return 0

    def slices(self, pages: int = memory.SLICE_PAGES) -> memory.Slices:
        return memory.Slices(self.blocks, pages)

    def page_address(self, page: int) -> int:
        return self.blocks[0].address + page * PAGE_BYTES

    def stretch(self, page: int, pages: int) -> memory.Slice:
        return memory.Slice(self.page_address(page),
                            min(pages, memory.SLICE_PAGES, self._pages - page), page)

    def presence(self, part: memory.Slice):
        return numpy.ones(part.pages, dtype=bool), numpy.zeros(part.pages, dtype=bool)

    def read(self, part: memory.Slice, wanted, buffer: memory.Buffer) -> int:
        """Write into each page what makes it unlike others; the busy ones are new at each look."""
        first = (part.address - self.blocks[0].address) // PAGE_BYTES
        self._write(numpy.arange(first, first + part.pages), buffer)
        return part.pages * PAGE_BYTES

    def read_pages(self, pages: list[int], buffer: memory.Buffer) -> list[bool]:
        """Write single pages, one behind the other."""
        self._write(numpy.array(pages), buffer)
        return [True] * len(pages)

    def _write(self, pages: numpy.ndarray, buffer: memory.Buffer) -> None:
        owner = numpy.where(pages < self._family_pages, self._number % FAMILIES,
                            FAMILIES + self._number)
        content = pages + (owner << 32)
        content[pages >= self._pages * (1 - BUSY_SHARE)] += (time.monotonic_ns() << 20) % (1 << 62)
        held = numpy.frombuffer(buffer.view, dtype=numpy.int64)
        held.reshape(-1, PAGE_BYTES // 8)[:len(pages), 0] = content

    def close(self) -> None:
        """Nothing is open."""


def _read_and_hash(hasher, ram, part: memory.Slice, present, buffer, absent, out,
                   keep: bool = True) -> None:
    """Do what fingerprint.Hasher.read does, with pages that are written instead of read."""
    for start in range(0, part.pages, memory.SLICE_PAGES):
        pages = min(memory.SLICE_PAGES, part.pages - start)
        size = ram.read(memory.Slice(part.address + start * PAGE_BYTES, pages), None, buffer)
        out[start:start + pages] = hasher.hash(size // PAGE_BYTES)


def peak_bytes() -> int:
    """Return the most memory that this process has had.

    Not by getrusage: there a process has the peak of the one that started it for its own.
    """
    told = dict(line.split(":", 1) for line in
                pathlib.Path("/proc/self/status").read_text().splitlines())
    return int(told["VmHWM"].split()[0]) * 1024


def main() -> None:
    """Scan by the JSON in argv[1]; print the result, and its size, the seconds and peak memory."""
    asked = json.loads(sys.argv[1])
    privsep.memory_pctxt.set_client_mode(False)

    def opened(guest, pid_file, blocks_bytes):
        guest.memory = GuestMemory(int(pid_file), blocks_bytes[0] // PAGE_BYTES)
        guest.resident_pages = guest.memory.resident_pages()

    guest_scan.Guest.open = opened
    fingerprint.Hasher.read = _read_and_hash
    servers = [{"id": f"guest-{number:04}", "pid_file": str(number),
                "blocks_bytes": [asked["memory_bytes"]]} for number in range(asked["guests"])]
    settings = dataclasses.asdict(scan.Settings(seed=7, sketch_key="11" * 32, **asked["settings"]))
    begun = time.monotonic()
    found = scan.measure("synthetic", servers, asked["windows_seconds"], settings)
    seconds = time.monotonic() - begun
    own_bytes = peak_bytes()
    text = json.dumps(found)
    print(text)
    counts = found["servers"]
    print(json.dumps({
        "seconds": seconds, "peak_bytes": own_bytes, "result_bytes": len(text),
        "complete_guests": sum(each["complete"] for each in counts),
        "guests_with_windows": sum(bool(each["windows"]) for each in counts),
        "tracked_share": float(numpy.mean([each["tracked_share"] for each in counts])),
        "theta": found["page_classes"]["theta"]}))


if __name__ == "__main__":
    main()
