"""A reference is sent for what is the same byte by byte, whatever its hash says."""

import types

import ddt
import numpy as np
from oslotest import base

from nova_batch_migrate.relay import kernel, reference
from tests.unit.relay import builders

LOOPS = {"compiled": kernel, "python": reference}


def one_hash(loops):
    """Return the loops with a hash that is the same for every page."""
    def match_pages(arrays, data, offsets, keys, hashes, *rest):
        return loops.match_pages(arrays, data, offsets, keys,
                                 np.zeros(len(offsets), np.uint64), *rest)
    names = {name: getattr(loops, name) for name in (
        "apply_block", "list_pages", "list_recurring", "note_runs", "pack_control",
        "scan_records")}
    return types.SimpleNamespace(**names, match_pages=match_pages)


@ddt.ddt
class Comparison(base.BaseTestCase):
    @ddt.data(*LOOPS)
    def test_pages_with_the_same_hash_are_told_apart(self, which):
        log = builders.log(loops=one_hash(LOOPS[which]), level=None)
        contents = [builders.noise(i) for i in range(60)]
        first = builders.guest(contents[:40])
        # in an order in which none follows its predecessor, with others between
        second = builders.guest(contents[::-1])
        for number, data in ((1, first), (2, second)):
            self.assertEqual(data, log.send(number, data))
        found = log.encoder.statistics(2)
        self.assertEqual((40, 20), (found.cross_server_bytes // builders.PAGE,
                                    found.literal_bytes // builders.PAGE))
