import os
import socket
import threading

from oslotest import base

from nova_batch_migrate.relay import splice


def pair():
    """Return two connected TCP sockets on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return one, other


def read_all(connection):
    data = bytearray()
    while chunk := connection.recv(1 << 16):
        data += chunk
    return bytes(data)


class Splice(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.client, near = pair()
        far, self.server = pair()
        self.joined = splice.Splice(near, far)
        for each in (self.client, self.server):
            each.settimeout(60)
            self.addCleanup(each.close)
        self.thread = threading.Thread(target=self.joined.run, daemon=True)
        self.thread.start()

    def test_bytes_arrive_as_they_were_in_both_directions(self):
        sent = os.urandom(5_000_000)

        def send():
            self.client.sendall(sent)
            self.client.shutdown(socket.SHUT_WR)
        threading.Thread(target=send, daemon=True).start()
        self.assertEqual(sent, read_all(self.server))
        # one direction has ended, the other goes on
        self.server.sendall(b"done")
        self.server.shutdown(socket.SHUT_WR)
        self.assertEqual(b"done", read_all(self.client))
        self.thread.join(60)
        self.assertFalse(self.thread.is_alive())
        self.assertEqual([len(sent), 4], self.joined.moved_bytes)

    def test_a_server_that_speaks_first_is_heard_at_once(self):
        self.server.sendall(b"NBDMAGIC")
        self.assertEqual(b"NBDMAGIC", self.client.recv(8, socket.MSG_WAITALL))
        self.client.sendall(b"answer")
        self.assertEqual(b"answer", self.server.recv(6, socket.MSG_WAITALL))

    def test_a_reset_on_one_side_ends_the_other(self):
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                               (1).to_bytes(4, "little") + bytes(4))
        self.client.close()
        self.assertEqual(b"", self.server.recv(1))
        self.thread.join(60)
        self.assertFalse(self.thread.is_alive())
