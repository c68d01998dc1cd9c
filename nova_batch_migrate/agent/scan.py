"""Scans the memory of several guests and says what changes, what is common and what compresses.

The privileged side of a measurement: measurement.py and jobs.py call it through oslo.privsep. Gives
back counts; pages and their hashes never leave this process (design 5).
"""

import concurrent.futures
import dataclasses
import itertools
import math
import os
import threading
import time

import numpy

from nova_batch_migrate import privsep
from nova_batch_migrate.agent import compressibility, fingerprint, memory

#: Part of the shortest gap between two looks to fill with first looks: the second ones are in time.
_FILL = 0.8
#: Stands for a swapped-out page: its content is there, but reading would bring it back.
_UNREAD = numpy.uint64(0)
#: Guests first, but not so much that a busy host stretches every window.
_NICENESS = 5
#: Comparing ends after this time; what was not reached by then is read once.
_TRACK_SECONDS = 60.0
_AGENDA_SECONDS = 0.02
_SAMPLE_SLICES = 8
_SAMPLE_CHANGED_PAGES = 1024

_progress: dict[str, float] = {}


@privsep.memory_pctxt.entrypoint
def measure(job: str, servers: list[dict], windows_seconds: list[float], seed: int,
            page_budget: int, read_bytes_per_second: float) -> dict:
    """Scan guests and return ``{"servers": [counts of each], "page_classes": PageClasses}``.

    ``servers`` has id, pid_file and blocks_bytes of each. A guest that can't be read has only an
    ``error``. Windows are measured per page: each page is read again the same time after its first
    read, whatever the size of the guest. Beyond ``page_budget`` present pages in all, distinct
    contents are counted in a share theta of the hash space, and changes in the same share of the
    slices. Slices are taken in random order, so that a slow host compares fewer of them and not the
    wrong ones.
    """
    windows = sorted(set(windows_seconds))
    _progress[job] = 0.0
    try:
        with concurrent.futures.ThreadPoolExecutor(1, initializer=_yield_to_guests) as pool:
            scan = _Scan(job, servers, windows, seed, page_budget, read_bytes_per_second)
            return pool.submit(scan.run).result()
    finally:
        del _progress[job]


@privsep.memory_pctxt.entrypoint
def progress(job: str) -> float:
    """Return how much of a running measurement is done, 0..100; 0 for one not begun."""
    return _progress.get(job, 0.0)


@privsep.memory_pctxt.entrypoint
def probe() -> int:
    """Return the process id of the privileged process: shows that it starts."""
    return os.getpid()


def _yield_to_guests() -> None:
    # niceness is per thread in Linux, and this thread ends with its scan
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class _Guest:
    """What a scan knows of one guest."""

    def __init__(self, server_id: str):
        self.id = server_id
        self.error: str | None = None
        self.memory: memory.GuestMemory | None = None
        self.slices: list[memory.Slice] = []
        self.collector: fingerprint.Collector | None = None
        self.present_pages = 0
        self.tracked_pages = 0
        #: (first look, second look) -> [changed pages, page-seconds between both]
        self.windows: dict[tuple[int, int], list[float]] = {}
        self.unchanged = compressibility.Gauge()
        self.changed = compressibility.Gauge()


@dataclasses.dataclass
class _Tracked:
    """A slice that is looked at several times: when, and the hash of each page."""

    guest: _Guest
    part: memory.Slice
    times: list[float]
    hashes: list[numpy.ndarray]


