"""A guest whose disk is not shared moves, disk first: as projected before and as measured after.

As libvirt does it: the disk is mirrored over NBD until both ends are alike, then memory is sent
while what is written to the disk is mirrored on, and before the guest is stopped the mirror is made
whole. Plain QEMUs without Nova, a link capped by tc, Nova's downtime steps. The disk is written to
through QEMU's block layer at a known rate. Words for --only: numbers of cases.
"""
import dataclasses
import json
import os
import pathlib
import random
import time

from nbmlab.families import Load

from nbmbench import telemetry
from nbmbench.contract import Goal, Settings
from nbmbench.rig import Guest, GuestSpec, Migration, Move, Nova, Rig
from nbmbench.rig.link import ADDRESSES
from nbmbench.rig.qmp import QmpError
from nova_batch_migrate.planning import projection
from nova_batch_migrate.planning.telemetry import Disk, MigrationOptions, ServerTelemetry

NEEDS = "lab"
GOALS = {"time_error_max": Goal("<=", 0.08), "bytes_error_max": Goal("<=", 0.08)}
MIB = 1 << 20
MEMORY_MIB, DISK_MIB = 128, 256
WRITE_BYTES = 128 << 10
#: QEMU's name for what the guest's device writes through.
_BACKEND = "/machine/peripheral/device/virtio-backend"
#: Of QEMU alone: no libvirt prepares anything here.
SETUP_SECONDS, SETTLE_SECONDS, POLL_SECONDS = 0.005, 1.5, 0.03
LIMIT_SECONDS = 120.0


@dataclasses.dataclass(frozen=True)
class Case:
    """A disk with so much in it, written to, and a link."""

    allocated_mib: int
    write_mib_s: float
    link_mib_s: int
    pages_per_second: int
    held_out: bool = False


TUNED = (Case(60, 0.0, 10, 100), Case(60, 2.0, 10, 300), Case(120, 4.0, 20, 500))


def run(settings: Settings) -> list[dict]:
    """Run the cases; the last one is drawn from the commit."""
    draw = settings.held_out("disks")
    cases = [*TUNED, Case(draw.randrange(40, 140), draw.choice([0.5, 1.0, 3.0]),
                          draw.choice([10, 15, 20]), draw.randrange(0, 600), True)]
    if settings.quick:
        cases = cases[:1]
    wanted = [int(word) for word in settings.options] or range(len(cases))
    found = []
    for number in wanted:
        with Rig(settings.scratch / f"rig{number}") as rig:
            found.append(_run(rig, cases[number], settings.scratch / f"disk{number}"))
        settings.keep(found)
    return found


def _run(rig: Rig, case: Case, directory: pathlib.Path) -> dict:
    rig.link.cap(0)
    guest, = rig.boot_all([GuestSpec.writer(
        "g", Load(8, pages_per_second=case.pages_per_second), MEMORY_MIB)])
    directory.mkdir()
    disk = _Disk(guest, directory, case)
    time.sleep(SETTLE_SECONDS)
    rig.link.cap(case.link_mib_s * MIB)
    server, = telemetry.measure([guest])
    options = MigrationOptions()
    projected = _projected(rig, guest, dataclasses.replace(server, disks=(Disk(
        "vda", disk.allocated_bytes, case.write_mib_s * MIB, False),)), options)
    migration = rig.receive(Move(guest, Nova(options)))
    disk.offer(migration.destination)
    before, begun = rig.link.sent_bytes(guest.side), time.monotonic()
    disk.mirror(migration.destination)
    mirrored = time.monotonic()
    _send_memory(migration, disk)
    seconds = time.monotonic() - begun
    facts = migration.facts()
    same = disk.is_alike()
    for each in (guest, migration.destination):
        each.end()
    return {**dataclasses.asdict(case), "projected": projected, "disk_seconds": mirrored - begun,
            "seconds": seconds, "sent_bytes": rig.link.sent_bytes(guest.side) - before,
            "written_bytes": disk.written_bytes, "disks_alike": same, "memory": facts}


def _projected(rig: Rig, guest: Guest, server: ServerTelemetry, options: MigrationOptions) -> dict:
    link = projection.usable_link(telemetry.link(rig, guest.side), options)
    found, = projection.project([projection.member_load(server, server.memory_bytes, options)],
                                link, 1, 0.0, SETUP_SECONDS)
    return found.to_dict()


def _send_memory(migration: Migration, disk: "_Disk") -> None:
    """Let the memory follow, and make the mirror whole before the guest is stopped."""
    qmp = migration.move.guest.qmp
    qmp.execute("migrate-set-capabilities", capabilities=[
        {"capability": "pause-before-switchover", "state": True}])
    migration.start()
    paused = False
    while not migration.over:
        if not paused and qmp.execute("query-migrate").get("status") == "pre-switchover":
            disk.finish()
            qmp.execute("migrate-continue", state="pre-switchover")
            paused = True
        migration.poll()
        if not paused:
            disk.write_what_is_due()
        time.sleep(POLL_SECONDS)


