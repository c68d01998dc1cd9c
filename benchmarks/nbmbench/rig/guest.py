"""A QEMU guest of the rig: what it is made of, how it is, its memory, and its frozen states.

Made by Rig; uses the lab's QEMU, kernels, initramfs and guest program. Touches only its own files.
"""
import dataclasses
import os
import pathlib
import subprocess
import time
import uuid

from nbmlab import check, images, layout, shell
from nbmlab.check import GuestVerdict, Tick
from nbmlab.families import FAMILIES, Family, Load

from nbmbench.rig.qmp import Qmp, QmpError

BINARY = layout.QEMU / "usr/bin/qemu-system-x86_64"
MIB = 1 << 20
BOOT_SECONDS = 600


@dataclasses.dataclass(frozen=True)
class GuestSpec:
    """What a guest is made of; files None = the lab's of that kernel and root."""

    name: str                          # unique in a rig
    family: Family
    machine: str = "pc"
    vmlinuz: pathlib.Path | None = None
    initramfs: pathlib.Path | None = None
    binary: pathlib.Path = BINARY

    @classmethod
    def of(cls, name: str, family: str, **changes) -> "GuestSpec":
        """Return the spec of a family of the lab."""
        return cls(name, FAMILIES[family], **changes)

    @classmethod
    def writer(cls, name: str, load: Load, memory_mib: int = 256, kernel: str = "6.1",
               **changes) -> "GuestSpec":
        """Return the spec of a guest of the small userland with any load."""
        return cls(name, Family(name, kernel, "small", memory_mib, load), **changes)

    @property
    def uuid(self) -> str:
        """Return the id that QEMU is given, as a server's: the agent looks for it."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, self.name))

    @property
    def memory_bytes(self) -> int:
        return self.family.memory_mib * MIB

    @property
    def kernel_file(self) -> pathlib.Path:
        return self.vmlinuz or images.DIRECTORY / self.family.kernel / "vmlinuz"

    @property
    def initramfs_file(self) -> pathlib.Path:
        family = self.family
        return self.initramfs or (
            images.DIRECTORY / f"initramfs-{family.kernel}-{family.root}")

    @property
    def disk_file(self) -> pathlib.Path | None:
        """Return the root disk, None for a guest that lives in its initramfs."""
        if self.family.root == "small":
            return None
        return images.DIRECTORY / f"disk-{self.family.root}.raw"


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A guest's state in files: any number of guests start from it, one after the other."""

    spec: GuestSpec
    stream: pathlib.Path               # a plain migration stream of the stopped guest
    disk: pathlib.Path | None
    tick: Tick                         # the last one before it froze


