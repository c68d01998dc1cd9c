import base64
import errno
import pathlib
import random
import secrets
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from unittest import mock

import ddt
import numpy as np
import xxhash
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.relay import groups, service
from tests.unit.relay import hosts, namespace, qemu
from tests.unit.relay.hosts import certificates

PAGE = 4096
#: Two that move together, as on a slow link: held well before the rest fits into the sockets.
_BOTH = {"synchronized": [[hosts.FIRST, hosts.SECOND]], "link_bytes_per_second": 1e8}


def stream(pages: list[bytes]) -> bytes:
    """Return a migration stream of one RAM block with these pages, None for a zero page."""
    name = b"pc.ram"
    out = bytearray(b"QEVM" + struct.pack(">I", 3))
    size = len(pages) * PAGE
    out += struct.pack(">BIB3sII", 1, 2, 3, b"ram", 0, 4)
    out += struct.pack(">Q", size | 4) + bytes([len(name)]) + name + struct.pack(">Q", size)
    out += struct.pack(">Q", 0x10) + struct.pack(">BI", 0x7E, 2)
    out += struct.pack(">BI", 2, 2)
    for index, page in enumerate(pages):
        block = b"" if index else bytes([len(name)]) + name
        again = 0x20 if index else 0
        if page is None:
            out += struct.pack(">Q", index * PAGE | 2 | again) + block + b"\0"
        else:
            out += struct.pack(">Q", index * PAGE | 8 | again) + block + page
    out += struct.pack(">Q", 0x10) + struct.pack(">BI", 0x7E, 2)
    out += struct.pack(">BI", 3, 2) + struct.pack(">Q", 0x10) + struct.pack(">BI", 0x7E, 2)
    return bytes(out + b"\x04device state, of which the relay knows nothing" * 100 + b"\0")


def two_alike(seed: int = 1, pages: int = 1500) -> tuple[bytes, bytes]:
    """Return the streams of two guests that have most of their memory in common."""
    generator = random.Random(seed)
    common = [None if i % 5 == 0 else generator.randbytes(PAGE) for i in range(pages)]
    other = list(common)
    other[:50] = [generator.randbytes(PAGE) for _ in range(50)]
    return stream(common), stream(other)


def _carries():
    first, second = two_alike()
    with hosts.two() as relays:
        hosts.open_group(relays)
        one = hosts.Migration(relays, hosts.FIRST, 49152)
        one.send(first)
        returned = one.finish()
        two = hosts.Migration(relays, hosts.SECOND, 49153)
        two.send(second)
        two.finish()
        nbd = hosts.Migration(relays, hosts.SECOND, 49154, "-nbd")
        greeting = nbd.connection.recv(8)
        nbd.send(b"blocks" * 1000)
        nbd.finish()
        hosts.all_ended(relays)
        told = relays.source.statistics()
        closed = relays.source.close_group("batch:0:cmpb")
        relays.destination.close_group("batch:0:cmpb")
        again = relays.source.statistics()
        return {"counted": [told["total"], again["total"], again["groups"]],
                "whole": [one.arrived() == first, two.arrived() == second],
                "returned": returned == qemu.PONG + qemu.SHUT,
                "greeting": greeting.decode(), "nbd": nbd.arrived() == b"blocks" * 1000,
                "statistics": told, "closed": closed, "raw": [len(first), len(second)],
                "again": relays.source.close_group("batch:0:cmpb")}


