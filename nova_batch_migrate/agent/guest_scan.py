"""What a scan finds out about one guest, and how it is told.

Used by scan.py inside the privileged process. Counts, estimates, samples; never a page.
"""

import dataclasses

import numpy

from nova_batch_migrate.agent import compressibility, fingerprint, memory, portions


@dataclasses.dataclass
class Seen:
    """Pages looked at once, and what they were."""

    pages: int = 0
    present: int = 0
    swapped: int = 0
    zero: int = 0

    def add(self, present: numpy.ndarray, swapped: numpy.ndarray, zero_pages: int) -> None:
        """Count the pages of a slice; the first two are boolean arrays over them."""
        self.pages += len(present)
        self.present += int(numpy.count_nonzero(present))
        self.swapped += int(numpy.count_nonzero(swapped))
        self.zero += zero_pages


@dataclasses.dataclass
class Sums:
    """Of the slices that were looked at in both looks of a window, each with its weight."""

    changed_pages: float = 0.0
    page_seconds: float = 0.0
    pages: float = 0.0

    def add(self, changed_pages: int, seconds: float, pages: int, weight: float = 1.0) -> None:
        """Add a slice that stands for ``weight`` slices."""
        self.changed_pages += weight * changed_pages
        self.page_seconds += weight * seconds * pages
        self.pages += weight * pages


@dataclasses.dataclass(frozen=True)
class Known:
    """A guest that was read completely: used again while it is young."""

    identity: tuple
    seed: int
    at_seconds: float
    counts: dict
    contents: fingerprint.Contents
    sample: fingerprint.Sample


class Guest:
    """One guest of a scan, open for reading until :meth:`close`."""

    def __init__(self, server_id: str):
        self.id = server_id
        self.error: str | None = None
        self.memory: memory.GuestMemory | None = None
        #: Found young enough at the beginning; nothing of it is read but for confirmation.
        self.known: Known | None = None
        self.collector: fingerprint.Collector | None = None
        #: Blocks inside of its pages, where they are wanted.
        self.portions: portions.Collector | None = None
        #: Slices not read yet, as a boolean array over their numbers.
        self.unread = numpy.empty(0, dtype=bool)
        self.resident_pages = 0
        self.tracked_pages = 0
        #: Pages that are compared together.
        self.slice_pages = memory.SLICE_PAGES
        #: Slices read for their contents.
        self.seen = Seen()
        #: Pieces compared that lie spread over a guest too large to be compared whole.
        self.spread = Seen()
        #: By first look and second look.
        self.windows: dict[tuple[int, int], Sums] = {}
        #: Pages that were another one at every look than at the look before.
        self.always_pages = 0.0
        self.unchanged = compressibility.Gauge()
        self.changed = compressibility.Gauge()
        self._contents: fingerprint.Contents | None = None

    def open(self, pid_file: str, blocks_bytes: list[int]) -> None:
        """Open its memory; a guest that can't be read has ``error`` afterwards."""
        try:
            pid = memory.qemu_pid(pid_file, self.id)
            self.memory = memory.GuestMemory(pid, blocks_bytes)
            self.resident_pages = self.memory.resident_pages()
        except memory.GuestMemoryError as error:
            self.error = str(error)

    def close(self) -> None:
        """End reading."""
        if self.memory is not None:
            self.memory.close()

    def collect(self, zero: int, theta: float, sample_theta: float) -> None:
        """Make ready to be read from the beginning."""
        self.collector = fingerprint.Collector(zero, theta, sample_theta)
        self.unread = numpy.ones(len(self.memory.slices()), dtype=bool)

    @property
    def complete(self) -> bool:
        """Whether all of its contents are known."""
        return not self.error and (self.known is not None or not self.unread.any())

    def contents(self, theta: float) -> fingerprint.Contents:
        """Return the distinct contents in a share of the hash space; only of a complete guest."""
        if self._contents is None:
            self._contents = self.known.contents if self.known else self.collector.contents()
        return self._contents.below(theta)

    def sample(self, theta: float) -> fingerprint.Sample:
        """Return where contents lie; only of a complete guest."""
        return (self.known.sample if self.known else self.collector.sample()).below(theta)

    def counts(self) -> dict:
        """Return what is told of this guest beside what it has in common with others."""
        if self.error:
            return {"id": self.id, "error": self.error}
        if self.known is not None:
            return self.known.counts | {"reused": True}
        total = self.memory.total_pages
        windows = [
            {"seconds": sums.page_seconds / sums.pages,
             "changed_pages": sums.changed_pages * total / self.tracked_pages}
            for sums in self.windows.values()
        ]
        return {
            "id": self.id,
            "reused": False,
            "complete": self.complete,
            "total_pages": total,
            **self._pages(total),
            "windows": sorted(windows, key=lambda window: window["seconds"]),
            "always": self._always(total),
            "tracked_share": min(1.0, self.tracked_pages / total),
            "slice_pages": self.slice_pages,
            "compress_unchanged": self.unchanged.ratio,
            "compress_changed": self.changed.ratio,
        }

    def _always(self, total: int) -> dict | None:
        """Return how many pages changed in every gap between looks, and these gaps; None of one."""
        gaps = [self.windows[first, second] for first, second in sorted(self.windows)
                if second == first + 1]
        if len(gaps) < 2:
            return None
        return {"gaps_seconds": [sums.page_seconds / sums.pages for sums in gaps],
                "pages": self.always_pages * total / self.tracked_pages}

    def _pages(self, total: int) -> dict:
        """Return the page counts; pages in swap are content that nobody looked at."""
        if self.complete:
            present, zero = self.seen.present, self.collector.zero_pages
            distinct = self.contents(1.0).distinct_pages
            duplicates = self.collector.nonzero_pages - distinct
            swapped = self.seen.swapped
        else:
            seen = self.spread if self.spread.pages else self.seen
            scale = total / seen.pages if seen.pages else 0.0
            present = round(seen.present * scale) if scale else self.resident_pages
            zero, swapped = round(seen.zero * scale), round(seen.swapped * scale)
            distinct, duplicates = present - zero, 0
        hidden = max(0, min(total, self.memory.file_pages()) - present - swapped)
        swapped += hidden
        return {"present_pages": min(total, present + swapped), "zero_pages": zero,
                "swapped_pages": swapped, "distinct_pages": distinct + swapped,
                "self_duplicate_pages": duplicates}
