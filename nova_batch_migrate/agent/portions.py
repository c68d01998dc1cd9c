"""Identical blocks inside of pages that are not identical as a whole ([0047], portions).

Used by scan.py inside the privileged process while a slice of guest memory is in its buffer, if
[agent] portion_bytes is set; keeps hashes there and gives back counts.
"""

import numpy

from nova_batch_migrate.agent import fingerprint
from nova_batch_migrate.agent.memory import PAGE_BYTES

SIZES = (512, 1024, 2048)


class Collector:
    """Collects blocks of one server below a share of the hash space, each with its page's hash."""

    def __init__(self, theta: float):
        self.theta = theta
        self._blocks = fingerprint.Growing(numpy.uint64)
        self._pages = fingerprint.Growing(numpy.uint64)

    def add(self, blocks: numpy.ndarray, pages: numpy.ndarray, zero_block: int) -> None:
        """Take the hashes of blocks, and of the pages that they are consecutive blocks of."""
        kept = blocks != numpy.uint64(zero_block)
        if self.theta < 1:
            kept &= blocks < fingerprint.limit(self.theta)
        self._blocks.extend(blocks[kept])
        self._pages.extend(numpy.repeat(pages, len(blocks) // len(pages))[kept])

    def values(self) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Return the blocks' hashes and their pages'."""
        return self._blocks.values(), self._pages.values()


class BlockReader:
    """Hashes the blocks of the pages in the scan's buffer."""

    def __init__(self, buffer: memoryview, seed: int, block_bytes: int):
        self._hasher = fingerprint.Hasher(buffer, seed, block_bytes)
        self._per_page = PAGE_BYTES // block_bytes
        self._zero = fingerprint.hash_page(bytes(block_bytes), seed)

    def add(self, collector: Collector, pages: numpy.ndarray) -> None:
        """Collect the blocks of the packed pages in the buffer whose hashes are ``pages``."""
        if len(pages):
            collector.add(self._hasher.hash(len(pages) * self._per_page), pages, self._zero)


def classes(collected: dict[str, Collector], block_bytes: int, seed: int) -> dict | None:
    """Return the JSON form of planning.telemetry.Portions; None with less than two servers.

    A page that is found again as a whole, in any server, is no portion's: what page classes count
    already is left out here.
    """
    if len(collected) < 2:
        return None
    theta = min(collector.theta for collector in collected.values())
    held = {server: collector.values() for server, collector in collected.items()}
    repeated = _repeated_pages([pages for _, pages in held.values()])
    blocks_of = {
        server: numpy.unique(blocks[~numpy.isin(pages, repeated)])
        for server, (blocks, pages) in held.items()}
    found = fingerprint.page_classes(blocks_of, seed, theta)
    return {"block_bytes": block_bytes, "theta": theta, "classes": found["classes"]}


def _repeated_pages(pages_of: list[numpy.ndarray]) -> numpy.ndarray:
    """Return the hashes of pages that two servers hold.

    A block is selected by its content alone, so equal pages are in the sample with the same blocks.
    """
    each = numpy.concatenate([numpy.unique(pages) for pages in pages_of])
    values, counts = numpy.unique(each, return_counts=True)
    return values[counts > 1]
