"""Looks at slices of guests several times and counts the pages whose content changed between.

Used by scan.py inside the privileged process: the content diff of design 5. Keeps hashes of what it
is about to look at again, and samples of pages' sizes behind zstd; never a page.
"""

import dataclasses
import itertools
import time
from collections.abc import Iterator

import numpy

from nova_batch_migrate.agent import compressibility, guest_scan, memory
from nova_batch_migrate.agent.memory import PAGE_BYTES

#: Part of the shortest gap between two looks to fill with first looks: the second ones are in time.
_FILL = 0.8
#: Stands for a swapped-out page: its content is there, but reading would bring it back.
_UNREAD = numpy.uint32(0)
#: First looks end after this time; what was not reached by then is read once.
_FIRST_LOOKS_SECONDS = 30.0
#: Memory of up to this much is compared whole; of more, pieces that lie spread over it.
_WHOLE_BYTES = 4 << 30
PIECE_PAGES = 32
#: Of the time that a scan may take at most, and what is enough of it where migrations wait.
_COMPARE_SHARE = 0.6
_WAITED_LOOKS_SECONDS = 3.0
_AGENDA_SECONDS = 0.02
#: Of a slice that was alike at the second look, every so-manieth page is looked at again.
_STILL_STEP = 8
#: A pause between looks in which so many pages could be read is enough for other reading.
_BESIDE_PAGES = 16 * memory.SLICE_PAGES
#: Pages of one guest whose compression is tried: unchanged ones, changed ones.
_SAMPLE_UNCHANGED_PAGES = 4096
_SAMPLE_CHANGED_PAGES = 1024


@dataclasses.dataclass
class _Tracked:
    """A slice that is looked at several times: when, and the hash (32 bits) of each page."""

    guest: object
    part: memory.Slice
    times: list[float]
    hashes: list[numpy.ndarray]
    #: Those of its pages that are looked at.
    pages: slice = dataclasses.field(default_factory=lambda: slice(None))
    #: Pages that each of them stands for.
    weight: float = 1.0

    def narrow(self, first: int, step: int) -> None:
        """Go on with every so-manieth of its pages, which stand for all of them."""
        self.pages = slice(first, None, step)
        self.hashes = [hashes[self.pages] for hashes in self.hashes]
        self.weight = self.part.pages / len(self.hashes[0])


