"""One migration as Nova and libvirt drive it: downtime steps by the clock, abort at the timeout.

Made and polled by Rig. Talks to the two QEMUs only.
"""
import dataclasses
import time

from nbmbench.rig.guest import Guest
from nbmbench.rig.qmp import QmpError
from nova_batch_migrate.planning import nova_schedule
from nova_batch_migrate.planning.telemetry import MigrationOptions

UNLIMITED = 1 << 40
FINAL = ("completed", "failed", "cancelled")


@dataclasses.dataclass(frozen=True)
class Nova:
    """Nova's options that steer a migration."""

    options: MigrationOptions

    def schedule(self, memory_bytes: int) -> nova_schedule.NovaSchedule:
        return nova_schedule.schedule(self.options, nova_schedule.data_gib(memory_bytes, ()))


@dataclasses.dataclass(frozen=True)
class QemuOptions:
    """How QEMU sends."""

    bytes_per_second: int = UNLIMITED  # QEMU's own cap
    downtime_ms: int = 300             # without Nova
    multifd_channels: int = 0
    multifd_compression: str = "none"  # or zstd
    zstd_level: int = 1
    return_path: bool = True           # as libvirt does

    def apply(self, guest: Guest) -> None:
        """Set capabilities and parameters at one end."""
        capabilities = {"return-path": self.return_path, "multifd": self.multifd_channels > 0}
        guest.qmp.execute("migrate-set-capabilities", capabilities=[
            {"capability": name, "state": state} for name, state in capabilities.items()])
        guest.qmp.execute("migrate-set-parameters", max_bandwidth=self.bytes_per_second,
                          downtime_limit=self.downtime_ms)
        if self.multifd_channels:
            guest.qmp.execute("migrate-set-parameters", multifd_channels=self.multifd_channels,
                              multifd_compression=self.multifd_compression,
                              multifd_zstd_level=self.zstd_level)


@dataclasses.dataclass(frozen=True)
class Move:
    """What Rig.migrate is asked for, for one guest."""

    guest: Guest
    nova: Nova | None = None           # None: one downtime limit, no timeout
    qemu: QemuOptions = QemuOptions()
    after_seconds: float = 0.0         # start so long after the first of its call
    limit_seconds: float = 120.0       # give up (cancel) then, beside Nova's own timeout


@dataclasses.dataclass
class Migration:
    """A migration under way or over; the figures are QEMU's own from query-migrate."""

    move: Move
    uri: str
    destination: Guest | None          # None: into a sink
    before: object = None              # the guest's last tick at the source
    #: then active; completed, aborted (by Nova's timeout), unfinished (limit_seconds) or failed
    status: str = "waiting"
    total_seconds: float = 0.0
    downtime_seconds: float = 0.0
    setup_seconds: float = 0.0
    transferred_bytes: int = 0
    rounds: int = 0                    # dirty-sync-count
    zero_pages: int = 0
    normal_pages: int = 0
    error: str = ""
    downtime_limit_ms: int = 0
    samples: list = dataclasses.field(default_factory=list)   # seconds, remaining, transferred
    _began: float = 0.0

    @property
    def over(self) -> bool:
        return self.status not in ("waiting", "active")

    @property
    def guest(self) -> Guest:
        """Return the guest where it runs now."""
        return self.destination if self.status == "completed" and self.destination \
            else self.move.guest

    def start(self) -> None:
        """Give QEMU the word."""
        guest = self.move.guest
        self.before = guest.last_tick()
        self.move.qemu.apply(guest)
        self._began = time.monotonic()
        self.status = "active"
        self._steer(0.0)
        guest.qmp.execute("migrate", uri=self.uri)

    def poll(self) -> None:
        """Ask how it is and step the downtime limit; to be called some 20 times a second."""
        seconds = time.monotonic() - self._began
        told = self.move.guest.qmp.execute("query-migrate")
        ram = told.get("ram", {})
        if ram:
            self.samples.append((round(seconds, 3), ram["remaining"], ram["transferred"]))
        if told.get("status") in FINAL:
            self._finish(told, ram)
        elif (ended := self._timed_out(seconds)):
            self._cancel()
            self.status = ended
            self._figures(told, ram)
            self.total_seconds = seconds
        else:
            self._steer(seconds)

    def _timed_out(self, seconds: float) -> str:
        nova = self.move.nova
        if nova:
            timeout = nova.schedule(self.move.guest.spec.memory_bytes).timeout_seconds
            if timeout and seconds > timeout:
                return "aborted"
        return "unfinished" if seconds > self.move.limit_seconds else ""

    def _cancel(self) -> None:
        qmp = self.move.guest.qmp
        qmp.execute("migrate_cancel")
        end = time.monotonic() + 10
        while qmp.execute("query-migrate").get("status") not in FINAL:
            if time.monotonic() > end:
                raise QmpError(f"{self.move.guest.spec.name} does not end its migration")
            time.sleep(0.05)

    def _steer(self, seconds: float) -> None:
        limit = self.move.qemu.downtime_ms
        if self.move.nova:
            schedule = self.move.nova.schedule(self.move.guest.spec.memory_bytes)
            limit = int(schedule.downtime_at(seconds) * 1000)
        if limit != self.downtime_limit_ms:
            self.move.guest.qmp.execute("migrate-set-parameters", downtime_limit=limit)
            self.downtime_limit_ms = limit

    def _finish(self, told: dict, ram: dict) -> None:
        self.status = "completed" if told["status"] == "completed" else "failed"
        self.error = told.get("error-desc", "")
        self._figures(told, ram)

    def _figures(self, told: dict, ram: dict) -> None:
        self.total_seconds = told.get("total-time", 0) / 1000
        self.downtime_seconds = told.get("downtime", 0) / 1000
        self.setup_seconds = told.get("setup-time", 0) / 1000
        if ram:
            self.transferred_bytes = ram["transferred"]
            self.rounds = ram["dirty-sync-count"]
            self.zero_pages, self.normal_pages = ram["duplicate"], ram["normal"]

    def facts(self) -> dict:
        """Return the figures as a case of a benchmark holds them."""
        return {"guest": self.move.guest.spec.name, "status": self.status, "error": self.error,
                "total_seconds": self.total_seconds, "downtime_seconds": self.downtime_seconds,
                "setup_seconds": self.setup_seconds, "rounds": self.rounds,
                "transferred_bytes": self.transferred_bytes, "zero_pages": self.zero_pages,
                "normal_pages": self.normal_pages}
