import random

import numpy
from oslotest import base

from nova_batch_migrate.agent import fingerprint, memory, portions
from nova_batch_migrate.planning.telemetry import Portions

SEED = 7
BLOCK = 512
PER_PAGE = memory.PAGE_BYTES // BLOCK


def blocks(*numbers):
    """Return a page of blocks by number; 0 is a block of zeros."""
    return b"".join(random.Random(number).randbytes(BLOCK) if number else bytes(BLOCK)
                    for number in numbers)


def collect(pages, theta=1.0):
    collector = portions.Collector(theta)
    buffer = memoryview(b"".join(pages))
    hashes = numpy.array([fingerprint.hash_page(page, SEED) for page in pages], dtype=numpy.uint64)
    portions.BlockReader(buffer, SEED, BLOCK).add(collector, hashes)
    return collector


def counted(**guests):
    found = portions.classes({name: collect(pages) for name, pages in guests.items()}, BLOCK, SEED)
    return {"".join(entry.servers): entry.pages for entry in Portions.from_dict(found).classes}


class TestClasses(base.BaseTestCase):

    def test_blocks_of_unlike_pages_in_common(self):
        self.assertEqual(
            {"a": 4, "b": 6, "ab": 2},
            counted(a=[blocks(1, 2, 3, 4, 5, 6, 0, 0)], b=[blocks(0, 0, 1, 2, 13, 14, 15, 16),
                                                           blocks(17, 18, *[0] * 6)]))

    def test_pages_in_common_as_a_whole_are_not_counted_again(self):
        shared = blocks(*range(1, 9))
        self.assertEqual({"a": 7}, counted(a=[shared, blocks(1, *range(21, 27), 0)], b=[shared]))

    def test_a_sample_of_blocks_is_the_same_in_all(self):
        pages = [blocks(*range(8 * page + 1, 8 * page + 8), 9000 + page) for page in range(50)]
        others = [blocks(*range(8 * page + 1, 8 * page + 8), 8000 + page) for page in range(50)]
        found = portions.classes({"a": collect(pages, 0.25), "b": collect(others, 0.25)}, BLOCK,
                                 SEED)
        common, = (entry["pages"] for entry in found["classes"] if len(entry["servers"]) == 2)
        self.assertEqual(0.25, found["theta"])
        self.assertTrue(50 < common < 130, common)

    def test_one_guest_has_no_portions(self):
        self.assertIsNone(portions.classes({"a": collect([blocks(*range(8))])}, BLOCK, SEED))
