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
        self._released = self._called_off = False
        self._hold_ends: float | None = None
        self._pause_ends: float | None = None
        #: Wall-clock seconds at which each member's last step was let go, for the report.
        self.resumed_at: dict[str, float] = {}

    @property
    def released(self) -> bool:
        return self._released

    @property
    def called_off(self) -> bool:
        return self._called_off

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
            while not (self._released or self._called_off or server_id in self._failed):
                left = self._hold_ends - self._clock()
                if left <= 0:
                    self._give_up_waiting()
                    break
                self._changed.wait(min(left, _LOOK_SECONDS))
                if not alive():
                    self._fail(server_id)
            return self._released and server_id not in self._failed

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

    def failed(self, server_id: str) -> None:
        """Count a member out: its stream has ended before it switched over."""
        with self._changed:
            if server_id not in self._loaded and server_id not in self._failed:
                self._fail(server_id)

    def _fail(self, server_id: str) -> None:
        self._failed.add(server_id)
        if not self._released and self._policy is Policy.TOGETHER:
            self._called_off = True
        self._settle()

    def _settle(self) -> None:
        if not self._called_off and self.members <= self._there | self._failed:
            self._released = True
        self._changed.notify_all()

    def _give_up_waiting(self) -> None:
        late = sorted(self.members - self._there - self._failed)
        LOG.warning("synchronized members %s did not come within %s s", late, self._hold_seconds)
        if self._policy is Policy.TOGETHER:
            self._called_off = True
        else:
            self._failed.update(late)
            self._released = True
        self._changed.notify_all()
