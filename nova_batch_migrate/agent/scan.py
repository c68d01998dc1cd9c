"""Scans the memory of several guests and says what changes, what is common and what compresses.

The privileged side of a measurement: measurement.py and jobs.py call it through oslo.privsep. Gives
back counts and keyed sketches; pages and their hashes never leave this process (design 5).
"""

import concurrent.futures
import dataclasses
import os
import threading
import time

import numpy
from oslo_log import log

from nova_batch_migrate import privsep
from nova_batch_migrate.agent import (
    comparing,
    confirm,
    fingerprint,
    guest_scan,
    likeness,
    memory,
    portions,
    remembered,
    sequence,
)
from nova_batch_migrate.agent.memory import PAGE_BYTES

LOG = log.getLogger(__name__)
#: Entries of page sequences: of one server, and of all together (they are stored and sent).
_SEQUENCE_PAGES = 20_000
_SEQUENCES_PAGES = 200_000
#: Blocks of pages that are held for each page of the budget.
_BLOCKS_SHARE = 0.25
#: Slices whose presence is asked for at once when contents are read.
_SLICES_AT_ONCE = 8
_SLICE_BYTES = memory.SLICE_PAGES * PAGE_BYTES
#: Niceness where the kernel does not know SCHED_IDLE.
_NICENESS = 19

_progress: dict[str, float] = {}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a scan is to be done; crosses to the privileged process as a dict."""

    #: Of XXH3, from the epoch's key.
    seed: int
    #: Pages of all guests whose fingerprints are held.
    page_budget: int = 1_000_000
    read_bytes_per_second: float = float("inf")
    #: Most time to take; what was not read then is left to the next scan. 0: no limit.
    seconds: float = 0.0
    #: Contents that were read completely at most so long ago are used again.
    reuse_seconds: float = 0.0
    #: Hex key of the sketch's BLAKE3 and the name of its epoch; empty: no sketch.
    sketch_key: str = ""
    sketch_key_id: str = ""
    #: Size of the blocks looked for inside of pages; 0: none.
    portion_bytes: int = 0


@privsep.memory_pctxt.entrypoint
def measure(job: str, servers: list[dict], windows_seconds: list[float], settings: dict) -> dict:
    """Scan guests and return ``{"servers": [counts of each]}`` and what they have in common.

    That is ``page_classes``, ``portions``, ``confirmation`` and ``sketch``, in the JSON form of
    planning.telemetry.HostTelemetry. ``servers`` has id, pid_file and blocks_bytes of each, and
    ``anew`` of whom nothing that was read before is to be used. A guest that can't be read has only
    an ``error``. ``settings`` are those of Settings.

    Windows are measured per page: each page is read again the same time after its first read,
    whatever the size of the guest. Beyond ``page_budget`` resident pages in all, distinct contents
    are counted in a share theta of the hash space.
    """
    _progress[job] = 0.0
    try:
        # niceness is per thread in Linux, and this thread ends with its scan
        with concurrent.futures.ThreadPoolExecutor(1, initializer=yield_to_guests) as pool:
            scan = _Scan(job, servers, sorted(set(windows_seconds)), Settings(**settings))
            return pool.submit(scan.run).result()
    finally:
        del _progress[job]


@privsep.memory_pctxt.entrypoint
def progress(job: str) -> float:
    """Return how much of a running measurement is done, 0..100; 0 for one not begun."""
    return _progress.get(job, 0.0)


@privsep.memory_pctxt.entrypoint
def resident(servers: list[dict]) -> dict[str, int]:
    """Return the pages that are present, by server id, without reading any.

    ``servers`` as those of `measure`; one that can't be read is left out.
    """
    found = {}
    for server in servers:
        guest = guest_scan.Guest(server["id"])
        guest.open(server["pid_file"], server["blocks_bytes"])
        if not guest.error:
            found[guest.id] = guest.resident_pages
        guest.close()
    return found


@privsep.memory_pctxt.entrypoint
def probe() -> int:
    """Return the process id of the privileged process: shows that it starts."""
    return os.getpid()


def yield_to_guests() -> None:
    """Let the calling thread run only where no guest wants to."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def unread(guest: guest_scan.Guest):
    """Yield what is not read yet, several slices at a time where they lie together."""
    slices = guest.memory.slices()
    left = numpy.flatnonzero(guest.unread).tolist()
    at = 0
    while at < len(left) and not guest.error:
        first = slices[left[at]]
        for taken in range(min(_SLICES_AT_ONCE, len(left) - at), 0, -1):
            number = left[at + taken - 1]
            last = slices[number]
            # no two blocks lie side by side: so far apart, so many slices between
            if last.address - first.address == (number - left[at]) * _SLICE_BYTES \
                    and number - left[at] == taken - 1:
                break
        yield dataclasses.replace(first, pages=last.first_page + last.pages - first.first_page)
        guest.unread[left[at]:number + 1] = False
        at += taken


