import pathlib
import shutil
import socket
import ssl
import sys
import tempfile
import threading

import fixtures
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.relay import channel, greeting, values
from tests.unit.relay import hosts

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "lab"))

from nbmlab import certificates  # noqa: E402

TOKEN = "ab" * 32


class ChannelTestCase(base.BaseTestCase):
    """Certificates of one authority for cmpa, cmpb and cmpc, and of another one for cmpa."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls._scratch = tempfile.TemporaryDirectory()
        for which in ("ours", "foreign"):
            for host in ("cmpa", "cmpb", "cmpc"):
                certificates.certificate(pathlib.Path(cls._scratch.name, which), host)

    @classmethod
    def tearDownClass(cls):
        cls._scratch.cleanup()
        super().tearDownClass()

    def context(self, host, server, authority="ours"):
        directory = pathlib.Path(self._scratch.name, authority)
        return channel.Credentials(str(directory / "ca.pem"), str(directory / f"{host}.pem"),
                                   str(directory / f"{host}.key")).context(server)

    def listening(self, serve, server_context=None):
        """Serve one connection in a thread; return the port and the list of what came of it."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        context, results = server_context or self.context("cmpb", True), []

        def run():
            plain, _ = listener.accept()
            plain.settimeout(60)
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    results.append(serve(connection))
            except (OSError, exception.RelayError) as error:
                results.append(error)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 60)
        return listener.getsockname()[1], results, thread


class TlsTestCase(ChannelTestCase):
    def attempt(self, client_context, peer="cmpb", server_context=None):
        """Return the error of either side, None where both came to speak."""
        port, results, thread = self.listening(lambda c: c.recv(5), server_context)
        try:
            with channel.connect("127.0.0.1", port, peer, client_context) as connection:
                connection.sendall(b"hello")
                connection.recv(1)
        except (OSError, exception.RelayError) as error:
            thread.join(60)
            return error
        thread.join(60)
        return results[0] if isinstance(results[0], Exception) else None


class Tls(TlsTestCase):
    def test_two_of_one_authority_speak(self):
        self.assertIsNone(self.attempt(self.context("cmpa", False)))

    def test_a_peer_of_another_authority_gets_nothing(self):
        self.assertIsNotNone(self.attempt(self.context("cmpa", False, "foreign")))
        self.assertIsNotNone(self.attempt(self.context("cmpa", False),
                                          server_context=self.context("cmpb", True, "foreign")))

    def test_a_peer_without_a_certificate_gets_nothing(self):
        context = ssl.create_default_context(
            cafile=str(pathlib.Path(self._scratch.name, "ours", "ca.pem")))
        self.assertIsNotNone(self.attempt(context))

    def test_a_destination_of_another_name_is_refused(self):
        self.assertIsNotNone(self.attempt(self.context("cmpa", False), peer="cmpc"))

    def test_nothing_older_than_tls_1_3(self):
        context = self.context("cmpa", False)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.assertIsNotNone(self.attempt(context))

    def test_files_that_can_not_be_used_are_named(self):
        error = self.assertRaises(exception.RelayError, channel.Credentials(
            "/nonexistent/ca.pem", "/x", "/y").context, True)
        self.assertIn("/nonexistent/ca.pem", str(error))


class Renewed(TlsTestCase):
    """Files that are replaced while a relay runs."""

    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.credentials = channel.Credentials(
            *(str(self.directory / name) for name in ("ca.pem", "cmpb.pem", "cmpb.key")))
        self.contexts = channel.Contexts(self.credentials)

    def give(self, authority, *names):
        for name in names or ("ca.pem", "cmpb.pem", "cmpb.key"):
            written = self.directory / f"{name}.new"
            shutil.copy(pathlib.Path(self._scratch.name, authority, name), written)
            written.rename(self.directory / name)

    def lets_in(self, authority):
        return self.attempt(self.context("cmpa", False, authority),
                            server_context=self.contexts.server()) is None

    def goes_to(self, authority):
        return self.attempt(self.contexts.client(),
                            server_context=self.context("cmpb", True, authority)) is None

    def test_two_of_one_authority_speak(self):
        self.give("ours")
        self.assertEqual([True, True], [self.lets_in("ours"), self.goes_to("ours")])

    def test_who_comes_behind_a_renewal_sees_the_new_ones(self):
        self.give("ours")
        self.contexts.server()
        self.give("foreign")
        self.assertEqual([True, True], [self.lets_in("foreign"), self.goes_to("foreign")])
        self.assertEqual([False, False], [self.lets_in("ours"), self.goes_to("ours")])

    def test_nothing_is_read_again_without_a_change(self):
        self.give("ours")
        before = self.contexts.server(), self.contexts.client()
        self.assertEqual(before, (self.contexts.server(), self.contexts.client()))

    def test_files_that_do_not_go_together_yet_change_nothing(self):
        self.give("ours")
        self.contexts.server()
        for names in (["cmpb.pem"], ["ca.pem"]):
            # the certificate without its key, twice
            self.give("foreign", *names)
            with self.assertLogs(channel.LOG.logger, "ERROR") as told:
                self.assertTrue(self.lets_in("ours"))
                self.assertTrue(self.goes_to("ours"))
            self.assertEqual(1, len(told.records))
        self.give("foreign", "cmpb.key")
        self.assertTrue(self.lets_in("foreign"))

    def test_files_that_are_gone_for_a_moment_change_nothing(self):
        self.give("ours")
        self.contexts.server()
        (self.directory / "cmpb.key").unlink()
        self.assertTrue(self.lets_in("ours"))
        self.give("foreign")
        self.assertTrue(self.lets_in("foreign"))

    def test_without_any_there_is_nothing_to_go_on_with(self):
        self.assertRaises(exception.RelayError, self.contexts.server)


