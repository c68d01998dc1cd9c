"""Fingerprints of page contents and what servers have in common by them.

Used by scan.py inside the privileged process: hashes stay there, counts leave. Works on numpy
arrays of 64-bit hashes; memory and time grow with the pages, never with pages times servers.
"""

import collections
import dataclasses
import itertools

import numpy
import xxhash

from nova_batch_migrate.agent import memory
from nova_batch_migrate.agent.memory import PAGE_BYTES

try:
    from nova_batch_migrate.agent import _speed
except ImportError:
    # it was built without a compiler
    _speed = None

_HASH_SPACE = 1 << 64
#: Classes that leave the host; the rest is folded (a page class costs a list of server ids).
MAX_CLASSES = 1000
#: Content held by at least this share of the servers is called background when folding.
BACKGROUND_SHARE = 0.9
#: Hashes sorted at a time.
_PART_HASHES = 250_000
#: Sets of servers counted at a time; ten times what leaves the host.
_MOST_SETS = 10 * MAX_CLASSES


def hash_page(content: bytes, seed: int) -> int:
    """Return the fingerprint of one page."""
    return xxhash.xxh3_64_intdigest(content, seed)


def zero_hash(seed: int) -> int:
    """Return the fingerprint of a page of zeros."""
    return hash_page(bytes(PAGE_BYTES), seed)


