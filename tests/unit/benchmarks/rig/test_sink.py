import socket
import threading

from oslotest import base

from tests.unit.benchmarks import paths  # noqa: F401  (before nbmbench)

from nbmbench.rig.sink import Sink  # noqa: E402  isort: skip


class TestSink(base.BaseTestCase):
    def sink(self, consume, dry=None):
        listening = socket.create_server(("127.0.0.1", 0))
        made = Sink(listening, consume, dry=dry)
        self.addCleanup(made.close)
        return made

    def send(self, sink, *parts):
        with socket.create_connection(("127.0.0.1", sink.port)) as connection:
            for part in parts:
                connection.sendall(part)
        self.assertTrue(sink.taken.wait(30))
        sink.drained()

    def test_counts_both_sides_of_the_codec_and_tells_the_end(self):
        got, ends = bytearray(), []

        def half(number, chunk):
            if not len(chunk):
                ends.append(number)
            got.extend(chunk)
            return len(chunk) // 2

        sink = self.sink(half)
        content = bytes(range(256)) * 4096
        self.send(sink, content)
        self.assertEqual(content, bytes(got))
        self.assertEqual([1], ends)
        self.assertEqual(len(content), sink.raw_bytes)
        self.assertLessEqual(sink.wire_bytes, len(content) // 2)

    def test_what_goes_out_when_the_source_is_dry_counts(self):
        dry = threading.Event()

        def flush(number):
            dry.set()
            return 7

        sink = self.sink(lambda number, chunk: 0, dry=flush)
        with socket.create_connection(("127.0.0.1", sink.port)) as connection:
            connection.sendall(b"x")
            self.assertTrue(dry.wait(30))
        sink.drained()
        self.assertEqual(0, sink.wire_bytes % 7)

    def test_a_codec_that_fails_is_told(self):
        def broken(number, chunk):
            raise ValueError("no")

        sink = self.sink(broken)
        self.send(sink, b"x")
        self.assertEqual(["ValueError: no"], sink.errors)
