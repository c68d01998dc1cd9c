import select
import socket
import struct
import threading
import time
import types
from unittest import mock

import ddt
from oslotest import base

from nova_batch_migrate.relay import qemu_stream, source_stream, statistics


class Fill(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.near, self.far = socket.socketpair()
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        self.room = memoryview(bytearray(1000))
        self.patient(0, 50_000)

    def patient(self, seconds, microseconds=0):
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO,
                             struct.pack("ll", seconds, microseconds))

    def test_what_comes_bit_by_bit_fills_the_buffer(self):
        self.patient(20)

        def send():
            for _ in range(10):
                self.far.sendall(b"x" * 100)
                time.sleep(0.001)
        sender = threading.Thread(target=send)
        sender.start()
        self.assertEqual(1000, source_stream.fill(self.near, self.room, 20))
        sender.join()
        self.assertEqual(b"x" * 1000, self.room)

    def test_what_is_there_is_taken_when_no_more_comes(self):
        self.far.sendall(b"x" * 300)
        self.assertEqual(300, source_stream.fill(self.near, self.room, 0.02))
        self.assertRaises(BlockingIOError, source_stream.fill, self.near, self.room, 0.02)

    def test_late_a_timeout_in_all_is_what_more_bytes_are_waited_for(self):
        self.patient(4)
        self.far.sendall(b"x" * 300)
        more = threading.Timer(0.05, self.far.sendall, [b"x" * 100])
        more.start()
        self.addCleanup(more.join)
        begun = time.monotonic()
        self.assertEqual(400, source_stream.fill(self.near, self.room, 0.0))
        self.assertLess(time.monotonic() - begun, 40)

    def test_a_trickle_is_not_waited_for_without_end(self):
        ended = threading.Event()
        self.addCleanup(ended.set)

        def trickle():
            while not ended.wait(0.01):
                self.far.sendall(b"x")
        threading.Thread(target=trickle, daemon=True).start()
        begun = time.monotonic()
        self.assertLess(source_stream.fill(self.near, self.room, 0.02), 1000)
        self.assertLess(time.monotonic() - begun, 20)
        ended.set()

    def test_the_end_is_told_behind_the_last_bytes(self):
        self.far.sendall(b"x" * 300)
        self.far.close()
        self.assertEqual(300, source_stream.fill(self.near, self.room, 0.02))
        self.assertEqual(0, source_stream.fill(self.near, self.room, 0.02))
        self.assertEqual(0, source_stream.take(self.near, self.room))


@ddt.ddt
class LateChunks(base.BaseTestCase):
    """Behind round 0 little lies in the relay: on a faster link that is more."""

    ROUND, END = qemu_stream.Position(round=1), qemu_stream.Position(ram_end_offset=1)

    TO_GATE, THROUGH = (types.SimpleNamespace(through=through, leads=True)
                        for through in (False, True))

    @ddt.data((ROUND, 30e6, True, None, 64 << 10, None),
              (ROUND, None, True, None, 64 << 10, None),
              (ROUND, 37.5e6, True, None, 128 << 10, 128 << 10),
              (ROUND, 1e9, True, None, 256 << 10, 256 << 10),
              (END, 1e9, True, None, 256 << 10, None),
              (ROUND, None, False, None, 64 << 10, None),
              (ROUND, 1e9, False, TO_GATE, 128 << 10, 128 << 10),
              (ROUND, 30e6, True, THROUGH, 256 << 10, 256 << 10),
              (ROUND, 30e6, False, None, 64 << 10, None),
              (ROUND, 300e6, False, None, 256 << 10, 256 << 10),
              (ROUND, 3e9, False, None, 1 << 20, 1 << 20),
              # the encoder's own for round 0: 1 MiB
              (END, 300e6, False, None, 1 << 20, None))
    @ddt.unpack
    def test_what_leaves_in_some_milliseconds_is_taken_at_once(self, position, sending, slow,
                                                               together, chunk, block):
        group = mock.Mock()
        group.sending_bytes_per_second.return_value, group.group.link_is_slow = sending, slow
        stream = source_stream.SourceStream(1, mock.Mock(), mock.Mock(), 49152, group, None)
        stream._is_migration = True
        stream._escort = together
        # as an earlier chunk had it
        stream._set_block(3 << 20)
        self.assertEqual(chunk, stream._chunk_bytes(position))
        group.log.return_value.set_block_bytes.assert_called_with(1, block)


class BehindTheGate(base.BaseTestCase):
    """Where guests stand still, QEMU is taken in large pieces, up to its end."""

    @staticmethod
    def waits(connection):
        return struct.unpack("ll", connection.getsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.calcsize("ll")))

    @staticmethod
    def buffer_bytes(connection):
        return connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def test_more_is_waited_for_until_it_is_at_its_end(self):
        with socket.create_server(("127.0.0.1", 0)) as listener, \
                socket.create_connection(listener.getsockname()), \
                listener.accept()[0] as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
            stream = source_stream.SourceStream(1, taken, mock.Mock(), 49152, mock.Mock(), None)
            stream._escort = mock.Mock(through=False)
            later = qemu_stream.Position(phase="later", round=4)
            before = self.buffer_bytes(taken), self.waits(taken)
            stream._keep_together(later, 1 << 10)
            self.assertEqual(before, (self.buffer_bytes(taken), self.waits(taken)))
            stream._escort.through = True
            stream._keep_together(later, 1 << 10)
            self.assertGreater(self.buffer_bytes(taken), before[0])
            gate = self.waits(taken)
            stream._keep_together(later._replace(phase="ram-end", ram_end_offset=1), 1 << 10)
            self.assertGreater(gate, self.waits(taken))
            self.assertGreater(self.waits(taken), (0, 0))


