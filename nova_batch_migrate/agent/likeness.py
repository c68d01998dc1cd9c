"""How small pages become behind what crossed before: a guest's own, and those it shares.

Used by scan.py inside the privileged process, on samples; keeps sizes and never the pages. The
relay compresses with a long window and sends a page as its difference from one that is like it, so
the pages that a guest has for itself cost little once a guest of its kind has gone: as little as
they do here behind the pages of that guest that lie around the same shared content.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy
import zstandard

from nova_batch_migrate.agent import fingerprint, memory
from nova_batch_migrate.agent.memory import PAGE_BYTES

#: Runs of pages that are sampled of a guest, and where migrations wait for it.
RUNS, WAITED_RUNS = 128, 64
RUN_PAGES = 16
#: How far before a run the shared content may lie that tells where the like guest has its like.
_REACH_PAGES = 96
_LEVEL = 3
_WINDOW_LOG = 27
#: Fewer contents in common make nobody a like guest.
_LEAST_COMMON = 128


@dataclasses.dataclass(frozen=True)
class Likeness:
    """Sizes behind compression as shares of those before it, 0..1; None without a sample."""

    #: Of contents that no other guest has.
    own: float | None = None
    #: Of them, behind what a guest of its kind has around the same shared content.
    own_behind_like: float | None = None
    #: Of contents that others have, too.
    shared: float | None = None


@dataclasses.dataclass(frozen=True)
class Guest:
    """A guest that was read completely: where sampled contents lie, and what contents it has."""

    memory: memory.GuestMemory
    sample: fingerprint.Sample
    contents: fingerprint.Contents


class Gauge:
    """Measures guests of one scan, one after the other, through the scan's buffer."""

    def __init__(self, guests: Sequence[Guest], buffer: memory.Buffer, pace: memory.Pace,
                 seed: int, random: numpy.random.Generator, runs: int = RUNS):
        self._guests, self._runs = guests, runs
        self._buffer, self._pace, self._random = buffer, pace, random
        self._hasher = fingerprint.Hasher(buffer.view, seed)
        self._zero = numpy.uint64(fingerprint.zero_hash(seed))
        self._limit = fingerprint.limit(min([1.0, *(g.contents.theta for g in guests)]))
        self._sampled = [numpy.sort(guest.sample.hashes) for guest in guests]
        self._compressor = zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters.from_level(
                _LEVEL, window_log=_WINDOW_LOG, enable_ldm=True, write_checksum=False,
                write_content_size=False))

    def measure(self, go_on: Callable[[], bool] = lambda: True) -> list[Likeness]:
        """Return the likeness of each guest, in the order given; nothing of any when time is over.

        A guest that ends meanwhile has none.
        """
        found = []
        for at in range(len(self._guests)):
            try:
                found.append(self._of_guest(at) if go_on() else Likeness())
            except memory.GuestMemoryError:
                found.append(Likeness())
        return found

    def _of_guest(self, at: int) -> Likeness:
        guest = self._guests[at]
        others = [other.contents.hashes for i, other in enumerate(self._guests) if i != at]
        own, shared, starts = [], [], self._starts(guest.sample)
        for start in starts:
            content, hashes = self._read(guest.memory, start, RUN_PAGES)
            held = numpy.zeros(len(hashes), dtype=bool)
            for contents in others:
                held |= _contains(contents, hashes)
            for index in numpy.flatnonzero((hashes != self._zero) & (hashes < self._limit)):
                page = content[index * PAGE_BYTES:(index + 1) * PAGE_BYTES]
                (shared if held[index] else own).append(page)
        sample = b"".join(own)
        like = self._most_alike(at)
        before = b"" if like is None or not sample else b"".join(
            self._read(like.memory, first, count)[0]
            for first, count in _counterparts(guest.sample, like.sample, starts))
        return Likeness(self._ratio(sample), self._ratio(sample, before) if before else None,
                        self._ratio(b"".join(shared)))

    def _starts(self, sample: fingerprint.Sample) -> list[int]:
        """Return the first pages of runs, by chance and apart from each other."""
        if not len(sample.pages):
            return []
        chosen = numpy.sort(self._random.choice(
            sample.pages, min(self._runs, len(sample.pages)), replace=False).astype(numpy.int64))
        apart = numpy.concatenate(([True], numpy.diff(chosen) >= RUN_PAGES))
        return chosen[apart].tolist()

    def _most_alike(self, own: int) -> Guest | None:
        """Return the guest with the most sampled contents in common with this one."""
        mine = self._sampled[own]
        common = [0 if at == own else int(numpy.count_nonzero(_contains(other, mine)))
                  for at, other in enumerate(self._sampled)]
        best = int(numpy.argmax(common))
        least = _LEAST_COMMON * min(1.0, self._guests[own].sample.theta)
        return self._guests[best] if common[best] >= max(1.0, least) else None

    def _read(self, guest: memory.GuestMemory, first: int, count: int
              ) -> tuple[bytes, numpy.ndarray]:
        """Return what is present of so many pages, and the hash of each of these."""
        part = guest.stretch(first, count)
        present, _ = guest.presence(part)
        self._pace.spend(int(numpy.count_nonzero(present)) * PAGE_BYTES)
        size = guest.read(part, present, self._buffer)
        return bytes(self._buffer.view[:size]), self._hasher.hash(size // PAGE_BYTES)

    def _ratio(self, sample: bytes, before: bytes = b"") -> float | None:
        if not sample:
            return None
        stream = self._compressor.compressobj()
        # as in a log: what went before is in the window, and no dictionary
        stream.compress(before)
        stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        packed = len(stream.compress(sample)) + len(stream.flush())
        return min(1.0, packed / len(sample))


def _contains(ascending: numpy.ndarray, wanted: numpy.ndarray) -> numpy.ndarray:
    """Tell for each hash whether it is among those in ascending order."""
    if not len(ascending):
        return numpy.zeros(len(wanted), dtype=bool)
    at = numpy.minimum(numpy.searchsorted(ascending, wanted), len(ascending) - 1)
    return ascending[at] == wanted


def _counterparts(guest: fingerprint.Sample, like: fingerprint.Sample, starts: list[int]
                  ) -> list[tuple[int, int]]:
    """Return (first page, pages) of the like guest, for each run behind a content both have.

    Where the nearest shared content before a run lies in the like guest, there lies its like.
    """
    order = numpy.argsort(guest.pages, kind="stable")
    pages, hashes = guest.pages[order].astype(numpy.int64), guest.hashes[order]
    by_hash = numpy.argsort(like.hashes, kind="stable")
    theirs, where = like.hashes[by_hash], like.pages[by_hash].astype(numpy.int64)
    both = _contains(theirs, hashes)
    pages, hashes = pages[both], hashes[both]
    found = []
    for start in starts:
        before = int(numpy.searchsorted(pages, start, side="right")) - 1
        if before < 0 or start - pages[before] > _REACH_PAGES:
            continue
        anchor = int(where[int(numpy.searchsorted(theirs, hashes[before]))])
        found.append((anchor, int(start - pages[before]) + 2 * RUN_PAGES))
    return found
