"""How fast a member of a synchronized set is taken on its way to where all switch over.

Used by escort.py; holds no socket and no thread. QEMU stops the guest when, after a look at what
is dirty, less is left than it would send within the downtime that Nova allows now at the speed of
its last 0.1 s (facts of the method). Until all members are there none may come that far; then what
each has left is brought down in step, so that little separates them when all are let go.
"""

import collections
import time
from collections.abc import Callable

#: Nova begins with a tenth of the downtime that it allows at last, for minutes.
NOVA_STEPS = 10
#: Nobody is reckoned to write less (bytes/s), nor is one of whom nothing is known reckoned to
#: write more.
LEAST_BYTES_PER_SECOND = 256 << 10
#: What is still to come of round 0 where a guest that hardly writes waits, its QEMU's view of it.
_IDLE_GATE_BYTES = 3 << 20
_TAIL_MARGIN = 3.0
#: What was dirtied in round 0 is taken ever faster, as more of it has been seen: by so much a
#: second, and by less after a long round 0, in which the guest may have written as slowly.
_GROWTH, _GROWTH_SECONDS = 2.0, 20.0
#: Where others take the processors from it, a guest writes this much less than was measured.
_SLOWED = 4.0
#: Between two of its looks a busy guest dirties so many times what QEMU would stop it for at
#: Nova's first step, at the speed of the round.
_STEP_MARGIN = 4.0
#: And so many times what the kernel holds between QEMU and the relay. It lets QEMU go on only when
#: a third of its send buffer is free, so QEMU writes in lumps of that size; one that held all of a
#: round would be followed at once by a look that finds nothing dirty.
_QUEUE_MARGIN = 2.5
#: QEMU looks at the clock after as much; nor may a round be lost in one such stretch.
_LEAST_ROUND_BYTES = 768 << 10
#: A guest that takes longer to dirty a round hardly writes.
_LONGEST_ROUND_SECONDS = 1.5
_SLOWEST, _FASTEST = 0.5, 4.0
#: Once all are there, what a guest has left is brought down to so many times what QEMU would stop
#: it for at Nova's first step, at the speed at which it writes, and to this share of a round. It
#: may have half a megabyte less than is reckoned, and is not to be stopped for that.
_CLOSING_MARGIN, _CLOSING_SHARE = 2.6, 0.5
#: So long before they stand still: a busy relay is late now and then.
_SETTLED_SECONDS = 0.15
#: However little time is left for that.
_LEAST_CLOSING_SECONDS = 0.05
#: Then nothing is taken for longer than QEMU counts its speed at once, 0.1 s. What it would stop
#: the guest for falls with that speed, and all count anew from when they are taken again.
STILL_SECONDS = 0.11
#: Until the gate opens what each has left is then brought down to so much, all in the same time:
#: who came there sooner would be stopped at its next look, and stand still for longer than the
#: others. QEMU's limit is still low when the gate opens, so it looks once more, and has next to
#: nothing to send while its guest stands still. With 150 KB less one member in twelve had nothing
#: left before the gate, and was stopped there.
DASH_SECONDS, _LAST_BYTES = 0.08, 480 << 10
#: However little time is left for that.
_LEAST_DASH_SECONDS = 0.01
#: What a round says of what is left counts for so much; the rest is what was reckoned before it. A
#: round ends where QEMU comes to memory's end, which is near a look but not at it: after a look in
#: the middle half of what it found comes in the next round.
_ROUND_SHARE = 0.5
#: Of what has been taken, as far back as it has to be known when it was written: some rounds.
_KEPT_CHUNKS = 2048
#: The first round whose bytes say how much is dirtied in a round; the one before it began with all
#: that was dirtied in round 0.
_TELLING_ROUND = 3