class _Scan:
    def __init__(self, job: str, servers: list[dict], windows: list[float], settings: Settings):
        self._job = job
        self._servers = servers
        self._windows = windows
        self._settings = settings
        self._random = numpy.random.default_rng(settings.seed)
        self._pace = memory.Pace(settings.read_bytes_per_second)
        self._buffer = memory.Buffer()
        self._reader = ContentReader(settings.seed, self._pace, self._buffer,
                                     settings.portion_bytes)
        self._end = time.monotonic() + settings.seconds if settings.seconds else None
        self._guests: list[guest_scan.Guest] = []
        self._theta = self._sample_theta = 1.0

    def run(self) -> dict:
        try:
            self._guests = [self._open(server) for server in self._servers]
            if (told := remembered.told(self._guests, self._lasting())) is not None:
                return told
            self._choose_shares()
            begun = time.monotonic()
            self._read()
            read = time.monotonic()
            found = self._results()
            LOG.info("%d servers were read in %.1f s, and what they have in common was counted in "
                     "%.1f s", len(self._guests), read - begun, time.monotonic() - read)
            remembered.keep_told(self._guests, self._lasting(), found)
            return found
        finally:
            for guest in self._guests:
                guest.close()

    def _lasting(self) -> Settings:
        """Return the settings but for how long this scan may take."""
        return dataclasses.replace(self._settings, seconds=0.0)

    def _open(self, server: dict) -> guest_scan.Guest:
        guest = guest_scan.Guest(server["id"])
        guest.open(server["pid_file"], server["blocks_bytes"])
        # blocks are not kept, and need all guests at the same share
        if not guest.error and not self._settings.portion_bytes and not server.get("anew"):
            guest.known = remembered.young(guest, self._settings.seed,
                                           self._settings.reuse_seconds)
        return guest

    def _choose_shares(self) -> None:
        """Choose how much of the hash space is held, so that memory stays within the budget."""
        resident = [guest.resident_pages for guest in self._guests if not guest.error]
        total = max(1, sum(resident))
        self._theta = min([1.0, self._settings.page_budget / total,
                           *(g.known.contents.theta for g in self._guests if g.known)])
        self._sample_theta = min([self._theta, _SEQUENCES_PAGES / total,
                                  _SEQUENCE_PAGES / max([1, *resident]),
                                  *(g.known.sample.theta for g in self._guests if g.known)])

    def _read(self) -> None:
        """Compare what changes, then read once what has not been read by then."""
        guests = [guest for guest in self._guests if not guest.error and guest.known is None]
        for guest in guests:
            guest.collect(self._reader.zero, self._theta, self._sample_theta)
            if self._settings.portion_bytes:
                guest.portions = portions.Collector(self._block_theta())
        # those with the least memory go first, so their contents matter first
        guests.sort(key=lambda guest: guest.resident_pages)
        reading = self._rest(guests)
        looks = comparing.Comparing(guests, self._windows, self._reader, self._random,
                                    self._settings.seconds, self._tell, reading)
        looks.run()
        pages = sum(guest.memory.total_pages for guest in guests if not guest.error)
        for _ in reading:
            self._tell(0.5 + 0.5 * sum(guest.seen.pages for guest in guests) / pages)
        for guest in guests:
            if not guest.error and guest.complete:
                remembered.keep(guest, self._settings.seed, self._settings.page_budget)

    def _rest(self, guests: list[guest_scan.Guest]):
        """Read what no look has read, part by part; once begun, no first look may come."""
        for guest in guests:
            for part in unread(guest):
                if self._end is not None and time.monotonic() >= self._end:
                    return
                self._reader.read_contents(guest, part)
                yield

    def _block_theta(self) -> float:
        """Return the share of blocks held: of all guests, known ones too, the same."""
        pages = max(1, sum(guest.resident_pages for guest in self._guests if not guest.error))
        blocks = pages * PAGE_BYTES / self._settings.portion_bytes
        return min([1.0, _BLOCKS_SHARE * self._settings.page_budget / blocks])

    def _tell(self, share: float) -> None:
        _progress[self._job] = min(100.0, 100 * share)

    def _results(self) -> dict:
        complete = [guest for guest in self._guests if guest.complete]
        counts = {guest.id: guest.counts() for guest in self._guests}
        samples = {guest.id: guest.sample(self._sample_theta) for guest in complete}
        sequences = sequence.build(
            {server: (sample.pages, sample.hashes) for server, sample in samples.items()},
            self._sample_theta)
        for server, found in sequences.items():
            counts[server]["sequence"] = found
        pages = confirm.PageReader(self._buffer, self._pace)
        opened = [(guest.memory, samples[guest.id]) for guest in complete]
        self._add_likeness(counts, complete, samples)
        return {
            "servers": list(counts.values()),
            "page_classes": self._page_classes(complete, counts),
            "portions": self._portions(complete),
            "confirmation": confirm.compare(opened, pages, self._random),
            "sketch": self._sketch(opened, pages),
        }

    def _add_likeness(self, counts: dict, complete: list[guest_scan.Guest], samples: dict) -> None:
        """Say how small own and shared pages become."""
        def in_time() -> bool:
            return self._end is None or time.monotonic() < self._end

        gauge = likeness.Gauge(
            [likeness.Guest(guest.memory, samples[guest.id], guest.contents(self._theta))
             for guest in complete],
            self._buffer, self._pace, self._settings.seed, self._random,
            likeness.RUNS if self._end is None else likeness.WAITED_RUNS)
        found = gauge.measure(in_time)
        for guest, each in zip(complete, found, strict=True):
            counts[guest.id] |= {"compress_own": each.own, "compress_shared": each.shared,
                                 "compress_own_behind_like": each.own_behind_like}

    def _page_classes(self, complete: list[guest_scan.Guest], counts: dict) -> dict:
        """Count sets of servers; what nobody looked at is unlike any other."""
        found = fingerprint.page_classes(
            {guest.id: guest.contents(self._theta).hashes for guest in complete},
            self._settings.seed, self._theta)
        alone = {server: value["swapped_pages"] for server, value in counts.items()
                 if "error" not in value}
        alone |= {guest.id: counts[guest.id]["distinct_pages"] for guest in self._guests
                  if not guest.error and not guest.complete}
        own = {tuple(entry["servers"]): entry for entry in found["classes"]}
        for server, pages in alone.items():
            if pages:
                entry = own.get((server,))
                if entry is None:
                    found["classes"].append({"servers": [server], "pages": 0})
                    entry = found["classes"][-1]
                entry["pages"] += round(pages * self._theta)
                found["exact"] = found["exact"] and counts[server].get("complete", True)
        return found

    def _portions(self, complete: list[guest_scan.Guest]) -> dict | None:
        collected = {guest.id: guest.portions for guest in complete if guest.portions}
        return portions.classes(collected, self._settings.portion_bytes, self._settings.seed)

    def _sketch(self, opened: list, pages: confirm.PageReader) -> dict | None:
        if not self._settings.sketch_key:
            return None
        return confirm.sketch(opened, pages, self._settings.seed,
                              bytes.fromhex(self._settings.sketch_key),
                              self._settings.sketch_key_id)