class Hasher:
    """Hashes the units (pages, or blocks of pages) that stand in one buffer, time and again.

    The units are named once: naming them takes longer than hashing them. Pages are hashed all in
    one call where the extension module was built.
    """

    def __init__(self, buffer: memoryview, seed: int, unit_bytes: int = PAGE_BYTES):
        self._buffer = buffer if _speed and unit_bytes == PAGE_BYTES else None
        self._seed = seed
        self._units = [] if self._buffer is not None else [
            buffer[start:start + unit_bytes] for start in range(0, len(buffer), unit_bytes)]

    def hash(self, count: int) -> numpy.ndarray:
        """Return the XXH3 of the first ``count`` units, as uint64 (design 3)."""
        if self._buffer is not None:
            found = numpy.empty(count, dtype=numpy.uint64)
            _speed.hash_pages(self._buffer, self._seed, found)
            return found
        return numpy.fromiter(
            map(xxhash.xxh3_64_intdigest, self._units, itertools.repeat(self._seed)),
            dtype=numpy.uint64, count=count)

    def read(self, ram: memory.GuestMemory, part: memory.Slice, present: numpy.ndarray,
             buffer: memory.Buffer, absent: int, out: numpy.ndarray, keep: bool = True) -> None:
        """Read the `present` pages (a boolean array) of a slice and hash them.

        `out` (uint64) gets the hash of each page, `absent` where none is present. The pages are in
        the buffer afterwards, packed, if they are to be kept; else the slice may be of any size,
        and little of the processor's cache is taken from guests. Only for pages; raises
        GuestMemoryError.
        """
        if self._buffer is None:
            for start in range(0, part.pages, memory.SLICE_PAGES):
                here = present[start:start + memory.SLICE_PAGES]
                found = out[start:start + memory.SLICE_PAGES]
                found[:] = absent
                size = ram.read(memory.Slice(part.address + start * PAGE_BYTES, len(here)), here,
                                buffer)
                found[here] = self.hash(size // PAGE_BYTES)
        else:
            ram.read_with(part, lambda pid: _speed.read_pages(
                pid, part.address, present, buffer.view, keep, self._seed, absent, out))


@dataclasses.dataclass(frozen=True)
class Contents:
    """Distinct non-zero contents of one server within the share of hash space looked at."""

    hashes: numpy.ndarray
    #: Pages that are not zero, in the whole hash space, repeated ones included.
    nonzero_pages: int
    theta: float
    #: Those of them that the server holds more than once.
    repeated: numpy.ndarray = dataclasses.field(
        default_factory=lambda: numpy.empty(0, dtype=numpy.uint64))

    @property
    def distinct_pages(self) -> int:
        """Distinct contents, estimated from the sample where theta is below 1."""
        return min(self.nonzero_pages, round(len(self.hashes) / self.theta))

    def below(self, theta: float) -> "Contents":
        """Return the same in a smaller share of the hash space."""
        if theta >= self.theta:
            return self
        return Contents(self.hashes[self.hashes < limit(theta)], self.nonzero_pages, theta,
                        self.repeated[self.repeated < limit(theta)])


@dataclasses.dataclass(frozen=True)
class Sample:
    """Pages whose content lies in the share theta of the hash space: which ones, and hashes."""

    pages: numpy.ndarray
    hashes: numpy.ndarray
    theta: float

    def below(self, theta: float) -> "Sample":
        """Return the same in a smaller share of the hash space."""
        if theta >= self.theta:
            return self
        kept = self.hashes < limit(theta)
        return Sample(self.pages[kept], self.hashes[kept], theta)


def limit(theta: float) -> numpy.uint64:
    """Return the hash that a share of the hash space ends at."""
    return numpy.uint64(min(int(theta * _HASH_SPACE), _HASH_SPACE - 1))


class Growing:
    """An array that grows at its end, without an object per part."""

    def __init__(self, dtype):
        self._held = numpy.empty(64, dtype=dtype)
        self._count = 0

    def extend(self, values: numpy.ndarray) -> None:
        """Take more values."""
        end = self._count + len(values)
        if end > len(self._held):
            larger = numpy.empty(max(end, 2 * len(self._held)), dtype=self._held.dtype)
            larger[:self._count] = self._held[:self._count]
            self._held = larger
        self._held[self._count:end] = values
        self._count = end

    def values(self) -> numpy.ndarray:
        """Return what was taken; a view, valid until more is."""
        return self._held[:self._count]


class Collector:
    """Collects the distinct contents of one server while it is scanned slice by slice.

    Only hashes below ``theta`` of the hash space are kept: the same ones in every server, so that
    what they have in common stays countable. Of those below ``sample_theta`` it is also kept where
    they lie.
    """

    def __init__(self, zero: int, theta: float, sample_theta: float):
        self._zero = numpy.uint64(zero)
        self._theta, self._sample_theta = theta, min(theta, sample_theta)
        self._hashes = Growing(numpy.uint64)
        self._sample_pages, self._sample_hashes = Growing(numpy.uint32), Growing(numpy.uint64)
        self._room = (numpy.empty(0, dtype=numpy.uint64),)
        self.zero_pages = 0
        self.nonzero_pages = 0

    def add(self, first_page: int, hashes: numpy.ndarray, present: numpy.ndarray) -> None:
        """Take the hashes of the pages from ``first_page`` on; those not ``present`` don't count.
        """
        if _speed is None:
            here, zeros, kept, pages, sample = self._picked(first_page, hashes, present)
        else:
            if len(self._room[0]) < len(hashes):
                self._room = tuple(numpy.empty(len(hashes), dtype=dtype)
                                   for dtype in (numpy.uint64, numpy.uint32, numpy.uint64))
            here, zeros, count, sampled = _speed.gather(
                hashes, present, int(self._zero),
                int(limit(self._theta)) if self._theta < 1 else 0,
                int(limit(self._sample_theta)) if self._sample_theta < self._theta else 0,
                first_page, *self._room)
            kept, pages, sample = (self._room[0][:count], self._room[1][:sampled],
                                   self._room[2][:sampled])
        self.zero_pages += zeros
        self.nonzero_pages += here - zeros
        self._hashes.extend(kept)
        self._sample_pages.extend(pages)
        self._sample_hashes.extend(sample)

    def _picked(self, first_page: int, hashes: numpy.ndarray, present: numpy.ndarray):
        """Return what _speed.gather does, where that was not built."""
        content = present & (hashes != self._zero)
        here, count = (int(numpy.count_nonzero(each)) for each in (present, content))
        if self._theta < 1:
            content &= hashes < limit(self._theta)
        kept = hashes[content]
        if self._sample_theta < self._theta:
            content &= hashes < limit(self._sample_theta)
        pages = numpy.flatnonzero(content)
        return here, here - count, kept, (pages + first_page).astype(numpy.uint32), hashes[pages]

    def contents(self) -> Contents:
        """Return what was collected, each content once, in ascending order."""
        hashes, counts = numpy.unique(self._hashes.values(), return_counts=True)
        return Contents(hashes, self.nonzero_pages, self._theta, hashes[counts > 1])

    def sample(self) -> Sample:
        """Return the pages of the sample, in the order in which they were read."""
        return Sample(self._sample_pages.values().copy(), self._sample_hashes.values().copy(),
                      self._sample_theta)


def page_classes(hashes_of: dict[str, numpy.ndarray], seed: int, theta: float = 1.0,
                 max_classes: int = MAX_CLASSES) -> dict:
    """Count the contents held by exactly each set of servers: a Venn histogram [0047].

    ``hashes_of`` gives each server's distinct hashes in ascending order, without the zero page's.
    Returns the JSON form of planning.telemetry.PageClasses; pages are those counted in the share
    ``theta``. ``exact`` is true only for a full count (theta 1) of which nothing was folded.

    All hashes are sorted once; equal ones stand together as a run. Each server has a random token,
    and the XOR of a run's tokens names its set of servers.
    """
    ids = list(hashes_of)
    counted, whole = _count_sets(ids, hashes_of, seed)
    classes, background = _fold(counted, len(ids), max_classes)
    return {
        "exact": (theta >= 1 and whole and background is None
                  and sorted(classes) == sorted(counted)),
        "theta": min(theta, 1.0),
        "classes": [{"servers": sorted(ids[index] for index in members), "pages": pages}
                    for members, pages in classes],
        "background": background,
    }


def _count_sets(ids: list[str], hashes_of: dict[str, numpy.ndarray],
                seed: int) -> tuple[list[tuple[tuple[int, ...], int]], bool]:
    """Count part by part of the hash space, so that working memory stays a part of the whole.

    Where servers share in very many ways, the rarest sets are folded as _fold does, and the second
    value is false.
    """
    tokens = numpy.random.default_rng(seed).integers(
        0, _HASH_SPACE, size=len(ids), dtype=numpy.uint64)
    ordered = [hashes_of[server] for server in ids]
    parts = max(1, sum(map(len, ordered)) // _PART_HASHES)
    highest = max((int(hashes[-1]) for hashes in ordered if len(hashes)), default=0)
    edges = [numpy.uint64(highest * part // parts) for part in range(1, parts)]
    cuts = [[0, *numpy.searchsorted(hashes, edges).tolist(), len(hashes)] for hashes in ordered]
    counted: dict[int, int] = collections.defaultdict(int)
    members_of: dict[int, tuple[int, ...]] = {}
    whole = True
    for part in range(parts):
        _count_part([hashes[cut[part]:cut[part + 1]]
                     for hashes, cut in zip(ordered, cuts, strict=True)],
                    tokens, counted, members_of)
        if len(counted) > _MOST_SETS:
            _fold_rare(tokens, counted, members_of)
            whole = False
    return [(members_of[key], count) for key, count in counted.items()], whole


def _fold_rare(tokens: numpy.ndarray, counted: dict, members_of: dict) -> None:
    shared = sorted((key for key in counted if len(members_of[key]) > 1), key=counted.get)
    for key in shared[:-_MOST_SETS // 2]:
        pages = counted.pop(key)
        for member in members_of.pop(key):
            alone = int(tokens[member])
            members_of[alone] = (member,)
            counted[alone] += pages


def _count_part(ordered: list[numpy.ndarray], tokens: numpy.ndarray, counted: dict,
                members_of: dict) -> None:
    hashes = numpy.concatenate(ordered) if ordered else numpy.empty(0, dtype=numpy.uint64)
    if not len(hashes):
        return
    owners = numpy.repeat(numpy.arange(len(ordered), dtype=numpy.uint32),
                          [len(part) for part in ordered])
    order = numpy.argsort(hashes, kind="stable")
    hashes, owners = hashes[order], owners[order]
    starts = numpy.flatnonzero(numpy.concatenate(([True], hashes[1:] != hashes[:-1])))
    ends = numpy.append(starts[1:], len(hashes))
    set_keys = numpy.bitwise_xor.reduceat(tokens[owners], starts)
    keys, first_runs, counts = numpy.unique(set_keys, return_index=True, return_counts=True)
    for key, run, count in zip(keys.tolist(), first_runs.tolist(), counts.tolist(), strict=True):
        counted[key] += count
        if key not in members_of:
            members_of[key] = tuple(owners[starts[run]:ends[run]].tolist())


def _fold(counted: list, servers: int, max_classes: int) -> tuple[list, dict | None]:
    """Bring the number of classes down to what may leave the host.

    First, content of almost all servers becomes background. Then the smallest classes are given to
    each of their servers alone: that counts the content more often than it exists, so that a plan
    never promises savings that are not there.
    """
    if len(counted) <= max_classes:
        return counted, None
    at_least = max(2, int(numpy.ceil(servers * BACKGROUND_SHARE)))
    background_pages = sum(pages for members, pages in counted if len(members) >= at_least)
    rest = [(members, pages) for members, pages in counted if len(members) < at_least]
    background = ({"servers_min": at_least, "pages": background_pages}
                  if background_pages else None)
    alone = {members: pages for members, pages in rest if len(members) == 1}
    shared = sorted((entry for entry in rest if len(entry[0]) > 1), key=lambda entry: -entry[1])
    kept = max(0, max_classes - servers)
    for members, pages in shared[kept:]:
        for member in members:
            alone[member,] = alone.get((member,), 0) + pages
    return sorted(alone.items()) + shared[:kept], background
