"""How far a guest of the small userland has come, read from its memory at any moment.

Used by telemetry_cost. The guest program counts the writes to each page of its buffer in a table
(lab/guest/buffer.c); the table's sum is all it has done, and reading it takes some 30 microseconds
of QEMU's lock on its mappings. Never writes.
"""
import time

import numpy

from nbmbench.rig.guest import Guest
from nova_batch_migrate.agent import memory
from nova_batch_migrate.agent.memory import PAGE_BYTES, SLICE_PAGES

_WORDS = PAGE_BYTES // 8
#: Apart from counts of writes that fall on any page alike, so far at most: 12 deviations.
_DEVIATIONS = 12
_POLL_SECONDS = 0.5
_BETWEEN_SECONDS = 0.3


class Progress:
    """The writes of one guest; made as soon as its program is at work, which is waited for."""

    def __init__(self, guest: Guest, seconds: float = 120.0):
        self._guest = guest
        self._buffer = memory.Buffer()
        self._pages = guest.spec.family.load.working_set_mib << 20 >> 12
        self._runs = self._find(time.monotonic() + seconds)

    def pages(self) -> int:
        """Return how many pages the guest has written since it began."""
        size = self._buffer.fill(self._guest.pid, self._runs)
        counts = numpy.frombuffer(self._buffer.view[:size], numpy.uint64)
        # every page is made in its first version
        return int(counts.sum()) - self._pages

    def _find(self, end: float) -> numpy.ndarray:
        tables = self._pages // _WORDS
        while True:
            before = self._candidates()
            time.sleep(_BETWEEN_SECONDS)
            after = self._candidates()
            grown = [address for address, counts in after.items()
                     if address in before and (counts >= before[address]).all()
                     and (counts > before[address]).any()]
            if len(grown) == tables:
                return numpy.array([[address, PAGE_BYTES] for address in sorted(grown)],
                                   numpy.uint64)
            if time.monotonic() > end:
                raise RuntimeError(f"{len(grown)} pages of {self._guest.spec.name} look like its "
                                   f"program's table of writes, which has {tables}")
            time.sleep(_POLL_SECONDS)

    def _candidates(self) -> dict[int, numpy.ndarray]:
        """Return the pages, by address, that hold numbers as alike as counts of random writes."""
        begin, end = self._guest.ram()
        found = {}
        for address in range(begin, end, SLICE_PAGES * PAGE_BYTES):
            run = numpy.array([[address, min(end - address, SLICE_PAGES * PAGE_BYTES)]],
                              numpy.uint64)
            size = self._buffer.fill(self._guest.pid, run)
            words = numpy.frombuffer(self._buffer.view[:size], numpy.uint64).reshape(-1, _WORDS)
            low, high = words.min(axis=1), words.max(axis=1)
            alike = ((low > 0) & (high < 1 << 32)
                     & (high - low <= 2 * _DEVIATIONS * numpy.sqrt(high.astype(float)) + 1))
            for index in numpy.flatnonzero(alike).tolist():
                found[address + index * PAGE_BYTES] = words[index].copy()
        return found
