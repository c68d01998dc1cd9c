"""What the agents find on their hosts, played at their two edges: libvirt and guest memory.

Used by the base class. Everything between these edges is the agents' own code. Guests holds what
measuring shows of the guests of one test; where a guest is, the played hypervisors know.
"""

import dataclasses
import os
import threading

import fixtures
from oslo_messaging import conffixture

from nova_batch_migrate import conf, exception
from nova_batch_migrate.agent import domain_xml, domains, manager
from nova_batch_migrate.planning import telemetry

LINK_MIB_S = 100.0
#: A bound for a test that forgets to release a measurement.
HOLD_SECONDS = 120


@dataclasses.dataclass(frozen=True)
class Guest:
    """What measuring a server shows; ``shared_pages`` are contents that all guests have."""

    id: str
    name: str
    memory_bytes: int
    dirty_pages_per_second: float = 0.0
    working_set_pages: float = 0.0
    shared_pages: int = 1000

    @property
    def pages(self) -> int:
        return self.memory_bytes // telemetry.PAGE_BYTES

    @property
    def distinct_pages(self) -> int:
        return self.pages // 2

    def scanned(self, windows_seconds: list[float]) -> dict:
        """Return what the privileged process says of one guest."""
        model = telemetry.DirtyModel(self.dirty_pages_per_second, self.working_set_pages)
        return {
            "id": self.id, "complete": True, "total_pages": self.pages, "present_pages": self.pages,
            "zero_pages": self.pages - self.distinct_pages,
            "distinct_pages": self.distinct_pages, "self_duplicate_pages": 0,
            "windows": [{"seconds": seconds, "changed_pages": model.pages(seconds)}
                        for seconds in windows_seconds],
            "tracked_share": 1.0, "compress_unchanged": 0.5, "compress_changed": 0.6}


class Guests(fixtures.Fixture):
    """The guests of one test by server id, in place of the agents' privileged process."""

    def __init__(self):
        #: What libvirt says at the destination of a migration that arrived.
        self.arrived_job = {"time_elapsed": 300, "setup_time": 10, "downtime": 50,
                            "memory_processed": 1 << 20, "memory_normal": 256,
                            "memory_constant": 0, "memory_iteration": 1}
        #: (server, MiB/s, whether its stream ran) in the order in which libvirt was told.
        self.speeds: list[tuple[str, int, bool]] = []
        #: How often a running migration's dirty log was read.
        self.iteration = 1
        self._by_id: dict[str, Guest] = {}
        self._spoiled: dict[str, dict] = {}
        self._measurable = threading.Event()
        self._measurable.set()

    def _setUp(self):
        for name, played in (("measure", self._measure), ("progress", lambda job: 50.0),
                             ("probe", os.getpid), ("resident", self._resident)):
            self.useFixture(fixtures.MonkeyPatch(f"nova_batch_migrate.agent.scan.{name}", played))
        # nobody has a history here, and a look shows nothing
        self.useFixture(fixtures.MonkeyPatch("nova_batch_migrate.agent.glances.glance",
                                             lambda *asked: []))
        self.useFixture(fixtures.MonkeyPatch("nova_batch_migrate.agent.recalling.LOOK_SECONDS",
                                             0.1))
        self.addCleanup(self.release_measures)

    def add(self, server_id: str, name: str, memory_bytes: int, **load) -> None:
        self._by_id[server_id] = Guest(server_id, name, memory_bytes, **load)

    def __getitem__(self, server_id: str) -> Guest:
        return self._by_id[server_id]

    def spoil(self, server_id: str, **figures) -> None:
        """Let the privileged process say something else of a guest."""
        self._spoiled[server_id] = figures

    def hold_measures(self) -> None:
        """Let no measurement come to its end until :meth:`release_measures`."""
        self._measurable.clear()

    def release_measures(self) -> None:
        self._measurable.set()

    def _resident(self, servers):
        return {server["id"]: self._by_id[server["id"]].distinct_pages for server in servers}

    def _measure(self, job, servers, windows_seconds, settings):
        self._measurable.wait(HOLD_SECONDS)
        found = [self._by_id[server["id"]] for server in servers]
        shared = min((guest.shared_pages for guest in found), default=0)
        classes = [telemetry.PageClass((guest.id,), guest.distinct_pages - shared)
                   for guest in found]
        if len(found) > 1:
            classes.append(telemetry.PageClass(tuple(sorted(g.id for g in found)), shared))
        return {"servers": [guest.scanned(windows_seconds) | self._spoiled.get(guest.id, {})
                            for guest in found],
                "page_classes": telemetry.PageClasses(True, 1.0, tuple(classes)).to_dict()}


