import struct

import ddt
import numpy as np
from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate.relay import kernel, reference
from nova_batch_migrate.relay.layout import RUN_COLUMNS, Run, Stop
from tests.unit.relay import builders as b

LOOPS = {"compiled": kernel, "python": reference}


def scan(loops, data, rows=64):
    runs = np.full((rows, RUN_COLUMNS), -7, np.int64)
    at, count, stop = loops.scan_records(data, 0, len(data), 5, runs, 0, rows)
    return at, stop, runs[:count].tolist()


@ddt.ddt
class TestScan(base.BaseTestCase):

    @ddt.data(*LOOPS)
    def test_why_it_stops(self, which):
        loops = LOOPS[which]
        data = b.record(0, b.page(1)) + b.record(4096, b.page(2)) + b.record(8192, None)
        self.assertEqual((len(data), Stop.MORE, [[Run.PAGES, 0, 2, 0x28, 5],
                                                 [Run.ZERO, 8208, 1, 8192 | 0x22, 5]]),
                         scan(loops, data))
        self.assertEqual((8208, Stop.MORE), scan(loops, data[:-1])[:2])
        self.assertEqual((len(data), Stop.OTHER), scan(loops, data + b.EOS)[:2])
        self.assertEqual((8208, Stop.FULL), scan(loops, data, rows=1)[:2])
        # a zero page that is filled with something else is not one
        self.assertEqual((8208, Stop.OTHER), scan(loops, data[:-1] + b"\1")[:2])

    @settings(max_examples=100, deadline=None)
    @given(strategies.lists(strategies.one_of(
        strategies.binary(max_size=12),
        strategies.builds(lambda page, flags: struct.pack(">Q", page << 12 | flags) + b"\0",
                          strategies.integers(0, 4), strategies.sampled_from([0x22, 0x28, 0x2])),
        strategies.builds(lambda page: b.record(page << 12, bytes(4096)),
                          strategies.integers(0, 4)))))
    def test_both_find_the_same(self, pieces):
        data = b"".join(pieces)
        self.assertEqual(scan(reference, data), scan(kernel, data))

    @ddt.data(*LOOPS)
    def test_places_outside_of_the_data(self, which):
        runs = np.empty((4, RUN_COLUMNS), np.int64)
        for start, end, rows in ((-1, 4, 4), (5, 4, 4), (0, 9, 4), (0, 8, 5)):
            self.assertRaises(ValueError, LOOPS[which].scan_records, bytes(8), start, end, 0,
                              runs, 0, rows)


@ddt.ddt
class TestRebuild(base.BaseTestCase):
    """What came from a peer is never believed: ValueError, and nothing outside is touched."""

    RING = np.arange(3 * 4096, dtype=np.uint32).astype(np.uint8).reshape(3, 4096)

    def rebuild(self, which, size, kinds, counts, slots, verbatim=b""):
        out = bytearray(size)
        LOOPS[which].rebuild(
            out, np.array(kinds, np.uint8), np.array(counts, np.int64),
            np.array([0x28] * len(kinds), np.uint64), verbatim, self.RING,
            np.array(slots, np.int64), self.RING[:1])
        return bytes(out)

    @ddt.data(*LOOPS)
    def test_records_zeros_bare_pages_and_bytes(self, which):
        made = self.rebuild(which, 3 + 4104 + 9 + 4096, [0, 2, 1, 3], [3, 1, 1, 1], [1, -1], b"abc")
        header = struct.pack(">Q", 0x28)
        self.assertEqual(b"abc" + header + self.RING[1].tobytes() + header + b"\0"
                         + self.RING[0].tobytes(), made)

    @ddt.data(*LOOPS)
    def test_what_does_not_fit(self, which):
        for arguments in ((4103, [2], [1], [0]), (4105, [2], [1], [0]), (4104, [2], [1], []),
                          (4104, [2], [1], [3]), (4104, [2], [1], [-2]), (4104, [2], [1], [0, 1]),
                          (4104, [2], [-1], [0]), (4096, [4], [1], [0]), (3, [0], [3], [], b"ab"),
                          (2, [0], [2], [], b"abc"), (4096, [3], [1 << 60], [0])):
            self.assertRaises(ValueError, self.rebuild, which, *arguments)