class _Disk:
    """A disk of the guest that is written to through its device by QEMU itself."""

    def __init__(self, guest: Guest, directory: pathlib.Path, case: Case):
        self._qmp, self._case = guest.qmp, case
        self._here, self._there = directory / "here.raw", directory / "there.raw"
        self._here.write_bytes(random.Random(1).randbytes(case.allocated_mib * MIB))
        for path in (self._here, self._there):
            with path.open("ab") as opened:
                opened.truncate(DISK_MIB * MIB)
        self.allocated_bytes = self._here.stat().st_blocks * 512
        self.written_bytes = 0
        self._begun = 0.0
        self._plug(self._qmp, self._here)

    @staticmethod
    def _plug(qmp, path: pathlib.Path) -> None:
        qmp.execute("blockdev-add", driver="raw", node_name="disk",
                    file={"driver": "file", "filename": str(path)})
        qmp.execute("device_add", driver="virtio-blk-pci", id="device", drive="disk", addr="0x10")

    def offer(self, destination: Guest) -> None:
        """Let the other end take the disk over NBD."""
        qmp = destination.qmp
        self._plug(qmp, self._there)
        qmp.execute("nbd-server-start", addr=self._address(destination))
        qmp.execute("block-export-add", type="nbd", id="disk", node_name="disk", name="disk",
                    writable=True)

    @staticmethod
    def _address(destination: Guest) -> dict:
        return {"type": "inet", "data": {"host": ADDRESSES[destination.side], "port": "10809"}}

    def mirror(self, destination: Guest) -> None:
        """Copy the disk until both are alike; it is mirrored from then on."""
        self._qmp.execute("blockdev-add", driver="nbd", node_name="there", export="disk",
                          server={"type": "inet", **self._address(destination)["data"]})
        self._begun = time.monotonic()
        self._qmp.execute("blockdev-mirror", job_id="mirror", device="disk", target="there",
                          sync="full")
        self._until(lambda: self._qmp.execute("query-block-jobs")[0]["ready"],
                    self.write_what_is_due)

    def finish(self) -> None:
        """Make the mirror whole and end it, the guest being stopped."""
        self._qmp.execute("block-job-cancel", device="mirror")
        self._until(lambda: not self._qmp.execute("query-block-jobs"), lambda: None)

    def _until(self, reached, meanwhile) -> None:
        end = time.monotonic() + LIMIT_SECONDS
        while not reached():
            if time.monotonic() > end:
                raise TimeoutError(f"the mirror of {self._here} does not end")
            meanwhile()
            time.sleep(POLL_SECONDS)

    def write_what_is_due(self) -> None:
        """Write at random places of what is allocated: the case's rate since the mirror began."""
        due = (time.monotonic() - self._begun) * self._case.write_mib_s * MIB
        while self.written_bytes + WRITE_BYTES <= due:
            number = self.written_bytes // WRITE_BYTES
            place = random.Random(number).randrange(
                self._case.allocated_mib * MIB // WRITE_BYTES) * WRITE_BYTES
            complaint = self._qmp.execute("human-monitor-command", command_line=(
                f'qemu-io -d {_BACKEND} "write -P {1 + number % 250} {place} {WRITE_BYTES}"'))
            if complaint:
                raise QmpError(f"nothing was written: {complaint.strip()}")
            self.written_bytes += WRITE_BYTES

    def is_alike(self) -> bool:
        """Compare both ends byte by byte."""
        os.sync()
        with self._here.open("rb") as here, self._there.open("rb") as there:
            return all(left == there.read(MIB) for left in iter(lambda: here.read(MIB), b""))


def measured(cases) -> dict:
    """Return the largest error of time and of bytes over the cases."""
    if not cases:
        return {}
    return {"migrations": len(cases),
            "time_error_max": max(abs(case["projected"]["stream_seconds"] / case["seconds"] - 1)
                                  for case in cases),
            "bytes_error_max": max(abs(case["projected"]["raw_bytes"] / case["sent_bytes"] - 1)
                                   for case in cases)}


def missing(cases) -> list[str]:
    """Return which of the cases are left, and what went wrong."""
    done = [tuple(case[field.name] for field in dataclasses.fields(Case)) for case in cases]
    lacking = [json.dumps(dataclasses.asdict(case)) for case in TUNED
               if dataclasses.astuple(case) not in done]
    return lacking + [f"a disk that is alike: {case['allocated_mib']} MiB" for case in cases
                      if not case["disks_alike"] or case["memory"]["status"] != "completed"]