class Guest:
    """A running QEMU; `side` is the end of the link that it runs at."""

    def __init__(self, spec: GuestSpec, side: str, directory: pathlib.Path,
                 disk: pathlib.Path | None, process: subprocess.Popen):
        self.spec, self.side, self.disk = spec, side, disk
        self.directory, self.process = directory, process
        self.pid = process.pid
        try:
            self.qmp = Qmp(directory / "qmp")
        except QmpError as error:
            raise QmpError(f"{spec.name}: {error}\n{(directory / 'errors').read_text()}") from None

    @property
    def console(self) -> bytes:
        """Return all that the guest told at this end."""
        try:
            return (self.directory / "console").read_bytes()
        except FileNotFoundError:
            return b""

    def ticks(self) -> list[Tick]:
        return check.parse(self.console)

    def last_tick(self) -> Tick | None:
        told = self.ticks()
        return told[-1] if told else None

    def wait_ticks(self, count: int = 2, seconds: float = BOOT_SECONDS) -> Tick:
        """Wait until it has told `count` ticks at this end and return the last."""
        shell.wait_for(f"{count} ticks of {self.spec.name}", seconds,
                       lambda: len(self.ticks()) >= count or self._must_live())
        return self.ticks()[-1]

    def wait_service(self, seconds: float = BOOT_SECONDS) -> None:
        """Wait until the redis of a guest with one answers; nothing to wait for in others."""
        if self.spec.family.root == "redis":
            shell.wait_for(f"redis of {self.spec.name}", seconds,
                           lambda: b"redis-server answers" in self.console or self._must_live())

    def _must_live(self) -> bool:
        if self.process.poll() is not None:
            raise QmpError(f"the QEMU of {self.spec.name} ended with {self.process.returncode}: "
                           f"{(self.directory / 'errors').read_text()[-2000:]}")
        return False

    def judge(self, before: Tick, moved: Tick | None,
              seconds: float = check.VERIFY_SECONDS) -> GuestVerdict:
        """Judge life and memory by a whole pass of verification that begins after `moved`.

        `before`: the last tick at the other end; `moved`: the last one told here when the move was
        over, None for none yet.
        """
        end = time.monotonic() + seconds
        while True:
            verdict = check.judge(before, moved, self.last_tick(), time.monotonic() > end)
            if verdict:
                return verdict
            time.sleep(0.5)

    def ram(self) -> tuple[int, int]:
        """Return begin and end of the guest's RAM in QEMU's memory (/proc/PID/mem)."""
        for line in pathlib.Path(f"/proc/{self.pid}/maps").read_text().splitlines():
            begin, end = (int(word, 16) for word in line.split()[0].split("-"))
            if end - begin == self.spec.memory_bytes and line.split()[1].startswith("rw"):
                return begin, end
        raise QmpError(f"no mapping of {self.spec.memory_bytes} bytes in QEMU {self.pid}")

    def running(self) -> bool:
        return self.qmp.execute("query-status")["status"] == "running"

    def save(self, path: pathlib.Path, bytes_per_second: int = 1 << 40,
             downtime_ms: int = 300, limit_seconds: float = 300) -> dict:
        """Write a migration stream into a file; the guest is stopped behind it (postmigrate)."""
        self.qmp.execute("migrate-set-parameters", max_bandwidth=bytes_per_second,
                         downtime_limit=downtime_ms)
        self.qmp.execute("migrate", uri=f"exec:cat >'{path}'")
        end = time.monotonic() + limit_seconds
        while (told := self.qmp.execute("query-migrate")).get("status") not in (
                "completed", "failed", "cancelled"):
            if time.monotonic() > end:       # it does not converge: let it
                self.qmp.execute("migrate-set-parameters", max_bandwidth=1 << 40)
            time.sleep(0.05)
        if told["status"] != "completed":
            raise QmpError(f"{self.spec.name}: the stream into a file {told['status']}: "
                           f"{told.get('error-desc')}")
        return told

    def freeze(self, stream: pathlib.Path) -> Frozen:
        """Stop the guest, write its state into files, end it."""
        self.qmp.execute("stop")
        tick = self.last_tick()
        if tick is None:
            raise QmpError(f"{self.spec.name} has told nothing yet: wait before it is frozen")
        self.save(stream)
        self.end()
        return Frozen(self.spec, stream, self.disk, tick)

    def end(self) -> None:
        """End the QEMU; no error if it is gone."""
        self.qmp.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def command(spec: GuestSpec, directory: pathlib.Path, disk: pathlib.Path | None,
            incoming: bool) -> list[str]:
    """Return QEMU's command line; that of an incoming guest is the same but for waiting."""
    share = layout.QEMU / "usr/share"
    words = [spec.binary, "-name", spec.name, "-uuid", spec.uuid,
             "-machine", f"{spec.machine},accel=tcg", "-m", spec.family.memory_mib,
             "-display", "none", "-nodefaults", "-no-user-config",
             "-L", share / "qemu", "-L", "/usr/share/qemu", "-L", "/usr/share/seabios",
             "-serial", f"file:{directory / 'console'}",
             "-qmp", f"unix:{directory / 'qmp'},server=on,wait=off",
             "-device", "virtio-rng-pci", "-kernel", spec.kernel_file,
             "-initrd", spec.initramfs_file, "-append", spec.family.command_line()]
    if disk:
        words += ["-drive", f"file={disk},if=virtio,format=qcow2"]
    if incoming:
        words += ["-incoming", "defer"]
    return [str(word) for word in words]


def overlay(path: pathlib.Path, backing: pathlib.Path) -> pathlib.Path:
    """Make an image that keeps what a guest writes and leaves the backing file as it is."""
    shell.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", backing,
              "-F", "raw" if backing.suffix == ".raw" else "qcow2", path)
    return path


def environment() -> dict[str, str]:
    """Return QEMU's environment: it finds the modules beside it."""
    return os.environ | {"QEMU_MODULE_DIR": str(layout.QEMU / "usr/lib/x86_64-linux-gnu/qemu")}
