"""Lets the members of a synchronized set switch over together [0006].

Used by source.py and escort.py; one Gang a set. Members are held running, by not being read, until
all are there. Then each is taken, slowly, to where it is about to switch over (approach.py); once
all are there, what each has left is brought down, and all are let go at once: their guests stop at
the same time. Their last step is held at the return path until every destination has loaded its
state. All holds are bounded: when in doubt a member goes on, or all stay where they run.
"""

import enum
import threading
import time
from collections.abc import Callable

from oslo_log import log

LOG = log.getLogger(__name__)
_LOOK_SECONDS = 0.2
#: All being at the gate, it opens so much later: meanwhile what they have left becomes alike.
CLOSING_SECONDS = 1.0
#: How long the members may take from the release to the gate.
_GATE_SECONDS = 20.0


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
        #: Those of them without whom the others were let go.
        self._left_out: frozenset[str] = frozenset()
        self._ready: set[str] = set()
        self._early: set[str] = set()
        self._released_at = 0.0
        self._opens_at: float | None = None
        self._state = State.GATHERING
        self._reason: str | None = None
        #: What lets a member go that waits for the others to be loaded; what came of it.
        self._last_steps: dict[str, Callable[[], None]] = {}
        self._failures: dict[str, OSError] = {}
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
        """Return members, state and why it was called off, who failed, whom the others went
        without, who did not wait for them at the gate, whether all were let go; as JSON can carry
        it."""
        with self._changed:
            return {"members": sorted(self.members), "state": str(self._state),
                    "reason": self._reason, "failed": sorted(self._failed),
                    "left_out": sorted(self._left_out), "early": sorted(self._early),
                    "over": self.members - self._failed <= set(self.resumed_at)}

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

    def open_gate(self, server_id: str) -> None:
        """Wait for nobody any more: this member has switched over already."""
        with self._changed:
            if self._opens_at is None or self._clock() < self._opens_at:
                LOG.warning("synchronized server %s switched over before the others were there%s",
                            server_id, "" if self._opens_at is None else
                            f", {self._opens_at - self._clock():.3f} s before the gate")
                self._early.add(server_id)
            self._open_at(self._clock())

    def opens_in(self) -> float | None:
        """Return in how many seconds the gate opens, <= 0 once it has; None until all are there."""
        with self._changed:
            return None if self._opens_at is None else self._opens_at - self._clock()

    def linger(self, seconds: float) -> None:
        """Wait so long, less when it becomes known when the gate opens, or when it does."""
        with self._changed:
            end, known = self._clock() + seconds, self._opens_at
            until = end if known is None else min(end, known)
            while self._opens_at == known and (left := until - self._clock()) > 0:
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
            self._open_at(self._clock() + CLOSING_SECONDS)
        elif self._clock() > self._released_at + _GATE_SECONDS:
            LOG.warning("synchronized members %s do not settle: all go now",
                        sorted(self._there - self._failed - self._ready))
            self._open_at(self._clock() + CLOSING_SECONDS)

    def _open_at(self, moment: float) -> None:
        if self._opens_at is None or moment < self._opens_at:
            self._opens_at = moment
        self._changed.notify_all()

    def loaded(self, server_id: str, let_go: Callable[[], None]) -> None:
        """Return when the member's last step was let go; never later than the pause allows.

        Called when its destination has loaded its state: the guest is paused on both sides. Who
        comes last calls ``let_go`` of all, which must not wait: were each to do it when it gets a
        processor, the guests would go on so much apart. Raises what its own ``let_go`` raises.
        """
        with self._changed:
            self._loaded.add(server_id)
            self._last_steps[server_id] = let_go
            if self._pause_ends is None:
                self._pause_ends = self._clock() + self._pause_seconds
            while server_id in self._last_steps:
                left = self._pause_ends - self._clock()
                missing = self._there - self._failed - self._loaded
                if missing and left > 0:
                    self._changed.wait(left)
                    continue
                if missing:
                    LOG.warning("synchronized members %s were let go before %s had loaded",
                                sorted(self._loaded), sorted(missing))
                self._let_go()
            if (failure := self._failures.pop(server_id, None)) is not None:
                raise failure

    def _let_go(self) -> None:
        for server_id, let_go in self._last_steps.items():
            self.resumed_at[server_id] = time.time()
            try:
                let_go()
            except OSError as error:
                self._failures[server_id] = error
        self._last_steps.clear()
        self._changed.notify_all()

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
            self._left_out = frozenset(self._failed)
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
