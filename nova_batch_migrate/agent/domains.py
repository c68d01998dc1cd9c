"""libvirt of this host, as far as a batch migration needs it, addressed by server id.

Used by every other module of the agent. The domain's UUID is Nova's server id. Never starts, stops
or changes a domain; tuning a running migration is all it writes.
"""

import contextlib
import dataclasses
import json
import os
import threading

from oslo_log import log
from oslo_utils import importutils

from nova_batch_migrate import exception
from nova_batch_migrate.agent import domain_xml

# A package of the distribution that only compute hosts have.
libvirt = importutils.try_import("libvirt")
libvirt_qemu = importutils.try_import("libvirt_qemu")

LOG = log.getLogger(__name__)

#: libvirt's own default: the most it takes.
NO_CAP_MIB_PER_SECOND = ((1 << 63) - 1) >> 20

_STATES = ("nostate", "running", "blocked", "paused", "shutdown", "shutoff", "crashed",
           "pmsuspended")
_DIRTY_RATE_MODES = {
    "page-sampling": "VIR_DOMAIN_DIRTYRATE_MODE_PAGE_SAMPLING",
    "dirty-bitmap": "VIR_DOMAIN_DIRTYRATE_MODE_DIRTY_BITMAP",
    "dirty-ring": "VIR_DOMAIN_DIRTYRATE_MODE_DIRTY_RING",
}


@dataclasses.dataclass(frozen=True)
class Presence:
    """Where a domain stands."""

    state: str
    migrating: bool
    post_copy: bool


@dataclasses.dataclass(frozen=True)
class Domain:
    """A server on this host."""

    id: str
    #: libvirt's name, instance-xxxxxxxx.
    domain: str
    vcpus: int
    definition: domain_xml.Definition
    presence: Presence
    pid_file: str

    @property
    def has_memory(self) -> bool:
        """Whether a QEMU process holds its memory."""
        return self.presence.state in ("running", "blocked", "paused", "pmsuspended")


@dataclasses.dataclass(frozen=True)
class DiskUse:
    """Counters of one disk."""

    allocated_bytes: int
    written_bytes: int


class _NoDomain(Exception):
    """libvirt knows no domain of this UUID; never leaves this module."""


