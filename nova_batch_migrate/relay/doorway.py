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
    """Lets ``most`` at once in from each address: nobody waits for what another host sends."""

    def __init__(self, most: int, seconds: float):
        self._most, self._seconds = most, seconds
        self._changed = threading.Condition()
        self._inside: collections.Counter[str] = collections.Counter()

    @contextlib.contextmanager
    def enter(self, address: str) -> Iterator[None]:
        """Wait for a place among those of an address; RelayError where that takes too long."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._inside[address] < self._most,
                                          self._seconds):
                raise exception.RelayError(reason=f"too many connections of {address} say nothing.")
            self._inside[address] += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside[address] -= 1
                self._inside += collections.Counter()   # forgets those who have left
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