@ddt.ddt
class EarlyChunks(base.BaseTestCase):
    """Round 0 of a stream that is alone: as much as is gone within 25 ms, in two steps."""

    ROUND0 = qemu_stream.Position(phase="round0")

    @ddt.data((None, 0.1, False, 3 << 20, 3 << 20), (200e6, 1.0, False, 3 << 20, 3 << 20),
              (300e6, 1.0, False, 6 << 20, 6 << 20), (100e6, 0.3, False, 6 << 20, 6 << 20),
              (100e6, 0.5, False, 3 << 20, 3 << 20), (None, 0.1, True, 1 << 20, None),
              (37.5e6, 0.5, True, 1 << 20, None), (37.5e6, 0.2, True, 3 << 20, 3 << 20))
    @ddt.unpack
    def test_what_leaves_soon_is_taken_at_once(self, sending, share, slow, chunk, block):
        stream, group = self.begun(sending, share, slow)
        self.assertEqual(chunk, stream._chunk_bytes(self.ROUND0))
        group.log.return_value.set_block_bytes.assert_called_with(1, block)

    def test_one_that_is_held_to_a_speed_is_taken_in_smaller_pieces_again(self):
        stream, _ = self.begun(37.5e6, 0.2, True)
        stream._reached("slowed")
        self.assertEqual(1 << 20, stream._chunk_bytes(self.ROUND0))

    def begun(self, sending, share, slow):
        group = mock.Mock()
        group.sending_bytes_per_second.return_value, group.group.link_is_slow = sending, slow
        group.turns.crowded = False
        group.log.return_value.crossed.return_value = 4 << 20, int((4 << 20) * share)
        stream = source_stream.SourceStream(1, mock.Mock(), mock.Mock(), 49152, group, None)
        stream._is_migration = True
        stream._set_block(64 << 10)
        return stream, group


@ddt.ddt
class SharedChunks(base.BaseTestCase):
    """What a stream takes while others go beside it, by what of it crosses."""

    @ddt.data((1 << 20, 10.0, 1.0, 187_500),    # too little is known: all of it may cross
              (4 << 20, 0.5, 0.5, 375_000),
              (4 << 20, 0.1, 0.1, 512 << 10),   # encoding must not take long either
              (4 << 20, 2.0, 2.0, 93_750),
              (4 << 20, 9.0, 9.0, 64 << 10))
    @ddt.unpack
    def test_of_known_content_more_is_taken_beside_others(self, raw, share, known, chunk):
        group = mock.Mock()
        group.group.link_is_slow = True
        group.log.return_value.crossed.return_value = raw, int(raw * share)
        stream = source_stream.SourceStream(1, mock.Mock(), mock.Mock(), 49152, group, None)
        self.assertAlmostEqual(chunk, stream._shared_chunk_bytes(37.5e6 * 0.005), delta=2)
        self.assertAlmostEqual(known, stream._crossing, places=5)


class Waking(base.BaseTestCase):
    """While round 0 comes fast, few bytes wake nobody; once nothing comes, any do."""

    def test_by_what_it_is_woken(self):
        with socket.create_server(("127.0.0.1", 0)) as listener, \
                socket.create_connection(listener.getsockname()) as ours, \
                listener.accept()[0] as theirs:
            stream = source_stream.SourceStream(1, theirs, mock.Mock(), 49152, mock.Mock(), None)
            poll = select.poll()
            poll.register(theirs, select.POLLIN)
            stream._wake_for(256 << 10)
            ours.sendall(bytes(8))
            self.assertEqual([], poll.poll(50))
            stream._wake_for(1)
            self.assertEqual(1, len(poll.poll(5000)))

    def test_on_a_slow_link_and_of_a_set_by_any_byte(self):
        for is_slow, gang in ((True, None), (False, mock.Mock())):
            group = mock.Mock()
            group.group.link_is_slow = is_slow
            with mock.patch.object(source_stream.escort, "Escort"):
                stream = source_stream.SourceStream(1, mock.Mock(), mock.Mock(), 49152, group,
                                                    gang)
            self.assertEqual(1, stream._bulk_least_bytes)


@ddt.ddt
class FirstPass(base.BaseTestCase):
    """Round 0 ends for the plan's sake when the stream slows down or the next round begins."""

    @ddt.data(qemu_stream.Position(phase="later", round=1),
              qemu_stream.Position(phase="ram-end", ram_end_offset=1),
              qemu_stream.Position(phase="round0"))
    def test_it_is_noted_once_and_without_what_others_had_of_the_wire(self, position):
        group = mock.Mock()
        group.wire_bytes_per_second.return_value, group.group.downtime_seconds = 10e6, 0.5
        counters = group.log.return_value.statistics.return_value = statistics.Statistics(
            raw_bytes=80 << 20, wire_bytes=20_000_000)
        stream = source_stream.SourceStream(1, mock.Mock(), mock.Mock(), 49152, group, None)
        stream._pace, stream._memory = mock.Mock(waited_share=0.0), mock.Mock()
        stream._memory.carriers.return_value, stream._memory.remaining_bytes.return_value = 1, 0
        stream._times["turn"] = time.monotonic() - 5.0
        stream._gave_way = 1.0
        stream._taken(qemu_stream.Position(phase="round0"), 4096)
        self.assertIsNone(stream.first_pass)
        # in round 0 it is over when the relay slows down
        stream._pace.waited_share = 0.9
        stream._taken(position, 4096)
        found = stream.first_pass
        self.assertEqual((80 << 20, 2.0), found[1:])
        self.assertAlmostEqual(4.0, found.seconds, delta=1.0)
        counters.raw_bytes += 1
        stream._taken(position, 4096)
        self.assertIs(found, stream.first_pass)
