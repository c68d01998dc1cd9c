"""Connections to one port reach its QEMU in the order in which they came.

Used by service.py at the source and by destination.py. Threads of their own lead them there, and
QEMU before 8.0 takes the first that comes for the main one of several.
"""

import threading
from collections.abc import Hashable

_PATIENCE_SECONDS = 20


class Place:
    """A connection's place behind the one that came before it to the same port."""

    def __init__(self, arrivals: "Arrivals", target: Hashable, before: "Place | None"):
        self.target = target
        self._arrivals, self._before = arrivals, before
        self._through = threading.Event()

    def wait(self) -> None:
        """Return when the one before is through; it is not waited for without end."""
        if self._before is not None:
            self._before._through.wait(_PATIENCE_SECONDS)
            self._before = None

    def passed(self) -> None:
        """The connection has reached its QEMU, or never will; harmless to repeat."""
        self._through.set()
        self._arrivals._forget(self)


class Arrivals:
    """Hands out places, one queue a port."""

    def __init__(self):
        self._lock = threading.Lock()
        self._last: dict[Hashable, Place] = {}

    def place(self, target: Hashable) -> Place:
        """Return the place of a connection to ``target``; call in the order in which they come."""
        with self._lock:
            place = self._last[target] = Place(self, target, self._last.get(target))
        return place

    def _forget(self, place: Place) -> None:
        with self._lock:
            if self._last.get(place.target) is place:
                del self._last[place.target]
