import os
import socket
import time

from oslotest import base

from nova_batch_migrate.relay import sock_diag


class ListeningSockets(base.BaseTestCase):
    def test_listeners_are_told_from_connections(self):
        with (socket.create_server(("127.0.0.1", 0)) as listener,
              socket.create_connection(listener.getsockname())):
            port = listener.getsockname()[1]
            self.assertEqual({os.fstat(listener.fileno()).st_ino: "127.0.0.1"},
                             sock_diag.listening_sockets(port))

    def test_both_families_are_seen(self):
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
            port = listener.getsockname()[1]
            self.assertEqual({os.fstat(listener.fileno()).st_ino: "::1"},
                             sock_diag.listening_sockets(port))


class SendQueue(base.BaseTestCase):
    def _connected(self, address="127.0.0.1", family=socket.AF_INET):
        listener = socket.create_server((address, 0), family=family)
        self.addCleanup(listener.close)
        near = socket.create_connection(listener.getsockname()[:2])
        self.addCleanup(near.close)
        far, _ = listener.accept()
        self.addCleanup(far.close)
        queue = sock_diag.SendQueue(near.getsockname()[:2], near.getpeername()[:2])
        self.addCleanup(queue.close)
        return near, far, queue

    def test_what_the_peer_has_not_got_is_counted(self):
        for address, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
            near, far, queue = self._connected(address, family)
            self.assertEqual(0, queue.size_bytes())
            near.setblocking(False)
            given = 0
            try:
                while True:
                    given += near.send(b"x" * 65536)
            except BlockingIOError:
                full = queue.size_bytes()
            self.assertGreater(full, 0)
            self.assertLessEqual(full, given)
            taken = 0
            while taken < given:
                taken += len(far.recv(1 << 20))
            # until it is acknowledged
            end = time.monotonic() + 60
            while queue.size_bytes() and time.monotonic() < end:
                time.sleep(0.01)
            self.assertEqual(0, queue.size_bytes())

    def test_a_socket_that_is_not_there_has_none(self):
        queue = sock_diag.SendQueue(("127.0.0.1", 1), ("127.0.0.1", 2))
        self.addCleanup(queue.close)
        self.assertIsNone(queue.size_bytes())
