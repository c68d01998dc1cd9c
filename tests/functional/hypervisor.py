"""What libvirt and QEMU do in a live migration, played on Nova's fakelibvirt.

The base class installs it; a test scripts what happens to a server's migrations and reads
afterwards which streams ran, in which order. It decides nothing that Nova or the conductor decide.
"""

import dataclasses
import threading
import time
from urllib import parse

import fixtures
from lxml import etree
from nova.tests.fixtures import libvirt as fakelibvirt

DOMAIN = "nova.tests.fixtures.libvirt.Domain"
MEMORY_TOTAL_BYTES = 1 << 30
# Nova's monitor looks at a job twice a second, on a machine that has nothing better to do.
NOVA_LOOKS_WITHIN_SECONDS = 60.0
# libvirt's VIR_ERR_OPERATION_ABORTED, which fakelibvirt leaves out
OPERATION_ABORTED = 78


@dataclasses.dataclass(frozen=True)
class Stream:
    """One migration stream as the source's QEMU saw it begin."""

    server_id: str
    source: str
    destination: str


class Hypervisors(fixtures.Fixture):
    """Play the migrations of all hosts of one test.

    ``computes`` maps host names to Nova's compute services (it may grow later). Unless a test
    says otherwise a stream takes ``stream_seconds`` and arrives.
    """

    def __init__(self, computes: dict, stream_seconds: float = 0.3):
        self._computes = computes
        self.stream_seconds = stream_seconds
        self.streams: list[Stream] = []
        self.overlaps: list[int] = []
        self._running: dict[str, tuple[Stream, threading.Event]] = {}
        self._failures: dict[str, int] = {}
        self._leftovers: set[str] = set()
        #: Set when Nova has seen that a server's migration was cancelled.
        self._cancelled: dict[str, threading.Event] = {}
        self._gate = threading.Event()
        self._gate.set()
        self._lock = threading.Lock()

    def _setUp(self):
        for method in ("migrateToURI3", "abortJob", "jobStats"):
            played = getattr(self, f"_{method}")
            self.useFixture(fixtures.MonkeyPatch(
                f"{DOMAIN}.{method}",
                lambda domain, *args, _played=played, **kwargs: _played(domain, *args, **kwargs)))
        self.addCleanup(self._gate.set)

    # -- what a test says -------------------------------------------------------------------

    def hold(self) -> None:
        """Let no stream arrive from now on: those that run go on until :meth:`release`."""
        self._gate.clear()

    def release(self) -> None:
        self._gate.set()

    def fail(self, server_id: str, times: int = 1, leave_domain: bool = False) -> None:
        """Break the next ``times`` streams of a server; its domain may stay at the destination."""
        self._failures[server_id] = times
        if leave_domain:
            self._leftovers.add(server_id)

    # -- what a test reads ------------------------------------------------------------------

    def moved_order(self) -> list[str]:
        """Return the server ids in the order in which their first streams began."""
        return list(dict.fromkeys(stream.server_id for stream in self.streams))

    def stream_count(self, server_id: str) -> int:
        return sum(stream.server_id == server_id for stream in self.streams)

    def running(self) -> list[str]:
        """Return the servers whose streams are under way."""
        return list(self._running)

    def paused(self) -> list[str]:
        """Return the servers that are paused at their source while they migrate."""
        return [vm.UUIDString() for stream in self.running_streams()
                for vm in list(self.connection(stream.source)._vms.values())
                if vm.UUIDString() == stream.server_id
                and vm._state == fakelibvirt.VIR_DOMAIN_PAUSED]

    def running_streams(self) -> list[Stream]:
        return [stream for stream, _ in list(self._running.values())]

    def domains_of(self, host: str) -> list[str]:
        """Return the ids of the servers whose domains run on ``host``."""
        connection = self.connection(host)
        return [vm.UUIDString() for vm in list(connection._vms.values()) if vm.isActive()]

    def connection(self, host: str):
        """Return the fake libvirt connection of ``host``."""
        return self._computes[host].driver._host.get_connection()

    # -- libvirt's side ---------------------------------------------------------------------

    def _migrateToURI3(self, domain, uri, params=None, flags=0):
        stream = Stream(domain.UUIDString(), domain._connection.hostname,
                        parse.urlsplit(uri).hostname)
        abort = threading.Event()
        with self._lock:
            self.streams.append(stream)
            self._running[stream.server_id] = stream, abort
            self.overlaps.append(len(self._running))
        try:
            self._stream(domain, stream, params, abort)
        finally:
            with self._lock:
                del self._running[stream.server_id]

    def _stream(self, domain, stream, params, abort):
        domain._job_type = fakelibvirt.VIR_DOMAIN_JOB_UNBOUNDED
        began = time.monotonic()
        while time.monotonic() - began < self.stream_seconds or not self._gate.is_set():
            if abort.wait(0.05):
                seen = self._cancelled[stream.server_id] = threading.Event()
                domain._job_type = fakelibvirt.VIR_DOMAIN_JOB_CANCELLED
                seen.wait(NOVA_LOOKS_WITHIN_SECONDS)
                domain._job_type = fakelibvirt.VIR_DOMAIN_JOB_NONE
                raise _error("migration out: canceled by client", OPERATION_ABORTED)
        with self._lock:
            fails = self._failures.get(stream.server_id, 0)
            if fails:
                self._failures[stream.server_id] = fails - 1
        if fails and stream.server_id in self._leftovers:
            self.connection(stream.destination).createXML(params["destination_xml"], 0)
        if fails:
            domain._job_type = fakelibvirt.VIR_DOMAIN_JOB_NONE
            raise _error("the stream broke half-way", fakelibvirt.VIR_ERR_INTERNAL_ERROR)
        self._arrive(domain, stream, params["destination_xml"])

    def _arrive(self, domain, stream, xml):
        name = etree.fromstring(xml).findtext("name")
        arrived = self.connection(stream.destination).createXML(xml, 0)
        arrived._state = fakelibvirt.VIR_DOMAIN_RUNNING
        domain._job_type = fakelibvirt.VIR_DOMAIN_JOB_COMPLETED
        domain._state = fakelibvirt.VIR_DOMAIN_SHUTOFF
        domain._connection._vms.pop(name, None)

    def _abortJob(self, domain):
        running = self._running.get(domain.UUIDString())
        if running is None:
            raise _error("no job is active on the domain", fakelibvirt.VIR_ERR_OPERATION_INVALID)
        running[1].set()

    def _jobStats(self, domain, flags=0):
        job_type = domain._job_type
        if job_type == fakelibvirt.VIR_DOMAIN_JOB_CANCELLED:
            self._cancelled[domain.UUIDString()].set()
        # Nova's own response schema refuses counters of zero.
        return {"type": job_type, "memory_total": MEMORY_TOTAL_BYTES,
                "memory_processed": MEMORY_TOTAL_BYTES // 2,
                "memory_remaining": MEMORY_TOTAL_BYTES // 2,
                "disk_total": 1, "disk_processed": 1, "disk_remaining": 1}


def _error(message: str, code: int):
    return fakelibvirt.make_libvirtError(
        fakelibvirt.libvirtError, message, error_code=code,
        error_domain=fakelibvirt.VIR_FROM_QEMU)
