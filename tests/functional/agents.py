"""What the agents find on a host: the guests' memory and load, played for the functional tests.

Guests answers for all hosts of one test; where a guest is, it asks the played hypervisors.
"""

import dataclasses
import threading
import uuid

import oslo_messaging as messaging

from nova_batch_migrate import exception
from nova_batch_migrate.planning import telemetry

LINK_BYTES_PER_SECOND = 100 << 20


@dataclasses.dataclass(frozen=True)
class Guest:
    """What measuring a server shows. ``shared_pages``: contents all guests of one test have."""

    id: str
    name: str
    memory_bytes: int
    dirty_pages_per_second: float = 0.0
    working_set_pages: float = 0.0
    shared_pages: int = 1000

    @property
    def pages(self) -> int:
        return self.memory_bytes // telemetry.PAGE_BYTES

    def telemetry(self, host: str) -> telemetry.ServerTelemetry:
        return telemetry.ServerTelemetry(
            id=self.id, name=self.name, host=host, memory_bytes=self.memory_bytes, vcpus=1,
            total_pages=self.pages, present_pages=self.pages, zero_pages=self.pages // 2,
            distinct_pages=self.pages // 2, changed=telemetry.DirtyModel(
                self.dirty_pages_per_second, self.working_set_pages, 0.05, "content-diff"),
            compress_unchanged=0.5, measured_at="2026-11-23T02:00:00Z")


class Guests:
    """The guests of one test by server id."""

    def __init__(self, hypervisors):
        self.hypervisors = hypervisors
        #: What libvirt says at the destination of a migration that arrived.
        self.completed = {"elapsed_seconds": 0.3, "setup_seconds": 0.0, "downtime_seconds": 0.05,
                          "memory_transferred_bytes": 1 << 20, "normal_pages": 256,
                          "zero_pages": 0, "iterations": 1}
        self._by_id: dict[str, Guest] = {}
        self._measurable = threading.Event()
        self._measurable.set()

    def add(self, server_id: str, name: str, memory_bytes: int, **load) -> None:
        self._by_id[server_id] = Guest(server_id, name, memory_bytes, **load)

    def hold_measures(self) -> None:
        """Let no measurement come to its end until :meth:`release_measures`."""
        self._measurable.clear()

    def release_measures(self) -> None:
        self._measurable.set()

    def measured(self) -> bool:
        return self._measurable.is_set()

    def on(self, host: str) -> list[Guest]:
        return [self._by_id[server_id] for server_id in self.hypervisors.domains_of(host)]


class PlayedAgent:
    """The contract of AgentAPI 1.0 with played answers."""

    target = messaging.Target(version="1.0")

    def __init__(self, host: str, guests: Guests):
        self._host, self._guests = host, guests
        self._jobs: dict[str, list[str]] = {}

    def preflight(self, ctxt):
        return {"host": self._host, "agent_version": "0", "libvirt_version": "9.0.0",
                "qemu_version": "10.0.2", "accelerator": "tcg",
                "nova_options": {"max_concurrent_live_migrations": 4}, "ksm": {}, "relay": None,
                "problems": []}

    def inventory(self, ctxt):
        return [{"id": guest.id, "domain": guest.name, "name": guest.name, "project_id": "",
                 "state": "running", "memory_bytes": guest.memory_bytes, "vcpus": 1}
                for guest in self._guests.on(self._host)]

    def start_measure(self, ctxt, batch_id, servers, windows_seconds):
        job = str(uuid.uuid4())
        self._jobs[job] = servers
        return {"job": job}

    def get_measure(self, ctxt, job, offset):
        if job not in self._jobs:
            raise exception.AgentRefused(reason=f"there is no job {job}")
        if not self._guests.measured():
            return {"state": "running", "progress": 50, "error": None, "servers": [],
                    "next_offset": None, "page_classes": None}
        wanted = [guest for guest in self._guests.on(self._host) if guest.id in self._jobs[job]]
        classes = telemetry.PageClasses(True, 1.0, (telemetry.PageClass(
            tuple(guest.id for guest in wanted),
            min((guest.shared_pages for guest in wanted), default=0)),))
        return {"state": "done", "progress": 100, "error": None,
                "servers": [guest.telemetry(self._host).to_dict() for guest in wanted][offset:],
                "next_offset": None, "page_classes": classes.to_dict()}

    def bandwidth(self, ctxt):
        return telemetry.Bandwidth("eth0", LINK_BYTES_PER_SECOND, LINK_BYTES_PER_SECOND, 0.0,
                                   "option").to_dict()

    def tune(self, ctxt, server, bytes_per_second=None, downtime_ms=None):
        return None

    def progress(self, ctxt, server):
        return None

    def completed(self, ctxt, server):
        return self._guests.completed

    def presence(self, ctxt, server):
        present = server in self._guests.hypervisors.domains_of(self._host)
        return {"present": present, "state": "running" if present else None,
                "migrating": server in self._guests.hypervisors.running(), "post_copy": False}
