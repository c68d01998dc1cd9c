"""What a group's streams came to, per server and in all; JSON for the agent and the conductor.

Fed by source.py. The savings are told apart and net of each other (design 3): zero, self-duplicate,
cross-server, delta and compression.
"""

import collections
import threading
import time

from nova_batch_migrate.relay import values


class GroupFigures:
    """Adds up the counters of a group's streams; a server may have several."""

    def __init__(self, group: values.Group, clock=time.monotonic):
        self._group = group
        self._clock = clock
        self._lock = threading.Lock()
        self._streams: dict[int, tuple[str, dict[str, int], str]] = {}
        self._begun: dict[int, float] = {}
        self._changed: dict[int, float] = {}

    def count(self, number: int, server_id: str, counters: dict[str, int], outcome: str) -> None:
        """Keep the newest counters of a stream."""
        now = self._clock()
        with self._lock:
            self._begun.setdefault(number, now)
            if self._streams.get(number, (None, None))[1] != counters:
                self._changed[number] = now
            self._streams[number] = (server_id, counters, outcome)

    def as_dict(self) -> dict:
        """Return the group's counters, rate and those of each server."""
        with self._lock:
            streams = dict(self._streams)
            seconds = max(self._changed.values(), default=0.0) \
                - min(self._begun.values(), default=0.0)
        servers: dict[str, dict] = {}
        total: collections.Counter[str] = collections.Counter()
        for server_id, counters, outcome in streams.values():
            total.update(counters)
            of_server = servers.setdefault(server_id, {"streams": [], "counters": {}})
            of_server["streams"].append(outcome)
            for name, number in counters.items():
                of_server["counters"][name] = of_server["counters"].get(name, 0) + number
        return {
            "id": self._group.id,
            **total,
            "bytes_per_second": total["wire_bytes"] / seconds if seconds > 0 else None,
            "servers": {server_id: {**found["counters"], "outcomes": found["streams"]}
                        for server_id, found in servers.items()},
        }
