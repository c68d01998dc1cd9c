"""Real QEMUs migrate through two relays: both versions, machines, kinds of streams and families.

And a disk with its guest, over NBD.
"""

import json
import os
import pathlib
import random
import tempfile
import time

import ddt

from nova_batch_migrate.agent import memory
from tests.unit.agent import qemus
from tests.unit.agent.qemus import MIB, boot_sector
from tests.unit.relay import hosts, namespace

RAM_MIB, FILLED = 64, 6000
#: A guest that writes faster than a busy machine carries is let go after so long.
PATIENCE_SECONDS = 20
#: QEMU's version, machine, address family, capabilities.
CASES = {
    "pc": ("10", "pc", hosts.ADDRESS),
    "q35 over IPv6": ("10", "q35", hosts.ADDRESS6),
    "multifd": ("10", "q35", hosts.ADDRESS, "multifd"),
    "xbzrle": ("10", "pc", hosts.ADDRESS, "xbzrle"),
    "QEMU 7.2": ("7.2", "q35", hosts.ADDRESS),
    "multifd of QEMU 7.2": ("7.2", "pc", hosts.ADDRESS, "multifd"),
}
BINARIES = {"10": qemus.BINARY, "7.2": "/usr/bin/qemu-system-x86_64"}


class _Guest:
    """A QEMU with a guest, and one that awaits it, with the same id.

    Its memory is put there and it never runs, but for one whose pages are to be sent again.
    """

    def __init__(self, version: str, machine: str, capabilities, content: str,
                 more_of=lambda end: []):
        self.ends = []
        runs = "xbzrle" in capabilities
        program = boot_sector(FILLED, written=2000, per_tick=200) if runs else None
        held = [] if runs else ["-device", f"loader,file={content},addr={16 * MIB},force-raw=on"]
        for more in ([*held], ["-incoming", "defer"]):
            end = qemus.Qemu(["-machine", machine, "-m", f"{RAM_MIB}M", *more,
                              *more_of(len(self.ends))], program)
            if self.ends:
                end.id = self.ends[0].id
            end.setUp()
            end.execute("migrate-set-capabilities", capabilities=[
                {"capability": name, "state": True} for name in ("return-path", *capabilities)])
            self.ends.append(end)
        self.source, self.destination = self.ends
        self.id = self.source.id
        if runs:
            self.source.run(memory.GuestMemory(self.source.pid, [RAM_MIB * MIB]), FILLED)

    def migrate(self, address: str, port: int, before_switchover=None) -> str:
        """Let it migrate; return how that ended.

        ``before_switchover``: what is done while it pauses there.
        """
        where = f"tcp:[{address}]:{port}" if ":" in address else f"tcp:{address}:{port}"
        self.destination.execute("migrate-incoming", uri=where)
        self.source.execute("migrate", uri=where)

        def status() -> str:
            return self.source.execute("query-migrate")["status"]

        def is_over() -> bool:
            nonlocal is_helped
            if time.monotonic() > begun + PATIENCE_SECONDS and not is_helped:
                is_helped = True
                self.source.execute("migrate-set-parameters", **{"downtime-limit": 60_000})
            if before_switchover and status() == "pre-switchover":
                before_switchover()
                self.source.execute("migrate-continue", state="pre-switchover")
            return status() in ("completed", "failed", "cancelled")
        begun, is_helped = time.monotonic(), False
        qemus.wait_for(is_over, hosts.SECONDS)
        qemus.wait_for(lambda: self.destination.execute("query-status")["status"] != "inmigrate")
        return status()

    def same(self) -> bool:
        """Tell whether both ends, which stand still, hold the same memory."""
        with tempfile.TemporaryDirectory() as name:
            files = [os.path.join(name, str(i)) for i in range(2)]
            for end, file in zip(self.ends, files, strict=True):
                end.execute("pmemsave", val=0, size=RAM_MIB * MIB, filename=file)
            here, there = (pathlib.Path(file).read_bytes() for file in files)
            return here == there and len(here.strip(b"\0")) > FILLED

    def end(self) -> None:
        for each in self.ends:
            each.cleanUp()


def _migrated(version: str, machine: str, address: str, *capabilities: str) -> dict:
    qemus.BINARY = BINARIES[version]
    if version == "7.2":
        # its firmware is where it looks for it
        qemus.BASE[:] = qemus.BASE[len(qemus.FIRMWARE):]
    with hosts.two(address) as relays:
        content = relays.directory / "content"
        content.write_bytes(random.Random(1).randbytes(FILLED * 4096))
        guests = [_Guest(version, machine, capabilities, str(content)) for _ in range(2)]
        hosts.open_group(relays, members=[{"server_id": guest.id, "order": i, "scope": "project"}
                                          for i, guest in enumerate(guests)])
        ended = [guest.migrate(address, 49152 + i) for i, guest in enumerate(guests)]
        same = [guest.same() for guest in guests]
        hosts.all_ended(relays)
        counted = relays.source.close_group("batch:0:cmpb")["servers"]
        spliced = relays.source.statistics()["spliced_bytes"]
        for guest in guests:
            guest.end()
        return {"ended": ended, "same": same, "spliced": spliced,
                "counted": [counted[guest.id] for guest in guests]}