class Greeting(ChannelTestCase):
    def setUp(self):
        super().setUp()
        self.group = values.Group.from_dict(hosts.group("source", TOKEN))

    def greet(self, group=None, host="cmpa", known=None, purpose="project"):
        """Let a source introduce itself; return what the destination makes of it."""
        known = self.group if known is None else known

        def serve(connection):
            guest, answer = greeting.receive(
                connection, lambda group_id: known if known and group_id == known.id else None)
            greeting.write_line(connection, answer)
            return guest
        port, results, thread = self.listening(serve)
        try:
            with channel.connect("127.0.0.1", port, "cmpb", self.context(host, False)) as mine:
                greeting.introduce(mine, group or self.group, purpose, 7)
        except (OSError, exception.RelayError) as error:
            self.error = error
        thread.join(60)
        return results[0]

    def changed(self, **changes):
        return values.Group.from_dict(hosts.group("source", TOKEN) | changes)

    def test_the_planned_source_of_an_open_group_is_let_in(self):
        guest = self.greet()
        self.assertEqual((self.group, "project", 7), (guest.group, guest.purpose, guest.session))

    def test_strangers_get_nothing(self):
        for what, refusal, arguments in (
                ("another name", "does not name cmpa", {"host": "cmpc"}),
                ("unknown group", "no such group", {"group": self.changed(id="other")}),
                ("other token", "token", {"group": self.changed(token="cd" * 32)}),
                ("unknown log", "no such log", {"purpose": "another project"})):
            came_of_it = self.greet(**arguments)
            self.assertIsInstance(came_of_it, exception.RelayError, what)
            self.assertIn(refusal, str(came_of_it))

    def test_a_destination_that_does_not_know_the_token_is_told_from_one_that_does(self):
        self.greet(known=self.changed(token="cd" * 32))
        self.assertIsInstance(self.error, exception.RelayError)

    def test_what_was_said_once_is_of_no_use_again(self):
        said = channel.proof(TOKEN, "source", b"one challenge", "g", "p", "1")
        self.assertNotEqual(said, channel.proof(TOKEN, "source", b"another", "g", "p", "1"))
        self.assertNotEqual(said, channel.proof(TOKEN, "destination", b"one challenge", "g", "p",
                                                "1"))


class Bytes(ChannelTestCase):
    def test_both_directions_at_once_from_several_threads(self):
        blocks = [bytes([n]) * 300_000 for n in range(8)]

        def exchange(connection):
            both = channel.Channel(connection)
            received, buffer = bytearray(), memoryview(bytearray(1 << 16))
            senders = [threading.Thread(target=both.send, args=(block,)) for block in blocks]
            for sender in senders:
                sender.start()
            while len(received) < sum(map(len, blocks)):
                taken = both.receive_into(buffer)
                received += buffer[:taken]
            for sender in senders:
                sender.join()
            return bytes(received)

        port, results, thread = self.listening(exchange)
        mine = channel.connect("127.0.0.1", port, "cmpb", self.context("cmpa", False))
        got = exchange(mine)
        thread.join(60)
        for received in (got, results[0]):
            # of one call together, calls in any order
            pieces = [received[i:i + 300_000] for i in range(0, len(received), 300_000)]
            self.assertEqual(sorted(blocks), sorted(pieces))

    def test_close_wakes_who_reads(self):
        port, _, _ = self.listening(lambda connection: connection.recv(1))
        mine = channel.Channel(
            channel.connect("127.0.0.1", port, "cmpb", self.context("cmpa", False)))
        threading.Timer(0.2, mine.close).start()
        self.assertRaises(OSError, self.read_to_end, mine)

    def test_a_channel_that_is_closed_before_somebody_waits_is_a_broken_one(self):
        port, _, _ = self.listening(lambda connection: connection.recv(1))
        mine = channel.Channel(
            channel.connect("127.0.0.1", port, "cmpb", self.context("cmpa", False)))
        tried = mine._try

        def closed_meanwhile(call, buffer):
            found = tried(call, buffer)
            mine.close()
            return found
        mine._try = closed_meanwhile
        self.assertRaises(OSError, mine.receive_into, memoryview(bytearray(10)))

    @staticmethod
    def read_to_end(mine):
        while mine.receive_into(memoryview(bytearray(10))):
            continue
        raise OSError("the end")


class Group(base.BaseTestCase):
    def test_what_is_no_group_is_refused_with_the_reason(self):
        good = hosts.group("source", TOKEN)
        values.Group.from_dict(good)
        for changes in ({"token": "short"}, {"role": "both"}, {"destination": "cmpa"},
                        {"members": good["members"] * 2}, {"dictionary_bytes": -1},
                        {"peer_port": 0}, {"unknown": 1}):
            self.assertRaises(exception.RelayError, values.Group.from_dict, good | changes)
        self.assertRaises(exception.RelayError, values.Group.from_dict, {})
        self.assertRaises(exception.RelayError, values.Group.from_dict, None)

    def test_a_link_is_slow_where_its_speed_is_known_to_be_low(self):
        for cap, link, slow in ((None, None, False), (1e6, 1e9, True), (None, 1e9, False),
                                (None, 37.5e6, True)):
            group = values.Group.from_dict(hosts.group(
                "source", TOKEN, wire_bytes_per_second=cap, link_bytes_per_second=link))
            self.assertEqual(slow, group.link_is_slow)

    def test_the_token_is_not_in_its_text(self):
        self.assertNotIn(TOKEN, repr(values.Group.from_dict(hosts.group("source", TOKEN))))


