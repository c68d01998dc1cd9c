import threading
from unittest import mock

from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.relay import destination
from tests.unit.relay import hosts


class PlayedChannel:
    """A connection on which nothing comes until it is closed."""

    def __init__(self, connection):
        self.connection, self.closed = connection, threading.Event()

    def frames(self):
        self.closed.wait(hosts.SECONDS)
        return iter(())

    def close(self):
        self.closed.set()


class Connections(base.BaseTestCase):
    """Of one log, each with a thread of its own: the newest is served, whoever came in between."""

    def setUp(self):
        super().setUp()
        self.log = destination.DestinationLog(
            mock.Mock(), 1 << 20, mock.MagicMock(), 0, mock.Mock())
        self.log._new_decoder = mock.MagicMock()
        self.answered, self.ended = [], {}
        self.meanwhile = {}
        for target, name, played in ((destination.channel, "Channel", PlayedChannel),
                                     (destination.greeting, "write_line", self.answer)):
            patched = mock.patch.object(target, name, played)
            patched.start()
            self.addCleanup(patched.stop)
        self.addCleanup(self.log.close)

    def answer(self, connection, said):
        self.answered.append(connection)
        self.meanwhile.pop(connection, lambda: None)()

    def serve(self, session):
        def run():
            try:
                self.log.serve(session, {}, session, anew=False)
                self.ended[session] = "ended"
            except exception.RelayError as error:
                self.ended[session] = str(error)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def is_served(self, session):
        return self.log._channel is not None and self.log._channel.connection == session \
            and not self.log._channel.closed.is_set()

    def test_a_newer_one_ends_an_older(self):
        older = self.serve(1)
        hosts.wait_for(lambda: self.is_served(1))
        self.serve(2)
        older.join(hosts.SECONDS)
        self.assertEqual({1: "ended"}, self.ended)
        self.assertTrue(hosts.wait_for(lambda: self.is_served(2)))

    def test_one_that_comes_while_another_begins_need_not_wait_for_its_end(self):
        def newer():
            self.serve(2)
            hosts.wait_for(lambda: self.log._session == 2)
        self.meanwhile[1] = newer
        self.serve(1).join(hosts.SECONDS)
        self.assertIn("a newer connection", self.ended[1])
        self.assertTrue(hosts.wait_for(lambda: self.is_served(2)))
        self.assertEqual([1, 2], self.answered)

    def test_an_older_one_that_was_overtaken_disturbs_nobody(self):
        self.serve(2)
        hosts.wait_for(lambda: self.is_served(2))
        self.serve(1).join(hosts.SECONDS)
        self.assertIn("a newer connection", self.ended[1])
        self.assertTrue(self.is_served(2))
        self.assertEqual([2], self.answered)