class _Disk:
    """A disk of a guest at both ends, mirrored over NBD as libvirt has it done; it changes, too."""

    NODE, DEVICE, TARGET, JOB = "disk", "vda", "target", "mirror"
    SIZE_BYTES = 12 * MIB
    #: Beginnings of what lies in it, between holes, and of what is written while it is mirrored.
    FILLED, WRITTEN, PART_BYTES = (0, 6 * MIB), (3 * MIB, 7 * MIB), 3 * MIB // 2

    def __init__(self, directory: pathlib.Path):
        self.files = [directory / name for name in ("disk.source", "disk.destination")]
        for file in self.files:
            with open(file, "wb") as image:
                image.truncate(self.SIZE_BYTES)
                if file == self.files[0]:
                    for at in self.FILLED:
                        image.seek(at)
                        image.write(random.Random(at).randbytes(self.PART_BYTES))

    def arguments(self, end: int) -> list[str]:
        """Return the words by which the QEMU of an end has it."""
        node = {"driver": "raw", "node-name": self.NODE,
                "file": {"driver": "file", "filename": str(self.files[end])}}
        return ["-blockdev", json.dumps(node).replace("{", "{{").replace("}", "}}"),
                "-device", f"virtio-blk-pci,id={self.DEVICE},drive={self.NODE}"]

    def mirror(self, source: qemus.Qemu, destination: qemus.Qemu, address: str, port: int) -> None:
        """Return when all of it is there, and what was written meanwhile."""
        server = {"host": address, "port": str(port)}
        destination.execute("nbd-server-start", addr={"type": "inet", "data": server})
        destination.execute("block-export-add", id="export", type="nbd", writable=True,
                            **{"node-name": self.NODE, "name": self.NODE})
        source.execute("blockdev-add", driver="nbd", export=self.NODE,
                       server={"type": "inet", **server}, **{"node-name": self.TARGET})
        source.execute("blockdev-mirror", device=self.NODE, target=self.TARGET, sync="full",
                       **{"job-id": self.JOB})
        for at in self.WRITTEN:
            told = source.execute("human-monitor-command", **{
                "command-line": f"qemu-io -d /machine/peripheral/{self.DEVICE}/virtio-backend "
                f'"write -P 90 {at} {self.PART_BYTES}"'})
            if told:
                raise RuntimeError(told)
        qemus.wait_for(lambda: all(each["ready"] for each in source.execute("query-block-jobs")))

    def leave(self, source: qemus.Qemu) -> None:
        """End the mirror where both are the same, and its connection."""
        source.execute("block-job-cancel", device=self.JOB)
        qemus.wait_for(lambda: not source.execute("query-block-jobs"))
        source.execute("blockdev-del", **{"node-name": self.TARGET})


def _with_disk():
    """As libvirt migrates storage: mirrored from before the memory until the guest stands still."""
    with hosts.two() as relays:
        disk = _Disk(relays.directory)
        content = relays.directory / "content"
        content.write_bytes(random.Random(1).randbytes(FILLED * 4096))
        guest = _Guest("10", "q35", ("pause-before-switchover",), str(content), disk.arguments)
        hosts.open_group(relays, members=[{"server_id": guest.id, "order": 0, "scope": "project"}])
        disk.mirror(guest.source, guest.destination, relays.address, 49153)
        ended = guest.migrate(relays.address, 49152, lambda: disk.leave(guest.source))
        guest.destination.execute("nbd-server-stop")
        hosts.all_ended(relays)
        same, counted = guest.same(), relays.source.close_group("batch:0:cmpb")
        guest.end()
        here, there = (file.read_bytes() for file in disk.files)
        return {"ended": ended, "memory": same, "disk": here == there,
                "written": [there[at:at + disk.PART_BYTES] == b"\x5a" * disk.PART_BYTES
                            for at in disk.WRITTEN],
                "counted": counted["servers"][guest.id],
                "spliced": relays.source.statistics()["spliced_bytes"]}


@ddt.ddt
class RelayOfQemu(namespace.NamespaceTestCase):
    @ddt.data(*CASES)
    def test_a_guest_arrives_as_it_was_and_finds_its_like(self, name):
        case = CASES[name]
        if not os.path.exists(BINARIES[case[0]] or ""):
            self.skipTest(f"no QEMU {case[0]} here")
        seen = namespace.run(_migrated, *case)
        self.assertEqual((["completed"] * 2, [True, True], 0),
                         (seen["ended"], seen["same"], seen["spliced"]))
        for counted in seen["counted"]:
            connections = 3 if "multifd" in case else 1
            self.assertEqual(["done"] * connections, counted["outcomes"])
        second = seen["counted"][1]
        # what both hold: the parser has found it in whichever connection it came
        share = 0.6 if "xbzrle" in case else 0.99
        self.assertGreater(second["cross_server_bytes"], share * FILLED * 4096)
        self.assertLess(second["verbatim_bytes"], 0.05 * second["raw_bytes"])

    def test_a_disk_goes_with_its_guest(self):
        if not os.path.exists(BINARIES["10"] or ""):
            self.skipTest("no QEMU 10 here")
        seen = namespace.run(_with_disk)
        self.assertEqual(("completed", True, True, [True, True], 0), tuple(
            seen[what] for what in ("ended", "memory", "disk", "written", "spliced")))
        counted = seen["counted"]
        self.assertEqual(["done"] * 2, counted["outcomes"])
        # what lay on the disk and what was written to it, where they overlap once
        self.assertGreater(counted["verbatim_bytes"], 3 * _Disk.PART_BYTES)
