"""Which pages that are new go into a dictionary that can't hold everything.

Asked by block_writer.py for every block; the decoder need not know. A ring that takes whatever
comes gives nothing back where guests are larger than it: each page is pushed out just before its
like arrives. So content that the scan has seen once only gets what room the rest leaves (the next
guest may have pages that are nearly the same), a guest never pushes out its own pages nor those of
one whose like is still to come, and one that finds most of its content leaves the dictionary as it
is for those behind it. What later rounds bring goes into a small ring of its own, by the same rule:
there a page that was not sent anew for a whole round is the guest's own no more. What that can't
take goes to the others as long as it pushes nothing out.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from nova_batch_migrate.relay import kernel
from nova_batch_migrate.relay.dictionary import Dictionary, Matches
from nova_batch_migrate.relay.layout import Op

#: What a guest sends before it may push others' pages out: blocks, or a share of the ring. It may
#: come to content that is held, and once it pushes that out it finds none of it: its own heap in
#: front must not be enough for that.
_PATIENCE_BLOCKS, _PATIENCE_SHARE = 2, 1 / 8
#: Blocks for which room is left: what a block might push out it can't refer to.
_ROOM_BLOCKS = 2
#: Pages on either side of one, of those that the scan has looked at, by which it is judged.
_LOOKED_AT = 4
#: How a page crosses that goes into the dictionary.
_INSERTED = (Op.LITERAL, Op.RAW, Op.DELTA)


@dataclasses.dataclass(frozen=True)
class Recurring:
    """Contents that the scan has seen more than once in the guests of a log."""

    #: Of XXH3.
    seed: int
    #: The lower halves of their hashes, u32 in ascending order: one of some 40,000 others slips in.
    hashes: np.ndarray
    #: The share of contents that the scan looked at: those with the lowest hashes.
    theta: float = 1.0

    @property
    def pages(self) -> int:
        """How many there are, with those that the scan did not look at."""
        return round(len(self.hashes) / self.theta)

    def spread(self, listed: np.ndarray) -> np.ndarray:
        """Return which pages recur in all likelihood, of pages in a row of which these are listed.

        A content that the scan did not look at is taken for what lies around it: what guests have
        in common, and what they do not, comes in runs.
        """
        reach = math.ceil(_LOOKED_AT / self.theta)
        upto = np.concatenate(([0], np.cumsum(listed, dtype=np.int64)))
        at = np.arange(len(listed))
        first, end = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(listed))
        around = upto[end] - upto[first]
        return ((listed > 0) | (2 * around >= self.theta * (end - first))).astype(np.uint8)


class Admission:
    """Knows of each guest how much of its round 0 was found, and for whom its pages are kept.

    ``kept_for``: of each server the last one to come that holds much of the same, if there is one.
    """

    def __init__(self, dictionary: Dictionary, recurring: Recurring | None,
                 kept_for: Mapping[str, str], loops=kernel):
        self._list_recurring = loops.list_recurring
        self._dictionary, self._recurring = dictionary, recurring
        self._guests: dict[int, _Guest] = {}
        self._kept_for = kept_for
        self._servers: dict[int, str] = {}
        self._over: set[str] = set()
        self._largest_block = 0
        #: Pages that may go in though they were seen once: what recurs leaves so much room.
        self._spare = 0 if recurring is None else max(
            0, dictionary.pages.ring - recurring.pages)
        #: Those of the block at hand that do so if they are new.
        self._lent = np.empty(0, np.int64)
        #: Whether pages of round 0 have had to stay outside because there was no room.
        self.has_refused = False

    def begin(self, owner: int, server: str) -> None:
        """Say whose pages are an owner's, before any of them comes."""
        self._servers[owner] = server
        self._over.discard(server)

    def end(self, server: str) -> None:
        """Note that a server sends nothing more: nothing is kept for it any longer."""
        self._over.add(server)

    def _kept(self, owner: int) -> list[int]:
        """Return whose pages a guest must not push out: its own, and those kept for others."""
        return [each for each, server in self._servers.items() if each == owner
                or self._kept_for.get(server, server) not in self._over | {server}]

    def choose(self, data: memoryview, offsets: np.ndarray, owner: int
               ) -> np.ndarray | tuple[np.ndarray, int, bool] | None:
        """Return which pages of a guest are let in if they are new, as `Dictionary.match` has it.
        """
        self._largest_block = max(self._largest_block, len(offsets))
        ahead = _ROOM_BLOCKS * self._largest_block
        has_room = self._dictionary.has_room(ahead)
        self._lent = self._lent[:0]
        if not has_room and not self._may_replace(owner, ahead):
            self.has_refused = True
            return np.zeros(len(offsets), np.uint8)
        if self._recurring is None:
            return None
        hashes, seed = self._recurring.hashes, self._recurring.seed
        # as far ahead as all of these look
        most = max(0, self._spare - ahead) if has_room else 0
        if self._recurring.theta == 1 and not 0 < most < len(offsets):
            # all or nothing: most of them are found, and need not be hashed
            return hashes, seed, most > 0
        admitted = np.empty(len(offsets), np.uint8)
        self._list_recurring(data, offsets, hashes, seed, admitted)
        if self._recurring.theta < 1:
            admitted = self._recurring.spread(admitted)
        self._lent = np.flatnonzero(admitted == 0)[:most]
        admitted[self._lent] = 1
        return admitted

    def _may_replace(self, owner: int, ahead: int) -> bool:
        guest = self._guests.get(owner)
        patience = max(_PATIENCE_BLOCKS * self._largest_block,
                       _PATIENCE_SHARE * self._dictionary.pages.ring)
        if guest is None or guest.sent < patience or guest.finds_most:
            return False
        return not self._dictionary.would_lose(self._kept(owner), ahead)

    def choose_late(self, count: int, owner: int, turn: int, block: int
                    ) -> tuple[bool, np.ndarray | None]:
        """Return where what is new of a guest's block of round `turn` (1 or more) goes.

        Into the second ring or not, and, as `choose` does, what is let in.
        """
        guest = self._guests.setdefault(owner, _Guest())
        if turn != guest.turn:
            guest.turn, guest.begun, guest.before = turn, block, guest.begun
        if self._dictionary.has_late_room(owner, count, guest.before):
            return True, None
        self._largest_block = max(self._largest_block, count)
        has_room = self._dictionary.has_room(_ROOM_BLOCKS * self._largest_block)
        return False, None if has_room else np.zeros(count, np.uint8)

    def count(self, owner: int, matches: Matches) -> None:
        """Note what became of a block of round 0."""
        self._spare -= matches.lent
        if len(self._lent):
            self._spare -= int(np.isin(matches.kinds[self._lent], _INSERTED).sum())
        # the page, or one like it, was held
        found = matches.self_duplicates + matches.cross_server + len(matches.bitmaps)
        guest, pages = self._guests.setdefault(owner, _Guest()), len(matches.kinds)
        guest.found += found
        guest.sent += pages
        guest.finds_most = 2 * found >= pages or 2 * guest.found >= guest.sent


@dataclasses.dataclass
class _Guest:
    """Pages of its round 0, and whether most of them, in all or just now, were there.

    Of later rounds: the last one, and the blocks with which it and the one before began.
    """

    found: int = 0
    sent: int = 0
    finds_most: bool = False
    turn: int = 0
    begun: int = 0
    before: int = 0