def _one_group_after_another():
    """A later group has the memory of an earlier one, and finds nothing in it."""
    first, _ = two_alike()
    found, whole, places = [], [], []
    with hosts.two() as relays:
        stores = [each._store for each in (relays.source, relays.destination)]
        full = [each.free_bytes() for each in stores]
        for port in (49152, 49153):
            hosts.open_group(relays)
            migration = hosts.Migration(relays, hosts.FIRST, port)
            migration.send(first)
            migration.finish()
            whole.append(migration.arrived() == first)
            counted = relays.source.close_group("batch:0:cmpb")
            relays.destination.close_group("batch:0:cmpb")
            found.append(counted["servers"][hosts.FIRST]["literal_bytes"] // PAGE)
            # threads come to their end
            places.append(hosts.wait_for(
                lambda: [each.free_bytes() for each in stores] == full))
        return {"whole": whole, "found": found, "free": places}


def _renewed():
    """Both hosts get certificates of another authority: within an open group, and behind it."""
    first, second = two_alike()
    with hosts.two() as relays, tempfile.TemporaryDirectory() as name:
        hosts.open_group(relays)
        whole = []

        def carry(server, port, data):
            migration = hosts.Migration(relays, server, port)
            migration.send(data)
            migration.finish()
            whole.append(migration.arrived() == data)

        carry(hosts.FIRST, 49152, first)
        before = pathlib.Path(shutil.copytree(relays.directory, pathlib.Path(name, "before"),
                                              ignore=shutil.ignore_patterns("*.sock")))
        for host in (hosts.SOURCE, hosts.DESTINATION):
            for file in certificates.certificate(pathlib.Path(name), host):
                shutil.copy(file, relays.directory)
        shutil.copy(pathlib.Path(name, "ca.pem"), relays.directory)
        carry(hosts.SECOND, 49153, second)
        counted = [relays.source.close_group("batch:0:cmpb")]
        relays.destination.close_group("batch:0:cmpb")
        token = secrets.token_hex(32)
        relays.destination.open_group(hosts.group("destination", token))
        # who still shows the old one, though it believes the new ones
        old = hosts.relay(before, hosts.SOURCE, "127.0.0.2", 49511)
        old._contexts.client().load_verify_locations(str(relays.directory / "ca.pem"))
        leaving = groups.OpenGroups(old._conf, old._redirect, old._contexts)
        try:
            leaving.open_group(hosts.group("source", token))
            refused = ""
        except exception.RelayError as error:
            refused = str(error)
        relays.source.open_group(hosts.group("source", token))
        carry(hosts.FIRST, 49154, first)
        hosts.all_ended(relays)
        counted.append(relays.source.close_group("batch:0:cmpb"))
        return {"whole": whole, "servers": [sorted(each["servers"]) for each in counted],
                "refused": "lets nobody in" in refused}


def _spliced():
    first, _ = two_alike()
    with hosts.two() as relays:
        members = [{"server_id": hosts.FIRST, "order": 0, "scope": None}]
        hosts.open_group(relays, members=members)
        off = hosts.Migration(relays, hosts.FIRST, 49152)
        off.send(first)
        off.finish()
        stranger = hosts.Migration(relays, hosts.SECOND, 49153)
        stranger.send(first)
        stranger.finish()
        # a splice is counted when it is over on both sides
        hosts.wait_for(
            lambda: relays.source.statistics()["spliced_bytes"] >= 2 * len(first))
        told = relays.source.statistics()
        return {"whole": [off.arrived() == first, stranger.arrived() == first],
                "spliced": told["spliced_bytes"], "servers": told["groups"][0]["servers"],
                "raw": len(first)}


def _recurring():
    """The scan has seen that some pages come again: those alone are kept."""
    generator = random.Random(3)
    pages = [generator.randbytes(PAGE) for _ in range(200)]
    # more recurs than the dictionary holds: there is no room for anything else
    listed = np.unique(np.array([*range(hosts.DICTIONARY_BYTES // PAGE), *(
        xxhash.xxh3_64_intdigest(page, 7) & 0xffffffff for page in pages[::4])], np.uint32))
    told = {"seed": 7, "theta": 1.0, "hashes": base64.b64encode(listed.tobytes()).decode()}
    token = secrets.token_hex(32)
    with hosts.two() as relays:
        relays.destination.open_group(hosts.group("destination", token))
        relays.source.open_group(hosts.group("source", token, recurring={"project": told}))
        whole = []
        for at, server in enumerate((hosts.FIRST, hosts.SECOND)):
            migration = hosts.Migration(relays, server, 49152 + at)
            migration.send(stream(pages))
            migration.finish()
            whole.append(migration.arrived() == stream(pages))
        counted = relays.source.close_group("batch:0:cmpb")
        return {"whole": whole, "held": counted["dictionary_fill_bytes"] // PAGE,
                "found": counted["servers"][hosts.SECOND]["cross_server_bytes"] // PAGE}


def _listens_everywhere():
    """QEMU listens at "::", and such a socket is for IPv6 alone."""
    first, _ = two_alike(pages=200)
    pathlib.Path("/proc/sys/net/ipv6/bindv6only").write_text("1")
    with hosts.two(hosts.ADDRESS6) as relays:
        hosts.open_group(relays)
        output = relays.directory / "out"
        process, port = qemu.start(hosts.FIRST, output, address="::", port=49152)
        with socket.create_connection((hosts.ADDRESS6, port), timeout=hosts.SECONDS) as connection:
            connection.sendall(first)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                continue
        process.wait(hosts.SECONDS)
        hosts.all_ended(relays)
        return [output.read_bytes() == first,
                relays.source.close_group("batch:0:cmpb")["servers"][hosts.FIRST]["outcomes"]]


def _without_peer():
    first, _ = two_alike()
    with hosts.two() as relays:
        hosts.open_group(relays)
        relays.stop_destination()
        time.sleep(0.1)
        plain = hosts.Migration(relays, hosts.FIRST, 49152)
        plain.send(first)
        plain.finish()
        return {"whole": plain.arrived() == first}


def _spoken():
    """Neither a migration nor NBD: three bytes ask, and the answer is waited for."""
    with hosts.two() as relays:
        hosts.open_group(relays)
        asks = hosts.Migration(relays, hosts.FIRST, 49152)
        asks.send(b"HI\n")
        answer = asks.connection.recv(len(qemu.PONG), socket.MSG_WAITALL)
        carried = list(relays.source.statistics()["groups"][0]["servers"])
        asks.finish()
        return {"answer": answer == qemu.PONG, "carried": carried,
                "whole": asks.arrived() == b"HI\n"}


def _broken():
    """The destination's QEMU dies, then the group is closed in the middle of a stream."""
    first, _ = two_alike()
    seen = {}
    with hosts.two() as relays:
        hosts.open_group(relays)
        dying = hosts.Migration(relays, hosts.FIRST, 49152, "-stop")
        seen["full"] = _end_of(dying, first)
        cut = hosts.Migration(relays, hosts.FIRST, 49153)
        cut.send(first[:3_000_000])
        hosts.wait_for(lambda: _size(cut) > 0)
        relays.source.close_group("batch:0:cmpb")
        seen["closed"] = _end_of(cut, first[3_000_000:])
        cut.process.wait(hosts.SECONDS)
        seen["half"] = len(cut.arrived()) < len(first)
        # they go with the last connection that was redirected
        hosts.wait_for(lambda: not _tables())
        seen["tables"] = _tables()
        hosts.open_group(relays, id="other")
    return seen


def _tables():
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True,
                          check=True).stdout


def _together():
    """Two synchronized members, the second when the first is held."""
    first, second = two_alike(pages=6000)
    with hosts.two(hold_seconds=hosts.SECONDS) as relays:
        hosts.open_group(relays, **_BOTH)
        one = hosts.Migration(relays, hosts.FIRST, 49152)
        sending = one.started(first)
        early = hosts.settled(lambda: _size(one))
        two = hosts.Migration(relays, hosts.SECOND, 49153)
        two.send(second)
        two.finish()
        sending.join(hosts.SECONDS)
        return {"held": 0 < early < len(first),
                "whole": [one.arrived() == first, two.arrived() == second],
                "returned": one.returned == qemu.PONG + qemu.SHUT}


def _alone():
    """A synchronized member of which the other is absent."""
    first, _ = two_alike(pages=6000)
    with hosts.two(hold_seconds=2.0) as relays:
        hosts.open_group(relays, **_BOTH)
        alone = hosts.Migration(relays, hosts.FIRST, 49154)
        begun = time.monotonic()
        seen = {"ended": _end_of(alone, first), "waited": time.monotonic() - begun}
        alone.process.wait(hosts.SECONDS)
        return seen | {"not all": len(alone.arrived()) < len(first)}


def _released():
    """The same where the rest is to go without one that is late."""
    first, _ = two_alike(pages=6000)
    with hosts.two(hold_seconds=2.0, switchover_policy="release") as relays:
        hosts.open_group(relays, **_BOTH)
        alone = hosts.Migration(relays, hosts.FIRST, 49154)
        begun = time.monotonic()
        seen = {"ended": _end_of(alone, first), "waited": time.monotonic() - begun}
        (state,) = relays.source.statistics()["groups"][0]["synchronized"]
        return seen | {"whole": alone.arrived() == first, "state": state}


def _last_step(pause_seconds):
    """Two synchronized members, of which one destination takes its time to load what came."""
    first, second = two_alike(pages=6000)
    with hosts.two(hold_seconds=hosts.SECONDS, pause_seconds=float(pause_seconds)) as relays:
        hosts.open_group(relays, **_BOTH)
        one = hosts.Migration(relays, hosts.FIRST, 49152)
        late = hosts.Migration(relays, hosts.SECOND, 49153, "-mute")
        sending = [one.started(first), late.started(second)]
        hosts.wait_for(lambda: (_size(one), _size(late)) == (len(first), len(second)))
        sending[0].join(1.0 if float(pause_seconds) == hosts.SECONDS else hosts.SECONDS)
        seen = {"let go": [not each.is_alive() for each in sending]}
        late.go_on()
        for each in sending:
            each.join(hosts.SECONDS)
        return seen | {"returned": [each.returned == qemu.PONG + qemu.SHUT for each in (one, late)]}


def _never_apart():
    """What might be a member of a set does not pass by it: its connection is refused."""
    first, second = two_alike(pages=6000)
    seen = {}
    with hosts.two(hold_seconds=hosts.SECONDS) as relays:
        def anew():
            for each in (relays.source, relays.destination):
                each.close_group("batch:0:cmpb")
            hosts.open_group(relays, **_BOTH)

        def state():
            return relays.source.statistics()["groups"][0]["synchronized"]

        def in_the_end():
            hosts.wait_for(lambda: state()[0]["state"] != "gathering")
            return state()
        hosts.open_group(relays, **_BOTH)
        one = hosts.Migration(relays, hosts.FIRST, 49152)
        sending = one.started(first)
        hosts.settled(lambda: _size(one))
        seen["gathering"] = state()
        relays.source.leave_group("batch:0:cmpb", hosts.SECOND)
        sending.join(hosts.SECONDS)
        seen["left"] = (sending.is_alive(), len(one.arrived()) < len(first), state())
        seen["late"] = _refused(relays, hosts.SECOND, 49153, second)
        anew()
        # it comes to its end before it could be held: a guest of a few pages
        small = hosts.Migration(relays, hosts.FIRST, 49154)
        seen["small"] = _end_of(small, two_alike(pages=100)[0]), in_the_end()
        small.end()
        anew()
        multifd = hosts.Migration(relays, hosts.FIRST, 49155)
        seen["multifd"] = _end_of(multifd, b"\x11\x22\x33\x44" + bytes(1 << 20)), in_the_end()
        multifd.end()
        anew()
        stranger = hosts.Migration(relays, hosts.STRANGER, 49156)
        stranger.send(first)
        stranger.finish()
        seen["stranger"] = stranger.arrived() == first
        relays.stop_destination()
        time.sleep(0.1)
        seen["unknown"] = _refused(relays, hosts.FIRST, 49157, first)
    return seen


def _in_order():
    """Two streams at once: the second of the plan comes first and has the turn, then the other."""
    first, second = two_alike()
    with hosts.two() as relays:
        hosts.open_group(relays, wire_bytes_per_second=1 << 20, downtime_seconds=0.001)
        return _one_behind_two(relays, first, second, 49152)


def _one_behind_two(relays, first, second, port):
    """Return whether the first of the plan has begun while the second, which came before, runs."""
    two = hosts.Migration(relays, hosts.SECOND, 49153)
    sending = two.started(second)
    # it has the turn
    hosts.wait_for(lambda: _size(two))
    one = hosts.Migration(relays, hosts.FIRST, port)
    waiting = one.started(first)
    begun, end = False, time.monotonic() + hosts.SECONDS
    while not begun and time.monotonic() < end:
        begins = _size(one) > 0
        if _size(two) >= 0.8 * len(second):
            break
        begun = begins
        time.sleep(0.01)
    relays.source.limit("batch:0:cmpb", None)
    sending.join(hosts.SECONDS)
    waiting.join(hosts.SECONDS)
    return {"begun": begun, "whole": [one.arrived() == first, two.arrived() == second]}


def _size(migration):
    return migration.output.stat().st_size if migration.output.exists() else 0


def _refused(relays, server_id, port, data):
    """Return how a migration ends that is let through nowhere, and how many bytes came."""
    try:
        migration = hosts.Migration(relays, server_id, port)
    except OSError as error:
        return type(error).__name__, 0
    return _end_of(migration, data), migration.end()


def _overlapping():
    """The same with streams that leave little for the wire, and are slowed down from the start."""
    first, second = two_alike()
    with hosts.two() as relays:
        hosts.open_group(relays, downtime_seconds=5.0)
        before = hosts.Migration(relays, hosts.FIRST, 49154)
        before.send(second)
        before.finish()
        relays.source.limit("batch:0:cmpb", 1 << 20)
        return _one_behind_two(relays, first, second, 49152)


def _end_of(migration, data):
    try:
        migration.send(data)
        migration.finish()
    except OSError as error:
        return type(error).__name__
    return "ended"


@ddt.ddt
class Relays(namespace.NamespaceTestCase):
    def test_streams_arrive_byte_for_byte_and_what_is_alike_crosses_once(self):
        seen = namespace.run(_carries)
        self.assertEqual([True, True], seen["whole"])
        self.assertTrue(seen["returned"])
        self.assertEqual("NBDMAGIC", seen["greeting"])
        self.assertTrue(seen["nbd"])
        used = seen["closed"].pop("cpu_seconds")
        self.assertGreaterEqual(used, seen["statistics"]["groups"][0].pop("cpu_seconds"))
        self.assertEqual(seen["statistics"]["groups"][0], seen["closed"])
        before, after, still_open = seen["counted"]
        self.assertEqual(seen["closed"]["wire_bytes"], before["wire_bytes"])
        self.assertEqual((before, []), (after, still_open))
        servers = seen["closed"]["servers"]
        first, second = servers[hosts.FIRST], servers[hosts.SECOND]
        self.assertEqual(seen["raw"], [first["raw_bytes"], second["raw_bytes"] - 6000])
        self.assertGreater(second["cross_server_bytes"], 1100 * PAGE)
        self.assertLess(second["wire_bytes"], first["wire_bytes"] / 5)
        self.assertEqual(["done"], first["outcomes"])
        for each in (first, second):
            self.assertGreater(each["bytes_per_second"], 0)
            self.assertTrue(0 < each["cpu_seconds"] <= used, each)
        self.assertEqual({}, seen["again"])

    def test_a_group_leaves_its_memory_to_the_next_and_nothing_in_it(self):
        seen = namespace.run(_one_group_after_another)
        self.assertEqual([True, True], seen["whole"])
        self.assertEqual([1200, 1200], seen["found"])
        self.assertEqual([True, True], seen["free"])

    def test_certificates_may_be_renewed_while_a_group_is_open(self):
        self.assertEqual({"whole": [True] * 3, "servers": [
            [hosts.FIRST, hosts.SECOND], [hosts.FIRST]], "refused": True},
            namespace.run(_renewed))

    def test_what_is_not_of_the_group_or_not_to_be_shared_is_spliced(self):
        seen = namespace.run(_spliced)
        self.assertEqual([True, True], seen["whole"])
        self.assertGreaterEqual(seen["spliced"], 2 * seen["raw"])
        self.assertEqual({}, seen["servers"])

    def test_what_nobody_understands_is_not_waited_for(self):
        self.assertEqual({"answer": True, "carried": [hosts.FIRST], "whole": True},
                         namespace.run(_spoken))

    def test_a_qemu_that_listens_everywhere_is_reached_where_it_answers(self):
        self.assertEqual([True, ["done"]], namespace.run(_listens_everywhere))

    def test_what_does_not_come_again_takes_no_room(self):
        self.assertEqual({"whole": [True, True], "held": 50, "found": 50},
                         namespace.run(_recurring))

    def test_with_the_other_relay_gone_a_migration_goes_the_plain_way(self):
        self.assertTrue(namespace.run(_without_peer)["whole"])

    def test_synchronized_members_are_held_running_and_go_together(self):
        seen = namespace.run(_together)
        self.assertTrue(seen["held"])
        self.assertEqual([True, True], seen["whole"])
        self.assertTrue(seen["returned"])

    def test_one_that_is_alone_at_the_end_of_the_wait_stays(self):
        seen = namespace.run(_alone)
        self.assertNotEqual("ended", seen["ended"])
        self.assertGreater(seen["waited"], 1.9)
        self.assertTrue(seen["not all"])

    def test_where_the_rest_is_to_go_it_goes_without_one_that_is_late(self):
        seen = namespace.run(_released)
        self.assertEqual(("ended", True), (seen["ended"], seen["whole"]), seen)
        self.assertGreater(seen["waited"], 1.9)
        self.assertEqual(("released", [hosts.SECOND]),
                         (seen["state"]["state"], seen["state"]["failed"]))

    @ddt.data((hosts.SECONDS, False), (1.0, True))
    @ddt.unpack
    def test_the_last_step_waits_for_every_destination_as_long_as_the_pause_may_be(
            self, pause_seconds, let_go):
        seen = namespace.run(_last_step, str(pause_seconds))
        self.assertEqual({"let go": [let_go, False], "returned": [True, True]}, seen)

    def test_nothing_that_may_be_of_a_set_goes_past_it(self):
        seen = namespace.run(_never_apart)
        (gathering,) = seen["gathering"]
        self.assertEqual(("gathering", None), (gathering["state"], gathering["reason"]))
        alive, half, (left,) = seen["left"]
        self.assertEqual((False, True, "called-off"), (alive, half, left["state"]))
        self.assertIn(f"{hosts.SECOND} failed: its migration ended", left["reason"])
        for name in ("late", "unknown"):
            ended, arrived = seen[name]
            self.assertNotEqual("ended", ended, name)
            self.assertEqual(0, arrived, name)
        for name in ("small", "multifd"):
            ended, (state,) = seen[name]
            self.assertNotEqual("ended", ended, name)
            self.assertEqual("called-off", state["state"], name)
        self.assertTrue(seen["stranger"])

    def test_streams_of_a_group_run_one_after_the_other(self):
        seen = namespace.run(_in_order)
        self.assertEqual({"whole": [True, True], "begun": False}, seen)

    def test_a_stream_that_is_held_to_a_slow_pace_lets_the_next_begin_beside_it(self):
        seen = namespace.run(_overlapping)
        self.assertEqual({"whole": [True, True], "begun": True}, seen)

    def test_a_stream_that_breaks_is_a_broken_connection_for_both_qemus(self):
        seen = namespace.run(_broken)
        # whichever call meets the reset
        self.assertNotEqual("ended", seen["full"])
        self.assertNotEqual("ended", seen["closed"])
        self.assertTrue(seen["half"])
        self.assertEqual("", seen["tables"])


class Listening(base.BaseTestCase):
    def test_a_kernel_without_ipv6_listens_at_the_addresses_that_it_has(self):
        kernels = socket.socket

        def made(family=socket.AF_INET, *words, **more):
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            return kernels(family, *words, **more)
        with mock.patch.object(service.socket, "socket", made):
            listener = service._listen_everywhere(0)
        with listener:
            self.assertEqual("0.0.0.0", listener.getsockname()[0])

    def test_elsewhere_at_those_of_both_families(self):
        with service._listen_everywhere(0) as listener:
            port = listener.getsockname()[1]
            for address in ("127.0.0.1", "::1"):
                socket.create_connection((address, port), timeout=hosts.SECONDS).close()

    def test_who_finds_no_thread_is_turned_away_and_the_next_is_served(self):
        relay, heard = service.Relay.__new__(service.Relay), []
        relay._listeners = []
        listener = service._listen("127.0.0.1", 0)
        relay._serve(listener, lambda connection, _: heard.append(connection.recv(1)))
        self.addCleanup(lambda: service.splice.shut(listener, socket.SHUT_RDWR))

        def turned_away():
            # the end may come before the connection is seen to be there
            with socket.create_connection(listener.getsockname(), timeout=hosts.SECONDS) as first:
                return first.recv(1)
        with mock.patch.object(service.threading.Thread, "start",
                               side_effect=RuntimeError("can't start new thread")):
            self.assertRaises(ConnectionResetError, turned_away)
        with socket.create_connection(listener.getsockname(), timeout=hosts.SECONDS) as second:
            second.sendall(b"x")
            hosts.wait_for(lambda: heard)
        self.assertEqual([b"x"], heard)
