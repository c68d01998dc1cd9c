import socket
import struct
import threading
import time

from oslotest import base

from nova_batch_migrate.relay import source_stream


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
        self.patient(0, 200_000)
        self.far.sendall(b"x" * 300)
        more = threading.Timer(0.05, self.far.sendall, [b"x" * 100])
        more.start()
        self.addCleanup(more.join)
        begun = time.monotonic()
        self.assertEqual(400, source_stream.fill(self.near, self.room, 0.0))
        self.assertLess(time.monotonic() - begun, 2)

    def test_a_trickle_is_not_waited_for_without_end(self):
        ended = threading.Event()
        self.addCleanup(ended.set)

        def trickle():
            while not ended.wait(0.01):
                self.far.sendall(b"x")
        threading.Thread(target=trickle, daemon=True).start()
        begun = time.monotonic()
        self.assertLess(source_stream.fill(self.near, self.room, 0.02), 1000)
        self.assertLess(time.monotonic() - begun, 5)
        ended.set()

    def test_the_end_is_told_behind_the_last_bytes(self):
        self.far.sendall(b"x" * 300)
        self.far.close()
        self.assertEqual(300, source_stream.fill(self.near, self.room, 0.02))
        self.assertEqual(0, source_stream.fill(self.near, self.room, 0.02))
        self.assertEqual(0, source_stream.take(self.near, self.room))
