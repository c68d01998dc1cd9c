"""What a group's streams came to, per server and in all; JSON for the agent and the conductor.

Fed by source.py. The savings are told apart and net of each other (design 3): zero, self-duplicate,
cross-server, delta and compression.
"""

import collections
import threading
import time
import typing
from collections.abc import Collection, Mapping

from nova_batch_migrate.relay import values


class FirstPass(typing.NamedTuple):
    """Round 0 of a stream: from its turn until it was slowed down, or came to an end of it."""

    #: Without those in which it left the wire to others.
    seconds: float
    raw_bytes: int
    #: What the wire bytes take on a link that does nothing else.
    link_seconds: float


class GroupFigures:
    """Adds up the counters of a group's streams; a server may have several."""

    def __init__(self, group: values.Group, clock=time.monotonic):
        self._group = group
        self._clock = clock
        self._lock = threading.Lock()
        self._streams: dict[int, tuple[str, dict[str, int], str]] = {}
        self._cpu: dict[int, float] = {}
        self._first_passes: dict[int, FirstPass] = {}
        self._begun: dict[int, float] = {}
        self._changed: dict[int, float] = {}

    def begin(self, number: int) -> None:
        """Note that a stream begins now."""
        with self._lock:
            self._begun[number] = self._clock()

    def count(self, number: int, server_id: str, counters: dict[str, int], outcome: str,
              cpu_seconds: float = 0.0, first_pass: FirstPass | None = None) -> None:
        """Keep the newest counters of a stream that has begun, and its thread's time of a core.

        ``first_pass``: None until it is over, and where a stream was held meanwhile.
        """
        now = self._clock()
        with self._lock:
            if self._streams.get(number, (None, None))[1] != counters:
                self._changed[number] = now
            self._streams[number] = (server_id, counters, outcome)
            self._cpu[number] = cpu_seconds
            if first_pass is not None:
                self._first_passes[number] = first_pass

    def as_dict(self) -> dict:
        """Return the group's counters and rate, and those of each server.

        Rates are wire bytes a second, from a stream's beginning until it last sent something; a
        server's ``cpu_seconds`` are those of the threads that took, encoded and sent its streams;
        its ``first_pass`` is None while round 0 of one of them is not over.
        """
        with self._lock:
            servers: dict[str, dict] = {}
            total: collections.Counter[str] = collections.Counter()
            for number, (server_id, counters, outcome) in self._streams.items():
                total.update(counters)
                found = servers.setdefault(
                    server_id, {"numbers": [], "counters": collections.Counter(), "outcomes": []})
                found["numbers"].append(number)
                found["counters"].update(counters)
                found["outcomes"].append(outcome)
            return {
                "id": self._group.id,
                **total,
                "bytes_per_second": self._rate(self._streams, total),
                "servers": {server_id: {
                    **found["counters"],
                    "bytes_per_second": self._rate(found["numbers"], found["counters"]),
                    "cpu_seconds": round(sum(self._cpu[i] for i in found["numbers"]), 3),
                    "first_pass": self._first_pass(found["numbers"]),
                    "outcomes": found["outcomes"]} for server_id, found in servers.items()},
            }

    def _first_pass(self, numbers: Collection[int]) -> dict | None:
        """Return that of a server, whose streams have their turn together."""
        passes = [self._first_passes[i] for i in numbers if i in self._first_passes]
        if not passes or len(passes) < len(numbers):
            return None
        return {"seconds": round(max(each.seconds for each in passes), 3),
                "raw_bytes": sum(each.raw_bytes for each in passes),
                "link_seconds": round(sum(each.link_seconds for each in passes), 3)}

    def _rate(self, numbers: Collection[int], counters: Mapping[str, int]) -> float | None:
        """Return the wire bytes/s of streams together; None where there are none."""
        if not numbers:
            return None
        seconds = max(self._changed[i] for i in numbers) - min(self._begun[i] for i in numbers)
        return counters["wire_bytes"] / seconds if seconds > 0 else None
