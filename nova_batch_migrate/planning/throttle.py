"""QEMU's auto-converge: how it slows a guest down that dirties faster than is sent.

Used by planning.stream where Nova permits it. Facts of QEMU's migration/ram.c.
"""

#: When twice, over at least a second, the guest dirtied more than this share of what was sent, it
#: is slowed by 20 %, then by 10 % more each time, to 99 % at most.
THROTTLE_PERIOD_SECONDS = 1.0
THROTTLE_SHARE, THROTTLE_FIRST, THROTTLE_MORE, THROTTLE_MOST = 0.5, 0.2, 0.1, 0.99


class Throttle:
    """QEMU's auto-converge: how much the guest is slowed down, as a share."""

    def __init__(self):
        self.share = 0.0
        self._high_periods = 0
        self._seconds = self._sent = self._dirtied = 0.0

    def passed(self, seconds: float) -> None:
        """Count time in which the guest ran."""
        self._seconds += seconds

    def sent(self, pages: float) -> None:
        """Count pages sent."""
        self._sent += pages

    def dirtied(self, pages: float) -> None:
        """Count pages found dirty; slow the guest if it dirties too much of what is sent."""
        self._dirtied += pages
        if self._seconds < THROTTLE_PERIOD_SECONDS:
            return
        if self._dirtied > THROTTLE_SHARE * self._sent:
            self._high_periods += 1
        if self._high_periods >= 2:
            self._high_periods = 0
            self.share = (THROTTLE_FIRST if self.share == 0.0
                          else min(THROTTLE_MOST, self.share + THROTTLE_MORE))
        self._seconds = self._sent = self._dirtied = 0.0
