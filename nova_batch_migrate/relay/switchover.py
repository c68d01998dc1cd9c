"""Lets the members of a synchronized set switch over together [0006].

Used by source.py; one Gang a set. Members are held running, by not being read, until all are
there. Then each is taken, slowly, to where it is about to switch over (Approach), and all are let
go at once: their guests stop at the same time. Their last step is held at the return path until
every destination has loaded its state. All holds are bounded: when in doubt a member goes on, or
all stay where they run.
"""

import enum
import math
import threading
import time
from collections.abc import Callable

from oslo_log import log

LOG = log.getLogger(__name__)
_LOOK_SECONDS = 0.2
#: Nobody is taken for so long before the gate opens, so that all are there. What is dirtied
#: meanwhile has to cross while they are paused.
GATE_STILL_SECONDS = 0.02
#: How long the members may take from the release to the gate.
_GATE_SECONDS = 20.0
#: Slower than this a guest hardly writes (bytes/s); nor is anybody taken more slowly.
_LEAST_DIRTY = 256 << 10
_IDLE_GATE_BYTES = 3 << 20
#: Nova begins with a tenth of the downtime that it allows at last, for minutes.
NOVA_STEPS = 10
_TAIL_MARGIN = 3.0
_GROWTH = 2.0
#: A round of a busy guest dirties so many times what QEMU would stop it for at Nova's first step,
#: at the speed of the round: less might do by chance, more has to cross behind the gate.
_ROUND_MARGIN = 4.0
_SLOWEST, _FASTEST = 0.5, 4.0


class Policy(enum.StrEnum):
    """What becomes of the others when a member fails or is late before the release."""

    #: The rest goes without it.
    RELEASE = "release"
    #: All stay at the source, running.
    TOGETHER = "together"


class State(enum.StrEnum):
    """How far a set has come; the conductor reads it in the statistics."""

    GATHERING = "gathering"
    RELEASED = "released"
    CALLED_OFF = "called-off"


class Gang:
    """One synchronized set: who is there, who has failed, whether they were let go."""

    def __init__(self, members: frozenset[str], hold_seconds: float, pause_seconds: float,
                 policy: Policy, clock=time.monotonic):
        self.members = members
        self._hold_seconds, self._pause_seconds = hold_seconds, pause_seconds
        self._policy = policy
        self._clock = clock
        self._changed = threading.Condition()
        self._there: set[str] = set()
        self._loaded: set[str] = set()
        self._failed: set[str] = set()
        self._ready: set[str] = set()
        self._released_at = 0.0
        self._opens_at: float | None = None
        self._state = State.GATHERING
        self._reason: str | None = None
        self._hold_ends: float | None = None
        self._pause_ends: float | None = None
        #: Wall-clock seconds at which each member's last step was let go, for the report.
        self.resumed_at: dict[str, float] = {}

    @property
    def released(self) -> bool:
        return self._state is State.RELEASED

    @property
    def called_off(self) -> bool:
        return self._state is State.CALLED_OFF

    def as_dict(self) -> dict:
        """Return members, state, why it was called off, and who failed, as JSON can carry it."""
        with self._changed:
            return {"members": sorted(self.members), "state": str(self._state),
                    "reason": self._reason, "failed": sorted(self._failed)}

    def hold(self, server_id: str, alive: Callable[[], bool] = lambda: True) -> bool:
        """Return True when the member may go on to its switchover, False when it has to stay.

        Waits until all are there, for ``hold_seconds`` from the first one on; a member that is
        not ``alive`` any more (its migration was aborted) has failed.
        """
        with self._changed:
            self._there.add(server_id)
            if self._hold_ends is None:
                self._hold_ends = self._clock() + self._hold_seconds
            self._settle()
            while self._state is State.GATHERING and server_id not in self._failed:
                left = self._hold_ends - self._clock()
                if left <= 0:
                    self._give_up_waiting()
                    break
                self._changed.wait(min(left, _LOOK_SECONDS))
                if not alive():
                    self._fail(server_id, "its migration ended while it was held")
            return self.released and server_id not in self._failed

    def at_gate(self, server_id: str) -> None:
        """A released member may switch over as soon as it is taken at full speed."""
        with self._changed:
            self._ready.add(server_id)
            self._settle_gate()

    def open_gate(self) -> None:
        """Wait for nobody any more: a member has switched over already."""
        with self._changed:
            self._open_at(self._clock())

    @property
    def gate_closing(self) -> bool:
        """Whether all are at the gate: nobody is taken until it opens."""
        return self._opens_at is not None

    def linger(self, seconds: float) -> None:
        """Wait so long, less when the gate is about to open."""
        with self._changed:
            end = self._clock() + seconds
            while self._opens_at is None and (left := end - self._clock()) > 0:
                self._changed.wait(left)
                self._settle_gate()

    def pass_gate(self, alive: Callable[[], bool] = lambda: True) -> None:
        """Return when the gate opens, for all at once; at once for who is not ``alive``."""
        with self._changed:
            while alive():
                self._settle_gate()
                if self._opens_at is None:
                    self._changed.wait(_LOOK_SECONDS)
                elif (left := self._opens_at - self._clock()) > 0:
                    self._changed.wait(left)
                else:
                    return

    def _settle_gate(self) -> None:
        if self._opens_at is not None or self._state is not State.RELEASED:
            return
        if self._there - self._failed <= self._ready:
            self._open_at(self._clock() + GATE_STILL_SECONDS)
        elif self._clock() > self._released_at + _GATE_SECONDS:
            LOG.warning("synchronized members %s do not settle: all go now",
                        sorted(self._there - self._failed - self._ready))
            self._open_at(self._clock() + GATE_STILL_SECONDS)

    def _open_at(self, moment: float) -> None:
        if self._opens_at is None or moment < self._opens_at:
            self._opens_at = moment
        self._changed.notify_all()

    def loaded(self, server_id: str) -> None:
        """Return when the member's last step may be let go; never later than the pause allows.

        Called when its destination has loaded its state: the guest is paused on both sides.
        """
        with self._changed:
            self._loaded.add(server_id)
            if self._pause_ends is None:
                self._pause_ends = self._clock() + self._pause_seconds
            self._changed.notify_all()
            while not self._there - self._failed <= self._loaded:
                left = self._pause_ends - self._clock()
                if left <= 0:
                    LOG.warning("synchronized members %s were let go before %s had loaded",
                                sorted(self._loaded), sorted(self._there - self._loaded))
                    break
                self._changed.wait(left)
            self.resumed_at[server_id] = time.time()

    def failed(self, server_id: str, reason: str = "its stream ended before its switchover"
               ) -> None:
        """Count a member out: it will not switch over with the others."""
        with self._changed:
            if server_id not in self._loaded and server_id not in self._failed:
                self._fail(server_id, reason)

    def _fail(self, server_id: str, reason: str) -> None:
        self._failed.add(server_id)
        if self._state is State.GATHERING and self._policy is Policy.TOGETHER:
            self._call_off(f"{server_id} failed: {reason}")
        self._settle()

    def _call_off(self, reason: str) -> None:
        self._state, self._reason = State.CALLED_OFF, reason
        LOG.warning("a synchronized set is called off, all stay where they run: %s", reason)

    def _settle(self) -> None:
        if self._state is State.GATHERING and self.members <= self._there | self._failed:
            self._state, self._released_at = State.RELEASED, self._clock()
        self._settle_gate()
        self._changed.notify_all()

    def _give_up_waiting(self) -> None:
        late = sorted(self.members - self._there - self._failed)
        reason = f"{', '.join(late)} did not come within {self._hold_seconds:g} s"
        LOG.warning("synchronized members: %s", reason)
        if self._policy is Policy.TOGETHER:
            self._call_off(reason)
        else:
            self._failed.update(late)
        self._settle()


