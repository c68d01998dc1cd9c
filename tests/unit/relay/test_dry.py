"""A source that pauses in the middle of a page: QEMU writes without regard to pages."""

import random
import socket
import time

from oslotest import base

from tests.unit.relay import builders, hosts, namespace, test_multifd

PAGES, PAUSE_SECONDS = 256, 0.01
#: Ends within a page, in a record and in a packet of addresses.
PIECE_BYTES = 4 * builders.PAGE + 1200
WAIT_SECONDS = 60


def _pausing(connection: socket.socket, data: bytes) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(0, len(data), PIECE_BYTES):
        connection.sendall(data[at:at + PIECE_BYTES])
        time.sleep(PAUSE_SECONDS)


def _guests():
    generator = random.Random(1)
    contents = [generator.randbytes(builders.PAGE) for _ in range(PAGES)]
    head = builders.HEAD + builders.start(((b"pc.ram", PAGES * builders.PAGE),))
    pages = builders.part(*builders.pages(contents))
    rest = builders.part(last=True) + builders.DEVICE_STATE
    third = hosts.STRANGER
    with hosts.two() as relays:
        hosts.open_group(relays, members=[
            {"server_id": server, "order": i, "scope": "project"}
            for i, server in enumerate((hosts.FIRST, hosts.SECOND, third))])
        first = hosts.Migration(relays, hosts.FIRST, 49152)
        first.send(head + pages + rest)
        first.finish()

        second = hosts.Migration(relays, hosts.SECOND, 49153)
        _pausing(second.connection, head + pages)
        second.send(rest)
        second.finish()

        several = hosts.Migration(relays, third, 49154, "-multifd", "1")
        several.send(head)
        channel = test_multifd.channel(contents, 0, 1)
        with socket.create_connection((relays.address, several.port),
                                      timeout=hosts.SECONDS) as connection:
            _pausing(connection, channel)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass
        several.send(rest)
        several.finish()

        counted = relays.source.close_group("batch:0:cmpb")["servers"]
        return {
            "whole": [first.arrived() == second.arrived() == head + pages + rest,
                      sorted([several.arrived(), several.output.with_name(
                          f"{several.output.name}.1").read_bytes()])
                      == sorted([head + rest, channel])],
            "found": [counted[server]["cross_server_bytes"] // builders.PAGE
                      for server in (hosts.SECOND, third)]}


def _half_a_page():
    """The rest of a page does not come for a while."""
    data = builders.guest([builders.noise(i) for i in range(8)])
    half = data.index(builders.noise(5)) + 1000
    with hosts.two() as relays:
        hosts.open_group(relays)
        migration = hosts.Migration(relays, hosts.FIRST, 49152)
        migration.send(data[:half])
        end, arrived = time.monotonic() + WAIT_SECONDS, b""
        while len(arrived) < half and time.monotonic() < end:
            time.sleep(0.05)
            # written without a buffer in between, as it comes
            arrived = migration.arrived() if migration.output.exists() else b""
        migration.send(data[half:])
        migration.finish()
        return [arrived == data[:half], migration.arrived() == data]


class Dry(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        reason = namespace.why_not()
        if reason:
            self.skipTest(reason)

    def test_pages_between_two_pauses_are_found_all_the_same(self):
        seen = namespace.run(_guests)
        self.assertEqual([True, True], seen["whole"])
        # but for where the machine itself stood still for longer than a page is waited for
        for found in seen["found"]:
            self.assertGreater(found, 0.97 * PAGES)

    def test_a_beginning_that_stays_alone_crosses_in_the_end(self):
        self.assertEqual([True, True], namespace.run(_half_a_page))
