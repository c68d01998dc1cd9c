import os

from oslotest import base

from nova_batch_migrate.relay.compression import Compressor, Decompressor
from nova_batch_migrate.relay.wire import CodecError


class TestContexts(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.compressor = Compressor(1, 20, long_matches=True)
        self.decompressor = Decompressor(20)

    def cross(self, data):
        packed, anew = self.compressor.compress(data)
        target = bytearray(len(data))
        self.decompressor.decompress_into(packed, memoryview(target), anew)
        self.assertEqual(data, target)
        return len(packed)

    def test_repetitions_of_earlier_blocks_cost_nothing(self):
        block = os.urandom(50_000)
        self.assertGreater(self.cross(block), 50_000)
        self.assertLess(self.cross(block), 100)
        self.compressor.restart(level=3)
        self.assertGreater(self.cross(block), 50_000)
        self.assertLess(self.cross(block), 100)

    def test_sizes_from_nothing_to_large(self):
        for size in (0, 1, 100, 3 << 20, 0, 5):
            self.cross(bytes(size // 2) + os.urandom(size - size // 2))

    def test_a_long_block_stands_for_itself_where_speed_comes_first(self):
        block = os.urandom(200_000)
        for level, size in ((1, 200_000), (3, 100)):
            self.compressor.restart(level)
            self.cross(block)
            self.assertEqual(size < 1000, self.cross(block) < 1000)
        self.compressor.restart(1)
        # short ones share a context as before
        self.cross(block[:50_000])
        self.assertLess(self.cross(block[:50_000]), 100)

    def test_where_content_comes_again_from_far_a_long_block_is_found_at_any_level(self):
        self.compressor = Compressor(1, 22, long_matches=True)
        self.decompressor = Decompressor(22)
        block, other = os.urandom(1 << 20), os.urandom(1 << 20)
        self.compressor.look_far()
        self.cross(block)
        for level in (-1, 3, 1):
            # what was there is worth more than another level
            self.compressor.restart(level)
            self.cross(other)
            self.assertLess(self.cross(block), 2000)

    def test_where_content_comes_again_from_far_a_level_falls_once(self):
        self.compressor = Compressor(6, 22, long_matches=True)
        self.decompressor = Decompressor(22)
        self.compressor.look_far()
        block = os.urandom(1 << 20)
        for level, known in ((9, False), (9, True), (3, False), (6, True), (1, True)):
            self.compressor.restart(level)
            self.assertEqual(known, self.cross(block) < 2000, (level, known))

    def test_more_is_never_taken_than_came(self):
        packed, _ = self.compressor.compress(b"a" * 1000)
        self.assertRaises(CodecError, self.decompressor.decompress_into, packed,
                          memoryview(bytearray(1001)), True)

    def test_a_context_that_never_began(self):
        packed, _ = self.compressor.compress(b"a" * 1000)
        self.assertRaises(CodecError, self.decompressor.decompress_into, packed,
                          memoryview(bytearray(1000)), False)

    def test_noise(self):
        self.assertRaises(CodecError, self.decompressor.decompress_into, os.urandom(200),
                          memoryview(bytearray(1000)), True)

    def test_a_larger_window_than_agreed(self):
        packed, _ = Compressor(3, 24, long_matches=False).compress(os.urandom(1000))
        self.assertRaises(CodecError, self.decompressor.decompress_into, packed,
                          memoryview(bytearray(1000)), True)
