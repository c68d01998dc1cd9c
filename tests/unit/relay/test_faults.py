import contextlib
import itertools
import pathlib
import secrets
import socket
import subprocess
import tempfile
import time

from nova_batch_migrate import exception
from nova_batch_migrate.relay import groups, qemu_stream, runs
from tests.unit.relay import hosts, namespace
from tests.unit.relay.test_service import two_alike

GROUP = "batch:0:cmpb"


def nft(rule):
    """Put one rule in front of what arrives at the relay of the destination."""
    commands = (f"add table inet faults; add chain inet faults input "
                f"{{ type filter hook input priority 0; }}; add rule inet faults input {rule}")
    subprocess.run(["nft", commands], check=True)


def carried(relays, data, server=hosts.FIRST, port=49152, *words):
    """Carry one stream; return whether it arrived whole."""
    migration = hosts.Migration(relays, server, port, *words)
    migration.send(data)
    migration.finish()
    return migration.arrived() == data


def size(migration):
    """Return how many bytes have come to a migration's QEMU."""
    return migration.output.stat().st_size if migration.output.exists() else 0


def _loss():
    first, second = two_alike()
    with hosts.two() as relays:
        hosts.open_group(relays)
        nft(f"tcp dport {hosts.RELAY_PORT} numgen random mod 100 < 2 drop")
        return [carried(relays, first), carried(relays, second, hosts.SECOND, 49153)]


def _cut():
    """The link is cut in the middle of a stream and comes back after a while."""
    first, _ = two_alike(pages=4000)
    with hosts.two() as relays:
        hosts.open_group(relays, wire_bytes_per_second=1 << 20)
        migration = hosts.Migration(relays, hosts.FIRST, 49152)
        sending = migration.started(first)
        hosts.wait_for(lambda: size(migration))
        nft(f"tcp dport {hosts.RELAY_PORT} drop")
        stood = hosts.settled(lambda: size(migration), 1.0)
        relays.source.limit(GROUP, None)
        subprocess.run(["nft", "delete table inet faults"], check=True)
        sending.join(hosts.SECONDS)
        return [0 < stood < len(first), migration.arrived() == first]


def _silent():
    """The link is cut for longer than it may be, and comes back."""
    first, second = two_alike(pages=4000)
    with hosts.two(link_seconds=2) as relays:
        hosts.open_group(relays, wire_bytes_per_second=1 << 20)
        broken = hosts.Migration(relays, hosts.FIRST, 49152)
        sending = broken.started(first)
        hosts.wait_for(lambda: size(broken) > 500 * 4096)
        nft(f"tcp dport {hosts.RELAY_PORT} drop")
        begun = time.monotonic()
        sending.join(hosts.SECONDS)
        took = time.monotonic() - begun
        broken.process.wait(hosts.SECONDS)
        half = 0 < len(broken.arrived()) < len(first)
        relays.source.limit(GROUP, None)
        subprocess.run(["nft", "delete table inet faults"], check=True)
        whole = carried(relays, second, hosts.SECOND, 49153)
        servers = relays.source.close_group(GROUP)["servers"]
        return {"half": half, "took": took, "whole": whole,
                "outcome": servers[hosts.FIRST]["outcomes"],
                "found": servers[hosts.SECOND]["cross_server_bytes"]}


