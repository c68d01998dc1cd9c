import numpy as np
from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate.relay.wire import HEADER_BYTES, Frame, FrameReader, Kind, WireError, pieces


class TestFrames(base.BaseTestCase):

    @settings(max_examples=60, deadline=None)
    @given(strategies.lists(strategies.builds(
        Frame, strategies.sampled_from(Kind), strategies.integers(0, (1 << 32) - 1),
        strategies.integers(0, (1 << 64) - 1), strategies.binary(max_size=300)), max_size=5),
        strategies.integers(1, 400))
    def test_frames_come_back_whatever_the_chunking(self, frames, chunk):
        packed = b"".join(frame.pack() for frame in frames)
        reader, found = FrameReader(), []
        for at in range(0, len(packed), chunk):
            found += reader.feed(packed[at:at + chunk])
        self.assertEqual(frames, found)
        self.assertEqual(0, reader.pending_bytes)

    def test_long_parts_are_sent_from_where_they_are(self):
        short, long = b"head", np.arange(2 * 40_000, dtype=np.uint8).reshape(2, -1)
        parts = (short, np.empty((0, 4096), np.uint8), long, short)
        found = pieces(Kind.DATA, 1, 2, parts)
        self.assertEqual(3, len(found))
        self.assertIs(long, found[1].obj)
        whole = b"".join(found)
        self.assertEqual([Frame(Kind.DATA, 1, 2, short + long.tobytes() + short)],
                         FrameReader().feed(whole))

    def test_an_unfinished_frame_waits(self):
        packed = Frame(Kind.DATA, 1, 1, b"abc").pack()
        reader = FrameReader()
        self.assertEqual([], reader.feed(packed[:-1]))
        self.assertEqual(HEADER_BYTES + 2, reader.pending_bytes)
        self.assertEqual(b"abc", reader.feed(packed[-1:])[0].payload)

    def test_what_can_be_no_frame(self):
        packed = Frame(Kind.DATA, 1, 1, b"x" * 100).pack()
        self.assertRaises(WireError, FrameReader(max_payload_bytes=99).feed, packed)
        self.assertRaises(WireError, FrameReader().feed, packed[:4] + b"\xee" + packed[5:])
        self.assertRaises(WireError, Frame(Kind.DATA, 1, 1, bytes((16 << 20) + 1)).pack)
