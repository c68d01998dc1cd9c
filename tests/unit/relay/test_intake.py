import select
import socket
import struct
import threading
import time

from oslotest import base

from nova_batch_migrate.relay import intake


class Fill(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.near, self.far = socket.socketpair()
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        self.intake = intake.Intake(self.near, 1)
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
        self.assertEqual(1000, intake.fill(self.near, self.room, 20))
        sender.join()
        self.assertEqual(b"x" * 1000, self.room)

    def test_what_is_there_is_taken_when_no_more_comes(self):
        self.far.sendall(b"x" * 300)
        self.assertEqual(300, intake.fill(self.near, self.room, 0.02))
        self.assertRaises(BlockingIOError, intake.fill, self.near, self.room, 0.02)

    def test_late_a_timeout_in_all_is_what_more_bytes_are_waited_for(self):
        self.patient(4)
        self.far.sendall(b"x" * 300)
        more = threading.Timer(0.05, self.far.sendall, [b"x" * 100])
        more.start()
        self.addCleanup(more.join)
        begun = time.monotonic()
        self.assertEqual(400, intake.fill(self.near, self.room, 0.0))
        self.assertLess(time.monotonic() - begun, 40)

    def test_a_trickle_is_not_waited_for_without_end(self):
        ended = threading.Event()
        self.addCleanup(ended.set)

        def trickle():
            while not ended.wait(0.01):
                self.far.sendall(b"x")
        threading.Thread(target=trickle, daemon=True).start()
        begun = time.monotonic()
        self.assertLess(intake.fill(self.near, self.room, 0.02), 1000)
        self.assertLess(time.monotonic() - begun, 20)
        ended.set()

    def test_the_end_is_told_behind_the_last_bytes(self):
        self.far.sendall(b"x" * 300)
        self.far.close()
        self.assertEqual(300, intake.fill(self.near, self.room, 0.02))
        self.assertEqual(0, intake.fill(self.near, self.room, 0.02))
        self.assertEqual(0, self.intake.take(self.room, memory=False, late=False))


class OfTcp(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.ours = socket.create_connection(listener.getsockname())
            self.theirs, _ = listener.accept()
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)


class First(OfTcp):
    """What a connection is, without waiting for more of it than that takes."""

    def first(self):
        return intake.Intake(self.theirs, 1).first((b"abcd", b"wxyz"))

    def test_they_stay_to_be_taken(self):
        self.ours.sendall(b"wxyz and more")
        self.assertEqual(b"wxyz", self.first())
        self.assertEqual(b"wxyz and", self.theirs.recv(8))

    def test_the_rest_of_a_beginning_is_waited_for(self):
        self.ours.sendall(b"wx")
        rest = threading.Timer(0.05, self.ours.sendall, [b"yz"])
        rest.start()
        self.addCleanup(rest.join)
        self.assertEqual(b"wxyz", self.first())

    def test_who_says_less_and_waits_for_an_answer_is_heard(self):
        self.ours.sendall(b"hi")
        self.assertEqual(b"hi", self.first())

    def test_the_end_is_an_answer_too(self):
        self.ours.sendall(b"wx")
        self.ours.close()
        self.assertEqual(b"wx", self.first())


class BehindTheGate(OfTcp):
    """Where guests stand still, QEMU is taken in large pieces, up to its end."""

    def state(self):
        """Return how much the kernel takes, and how long (s, us) more is waited for."""
        return (self.theirs.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
                struct.unpack("ll", self.theirs.getsockopt(
                    socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.calcsize("ll"))))

    def test_more_is_waited_for_until_it_is_at_its_end(self):
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
        its = intake.Intake(self.theirs, 1)
        its.begin()
        before_bytes, usual = self.state()
        its.hurry(at_end=False)
        behind_bytes, gate = self.state()
        self.assertGreater(behind_bytes, before_bytes)
        self.assertGreater(gate, usual)
        its.hurry(at_end=True)
        self.assertEqual((behind_bytes, usual), self.state())
        self.assertGreater(usual, (0, 0))


class Waking(OfTcp):
    """While round 0 comes fast, few bytes wake nobody; once nothing comes, any do."""

    def setUp(self):
        super().setUp()
        self.its = intake.Intake(self.theirs, 256 << 10)
        self.its.begin()
        self.room = memoryview(bytearray(1 << 20))
        self.assertRaises(BlockingIOError, self.its.take, self.room, memory=True, late=False)

    def test_by_what_it_is_woken(self):
        poll = select.poll()
        poll.register(self.theirs, select.POLLIN)
        self.ours.sendall(bytes(8))
        self.assertEqual([], poll.poll(50))
        self.its.comes_soon()
        self.assertEqual(1, len(poll.poll(5000)))

    def test_in_later_rounds_and_at_the_head_any_byte_does(self):
        for memory, late in ((True, True), (False, False)):
            self.assertRaises(BlockingIOError, self.its.take, self.room, memory=memory, late=late)
            self.ours.sendall(bytes(8))
            self.assertTrue(self.its.comes(begun=False))
            self.assertEqual(8, self.its.take(self.room, memory=memory, late=late))
            self.assertRaises(BlockingIOError, self.its.take, self.room, memory=True, late=False)