class Comparing:
    """One comparison of guests (guest_scan.Guest, made ready by `collect`).

    Slices are taken in random order, so that a slow host compares fewer of them and not the wrong
    ones. Where all of memory is compared, a first look also counts as having read the slice.

    Most memory of most guests lies still, and reading it takes processor time and cache from them.
    So the longest gap between looks comes first: behind it, slices that changed are looked at as
    often as windows ask for, and of each of the others every eighth page, which count for all.

    ``beside`` reads on elsewhere, up to 8 slices at each step, in the pauses: where all of memory
    is compared, in those that are left when no first look comes any more.
    """

    def __init__(self, guests: list, windows: list[float], reader, random: numpy.random.Generator,
                 seconds: float, tell, beside: Iterator):
        self._guests = guests
        self._windows = windows
        #: When each slice is looked at, seconds after its first look.
        self._looks = _looks(windows)
        self._reader = reader
        self._random = random
        self._tell = tell
        self._beside = beside
        self._looks_seconds = _FIRST_LOOKS_SECONDS
        if seconds and windows:
            self._looks_seconds = max(1.0, min(_WAITED_LOOKS_SECONDS,
                                               _COMPARE_SHARE * seconds - windows[-1]))
        resident = sum(guest.resident_pages for guest in guests)
        self._whole = resident * PAGE_BYTES <= _WHOLE_BYTES
        self._looks_done = self._looks_planned = 0
        self._begun = 0.0

    def run(self) -> None:
        """Look at slices once and again as windows ask for, many slices at a time.

        A cohort is what is read in `busy` seconds; cohorts begin when none of their looks falls
        into one of another's.
        """
        if self._windows and self._guests:
            self._compare()

    def _compare(self) -> None:
        work = self._work()
        busy = _FILL * min(late - early for early, late in itertools.pairwise(self._looks))
        #: looks to come: when, which, of what
        agenda: list[tuple[float, int, list[_Tracked]]] = []
        self._begun = time.monotonic()
        deadline = self._begun + self._looks_seconds
        beside_seconds = 0.0
        while True:
            now = time.monotonic()
            agenda.sort(key=lambda entry: entry[0])
            if agenda and agenda[0][0] <= now:
                _, look, cohort = agenda.pop(0)
                for entry in cohort:
                    self._look_again(entry, look)
            elif now < deadline and self._has_room(agenda, now, busy):
                cohort = self._first_looks(work, now + busy)
                if not cohort:
                    deadline = now
                else:
                    pages = sum(entry.part.pages for entry in cohort)
                    beside_seconds = _BESIDE_PAGES * (time.monotonic() - now) / pages
                agenda += [(now + self._looks[look], look, cohort)
                           for look in range(1, len(self._looks)) if cohort]
            elif agenda:
                pause = agenda[0][0] - now
                # a slice that a first look may still take is not to be read twice
                free = (now >= deadline or not self._whole) and pause > beside_seconds
                if not free or next(self._beside, self) is self:
                    time.sleep(min(_AGENDA_SECONDS, max(0.0, pause)))
            else:
                return

    def _work(self):
        """Yield (guest, number of the slice, slice) in random order."""
        size = memory.SLICE_PAGES if self._whole else PIECE_PAGES
        for guest in self._guests:
            guest.slice_pages = size
        slices = [guest.memory.slices(size) for guest in self._guests]
        ends = numpy.cumsum([len(each) for each in slices])
        self._looks_planned = int(ends[-1]) * len(self._looks)
        for number in self._order(int(ends[-1])):
            at = int(numpy.searchsorted(ends, number, side="right"))
            index = number - int(ends[at]) + len(slices[at])
            yield self._guests[at], index, slices[at][index]

    def _order(self, count: int):
        if self._whole:
            return self._random.permutation(count).tolist()
        # a piece taken twice is rare and harmless; an order of all of them would be long
        return (int(number) for _ in range(count) for number in
                self._random.integers(0, count, size=1))

    def _has_room(self, agenda, now: float, busy: float) -> bool:
        looks = [now + look for look in self._looks]
        return all(abs(begin - look) >= busy for begin, _, _ in agenda for look in looks)

    def _first_looks(self, work, end: float) -> list[_Tracked]:
        cohort = []
        for guest, index, part in work:
            entry = self._first_look(guest, index, part)
            if entry is not None:
                cohort.append(entry)
                guest.tracked_pages += part.pages
            if time.monotonic() >= end:
                break
        return cohort

    def _first_look(self, guest, index: int, part: memory.Slice) -> _Tracked | None:
        looked = self._look(guest, part)
        if looked is None:
            return None
        begun, hashes, present, swapped = looked
        if self._whole:
            self._reader.collect(guest, part, hashes, present, swapped)
            guest.unread[index] = False
        else:
            zero = present & (hashes == numpy.uint64(self._reader.zero))
            guest.spread.add(present, swapped, int(numpy.count_nonzero(zero)))
        return _Tracked(guest, part, [begun], [_short(hashes, swapped)])

    def _look_again(self, entry: _Tracked, look: int) -> None:
        wait = entry.times[0] + self._looks[look] - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        is_last = look == len(self._looks) - 1
        looked = self._look(entry.guest, entry.part, entry.pages)
        if looked is None:
            return
        begun, hashes, present, swapped = looked
        short = _short(hashes, swapped)
        count = 0
        for earlier, (then, before) in enumerate(zip(entry.times, entry.hashes, strict=True)):
            count = int(numpy.count_nonzero(
                (before != short) & (before != _UNREAD) & (short != _UNREAD)))
            sums = entry.guest.windows.setdefault((earlier, look), guest_scan.Sums())
            sums.add(count, begun - then, len(short), entry.weight)
        entry.times.append(begun)
        entry.hashes.append(short)
        if is_last and len(entry.times) == len(self._looks):
            entry.guest.always_pages += entry.weight * int(numpy.count_nonzero(
                _always(entry.hashes)))
        narrows = (look == 1 and not is_last and not count and self._whole
                   and entry.part.pages >= _STILL_STEP)
        if narrows or (is_last and entry.weight == 1):
            self._sample(entry, present & (hashes != numpy.uint64(self._reader.zero)))
        if narrows:
            entry.narrow(int(self._random.integers(_STILL_STEP)), _STILL_STEP)

    def _look(self, guest, part: memory.Slice, pages: slice = slice(None)):
        self._looks_done += 1
        share = (self._looks_done / self._looks_planned if self._whole else
                 (time.monotonic() - self._begun) / (self._looks_seconds + self._windows[-1]))
        self._tell(0.5 * min(1.0, share))
        return self._reader.look(guest, part, pages)

    def _sample(self, entry: _Tracked, content: numpy.ndarray) -> None:
        """Compress samples of a slice that was looked at as a whole for the last time.

        ``content`` tells which of its pages are present and not zero.
        """
        guest = entry.guest
        changed = entry.hashes[-1] != entry.hashes[0]
        if guest.unchanged.raw_bytes < _SAMPLE_UNCHANGED_PAGES * PAGE_BYTES:
            self._add_pages(guest, guest.unchanged, entry.part, content & ~changed)
        if guest.changed.raw_bytes < _SAMPLE_CHANGED_PAGES * PAGE_BYTES:
            seen = max(1.0, guest.windows[0, 1].changed_pages)
            picked = self._random.random(len(changed)) < _SAMPLE_CHANGED_PAGES / seen
            self._add_pages(guest, guest.changed, entry.part, content & changed & picked)

    def _add_pages(self, guest, gauge: compressibility.Gauge, part: memory.Slice,
                   wanted: numpy.ndarray) -> None:
        if wanted.any():
            pages = self._reader.pages(guest, part, wanted)
            if pages:
                gauge.add(pages)


def _looks(windows: list[float]) -> list[float]:
    """Return when to look so that windows (ascending) of all these lengths lie between two looks.

    The longest gap lies in front; the shorter windows begin behind it, together.
    """
    if not windows:
        return [0.0]
    *shorter, longest = windows
    begin = longest - (shorter[-1] if shorter else 0.0)
    return [0.0, begin, *(begin + window for window in shorter)]


def _always(hashes: list[numpy.ndarray]) -> numpy.ndarray:
    """Tell which pages were another one at every look than at the look before."""
    return numpy.logical_and.reduce([
        (before != after) & (before != _UNREAD) & (after != _UNREAD)
        for before, after in itertools.pairwise(hashes)])


def _short(hashes: numpy.ndarray, swapped: numpy.ndarray) -> numpy.ndarray:
    """Return 32 bits of each hash: unlike ones of one page agree once in four thousand million."""
    short = hashes.astype(numpy.uint32)
    short[swapped] = _UNREAD
    return short