class ContentReader:
    """Reads slices of guests and hashes their pages; the one way from memory to fingerprints."""

    def __init__(self, seed: int, pace: memory.Pace, buffer: memory.Buffer | None = None,
                 portion_bytes: int = 0):
        self.buffer = buffer or memory.Buffer()
        self.zero = fingerprint.zero_hash(seed)
        self._pace = pace
        self._hasher = fingerprint.Hasher(self.buffer.view, seed)
        self._blocks = (portions.BlockReader(self.buffer.view, seed, portion_bytes)
                        if portion_bytes else None)

    def look(self, guest: guest_scan.Guest, part: memory.Slice, pages: slice = slice(None)):
        """Read ``pages`` of a slice; return when, and arrays over them.

        The arrays: hashes (holes as zero pages), which are present, which swapped. None for a
        guest that has been given up.
        """
        if guest.error:
            return None
        try:
            present, swapped = guest.memory.presence(part)
            wanted = numpy.zeros(part.pages, dtype=bool)
            wanted[pages] = present[pages]
            self._pace.spend(int(numpy.count_nonzero(wanted)) * PAGE_BYTES)
            begun = time.monotonic()
            hashes = numpy.empty(part.pages, dtype=numpy.uint64)
            self._hasher.read(guest.memory, part, wanted, self.buffer, self.zero, hashes,
                              guest.portions is not None)
            return begun, hashes[pages], present[pages], swapped[pages]
        except memory.GuestMemoryError as error:
            guest.error = str(error)
            return None

    def pages(self, guest: guest_scan.Guest, part: memory.Slice, wanted: numpy.ndarray
              ) -> list[memoryview]:
        """Return the ``wanted`` pages of a slice that are present; valid until the next read.

        Not paced: these are few, and were read just before.
        """
        try:
            present, _ = guest.memory.presence(part)
            size = guest.memory.read(part, wanted & present, self.buffer)
        except memory.GuestMemoryError as error:
            guest.error = str(error)
            return []
        return [self.buffer.view[start:start + PAGE_BYTES] for start in range(0, size, PAGE_BYTES)]

    def read_contents(self, guest: guest_scan.Guest, part: memory.Slice) -> None:
        """Read a part of any size, and collect what it holds."""
        if guest.error:
            return
        hashes = numpy.empty(part.pages, dtype=numpy.uint64)
        # slice by slice where the buffer has to hold the pages
        step = memory.SLICE_PAGES if guest.portions is not None else part.pages
        try:
            present, swapped = guest.memory.presence(part)
            if not (present.any() or swapped.any()):
                guest.seen.pages += part.pages
                return
            for start in range(0, part.pages, step):
                pages = slice(start, min(start + step, part.pages))
                here = present[pages]
                # looks again take as long as the first ones, so only here time is made up for
                self._pace.spend(int(numpy.count_nonzero(here)) * PAGE_BYTES, makes_up=True)
                self._hasher.read(guest.memory, memory.Slice(
                    part.address + start * PAGE_BYTES, len(here)), here, self.buffer, self.zero,
                    hashes[pages], guest.portions is not None)
                self._collect_blocks(guest, hashes[pages], here)
        except memory.GuestMemoryError as error:
            guest.error = str(error)
            return
        self._collect(guest, part, hashes, present, swapped)

    def collect(self, guest: guest_scan.Guest, part: memory.Slice, hashes, present,
                swapped) -> None:
        """Take a slice that was just looked at for read; its pages are in the buffer."""
        self._collect_blocks(guest, hashes, present)
        self._collect(guest, part, hashes, present, swapped)

    def _collect(self, guest, part: memory.Slice, hashes, present, swapped) -> None:
        zero_pages = guest.collector.zero_pages
        guest.collector.add(part.first_page, hashes, present)
        guest.seen.add(present, swapped, guest.collector.zero_pages - zero_pages)

    def _collect_blocks(self, guest, hashes, present) -> None:
        if guest.portions is not None:
            self._blocks.add(guest.portions, hashes[present])
