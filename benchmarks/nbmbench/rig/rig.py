"""The rig itself: boots, freezes, restores and migrates guests between the two ends of a link.

Called by benchmarks as a context; on its way out, also by SIGTERM, every process that it started is
ended by its pid and both namespaces are removed.
"""
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from nbmbench.rig import guest as guests
from nbmbench.rig.guest import Frozen, Guest, GuestSpec
from nbmbench.rig.link import ADDRESSES, DESTINATION, SOURCE, Link
from nbmbench.rig.migration import Migration, Move, QemuOptions
from nbmbench.rig.qmp import QmpError
from nbmbench.rig.sink import Sink

FIRST_PORT, PORTS = 49152, 64          # libvirt's range
POLL_SECONDS = 0.05


class Rig:
    """Guests on two ends of one link. Start guests from the main thread: they die with it."""

    def __init__(self, scratch: pathlib.Path):
        self.link = Link()
        self._scratch = scratch
        self._processes: list[subprocess.Popen] = []
        self._sinks: list[Sink] = []
        self._number = 0

    def __enter__(self) -> "Rig":
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self._scratch.mkdir(parents=True, exist_ok=True)
        try:
            self.link.build()
        except BaseException:
            self.link.remove()
            raise
        return self

    def __exit__(self, *exc_info) -> None:
        for sink in self._sinks:
            sink.close()
        for process in self._processes:
            if process.poll() is None:
                process.kill()
        for process in self._processes:
            process.wait()
        self.link.remove()

    def run(self, side: str, *command: object, **options) -> subprocess.Popen:
        """Start a process at one end of the link; it ends with the rig at the latest."""
        process = subprocess.Popen([*self.link.inside(side), *map(str, command)], **options)
        self._processes.append(process)
        return process

    def boot(self, spec: GuestSpec, side: str = SOURCE) -> Guest:
        """Start a guest from its kernel; it is up in 5 s and more: wait_ticks."""
        disk = spec.disk_file and guests.overlay(self._path(f"{spec.name}.qcow2"), spec.disk_file)
        return self._start(spec, side, disk, incoming=False)

    def boot_all(self, specs: Sequence[GuestSpec], ticks: int = 2) -> list[Guest]:
        """Boot guests side by side and wait until each has told `ticks` and its service answers."""
        booted = [self.boot(spec) for spec in specs]
        for guest in booted:
            guest.wait_ticks(ticks)
            guest.wait_service()
        return booted

    def restore(self, frozen: Frozen, side: str = SOURCE, run: bool = True) -> Guest:
        """Start a guest from a frozen state; it stands still there if not `run`."""
        disk = frozen.disk and guests.overlay(self._path(f"{frozen.spec.name}.qcow2"), frozen.disk)
        guest = self._start(frozen.spec, side, disk, incoming=True)
        guest.qmp.execute("migrate-incoming", uri=f"exec:cat '{frozen.stream}'")
        end = time.monotonic() + 60
        while guest.qmp.execute("query-status")["status"] == "inmigrate":
            if time.monotonic() > end:
                raise QmpError(f"{frozen.spec.name} does not come back from {frozen.stream}")
            time.sleep(0.05)
        if run:
            guest.qmp.execute("cont")
        return guest

    def migrate(self, *moves: Move) -> list[Migration]:
        """Migrate guests to the other end, all within one loop, and return when all are over.

        The QEMU where a guest no longer is has ended then; Migration.guest is where it runs.
        """
        migrations = [self.receive(move) for move in moves]
        self._poll(migrations)
        for migration in migrations:
            gone = migration.move.guest if migration.status == "completed" \
                else migration.destination
            gone.end()
        return migrations

    def receive(self, move: Move) -> Migration:
        """Start the QEMU that waits for a guest at the other end; the migration is to be begun."""
        side = {SOURCE: DESTINATION, DESTINATION: SOURCE}[move.guest.side]
        waiting = self._start(move.guest.spec, side, move.guest.disk, incoming=True)
        move.qemu.apply(waiting)
        uri = f"tcp:{ADDRESSES[side]}:{self._port()}"
        waiting.qmp.execute("migrate-incoming", uri=uri)
        return Migration(move, uri, waiting)

    def sink(self, consume: Callable[[int, memoryview], int], bytes_per_second: float = 0,
             dry: Callable[[int], int] | None = None) -> Sink:
        """Return a sink at the destination's end: see Sink."""
        listening = self.link.socket(DESTINATION)
        # little waits unseen by QEMU
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 << 10)
        listening.bind((ADDRESSES[DESTINATION], self._port()))
        listening.listen(64)
        sink = Sink(listening, consume, bytes_per_second, dry)
        self._sinks.append(sink)
        return sink

    def migrate_into(self, sink: Sink, *moves: Move) -> list[Migration]:
        """Migrate guests into a sink; they stand still at the source afterwards, ended by us."""
        uri = f"tcp:{ADDRESSES[DESTINATION]}:{sink.port}"
        migrations = [Migration(move, uri, None) for move in moves]
        self._poll(migrations)
        sink.drained()
        for migration in migrations:
            migration.move.guest.end()
        return migrations

    def _poll(self, migrations: list[Migration]) -> None:
        began = time.monotonic()
        while not all(migration.over for migration in migrations):
            for migration in migrations:
                if migration.status == "active":
                    migration.poll()
                elif migration.status == "waiting" and \
                        time.monotonic() - began >= migration.move.after_seconds:
                    migration.start()
            time.sleep(POLL_SECONDS)

    def _start(self, spec: GuestSpec, side: str, disk: pathlib.Path | None,
               incoming: bool) -> Guest:
        directory = self._path(spec.name)
        directory.mkdir()
        with (directory / "errors").open("wb") as errors:
            process = self.run(side, *guests.command(spec, directory, disk, incoming),
                               stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                               env=guests.environment())
        return Guest(spec, side, directory, disk, process)

    def _path(self, name: str) -> pathlib.Path:
        self._number += 1
        return self._scratch / f"{self._number}-{name}"

    def _port(self) -> int:
        self._number += 1
        return FIRST_PORT + self._number % PORTS


#: For a sink: no return path, since nobody answers.
ONE_WAY = QemuOptions(return_path=False)
