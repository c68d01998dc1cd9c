"""Fingerprints of page contents and what servers have in common by them.

Used by scan.py inside the privileged process: hashes stay there, counts leave. Works on numpy
arrays of 64-bit hashes; memory and time grow with the pages, never with pages times servers.
"""

import dataclasses

import numpy
import xxhash

from nova_batch_migrate.agent.memory import PAGE_BYTES

_HASH_SPACE = 1 << 64
#: Classes that leave the host; the rest is folded (a page class costs a list of server ids).
MAX_CLASSES = 1000
#: Content held by at least this share of the servers is called background when folding.
BACKGROUND_SHARE = 0.9


def zero_hash(seed: int) -> int:
    """Return the fingerprint of a page of zeros."""
    return xxhash.xxh3_64_intdigest(bytes(PAGE_BYTES), seed)


def hash_pages(pages: memoryview, seed: int) -> numpy.ndarray:
    """Return the XXH3 of each page in a buffer of whole pages, as uint64 (design 3)."""
    digest = xxhash.xxh3_64_intdigest
    return numpy.fromiter(
        (digest(pages[start:start + PAGE_BYTES], seed)
         for start in range(0, len(pages), PAGE_BYTES)),
        dtype=numpy.uint64, count=len(pages) // PAGE_BYTES)


@dataclasses.dataclass(frozen=True)
class Contents:
    """Distinct non-zero contents of one server within the share of hash space looked at."""

    hashes: numpy.ndarray
    #: Pages that are not zero, in the whole hash space, repeated ones included.
    nonzero_pages: int
    theta: float

    @property
    def distinct_pages(self) -> int:
        """Distinct contents, estimated from the sample where theta is below 1."""
        return min(self.nonzero_pages, round(len(self.hashes) / self.theta))


class Collector:
    """Collects the distinct contents of one server while it is scanned slice by slice.

    Only hashes below ``theta`` of the hash space are kept: the same ones in every server, so that
    what they have in common stays countable.
    """

    def __init__(self, zero: int, theta: float):
        self._zero = numpy.uint64(zero)
        self._theta = theta
        self._limit = None if theta >= 1 else numpy.uint64(int(theta * _HASH_SPACE))
        self._parts: list[numpy.ndarray] = []
        self.zero_pages = 0
        self.nonzero_pages = 0

    def add(self, hashes: numpy.ndarray) -> None:
        """Take the hashes of present pages."""
        kept = hashes[hashes != self._zero]
        self.zero_pages += len(hashes) - len(kept)
        self.nonzero_pages += len(kept)
        if self._limit is not None:
            kept = kept[kept < self._limit]
        self._parts.append(kept)

    def contents(self) -> Contents:
        """Return what was collected, each content once, in ascending order."""
        parts, self._parts = self._parts, []
        merged = numpy.concatenate(parts) if parts else numpy.empty(0, dtype=numpy.uint64)
        return Contents(numpy.unique(merged), self.nonzero_pages, self._theta)


def page_classes(hashes_of: dict[str, numpy.ndarray], seed: int, theta: float = 1.0,
                 max_classes: int = MAX_CLASSES) -> dict:
    """Count the contents held by exactly each set of servers: a Venn histogram [0047].

    ``hashes_of`` gives each server's distinct hashes without the zero page's. Returns the JSON form
    of planning.telemetry.PageClasses; pages are those counted in the share ``theta``. ``exact`` is
    true only for a full count (theta 1) of which nothing was folded.

    All hashes are sorted once; equal ones stand together as a run. Each server has a random token,
    and the XOR of a run's tokens names its set of servers.
    """
    ids = list(hashes_of)
    counted = _count_sets(ids, hashes_of, seed)
    classes, background = _fold(counted, len(ids), max_classes)
    return {
        "exact": theta >= 1 and background is None and sorted(classes) == sorted(counted),
        "theta": min(theta, 1.0),
        "classes": [{"servers": sorted(ids[index] for index in members), "pages": pages}
                    for members, pages in classes],
        "background": background,
    }


def _count_sets(ids: list[str], hashes_of: dict[str, numpy.ndarray],
                seed: int) -> list[tuple[tuple[int, ...], int]]:
    hashes = numpy.concatenate([hashes_of[server] for server in ids]
                               or [numpy.empty(0, dtype=numpy.uint64)])
    if not len(hashes):
        return []
    owners = numpy.repeat(numpy.arange(len(ids), dtype=numpy.uint32),
                          [len(hashes_of[server]) for server in ids])
    order = numpy.argsort(hashes, kind="stable")
    hashes, owners = hashes[order], owners[order]
    starts = numpy.flatnonzero(numpy.concatenate(([True], hashes[1:] != hashes[:-1])))
    ends = numpy.append(starts[1:], len(hashes))
    tokens = numpy.random.default_rng(seed).integers(
        0, _HASH_SPACE, size=len(ids), dtype=numpy.uint64)
    set_keys = numpy.bitwise_xor.reduceat(tokens[owners], starts)
    _, first_runs, counts = numpy.unique(set_keys, return_index=True, return_counts=True)
    return [(tuple(owners[starts[run]:ends[run]].tolist()), count)
            for run, count in zip(first_runs.tolist(), counts.tolist(), strict=True)]


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
