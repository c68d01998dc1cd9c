"""Sampled pages of servers in address order, numbered so that equal contents have equal numbers.

Used by scan.py inside the privileged process: numbers leave it, hashes don't. Pure numpy.
"""

import numpy


def build(samples: dict[str, tuple[numpy.ndarray, numpy.ndarray]],
          theta: float) -> dict[str, dict]:
    """Return the JSON form of planning.telemetry.PageSequence of each server.

    ``samples`` has pages (numbers of pages, in any order) and hashes of each server, all from the
    same share ``theta`` of the hash space.
    """
    if not samples:
        return {}
    hashes = numpy.concatenate([held for _, held in samples.values()])
    _, inverse, counts = numpy.unique(hashes, return_inverse=True, return_counts=True)
    numbers = numpy.cumsum(counts > 1) - 1
    numbers[counts == 1] = -1
    numbered = numbers[inverse]
    found, begin = {}, 0
    for server, (pages, held) in samples.items():
        own = numbered[begin:begin + len(held)][numpy.argsort(pages, kind="stable")]
        begin += len(held)
        found[server] = {"theta": theta, "contents": _folded(own)}
    return found


def _folded(numbers: numpy.ndarray) -> list[int]:
    """Bring each run of contents that are nowhere else (-1) to one entry, minus its length."""
    alone = numbers < 0
    begins = alone & ~numpy.concatenate(([False], alone[:-1]))
    runs = numpy.cumsum(begins)
    lengths = numpy.bincount(runs[alone], minlength=runs[-1] + 1 if len(runs) else 1)
    folded = numpy.where(alone, -lengths[runs], numbers)
    return folded[~alone | begins].tolist()
