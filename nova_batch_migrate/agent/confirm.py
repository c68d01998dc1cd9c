"""Equal hashes are candidates; here pages of a sample of them are compared byte by byte.

Used by scan.py inside the privileged process ([0037], [0044]). Says how many were compared and how
many were equal, and names the contents by keyed BLAKE3 for comparing hosts; pages never leave it.
"""

from collections.abc import Iterator

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
    """Reads single pages of guests again, if they are still present: many in one call."""

    def __init__(self, buffer: memory.Buffer, pace: memory.Pace):
        self._buffer = buffer
        self._pace = pace

    def pages(self, guest: memory.GuestMemory, pages: list[int]
              ) -> Iterator[tuple[int, memoryview]]:
        """Yield (number, content) of each page by number that is still present, in their order.

        A content is valid until the next one is asked for; nothing more of a guest that is gone.
        """
        for start in range(0, len(pages), memory.SLICE_PAGES):
            some = pages[start:start + memory.SLICE_PAGES]
            self._pace.spend(len(some) * PAGE_BYTES)
            try:
                present = guest.read_pages(some, self._buffer)
            except memory.GuestMemoryError:
                return
            there = [page for page, is_present in zip(some, present, strict=True) if is_present]
            for at, page in enumerate(there):
                yield page, self._buffer.view[at * PAGE_BYTES:(at + 1) * PAGE_BYTES]


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
    chosen = random.permutation(candidates)[:pairs]
    places = numpy.concatenate([chosen, chosen + 1])
    contents = {}
    for owner, (guest, _) in enumerate(guests):
        wanted = numpy.unique(pages[places[owners[places] == owner]]).tolist()
        contents |= {(owner, page): bytes(held) for page, held in reader.pages(guest, wanted)}
    held = 0
    for at in chosen.tolist():
        first, second = (contents.get((int(owners[place]), int(pages[place])))
                         for place in (at, at + 1))
        held += first is not None and first == second
    return {"pairs": len(chosen), "held": held}


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
    hashes = numpy.unique(numpy.concatenate([s.below(theta).hashes for _, s in guests]))
    level = 0
    while 2.0 ** -level > theta or _below(hashes, level) > IDENTITIES:
        level += 1
    identities, seen = [], set()
    for guest, sample in guests:
        chosen = numpy.flatnonzero(sample.hashes < numpy.uint64((1 << (64 - level)) - 1))
        # of a content that is there more than once the first page
        values, first = numpy.unique(sample.hashes[chosen], return_index=True)
        of_page = {int(sample.pages[index]): value for value, index in
                   zip(values.tolist(), chosen[first].tolist(), strict=True) if value not in seen}
        seen |= set(of_page.values())
        for page, content in reader.pages(guest, sorted(of_page)):
            if fingerprint.hash_page(content, seed) == of_page[page]:
                identities.append(identity(content, of_page[page], key))
    return {"key_id": key_id, "theta": 2.0 ** -level,
            "identities": [f"{value:016x}" for value in sorted(set(identities))]}


def _below(hashes: numpy.ndarray, level: int) -> int:
    return int(numpy.searchsorted(hashes, numpy.uint64((1 << (64 - level)) - 1)))


def identity(content: bytes | memoryview, selection: int, key: bytes) -> int:
    """Return 64 bits: as many zero bits at the head as the selecting hash has, then BLAKE3's."""
    zeros = _LEVELS - selection.bit_length()
    digest = int.from_bytes(blake3.blake3(content, key=key).digest(8), "big")
    if zeros >= _LEVELS:
        return 0
    rest = _LEVELS - zeros - 1
    return 1 << rest | digest & ((1 << rest) - 1)
