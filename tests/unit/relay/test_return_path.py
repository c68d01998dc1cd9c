import struct

import ddt
from oslotest import base

from nova_batch_migrate.relay import return_path


def message(kind, data):
    return struct.pack(">HH", kind, len(data)) + data


PONG = message(2, b"\0\0\0\1")
SHUT = message(1, b"\0\0\0\0")


@ddt.ddt
class Feed(base.BaseTestCase):
    @ddt.data(1, 3, 5, 100)
    def test_cuts_in_front_of_shut_however_it_comes_in(self, step):
        path = return_path.ReturnPath()
        data, passed, last = PONG + PONG + SHUT, b"", b""
        for start in range(0, len(data), step):
            now, rest = path.feed(data[start:start + step])
            passed, last = passed + now, last + rest
            if path.shut_seen:
                passed, last = passed + b"", last
        self.assertTrue(path.shut_seen)
        self.assertEqual(data[:len(PONG) * 2], passed[:len(PONG) * 2])
        self.assertTrue(last.startswith(SHUT[:4]))

    def test_what_comes_behind_shut_passes(self):
        path = return_path.ReturnPath()
        self.assertEqual((b"", SHUT), path.feed(SHUT))
        self.assertEqual((b"more", b""), path.feed(b"more"))

    def test_anything_unknown_passes_as_it_is(self):
        path = return_path.ReturnPath()
        self.assertEqual((b"NBDMAGICxyz", b""), path.feed(b"NBDMAGICxyz"))
        self.assertEqual((SHUT, b""), path.feed(SHUT))

    def test_half_a_message_is_kept_until_the_end(self):
        path = return_path.ReturnPath()
        self.assertEqual((b"", b""), path.feed(PONG[:6]))
        self.assertEqual(PONG[:6], path.rest())
