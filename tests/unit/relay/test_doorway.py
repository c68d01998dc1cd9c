import socket
import threading
import time
from unittest import mock

from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.relay import doorway

SECONDS = 60


class Enter(base.BaseTestCase):

    def test_only_so_many_of_an_address_are_inside_and_others_do_not_wait(self):
        door = doorway.Doorway(1, 0.05)

        def again(address):
            with door.enter(address):
                return True
        with door.enter("a"):
            self.assertRaisesRegex(exception.RelayError, "of a say nothing", again, "a")
            self.assertTrue(again("b"))
        self.assertTrue(again("a"))
        self.assertEqual((0, 0), (len(door._inside), len(door._waiting)))

    def test_a_crowd_of_one_address_does_not_even_wait(self):
        door, refused = doorway.Doorway(1, SECONDS), []

        def come():
            try:
                with door.enter("a"):
                    pass
            except exception.RelayError as error:
                refused.append(error)
        with door.enter("a"):
            crowd = [threading.Thread(target=come) for _ in range(20)]
            for each in crowd:
                each.start()
            while sum(each.is_alive() for each in crowd) > 4:
                time.sleep(0.01)
            self.assertEqual(16, len(refused))
        for each in crowd:
            each.join(SECONDS)
        self.assertEqual(16, len(refused))

    def test_who_waits_is_next(self):
        door, came = doorway.Doorway(1, SECONDS), threading.Event()

        def second():
            with door.enter("a"):
                came.set()
        waits = threading.Thread(target=second)
        with door.enter("a"):
            waits.start()
            self.assertFalse(came.wait(0.05))
        waits.join(SECONDS)
        self.assertTrue(came.is_set())


class Hurry(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)
        self.ours.settimeout(SECONDS)

    def test_who_says_little_at_a_time_is_ended_all_the_same(self):
        over = threading.Event()
        self.addCleanup(over.set)

        def drip():
            while not over.wait(0.01):
                try:
                    self.theirs.send(b"x")
                except OSError:
                    return
        threading.Thread(target=drip, daemon=True).start()
        with doorway.Doorway(1, 0.2).hurry(lambda: self.ours):
            while self.ours.recv(1):
                pass

    def test_who_is_through_has_no_end(self):
        with mock.patch.object(doorway.threading, "Timer") as timer, \
                doorway.Doorway(1, SECONDS).hurry(lambda: self.ours):
            timer.return_value.start.assert_called_once_with()
            timer.return_value.cancel.assert_not_called()
        timer.return_value.cancel.assert_called_once_with()
