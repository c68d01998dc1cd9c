"""Real QEMUs migrate through two relays: both versions, machines, kinds of streams and families."""

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

    def __init__(self, version: str, machine: str, capabilities, content: str):
        self.ends = []
        runs = "xbzrle" in capabilities
        program = boot_sector(FILLED, written=2000, per_tick=200) if runs else None
        held = [] if runs else ["-device", f"loader,file={content},addr={16 * MIB},force-raw=on"]
        for more in ([*held], ["-incoming", "defer"]):
            end = qemus.Qemu(["-machine", machine, "-m", f"{RAM_MIB}M", *more], program)
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

    def migrate(self, address: str, port: int) -> str:
        """Let it migrate; return how that ended."""
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
