"""Bounds what strangers may cost before they have shown who they are.

Used by service.py for connections from other hosts. Knows nothing of certificates or groups.
"""

import collections
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from nova_batch_migrate import exception
from nova_batch_migrate.relay import splice


class Doorway:
    """Lets ``most`` at once in from each address: nobody waits for what another host sends.

    Four times as many may wait, each with a thread of its own.
    """

    def __init__(self, most: int, seconds: float):
        self._most, self._seconds = most, seconds
        self._changed = threading.Condition()
        self._waiting: collections.Counter[str] = collections.Counter()
        self._inside: collections.Counter[str] = collections.Counter()

    @contextlib.contextmanager
    def enter(self, address: str) -> Iterator[None]:
        """Wait for a place among those of an address; RelayError for who finds none."""
        with self._changed:
            free = self._waiting[address] < 4 * self._most
            if free:
                self._waiting[address] += 1
                free = self._changed.wait_for(lambda: self._inside[address] < self._most,
                                              self._seconds)
                _count_out(self._waiting, address)
            if not free:
                raise exception.RelayError(reason=f"too many connections of {address} say nothing.")
            self._inside[address] += 1
        try:
            yield
        finally:
            with self._changed:
                _count_out(self._inside, address)
                self._changed.notify_all()

    @contextlib.contextmanager
    def hurry(self, connection: Callable[[], socket.socket]) -> Iterator[None]:
        """End a connection that is not through in time, however little at a time it says."""
        end = threading.Timer(self._seconds, lambda: splice.shut(connection(), socket.SHUT_RDWR))
        end.daemon = True
        end.start()
        try:
            yield
        finally:
            end.cancel()


def _count_out(counted: collections.Counter[str], address: str) -> None:
    counted[address] -= 1
    if not counted[address]:
        del counted[address]