def _truncated():
    """Streams that end at every tenth of their sections, and a byte behind its beginning."""
    directory = pathlib.Path(__file__).parents[2] / "fuzz" / "seeds"
    with hosts.two() as relays:
        hosts.open_group(relays)
        seen, port = [], itertools.cycle(range(49152, 49200))
        for name in ("linux10-q35", "bios7-pc", "multifd10-main"):
            data = (directory / f"{name}.stream").read_bytes()
            ends = _section_ends(data)
            for end in ends[::max(1, len(ends) // 5)]:
                for cut in (end, min(len(data), end + 1)):
                    seen.append(carried(relays, data[:cut], hosts.FIRST, next(port)))
        return seen


def _section_ends(data):
    """Return where the parser has a piece of the stream whole, a few bytes at a time."""
    parser, found, ends, at = qemu_stream.QemuStream(), runs.Runs(), [], 0
    for end in range(0, len(data), 16):
        found.clear()
        following = parser.parse(memoryview(data), at, end, found)
        if following > at:
            ends.append(following)
            at = following
    return ends


def _wrong_certificate():
    """A relay that shows the certificate of another host, then one of another authority."""
    first, _ = two_alike()
    seen = {}
    with hosts.two() as relays, tempfile.TemporaryDirectory() as name:
        for what, directory, shown in (("another name", relays.directory, "cmpc"),
                                       ("another authority", pathlib.Path(name), None)):
            foreign = hosts.relay(directory, hosts.SOURCE, "127.0.0.2", 49511, shown)
            # it believes whom it speaks to: what is asked is whether it is believed
            foreign._contexts.client().load_verify_locations(str(relays.directory / "ca.pem"))
            leaving = groups.OpenGroups(foreign._conf, foreign._redirect, foreign._contexts)
            token = secrets.token_hex(32)
            relays.destination.open_group(hosts.group("destination", token))
            try:
                leaving.open_group(hosts.group("source", token))
                seen[what] = "let in"
            except exception.RelayError as error:
                seen[what] = str(error)
            relays.source.open_group(hosts.group("source", token))
            seen[f"{what}, then its own"] = carried(relays, first)
            relays.source.close_group(GROUP)
            relays.destination.close_group(GROUP)
    return seen


def _strangers():
    """Connections of another host that say nothing, or only the beginning of something."""
    first, _ = two_alike()
    with hosts.two() as relays, contextlib.ExitStack() as strangers:
        for at in range(40):
            stranger = strangers.enter_context(socket.create_connection(
                (hosts.ADDRESS, hosts.RELAY_PORT), hosts.SECONDS, ("127.0.0.3", 0)))
            if at % 2:
                stranger.sendall(b"\x16\x03\x01\x40\x00\x01")
        hosts.open_group(relays)
        whole = carried(relays, first)
        return {"whole": whole, "servers": list(relays.source.close_group(GROUP)["servers"])}


def _small_dictionary():
    first, second = two_alike(pages=8000)
    with hosts.two() as relays:
        hosts.open_group(relays, dictionary_bytes=16 << 20)
        whole = [carried(relays, first), carried(relays, second, hosts.SECOND, 49153)]
        counted = relays.source.close_group(GROUP)
        return {"whole": whole, "held": counted["dictionary_fill_bytes"], "found":
                counted["servers"][hosts.SECOND]["cross_server_bytes"]}


def _stalled():
    """The first destination reads nothing; the second stream does not wait for it."""
    first, second = two_alike(pages=8000)
    with hosts.two() as relays:
        hosts.open_group(relays)
        stalled = hosts.Migration(relays, hosts.FIRST, 49152, "-stall")
        sending = stalled.started(first)
        # as much as it is given without a byte of it being read
        hosts.settled(lambda: relays.source.statistics()["groups"][0]["servers"].get(
            hosts.FIRST, {}).get("raw_bytes", 0))
        whole = carried(relays, second, hosts.SECOND, 49153)
        behind = size(stalled) > 0
        told = relays.source.statistics()["groups"][0]["servers"]
        stalled.go_on()
        sending.join(hosts.SECONDS)
        return {"whole": [whole, not behind, stalled.arrived() == first], "sent": len(first),
                "taken": told[hosts.FIRST]["raw_bytes"]}


def _two_batches():
    """Two groups with the same destination at once: each carries its own server."""
    first, second = two_alike()
    with hosts.two() as relays:
        for name, server in (("a", hosts.FIRST), ("b", hosts.SECOND)):
            hosts.open_group(relays, id=name, members=[
                {"server_id": server, "order": 0, "scope": "project"}])
        whole = [carried(relays, first), carried(relays, second, hosts.SECOND, 49153)]
        of_servers = [sorted(group["servers"])
                      for group in relays.source.statistics()["groups"]]
        relays.source.close_group("a")
        # the other one's redirect is still there
        again = carried(relays, second, hosts.SECOND, 49155)
        hosts.all_ended(relays, "b")
        counted = relays.source.close_group("b")["servers"][hosts.SECOND]
        return {"whole": [*whole, again], "servers": of_servers,
                "outcomes": counted["outcomes"]}


def _replayed():
    with hosts.two() as relays:
        hosts.open_group(relays)
        # the log itself connects meanwhile, with small numbers
        source = relays.source._groups[GROUP]
        connection, _ = source._connect("project", 11)
        refused = []
        for session in (11, 10):
            try:
                second, _ = source._connect("project", session)
                second.close()
                refused.append("let in")
            except exception.RelayError as error:
                refused.append(str(error))
        connection.settimeout(1)
        try:
            stays = connection.recv(1) != b""
        except TimeoutError:
            stays = True
        newer, _ = source._connect("project", 12)
        newer.close()
        connection.close()
        relays.destination.close_group(GROUP)
        try:
            source._connect("project", 13)
            closed = "let in"
        except exception.RelayError as error:
            closed = str(error)
        return {"refused": refused, "stays": stays, "closed": closed}


def _full():
    """More dictionaries than there is memory for, and a group that is another's."""
    seen = []
    with hosts.two(dictionary_mib=64) as relays:
        hosts.open_group(relays)
        open_now = [each.hello()["group_ids"] for each in (relays.source, relays.destination)]
        for changes in ({"id": "second"}, {"members": []}, {"id": "x", "source": "cmpc"}):
            try:
                relays.source.open_group(
                    hosts.group("source", secrets.token_hex(32), **changes))
                seen.append("opened")
            except exception.RelayError as error:
                seen.append(str(error))
        relays.destination.close_group(GROUP)
        relays.source.close_group(GROUP)
        try:
            relays.source.open_group(hosts.group("source", secrets.token_hex(32)))
        except exception.RelayError as error:
            seen.append(str(error))
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True)
        return {"seen": seen, "tables": tables.stdout, "open": open_now,
                "groups": relays.source.hello()["groups"]}


def _excluded():
    first, second = two_alike()
    with hosts.two() as relays:
        hosts.open_group(relays)
        relays.source.leave_group(GROUP, hosts.FIRST)
        whole = [carried(relays, first), carried(relays, second, hosts.SECOND, 49153)]
        return {"whole": whole, "servers": list(relays.source.statistics()["groups"][0]["servers"])}


def _nobody_listens():
    with hosts.two() as relays:
        hosts.open_group(relays)
        connection = socket.create_connection((hosts.ADDRESS, 49160), timeout=hosts.SECONDS)
        try:
            return connection.recv(1) == b""
        except ConnectionResetError:
            return True


class Faults(namespace.NamespaceTestCase):
    def test_a_link_that_loses_packets(self):
        self.assertEqual([True, True], namespace.run(_loss))

    def test_a_link_that_is_cut_and_comes_back(self):
        self.assertEqual([True, True], namespace.run(_cut))

    def test_a_link_that_is_cut_for_too_long_ends_its_streams_but_not_the_log(self):
        seen = namespace.run(_silent)
        self.assertTrue(seen["half"])
        # the default is 30 s
        self.assertLess(seen["took"], 20)
        self.assertNotEqual(["done"], seen["outcome"])
        self.assertTrue(seen["whole"])
        self.assertGreater(seen["found"], 100 * 4096)

    def test_streams_that_end_at_any_section_arrive_as_far_as_they_came(self):
        seen = namespace.run(_truncated)
        self.assertGreater(len(seen), 25)
        self.assertTrue(all(seen), seen)

    def test_a_relay_with_a_wrong_certificate_gets_nothing_and_disturbs_nobody(self):
        seen = namespace.run(_wrong_certificate)
        for what in ("another name", "another authority"):
            self.assertIn("lets nobody in", seen[what])
            self.assertTrue(seen[f"{what}, then its own"])

    def test_strangers_that_keep_their_connections_open_keep_nobody_out(self):
        seen = namespace.run(_strangers)
        self.assertEqual({"whole": True, "servers": [hosts.FIRST]}, seen)

    def test_a_dictionary_smaller_than_one_guest(self):
        seen = namespace.run(_small_dictionary)
        self.assertEqual([True, True], seen["whole"])
        # 25 MiB of each guest are content, and nearly all of it is alike: whatever is held of the
        # first one is found, and it is nearly all that there is room for
        self.assertLessEqual(seen["held"], 16 << 20)
        self.assertLessEqual(seen["found"], seen["held"])
        self.assertGreater(seen["found"], 14 << 20)

    def test_a_destination_that_stands_still_holds_up_nobody_else(self):
        seen = namespace.run(_stalled)
        self.assertEqual([True, True, True], seen["whole"])
        # nor does it fill the relays' memory: they take what its credit allows, 8 MiB, beside what
        # the kernel holds on the way to it
        self.assertLess(seen["taken"], 16 << 20)
        self.assertGreater(seen["sent"], 24 << 20)

    def test_two_batches_at_once(self):
        seen = namespace.run(_two_batches)
        self.assertEqual([True, True, True], seen["whole"])
        self.assertEqual([[hosts.FIRST], [hosts.SECOND]], seen["servers"])
        self.assertEqual(["done", "done"], seen["outcomes"])

    def test_an_old_session_is_not_taken_again_and_a_closed_group_lets_nobody_in(self):
        seen = namespace.run(_replayed)
        for each in seen["refused"]:
            self.assertIn("lets nobody in", each)
        # who had the session before was not disturbed by that
        self.assertTrue(seen["stays"])
        self.assertIn("lets nobody in", seen["closed"])

    def test_groups_that_can_not_be_opened_leave_nothing_behind(self):
        seen = namespace.run(_full)
        room, open_already, strange, unreachable = seen["seen"]
        self.assertIn("0 MiB are left", room)
        self.assertIn("is open already", open_already)
        self.assertIn("none of cmpa", strange)
        self.assertIn("lets nobody in", unreachable)
        self.assertEqual("", seen["tables"])
        self.assertEqual(([[GROUP], [GROUP]], 0), (seen["open"], seen["groups"]))

    def test_a_server_that_left_its_group_goes_the_plain_way(self):
        seen = namespace.run(_excluded)
        self.assertEqual([True, True], seen["whole"])
        self.assertEqual([hosts.SECOND], seen["servers"])

    def test_where_nobody_listens_qemu_learns_it(self):
        self.assertTrue(namespace.run(_nobody_listens))
