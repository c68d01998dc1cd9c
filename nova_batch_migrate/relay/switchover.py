"""Lets the members of a synchronized set switch over together [0006].

Used by source.py; one Gang a set. Members are held running, by not being read, until all are
there; then their last step is held at the return path until every destination has loaded its
state. Both holds are bounded: when in doubt a member goes on, or all stay where they run.
"""

import enum
import threading
import time
from collections.abc import Callable

from oslo_log import log

LOG = log.getLogger(__name__)
_LOOK_SECONDS = 0.2
#: How far a member may be ahead of the last one on the way to its switchover.
_STEP_BYTES = 1 << 20
_STEP_SECONDS = 0.5


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
        self._remaining: dict[str, float] = {}
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

    def keep_step(self, server_id: str, remaining_bytes: float) -> None:
        """Wait while a released member has less of round 0 before it than another has.

        So all come to their switchover at once; nobody waits long for one that stands still.
        """
        with self._changed:
            self._remaining[server_id] = remaining_bytes
            self._changed.notify_all()
            end = self._clock() + _STEP_SECONDS
            while remaining_bytes + _STEP_BYTES < self._most_remaining():
                left = end - self._clock()
                if left <= 0:
                    return
                self._changed.wait(left)

    def _most_remaining(self) -> float:
        return max((remaining for server_id, remaining in self._remaining.items()
                    if server_id not in self._failed and server_id not in self._loaded),
                   default=0)

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
            self._state = State.RELEASED
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