class PlayedHypervisor:
    """domains.Hypervisor of one host over the played hypervisors."""

    def __init__(self, host: str, guests: Guests, hypervisors):
        self._host, self._guests, self._hypervisors = host, guests, hypervisors

    def versions(self):
        return "9.0.0", "10.0.2"

    def default_virt_type(self):
        return "kvm"

    def domains(self):
        return [self.domain(server_id) for server_id in self._hypervisors.domains_of(self._host)]

    def domain(self, server_id):
        presence = self.presence(server_id)
        if presence is None:
            raise exception.AgentRefused(reason=f"{server_id} is not a domain of {self._host}")
        guest = self._guests[server_id]
        definition = domain_xml.Definition(
            virt_type="kvm", name=guest.name, project_id="", memory_bytes=guest.memory_bytes,
            memory_blocks_bytes=(guest.memory_bytes,), disks=())
        return domains.Domain(server_id, f"instance-{guest.name}", 1, definition, presence,
                              "/nonexistent")

    def presence(self, server_id):
        if server_id not in self._hypervisors.domains_of(self._host):
            return None
        return domains.Presence("running", self._leaves(server_id), False)

    def _leaves(self, server_id):
        return any(stream.source == self._host for stream in self._hypervisors.running_streams()
                   if stream.server_id == server_id)

    def outgoing_job(self, server_id):
        if not self._leaves(server_id):
            return None
        half = self._guests[server_id].memory_bytes // 2
        return {"time_elapsed": 100, "memory_total": 2 * half, "memory_processed": half,
                "memory_remaining": half, "memory_bps": int(LINK_MIB_S) << 20,
                "memory_iteration": self._guests.iteration}

    def arrived_job(self, server_id):
        arrived = any(stream.server_id == server_id and stream.destination == self._host
                      for stream in self._hypervisors.streams)
        return self._guests.arrived_job if arrived else None

    def migrated_bytes(self):
        return {}

    def set_migration_speed(self, server_id, mib_per_second):
        self._guests.speeds.append((server_id, mib_per_second, self._leaves(server_id)))

    def start_dirty_rate(self, server_id, seconds):
        raise exception.AgentRefused(reason="page sampling is not played")


class Agent(fixtures.Fixture):
    """A running nova-batch-agent of one host, which a test may stop and start again."""

    def __init__(self, host: str, guests: Guests, hypervisors, nova_config_file: str):
        self._host, self._guests, self._hypervisors = host, guests, hypervisors
        self._nova_config_file = nova_config_file
        self._service = None

    def _setUp(self):
        # Each host has its own configuration, as it would have its own file.
        self._conf = conf.new()
        self._conf([], default_config_files=[])
        self.useFixture(conffixture.ConfFixture(self._conf, transport_url="fake:/"))
        self._conf.set_override("host", self._host)
        for name, value in (("nova_config_files", [self._nova_config_file]),
                            ("link_mib_s", LINK_MIB_S), ("migration_interface", "lo"),
                            ("page_sampling", False), ("history", False),
                            ("fingerprint_secret", "functional")):
            self._conf.set_override(name, value, "agent")
        self.start()
        self.addCleanup(self.stop)

    def start(self) -> None:
        played = PlayedHypervisor(self._host, self._guests, self._hypervisors)
        with fixtures.MonkeyPatch("nova_batch_migrate.agent.domains.Hypervisor",
                                  lambda *args: played):
            self._service = manager.AgentService(self._conf)
            self._service.start()

    def stop(self) -> None:
        if self._service is not None:
            self._service.stop()
            self._service = None