class Approach:
    """How fast a released member is taken so that its QEMU does not switch over by itself.

    QEMU does when what is left is less than the speed of the last 0.1 s times the allowed downtime
    (facts of the method). A busy guest therefore goes through rounds, each taken about as fast as
    it dirties, until they are short; one that hardly writes waits at the end of round 0.
    """

    def __init__(self, dirty_bytes_per_second: float | None, downtime_seconds: float,
                 clock=time.monotonic):
        self._dirty = _LEAST_DIRTY if dirty_bytes_per_second is None else dirty_bytes_per_second
        self.busy = dirty_bytes_per_second is None or dirty_bytes_per_second >= _LEAST_DIRTY
        step = downtime_seconds / NOVA_STEPS
        self._tail_seconds = _TAIL_MARGIN * step
        #: Of rounds that are all alike.
        self._short_seconds = _ROUND_MARGIN * step
        self._clock = clock
        self._begun = clock()
        self._round = 0
        self._bytes = 0
        self._lasted = 0.0
        self.ready = False

    def took(self, round_number: int, remaining_bytes: int, size_bytes: int) -> float:
        """Count bytes that were taken; return how fast the next are to be (bytes/s)."""
        if round_number != self._round:
            self._next_round(round_number)
        self._bytes += size_bytes
        if self._round == 0:
            if not self.busy and remaining_bytes <= _IDLE_GATE_BYTES:
                self.ready = True
            return max(self._dirty, _LEAST_DIRTY, remaining_bytes / self._tail_seconds)
        if not self.busy:
            self.ready = True
        if self._round == 1:
            # what was dirtied in all of round 0: at least what has been seen of it
            return max(self._dirty, _GROWTH * self._bytes)
        # the round will last as long as the one before, divided by this: its speed times the step
        # is then the margin's share of what is dirtied in it
        factor = math.sqrt(self._lasted / self._short_seconds) if self._short_seconds else 1.0
        return max(_LEAST_DIRTY, self._dirtied * min(_FASTEST, max(_SLOWEST, factor)))

    def _next_round(self, round_number: int) -> None:
        now = self._clock()
        before, self._lasted = self._lasted, now - self._begun
        # of what the round that ended has sent, all was dirtied in the one before it
        self._dirtied = self._bytes / before if before else self._dirty
        if round_number == 2:
            # those of round 1 are of longer than round 0 has been seen: of the hold, too
            self._dirtied = min(self._dirtied, self._dirty)
        self._round, self._begun, self._bytes = round_number, now, 0
        if self.busy and round_number >= 2 and self._lasted <= 2 * self._short_seconds:
            self.ready = True

