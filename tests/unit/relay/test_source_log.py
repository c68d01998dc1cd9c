import dataclasses
import threading
import types
from unittest import mock

import ddt
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.relay import channel, pacing, settings, source_log
from tests.unit.relay import builders
from tests.unit.relay.test_channel import ChannelTestCase


class SourceLog(ChannelTestCase):
    def setUp(self):
        super().setUp()
        self.heard = bytearray()
        port, _, self.reader = self.listening(self.listen)
        self.log = source_log.SourceLog(
            lambda session, anew: (channel.connect("127.0.0.1", port, "cmpb",
                                                   self.context("cmpa", False)),
                                   {"dictionary_bytes": 64 << 20}),
            settings.LogSettings(dictionary_bytes=64 << 20), pacing.TokenBucket(None),
            pacing.WireRate(1e6))
        self.reasons = []
        self.log.open(1, "s1", b"metadata", types.SimpleNamespace(reset=self.reasons.append))

    def listen(self, connection):
        while data := connection.recv(1 << 16):
            self.heard += data

    def write(self):
        """Bring a block of pages, which is left to a thread to be sent."""
        data = builders.guest([builders.noise(i) for i in range(300)])
        with self.log.buffer(1) as buffer:
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
        self.log.commit(1, size, ahead=True)

    def test_what_is_sent_ahead_arrives(self):
        self.write()
        self.log.flush(1)
        self.log.close()
        self.reader.join(60)
        self.assertGreater(len(self.heard), 300 * builders.PAGE * 0.8)

    def test_a_log_that_is_closed_between_a_block_and_its_sender_keeps_nobody(self):
        """The last work before the end would otherwise hold the order for good."""
        closing = threading.Thread(target=self.log.close)
        slow = self.log._wire_is_slow

        def meanwhile():
            closing.start()
            closing.join(0.5)
            return slow()
        self.log._wire_is_slow = meanwhile
        self.write()
        closing.join(60)
        self.assertFalse(closing.is_alive())
        self.assertTrue(self.log._order.acquire(timeout=60))
        self.log._order.release()
        # as the threads of streams that end now do
        self.log.abort(1, "the group was closed")
        self.assertGreater(self.log.statistics(1).raw_bytes, 0)
        self.assertEqual(["the group was closed"], self.reasons)

    def test_a_stream_that_the_log_does_not_know_is_a_broken_one(self):
        for call in (self.log.position, self.log.buffer, self.log.flush,
                     lambda number: self.log.commit(number, 1),
                     lambda number: self.log.set_block_bytes(number, 1 << 20)):
            self.assertRaises(exception.RelayError, call, 7)
        self.assertIsNone(self.log.statistics(7))
        self.log.close()

    def test_what_it_keeps_for_a_server_that_does_not_come_is_free_also_when_it_begins_anew(self):
        self.log.settings = dataclasses.replace(
            self.log.settings, kept_for={"s1": "s3", "s2": "s3", "s4": "s5"})
        self.log.forgo("s3")
        self.assertEqual({"s4": "s5"}, self.log.settings.kept_for)
        self.log.close()

    def test_it_begins_before_a_stream_comes_and_again_where_that_failed(self):
        port, made = self.listening(self.listen)[0], []

        def connect(session, anew):
            made.append(anew)
            if len(made) == 1:
                raise exception.RelayError(reason="nobody answers.")
            return (channel.connect("127.0.0.1", port, "cmpb", self.context("cmpa", False)),
                    {"dictionary_bytes": 4 << 20})
        other = source_log.SourceLog(
            connect, settings.LogSettings(dictionary_bytes=4 << 20), pacing.TokenBucket(None),
            pacing.WireRate(1e6))
        other.reach()
        other.reach()
        other.open(1, "s1", b"metadata", types.SimpleNamespace(reset=self.reasons.append))
        self.assertEqual([True, True], made)
        other.close()
        self.assertEqual(["the group was closed"], self.reasons)
        self.log.close()

    def test_a_log_that_is_closed_while_it_connects_leaves_no_connection(self):
        made, port = [], self.listening(self.listen)[0]

        def connect(session, anew):
            made.append(channel.connect("127.0.0.1", port, "cmpb", self.context("cmpa", False)))
            self.other._closed = True
            return made[0], {"dictionary_bytes": 4 << 20}
        self.other = source_log.SourceLog(
            connect, settings.LogSettings(dictionary_bytes=4 << 20), pacing.TokenBucket(None),
            pacing.WireRate(1e6))
        self.assertRaises(exception.RelayError, self.other.open, 1, "s1", b"metadata", None)
        self.other.close()
        self.assertEqual(-1, made[0].fileno())
        self.log.close()


@ddt.ddt
class Unsent(base.BaseTestCase):
    """What may lie in the kernel: what is sent ahead, and what leaves within a millisecond."""

    @ddt.data((None, None, 0.0, 0), (None, 300e6, 0.0, 300_000), (None, 3e9, 0.0, 1 << 20),
              (37.5e6, 37.5e6, 0.05, 1_875_000), (37.5e6, 900e6, 0.0, 37_500))
    @ddt.unpack
    def test_little_on_a_slow_wire(self, cap, sending, ahead_seconds, unsent):
        rate = pacing.WireRate(sending)
        log = source_log.SourceLog(mock.Mock(), settings.LogSettings(dictionary_bytes=4 << 20),
                                   pacing.TokenBucket(cap), rate)
        self.assertEqual(unsent, log._unsent_bytes(ahead_seconds))
