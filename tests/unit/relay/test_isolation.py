"""What the relays keep apart: destinations that are nobody's, and projects."""

import pathlib
import socket
import subprocess
import threading

from nova_batch_migrate.relay import source_stream
from tests.unit.relay import hosts, namespace, qemu
from tests.unit.relay.test_service import two_alike

GROUP = "batch:0:cmpb"


class _Stream:
    """What the source's log calls of a stream."""

    def __init__(self):
        self.over = threading.Event()
        self.reason = None

    def reset(self, reason):
        self.reason = reason
        self.over.set()

    def returned(self, data):
        self.reset(f"answered {data!r}")

    def return_ended(self):
        self.reset("answered nothing")


def _no_open_proxy():
    """The planned source asks for ports that are not those of the group's servers."""
    seen = {}
    with hosts.two() as relays, socket.create_server((hosts.ADDRESS, 49170)) as plain:
        hosts.open_group(relays)
        output = pathlib.Path(relays.directory, "out")
        stranger, _ = qemu.start(hosts.STRANGER, output, address=hosts.ADDRESS, port=49171)
        member, _ = qemu.start(hosts.SECOND, output, address=hosts.ADDRESS, port=49172)
        log = relays.source._groups[GROUP].log("project")
        for number, (what, port, server) in enumerate((
                ("no QEMU", 49170, hosts.FIRST), ("a stranger's", 49171, hosts.STRANGER),
                ("a stranger's, called a member's", 49171, hosts.FIRST),
                ("another member's", 49172, hosts.FIRST), ("ssh", 22, hosts.FIRST)), 1):
            stream = _Stream()
            log.open(number, server, source_stream.wire_metadata(port, server), stream)
            stream.over.wait(hosts.SECONDS)
            seen[what] = stream.reason
        plain.setblocking(False)
        try:
            plain.accept()
            seen["connected"] = True
        except BlockingIOError:
            seen["connected"] = output.exists()
        for each in (stranger, member):
            each.kill()
            each.wait(hosts.SECONDS)
    return seen


def _projects():
    """The same two guests, of one project and of two."""
    first, second = two_alike()
    seen = {}
    for what, scopes in (("one", ("a", "a")), ("two", ("a", "b"))):
        with hosts.two() as relays:
            hosts.open_group(relays, members=[
                {"server_id": server, "order": i, "scope": scope} for i, (server, scope) in
                enumerate(zip((hosts.FIRST, hosts.SECOND), scopes, strict=True))])
            whole = []
            for server, data, port in ((hosts.FIRST, first, 49152), (hosts.SECOND, second, 49153)):
                migration = hosts.Migration(relays, server, port)
                migration.send(data)
                migration.finish()
                whole.append(migration.arrived() == data)
            counted = relays.source.close_group(GROUP)["servers"][hosts.SECOND]
            seen[what] = [*whole, counted["cross_server_bytes"] // 4096]
        subprocess.run(["ip", "addr", "flush", "dev", "lo", "to", hosts.ADDRESS], check=True)
    return seen


class Isolation(namespace.NamespaceTestCase):
    def test_the_destination_connects_to_nothing_but_the_qemus_of_the_groups_servers(self):
        seen = namespace.run(_no_open_proxy)
        self.assertFalse(seen.pop("connected"))
        self.assertEqual(5, len(seen))
        for what, reason in seen.items():
            self.assertIn("listens at port", reason or "", what)

    def test_a_guest_finds_nothing_of_another_projects(self):
        seen = namespace.run(_projects)
        self.assertEqual([True, True], seen["one"][:2])
        self.assertGreater(seen["one"][2], 1100)
        self.assertEqual([True, True, 0], seen["two"])