class _Scan:
    def __init__(self, job: str, servers: list[dict], windows: list[float], seed: int,
                 page_budget: int, read_bytes_per_second: float):
        self._job = job
        self._servers = servers
        self._windows = windows
        self._seed = seed
        self._page_budget = page_budget
        self._zero = fingerprint.zero_hash(seed)
        self._random = numpy.random.default_rng(seed)
        self._pace = memory.Pace(read_bytes_per_second)
        self._buffer = memoryview(bytearray(memory.SLICE_PAGES * memory.PAGE_BYTES))
        self._reads_planned = self._reads_done = 0

    def run(self) -> dict:
        guests = [self._open(server) for server in self._servers]
        try:
            present = sum(guest.present_pages for guest in guests)
            theta = min(1.0, self._page_budget / present) if present else 1.0
            self._look_at_all(guests, theta)
        finally:
            for guest in guests:
                if guest.memory is not None:
                    guest.memory.close()
        contents = {guest.id: guest.collector.contents() for guest in guests if not guest.error}
        return {
            "servers": [self._result(guest, contents) for guest in guests],
            "page_classes": fingerprint.page_classes(
                {server: found.hashes for server, found in contents.items()}, self._seed, theta),
        }

    def _open(self, server: dict) -> _Guest:
        guest = _Guest(server["id"])
        try:
            pid = memory.qemu_pid(server["pid_file"], server["id"])
            guest.memory = memory.GuestMemory(pid, server["blocks_bytes"])
            guest.slices = guest.memory.slices()
            for part in guest.slices:
                present, _ = guest.memory.presence(part)
                guest.present_pages += int(numpy.count_nonzero(present))
        except memory.GuestMemoryError as error:
            guest.error = str(error)
        return guest

    def _look_at_all(self, guests: list[_Guest], theta: float) -> None:
        everything = []
        for guest in guests:
            if not guest.error:
                guest.present_pages = 0
                guest.collector = fingerprint.Collector(self._zero, theta)
                everything += [(guest, part) for part in guest.slices]
        tracked = math.ceil(theta * len(everything))
        self._reads_planned = len(everything) + tracked * len(self._windows)
        order = self._random.permutation(len(everything)).tolist()
        work = (everything[index] for index in order if not everything[index][0].error)
        self._compare(itertools.islice(work, tracked))
        for guest, part in work:
            self._first_look(guest, part)

    def _compare(self, work) -> None:
        """Look at slices once and again after each window, many slices at a time.

        A cohort is what is read in `busy` seconds; cohorts begin when none of their looks falls
        into one of another's.
        """
        busy = _FILL * min(late - early
                           for early, late in itertools.pairwise([0.0, *self._windows]))
        #: looks to come: when, which, of what
        agenda: list[tuple[float, int, list[_Tracked]]] = []
        deadline = time.monotonic() + _TRACK_SECONDS
        while True:
            now = time.monotonic()
            agenda.sort(key=lambda entry: entry[0])
            if agenda and agenda[0][0] <= now:
                _, look, cohort = agenda.pop(0)
                for entry in cohort:
                    self._look_again(entry, look, self._windows[look - 1])
            elif now < deadline and self._has_room(agenda, now, busy):
                cohort = self._first_looks(work, now + busy)
                if not cohort:
                    deadline = now
                agenda += [(now + window, look, cohort)
                           for look, window in enumerate(self._windows, start=1) if cohort]
            elif agenda:
                time.sleep(min(_AGENDA_SECONDS, max(0.0, agenda[0][0] - now)))
            else:
                return

    def _has_room(self, agenda, now: float, busy: float) -> bool:
        looks = [now, *(now + window for window in self._windows)]
        return all(abs(begin - look) >= busy for begin, _, _ in agenda for look in looks)

    def _first_looks(self, work, end: float) -> list[_Tracked]:
        cohort = []
        for guest, part in work:
            entry = self._first_look(guest, part)
            if entry is not None:
                cohort.append(entry)
                guest.tracked_pages += part.pages
            if time.monotonic() >= end:
                break
        return cohort

    def _first_look(self, guest: _Guest, part: memory.Slice) -> _Tracked | None:
        looked = self._look(guest, part)
        if looked is None:
            return None
        begun, hashes, present = looked
        guest.present_pages += int(numpy.count_nonzero(present))
        guest.collector.add(hashes[present])
        return _Tracked(guest, part, [begun], [hashes])

    def _look_again(self, entry: _Tracked, look: int, window: float) -> None:
        wait = entry.times[0] + window - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        looked = self._look(entry.guest, entry.part)
        if looked is None:
            return
        begun, hashes, present = looked
        for earlier, (then, before) in enumerate(zip(entry.times, entry.hashes, strict=True)):
            changed = (before != hashes) & (before != _UNREAD) & (hashes != _UNREAD)
            window_sums = entry.guest.windows.setdefault((earlier, look), [0.0, 0.0])
            window_sums[0] += int(numpy.count_nonzero(changed))
            window_sums[1] += (begun - then) * entry.part.pages
        entry.times.append(begun)
        entry.hashes.append(hashes)
        if look == len(self._windows):
            self._sample(entry, present)

    def _look(self, guest: _Guest, part: memory.Slice):
        """Read a slice; return when, its hashes (holes as zero pages) and which are present.

        None for a guest that has been given up.
        """
        self._reads_done += 1
        _progress[self._job] = 100 * self._reads_done / self._reads_planned
        if guest.error:
            return None
        try:
            present, swapped = guest.memory.presence(part)
            self._pace.spend(int(numpy.count_nonzero(present)) * memory.PAGE_BYTES)
            begun = time.monotonic()
            size = guest.memory.read(part, present, self._buffer)
        except memory.GuestMemoryError as error:
            guest.error = str(error)
            return None
        hashes = numpy.full(part.pages, self._zero, dtype=numpy.uint64)
        hashes[present] = fingerprint.hash_pages(self._buffer[:size], self._seed)
        hashes[swapped] = _UNREAD
        return begun, hashes, present

    def _sample(self, entry: _Tracked, present: numpy.ndarray) -> None:
        """Compress samples of a slice that was read for the last time and is in the buffer."""
        guest = entry.guest
        last = entry.hashes[-1][present]
        changed = last != entry.hashes[0][present]
        content = last != numpy.uint64(self._zero)
        if self._random.random() < _SAMPLE_SLICES / len(guest.slices):
            self._add_pages(guest.unchanged, content & ~changed)
        if guest.changed.raw_bytes < _SAMPLE_CHANGED_PAGES * memory.PAGE_BYTES:
            seen = guest.windows.get((0, 1), [0, 0])[0]
            picked = self._random.random(len(last)) < _SAMPLE_CHANGED_PAGES / max(1, seen)
            self._add_pages(guest.changed, content & changed & picked)

    def _add_pages(self, gauge: compressibility.Gauge, wanted: numpy.ndarray) -> None:
        size = memory.PAGE_BYTES
        pages = [self._buffer[index * size:(index + 1) * size]
                 for index in numpy.flatnonzero(wanted).tolist()]
        if pages:
            gauge.add(pages)

    def _result(self, guest: _Guest, contents: dict[str, fingerprint.Contents]) -> dict:
        if guest.error:
            return {"id": guest.id, "error": guest.error}
        total_pages = guest.memory.total_pages
        distinct_pages = contents[guest.id].distinct_pages
        windows = [
            {"seconds": page_seconds / guest.tracked_pages,
             "changed_pages": changed * total_pages / guest.tracked_pages}
            for changed, page_seconds in guest.windows.values()
        ]
        return {
            "id": guest.id,
            "total_pages": total_pages,
            "present_pages": guest.present_pages,
            "zero_pages": guest.collector.zero_pages,
            "distinct_pages": distinct_pages,
            "self_duplicate_pages": guest.collector.nonzero_pages - distinct_pages,
            "windows": sorted(windows, key=lambda window: window["seconds"]),
            "tracked_share": guest.tracked_pages / total_pages,
            "compress_unchanged": guest.unchanged.ratio,
            "compress_changed": guest.changed.ratio,
        }
