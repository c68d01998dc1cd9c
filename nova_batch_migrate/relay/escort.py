"""Leads the stream of one member of a synchronized set: held running, to the gate, through it.

Used by source_stream.py from the thread that takes the stream's bytes; what the set as a whole
does is switchover.py's. Until the set is let go a member that can't be held running any more ends.
"""

import socket
import time
from collections.abc import Callable

from oslo_log import log

from nova_batch_migrate import exception
from nova_batch_migrate.relay import approach, qemu_stream, redirect, sock_diag, switchover, values

LOG = log.getLogger(__name__)

#: What a member on its way to the gate may catch up of the time in which the relay was late.
_LAG_SECONDS = 0.02
#: Members wait where this much of round 0 is still to come, or three times what QEMU would send
#: within the downtime: later it may switch over at once (facts of the method).
_HOLD_SHARE = 0.25


class Escort:
    """Says when and how fast a member's bytes are taken, from its hold on.

    ``flush`` sends what the log still holds of the stream, ``pass_on`` gives its turn away,
    ``listens`` tells whether QEMU still has its end open.
    """

    def __init__(self, gang: switchover.Gang, member: values.Member, connection: socket.socket,
                 downtime_seconds: float, flush: Callable[[], None], pass_on: Callable[[], None],
                 listens: Callable[[], bool]):
        self._gang, self._member = gang, member
        self._queue = _queue_of(connection)
        self._downtime_seconds = downtime_seconds
        self._flush, self._pass_on, self._listens = flush, pass_on, listens
        self._begun = time.monotonic()
        self._approach: approach.Approach | None = None
        self.held = False
        #: Through the gate behind which the members of the set switch over.
        self.through = False
        #: So near to it that what it has left is brought down for the last time, and behind it.
        self.hurries = False
        #: Written to by its guest there and not yet sent; None where nobody knows.
        self._left_bytes: float | None = None
        #: When the next bytes may be taken.
        self._due = 0.0

    @property
    def leads(self) -> bool:
        """Whether the member is on its way from the hold to its switchover."""
        return self._approach is not None

    def require(self, position: qemu_stream.Position | None = None, single: bool = True) -> None:
        """Raise RelayError for a member that is not let go and can't be held running any more.

        ``single``: its memory goes over one connection.
        """
        why = None
        if self._gang.called_off:
            why = "its set was called off: all stay where they run."
        elif not single:
            why = "its memory goes over several connections, which can't be held together."
        elif position is not None and not position.understood:
            why = "its stream is none that can be held."
        elif position is not None and position.ram_end:
            why = "it came to its switchover before it could be held."
        if why is not None:
            raise exception.RelayError(reason=f"a synchronized server stays: {why}")

    def lead(self, position: qemu_stream.Position, taken_bytes: int,
             wire_bytes_per_second: float | None) -> bool:
        """Wait as long as the set asks for, bytes having been taken; False where it does not."""
        if not self._gang.released:
            self.require(position)
        if not self.held:
            if not self._at_hold(position, wire_bytes_per_second or 0.0):
                return False
            self.held = True
            self._flush()
            self._hold()
        if not self.through:
            self._to_gate(position, taken_bytes)
        return True

    def went_on(self, position: qemu_stream.Position) -> None:
        """What comes is no memory of a running guest: its head, or its switchover."""
        if not self._gang.released:
            self.require(position)
        elif not self.through and (position.ram_end or not position.understood):
            # the sooner the others follow, the shorter its pause
            self.through = self.hurries = True
            self._gang.open_gate(self._member.server_id)

    def loaded(self, let_go: Callable[[], None]) -> bool:
        """Return when ``let_go`` was called, which lets the last step go: all have loaded theirs.

        False for a member that came so far before its set was let go: its guest goes on here.
        """
        if not self._gang.released:
            return False
        self._gang.loaded(self._member.server_id, let_go)
        return True

    def ended(self) -> None:
        """The stream is over; if the member has not switched over, it has failed."""
        self._gang.failed(self._member.server_id)

    def close(self) -> None:
        """Ask the kernel no more, and log how the member passed the gate: no guest waits now."""
        if self.through and self.leads:
            left = self._left_bytes
            LOG.info("synchronized server %s passed the gate in round %d, %s bytes written to and "
                     "not sent; QEMU's kernel held up to %d bytes", self._member.server_id,
                     self._approach.round, "?" if left is None else f"{left:.0f}",
                     self._approach.queue_bytes)
        if self._queue is not None:
            self._queue.close()

    def _at_hold(self, position: qemu_stream.Position, wire_bytes_per_second: float) -> bool:
        return position.round > 0 or position.remaining_bytes <= max(
            _HOLD_SHARE * position.ram_bytes, 3 * self._downtime_seconds * wire_bytes_per_second)

    def _hold(self) -> None:
        """Wait, the guest running, until all members are there; then they all have the turn."""
        begun = time.monotonic()
        self._pass_on()
        going_on = self._gang.hold(self._member.server_id, self._listens)
        LOG.info("synchronized server %s was held running for %.2f s", self._member.server_id,
                 time.monotonic() - begun)
        if not going_on:
            raise exception.RelayError(
                reason="a synchronized server failed or came too late: all stay where they run.")

    def _to_gate(self, position: qemu_stream.Position, taken_bytes: int) -> None:
        """Lead a released member to its switchover, and through it with all others."""
        if self._approach is None:
            self._approach = approach.Approach(self._member.dirty_bytes_per_second,
                                               self._downtime_seconds,
                                               time.monotonic() - self._begun)
        queued = (self._queue and self._queue.size_bytes()) or 0
        remaining = position.remaining_bytes if position.round == 0 else 0
        speed = self._approach.took(position.round, remaining, taken_bytes, queued)
        if self._approach.ready:
            self._gang.at_gate(self._member.server_id)
        opens_in = self._gang.opens_in()
        if not self._approach.busy and (self._approach.ready or opens_in is not None):
            self._wait_at_gate()
            return
        near = opens_in is not None and opens_in <= approach.STILL_SECONDS + approach.DASH_SECONDS
        if near and not self.hurries:
            self._flush()
            self._gang.linger(opens_in - approach.DASH_SECONDS)
            self.hurries = True
            return
        now = time.monotonic()
        if opens_in is not None:
            bring_down = self._approach.dash if self.hurries else self._approach.closing
            speed = bring_down(opens_in)
            # what the pace of before had it wait for is over
            self._due = min(self._due, now)
        # what sending took counts: the speed is QEMU's, whatever the relay needs
        self._due = max(self._due, now - _LAG_SECONDS) + taken_bytes / speed
        self._gang.linger(self._due - now)
        opens_in = self._gang.opens_in()
        if opens_in is not None and opens_in <= 0:
            self._pass()

    def _wait_at_gate(self) -> None:
        """Wait, the guest running, until the gate opens for all."""
        self._flush()
        self._gang.pass_gate(self._listens)
        self._pass()

    def _pass(self) -> None:
        """The gate is open: from here on bytes are taken as fast as they come."""
        self.through = self.hurries = True
        self._left_bytes = self._approach.left_bytes()


def _queue_of(connection: socket.socket) -> sock_diag.SendQueue | None:
    """Return the queue of a redirected connection's other end; None where it can't be seen."""
    try:
        return sock_diag.SendQueue(connection.getpeername()[:2],
                                   redirect.original_destination(connection))
    except (OSError, exception.RelayError) as error:
        LOG.warning("what the kernel holds of a synchronized server can't be seen: %s", error)
        return None