class Approach:
    """The speed of one released member, from what was taken of it so far.

    A busy guest goes through rounds until they are short, and then through such rounds until the
    gate opens. None ends before its time, by the clock: what is dirty at QEMU's next look follows
    from that alone, whatever the guest did in this round. A guest that hardly writes waits at the
    end of round 0.
    """

    def __init__(self, dirty_bytes_per_second: float | None, downtime_seconds: float,
                 held_seconds: float = 0.0, clock: Callable[[], float] = time.monotonic):
        """``dirty_bytes_per_second`` as measured, None where it was not; ``held_seconds`` have
        passed since the stream began."""
        self._told = dirty_bytes_per_second
        self._dirty = max(dirty_bytes_per_second or 0.0, LEAST_BYTES_PER_SECOND)
        self._step = downtime_seconds / NOVA_STEPS
        self._clock = clock
        #: The most that QEMU's kernel has held.
        self.queue_bytes = 0
        #: 0: every page comes for the first time.
        self.round = 0
        self._begun = clock()
        self._bytes = 0
        #: The round before the present one; round 0 has lasted since the stream began.
        self._lasted = 0.0
        self._held = held_seconds
        self.ready = False
        #: Taken of the stream; by when QEMU had written so much; when it looked what is dirty.
        self._taken = self._queue = 0
        self._written: collections.deque[tuple[int, float]] = collections.deque(
            maxlen=_KEPT_CHUNKS)
        self._looks: collections.deque[float] = collections.deque(maxlen=2)
        #: What was dirtied between two looks, and how long that was.
        self._dirtied: collections.deque[tuple[int, float]] = collections.deque(maxlen=5)
        #: What was left, when, and what QEMU had written in all by then.
        self._left: tuple[float, float, int] | None = None

    @property
    def busy(self) -> bool:
        """Whether the guest writes enough to be led through rounds."""
        return self._told is None \
            or self._told * _LONGEST_ROUND_SECONDS >= self._least_round_bytes

    @property
    def _least_round_bytes(self) -> float:
        return max(_LEAST_ROUND_BYTES, _QUEUE_MARGIN * self.queue_bytes)

    @property
    def _short_seconds(self) -> float:
        """How long a round is to last at least, and not much longer."""
        return max(_STEP_MARGIN * self._step, self._least_round_bytes / self._dirty)

    def took(self, round_number: int, remaining_bytes: int, size_bytes: int,
             queue_bytes: int = 0) -> float:
        """Count bytes that were taken; return how fast the next are to be (bytes/s).

        ``remaining_bytes`` of round 0, 0 later; ``queue_bytes`` is what QEMU's kernel holds now.
        """
        self.queue_bytes = max(self.queue_bytes, queue_bytes)
        if round_number != self.round:
            self._looked(round_number, self._written_at(self._taken))
        self._taken += size_bytes
        self._queue = queue_bytes
        self._written.append((self._taken + queue_bytes, self._clock()))
        early, begins = 0.0, round_number != self.round
        if begins:
            early = self._next_round(round_number)
        self._bytes += size_bytes
        if begins and self._dirtied:
            self._reckon()
        if self.round == 0:
            # QEMU is ahead by what the kernel holds
            left = remaining_bytes - self.queue_bytes
            if not self.busy and left <= _IDLE_GATE_BYTES:
                self.ready = True
            return max(self._dirty, left / (_TAIL_MARGIN * self._step))
        if not self.busy:
            self.ready = True
        if self.round == 1:
            growth = min(_GROWTH, (_GROWTH_SECONDS / max(self._lasted, 1.0)) ** 0.5)
            return max(self._dirty / _SLOWED, LEAST_BYTES_PER_SECOND, growth * self._bytes)
        if early:
            return size_bytes / early
        # a round lasts as long as the one before, divided by this
        factor = (self._lasted / self._short_seconds) ** 0.5
        return self._dirty * min(_FASTEST, max(_SLOWEST, factor))

    def closing(self, seconds: float) -> float:
        """Return how fast the next bytes are to be, the gate opening in so many seconds (bytes/s).

        At that moment all members are to have about as little left as none is stopped for yet.
        """
        left = self.left_bytes()
        if left is None:
            return self._dirty
        rate = self._rate()
        wanted = max(_CLOSING_MARGIN * self._step * rate,
                     _CLOSING_SHARE * self._least_round_bytes)
        left_seconds = max(seconds - DASH_SECONDS - STILL_SECONDS - _SETTLED_SECONDS,
                           _LEAST_CLOSING_SECONDS)
        return _towards(left, wanted, rate, left_seconds)

    def dash(self, seconds: float) -> float:
        """Return how fast the next bytes are to be, having stood still; ``seconds`` as above."""
        left = self.left_bytes()
        if left is None:
            return self._dirty
        return _towards(left, _LAST_BYTES, self._rate(), max(seconds, _LEAST_DASH_SECONDS))

    def left_bytes(self) -> float | None:
        """Return what the guest has dirtied and QEMU not written; None before it is known."""
        if self._left is None:
            return None
        left, at, written = self._left
        return max(0.0, left + self._rate() * (self._clock() - at)
                   - (self._taken + self._queue - written))

    def _reckon(self) -> None:
        """Reckon what is left, a round having begun.

        All that the round before it sent, and it sends, was dirtied since the look that began the
        former, or left over from it: about what QEMU would stop the guest for.
        """
        since = self._clock() - self._looks[0] + self._step
        told = self._rate() * since - self._bytes - self._queue
        before = self.left_bytes()
        left = told if before is None else before + _ROUND_SHARE * (told - before)
        self._left = max(0.0, left), self._clock(), self._taken + self._queue

    def _rate(self) -> float:
        """Return how much was dirtied in a second, between QEMU's last looks."""
        return sum(each for each, _ in self._dirtied) / sum(lasted for _, lasted in self._dirtied)

    def _looked(self, number: int, at: float) -> None:
        """Note when QEMU looked what is dirty, the first bytes of what it found having come."""
        # several rounds may begin with one chunk
        if number > _TELLING_ROUND and len(self._looks) == 2:
            lasted = max(self._looks[1] - self._looks[0], 1e-3)
            self._dirtied.append((self._bytes, lasted))
        self._looks.append(at)

    def _written_at(self, offset_bytes: int) -> float:
        """Return when QEMU wrote what is at an offset of the bytes taken here."""
        return next((at for written, at in self._written if written >= offset_bytes),
                    self._clock())

    def _next_round(self, number: int) -> float:
        """Count a round as over; return by how many seconds it was too short."""
        now = self._clock()
        before, self._lasted = self._lasted, now - self._begun
        if self.round == 0:
            self._lasted += self._held
        # of what the round that ended has sent, all was dirtied in the one before it
        seen = self._bytes / before if before else self._dirty
        if number > _TELLING_ROUND:
            self._dirty = (self._dirty + seen) / 2
        elif number == _TELLING_ROUND or self._told is None:
            self._dirty = seen
        elif number == 2:
            # what a long round 0 left dirty is too little for its time: that is the safe side
            self._dirty = min(self._dirty, seen)
        self._dirty = max(self._dirty, LEAST_BYTES_PER_SECOND)
        early = 0.0
        if number >= _TELLING_ROUND:
            early = max(0.0, self._short_seconds - self._lasted)
            self._lasted += early
            if self.busy and self._lasted <= 2 * self._short_seconds:
                self.ready = True
        self.round, self._begun, self._bytes = number, now + early, 0
        return early


def _towards(left_bytes: float, wanted_bytes: float, dirty_bytes_per_second: float,
             seconds: float) -> float:
    """Return how fast to take what a guest has left, so that in so much time so much is."""
    return max(_SLOWEST * dirty_bytes_per_second,
               dirty_bytes_per_second + (left_bytes - wanted_bytes) / seconds)
