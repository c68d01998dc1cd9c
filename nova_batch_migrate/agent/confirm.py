"""Equal hashes are candidates; here pages of a sample of them are compared byte by byte.

Used by scan.py inside the privileged process ([0037], [0044]). Says how many were compared and how
many were equal, and names the contents by keyed BLAKE3 for comparing hosts; pages never leave it.
"""

import blake3
import numpy

from nova_batch_migrate.agent import fingerprint, memory
from nova_batch_migrate.agent.memory import PAGE_BYTES

#: Pairs compared: tells the share that holds to about +-4 points (95 %) at worst.
PAIRS = 512
#: Identities of a sketch: about +-1 point of the share that two hosts have in common.
IDENTITIES = 8192
_LEVELS = 64


class PageReader:
    """Reads single pages of guests again, if they are still present."""

    def __init__(self, buffer: memory.Buffer, pace: memory.Pace):
        self._buffer = buffer
        self._pace = pace

    def page(self, guest: memory.GuestMemory, page: int) -> bytes | None:
        """Return a page's bytes; None if it is not present any more, or its guest is gone."""
        try:
            part = memory.Slice(guest.page_address(page), 1)
            present, _ = guest.presence(part)
            if not present[0]:
                return None
            self._pace.spend(PAGE_BYTES)
            guest.read(part, present, self._buffer)
        except memory.GuestMemoryError:
            return None
        return bytes(self._buffer.view[:PAGE_BYTES])


def compare(guests: list[tuple[memory.GuestMemory, fingerprint.Sample]], reader: PageReader,
            random: numpy.random.Generator, pairs: int = PAIRS) -> dict | None:
    """Compare pages of unlike guests whose hashes were equal; return a Confirmation's JSON.

    None where no content of the sample was found in two guests.
    """
    if len(guests) < 2:
        return None
    hashes = numpy.concatenate([sample.hashes for _, sample in guests])
    pages = numpy.concatenate([sample.pages for _, sample in guests])
    owners = numpy.repeat(numpy.arange(len(guests)), [len(s.hashes) for _, s in guests])
    order = numpy.lexsort((owners, hashes))
    hashes, pages, owners = hashes[order], pages[order], owners[order]
    candidates = numpy.flatnonzero((hashes[1:] == hashes[:-1]) & (owners[1:] != owners[:-1]))
    if not len(candidates):
        return None
    chosen = random.permutation(candidates)[:pairs].tolist()
    held = sum(_equal(guests, owners, pages, at, reader) for at in chosen)
    return {"pairs": len(chosen), "held": held}


def _equal(guests, owners, pages, at: int, reader: PageReader) -> bool:
    first, second = (reader.page(guests[owners[place]][0], int(pages[place]))
                     for place in (at, at + 1))
    return first is not None and first == second


def sketch(guests: list[tuple[memory.GuestMemory, fingerprint.Sample]], reader: PageReader,
           seed: int, key: bytes, key_id: str) -> dict | None:
    """Name the distinct contents of a host in a share of the hash space; return a Sketch's JSON.

    The share is a power of 1/2, selected by XXH3. Of that hash only the number of zero bits at its
    head enters the identity, so that a reader can narrow the share; the rest is keyed BLAKE3 of the
    page, read again. Pages that were written since are left out.
    """
    if not guests:
        return None
    theta = min(sample.theta for _, sample in guests)
    found: dict[int, tuple[int, int]] = {}
    hashes = numpy.unique(numpy.concatenate([s.below(theta).hashes for _, s in guests]))
    level = 0
    while 2.0 ** -level > theta or _below(hashes, level) > IDENTITIES:
        level += 1
    for at, (_, sample) in enumerate(guests):
        chosen = numpy.flatnonzero(sample.hashes < numpy.uint64((1 << (64 - level)) - 1))
        for index in chosen.tolist():
            found.setdefault(int(sample.hashes[index]), (at, int(sample.pages[index])))
    identities = []
    for value, (at, page) in found.items():
        content = reader.page(guests[at][0], page)
        if content is not None and fingerprint.hash_page(content, seed) == value:
            identities.append(identity(content, value, key))
    return {"key_id": key_id, "theta": 2.0 ** -level,
            "identities": [f"{value:016x}" for value in sorted(set(identities))]}


def _below(hashes: numpy.ndarray, level: int) -> int:
    return int(numpy.searchsorted(hashes, numpy.uint64((1 << (64 - level)) - 1)))


def identity(content: bytes, selection: int, key: bytes) -> int:
    """Return 64 bits: as many zero bits at the head as the selecting hash has, then BLAKE3's."""
    zeros = _LEVELS - selection.bit_length()
    digest = int.from_bytes(blake3.blake3(content, key=key).digest(8), "big")
    if zeros >= _LEVELS:
        return 0
    rest = _LEVELS - zeros - 1
    return 1 << rest | digest & ((1 << rest) - 1)
