"""How far a guest's memory has come, over all connections of its migration.

Kept by source.py for each server, fed by its streams: with multifd the main connection knows how
large the memory is, and the others carry it. Pure but for its lock.
"""

import threading

from nova_batch_migrate.relay import qemu_stream


class GuestMemory:
    """What the connections of one guest say together; each is known by its stream's number."""

    def __init__(self):
        self._lock = threading.Lock()
        self._seen: dict[int, qemu_stream.Position] = {}

    def note(self, number: int, position: qemu_stream.Position) -> None:
        """Keep where a connection is now."""
        with self._lock:
            self._seen[number] = position

    def forget(self, number: int) -> None:
        """A connection has ended; harmless to repeat."""
        with self._lock:
            self._seen.pop(number, None)

    def remaining_bytes(self) -> int | None:
        """Return the guest memory that round 0 has still before it; None in later rounds.

        None as well where nobody has said yet how much there is.
        """
        with self._lock:
            seen = list(self._seen.values())
        whole = max((each.ram_bytes for each in seen), default=0)
        if not whole or any(each.round > 0 or each.ram_end for each in seen):
            return None
        passed = max(sum(each.round0_bytes for each in seen if not each.ram_bytes),
                     max(each.round0_bytes for each in seen if each.ram_bytes))
        return max(0, whole - passed)

    def carriers(self) -> int:
        """Return among how many connections its pages are shared out, at least one."""
        with self._lock:
            return max(1, sum(each.carries_memory and not each.ram_bytes
                              for each in self._seen.values()))