class Hypervisor:
    """A connection to libvirt that is opened when it is needed, and anew when it has died.

    Methods may be called from several threads. A server that is no domain here is AgentRefused; a
    libvirt that does not answer AgentUnavailable; any other refusal of libvirt AgentRefused.
    """

    def __init__(self, host: str, uri: str, pid_path: str):
        self._host = host
        self._uri = uri
        self._pid_path = pid_path
        self._lock = threading.Lock()
        self._open_connection = None

    def versions(self) -> tuple[str, str]:
        """Return the versions of libvirt and of QEMU."""
        return self._call(lambda connection: (_version(connection.getLibVersion()),
                                              _version(connection.getVersion())))

    def default_virt_type(self) -> str:
        """Return what libvirt would run a new domain with here: kvm or qemu."""
        text = self._call(lambda connection: connection.getDomainCapabilities())
        return domain_xml.ElementTree.fromstring(text).findtext("domain", "")

    def domains(self) -> list[Domain]:
        """Return every domain of this host; one that goes away meanwhile is left out."""
        found = []
        for handle in self._call(lambda connection: connection.listAllDomains()):
            with contextlib.suppress(_NoDomain):
                uuid = handle.UUIDString()
                found.append(self._call(lambda connection, uuid=uuid: self._describe(
                    connection.lookupByUUIDString(uuid))))
        return found

    def domain(self, server_id: str) -> Domain:
        """Return one domain."""
        return self._on_domain(server_id, self._describe)

    def _describe(self, handle) -> Domain:
        name = handle.name()
        return Domain(id=handle.UUIDString(), domain=name, vcpus=handle.info()[3],
                      definition=domain_xml.parse(handle.XMLDesc()), presence=_presence(handle),
                      pid_file=os.path.join(self._pid_path, f"{name}.pid"))

    def presence(self, server_id: str) -> Presence | None:
        """Return where a domain stands; None when it is not on this host."""
        try:
            return self._call(
                lambda connection: _presence(connection.lookupByUUIDString(server_id)))
        except _NoDomain:
            return None

    def disk_use(self, server_id: str, device: str) -> DiskUse:
        """Return the counters of one disk."""
        return self._on_domain(server_id, lambda handle: DiskUse(
            allocated_bytes=handle.blockInfo(device)[1],
            written_bytes=handle.blockStats(device)[3]))

    def outgoing_job(self, server_id: str) -> dict | None:
        """Return libvirt's counters of the domain's migration away from here; None without one."""
        return self._job(server_id, completed=False)

    def migrated_bytes(self) -> dict[str, int]:
        """Return the bytes sent so far by each migration that leaves this host now."""
        jobs = {domain.id: self.outgoing_job(domain.id)
                for domain in self.domains() if domain.presence.migrating}
        return {server: job["memory_processed"] + job.get("disk_processed", 0)
                for server, job in jobs.items() if job}

    def arrived_job(self, server_id: str) -> dict | None:
        """Return libvirt's counters of the migration that brought the domain here, else None.

        libvirt at the destination has them from the source, and keeps them until the next job.
        """
        return self._job(server_id, completed=True)

    def _job(self, server_id: str, completed: bool) -> dict | None:
        flags, kind, operation = 0, libvirt.VIR_DOMAIN_JOB_UNBOUNDED, \
            libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
        if completed:
            flags = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | \
                libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
            kind = libvirt.VIR_DOMAIN_JOB_COMPLETED
            operation = libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN
        stats = self._on_domain(server_id, lambda handle: _job_stats(handle, flags))
        if not stats or stats["type"] != kind or stats.get("operation") != operation:
            return None
        return stats

    def set_migration_speed(self, server_id: str, mib_per_second: int) -> None:
        """Cap the running migration, or the next one."""
        self._on_domain(server_id, lambda handle: handle.migrateSetMaxSpeed(mib_per_second))

    def set_migration_downtime(self, server_id: str, milliseconds: int) -> None:
        """Set the downtime at which the running migration may switch over."""
        self._on_domain(server_id, lambda handle: handle.migrateSetMaxDowntime(milliseconds))

    def start_dirty_rate(self, server_id: str, seconds: int, mode: str = "page-sampling",
                         samples_per_gib: int = 0) -> None:
        """Let QEMU measure its dirty rate for ``seconds``.

        Any other mode than page-sampling kills guests of some QEMUs (design 5): dirty_rate.py asks
        for one by an operator's word only. ``samples_per_gib`` other than 0 goes to QEMU through
        its monitor, which libvirt notes as a taint of the domain.
        """
        if mode == "page-sampling" and samples_per_gib:
            command = {"execute": "calc-dirty-rate", "arguments": {
                "calc-time": seconds, "sample-pages": samples_per_gib, "mode": mode}}
            self._on_domain(server_id, lambda handle: libvirt_qemu.qemuMonitorCommand(
                handle, json.dumps(command), libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT))
            return
        flag = getattr(libvirt, _DIRTY_RATE_MODES[mode])
        self._on_domain(server_id, lambda handle: handle.startDirtyRateCalc(seconds, flag))

    def dirty_rate_mib_s(self, server_id: str) -> int | None:
        """Return the sampled dirty rate; None while it is still measured."""

        stats = self._on_domain(server_id, lambda handle: handle.connect().domainListGetStats(
            [handle], libvirt.VIR_DOMAIN_STATS_DIRTYRATE)[0][1])
        if stats.get("dirtyrate.calc_status") != libvirt.VIR_DOMAIN_DIRTYRATE_MEASURED:
            return None
        return stats["dirtyrate.megabytes_per_second"]

    def _on_domain(self, server_id: str, action):
        try:
            return self._call(lambda connection: action(connection.lookupByUUIDString(server_id)))
        except _NoDomain as error:
            raise exception.AgentRefused(
                reason=f"Server {server_id} is not a domain of host {self._host}.") from error

    def _call(self, action):
        """Run an action on the connection; once more on a new one when it has died."""
        for is_last in (False, True):
            connection = self._connection()
            try:
                return action(connection)
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    raise _NoDomain() from error
                if is_last or connection.isAlive():
                    raise exception.AgentRefused(
                        reason=f"libvirt of {self._host} refused: {error}") from error
                LOG.warning("the connection to libvirt died (%s); opening it again", error)

    def _connection(self):
        if libvirt is None:
            raise exception.AgentUnavailable(
                f"Python on host {self._host} has no libvirt module: install libvirt-python.")
        with self._lock:
            if self._open_connection is None or not self._open_connection.isAlive():
                # Otherwise libvirt prints every error to stderr, also those we handle.
                libvirt.registerErrorHandler(lambda *_: None, None)
                try:
                    self._open_connection = libvirt.open(self._uri)
                except libvirt.libvirtError as error:
                    raise exception.AgentUnavailable(
                        f"libvirt of host {self._host} does not answer at {self._uri}: {error}. "
                        "Start it, or set [agent] libvirt_uri.") from error
            return self._open_connection


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _presence(handle) -> Presence:
    state, reason = handle.state()
    post_copy = (state, reason) in (
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY),
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED))
    handed_over = (state, reason) == (libvirt.VIR_DOMAIN_PAUSED,
                                      libvirt.VIR_DOMAIN_PAUSED_MIGRATION)
    stats = _job_stats(handle, 0)
    # A domain on its way in: libvirt has statistics of that at the source only.
    migrating = stats is None or stats.get("operation") in (
        libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN,
        libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT)
    return Presence(_STATES[state] if state < len(_STATES) else "nostate",
                    migrating or handed_over or post_copy, post_copy)


def _job_stats(handle, flags: int) -> dict | None:
    """Return the job's counters: empty where there can be none, None while a domain comes in."""
    try:
        return handle.jobStats(flags)
    except libvirt.libvirtError as error:
        # a domain that is off, a driver that knows no jobs
        if error.get_error_code() in (libvirt.VIR_ERR_OPERATION_INVALID,
                                      libvirt.VIR_ERR_NO_SUPPORT):
            return {}
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
            return None
        raise
