import hashlib

import ddt
import numpy
from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.planning import sketch
from nova_batch_migrate.planning.telemetry import Sketch


def identity(content):
    return hashlib.blake2b(str(content).encode(), digest_size=8, key=b"day 1").hexdigest()


def sketch_of(contents, theta=1.0, key="day-1"):
    """What an agent publishes of these contents."""
    kept = sorted(i for i in map(identity, set(contents)) if int(i, 16) < theta * 2 ** 64)
    return Sketch(key, theta, tuple(kept))


SETS = strategies.sets(strategies.integers(0, 80))


@ddt.ddt
class TestCompare(base.BaseTestCase):

    @settings(deadline=None, max_examples=60)
    @given(SETS, SETS)
    def test_all_of_hash_space_is_exact(self, a, b):
        found = sketch.compare([sketch_of(a), sketch_of(b)])
        self.assertEqual((len(a | b), len(a & b), 0.0, 0.0, 0.0),
                         (found.union.pages, found.intersection.pages, found.union.error_pages,
                          found.intersection.error_pages, found.share_error))
        self.assertEqual(len(a & b) / len(a) if a else 0.0,
                         sketch.held_by(sketch_of(a), sketch_of(b))[0])

    @settings(deadline=None, max_examples=60)
    @given(SETS, SETS, strategies.sampled_from([1.0, 0.5, 0.25]),
           strategies.sampled_from([1.0, 0.5, 0.25]))
    def test_unequal_thetas_meet_at_the_smaller(self, a, b, first, second):
        found = sketch.compare([sketch_of(a, first), sketch_of(b, second)])
        least = min(first, second)
        self.assertEqual(sketch.compare([sketch_of(a, least), sketch_of(b, least)]), found)
        self.assertEqual(least, found.theta)

    def test_two_points_at_25000_pages_take_a_sixteenth(self):
        rng = numpy.random.default_rng(1)
        misses, stated = [], []
        for _ in range(60):
            # Random 64-bit contents are their own identities: 25,000 wanted, 40 % held.
            mine = rng.integers(0, 2 ** 64, 25_000, dtype=numpy.uint64)
            theirs = numpy.concatenate([
                mine[:10_000], rng.integers(0, 2 ** 64, 15_000, dtype=numpy.uint64)])
            limit = numpy.uint64(2 ** 60)
            wanted, holder = (
                Sketch("d", 1 / 16, tuple(f"{i:016x}" for i in numpy.sort(s[s < limit]).tolist()))
                for s in (mine, theirs))
            share, error = sketch.held_by(wanted, holder)
            misses.append(abs(share - 0.4))
            stated.append(error)
        self.assertAlmostEqual(0.0235, max(stated), delta=0.002)
        within = sum(miss <= error for miss, error in zip(misses, stated, strict=True))
        self.assertGreaterEqual(within, 54)
        self.assertLess(float(numpy.mean(misses)), 0.0125)

    def test_unequal_keys_are_refused(self):
        error = self.assertRaises(exception.PlanningError, sketch.compare,
                                  [sketch_of([1]), sketch_of([1], key="day-2")])
        self.assertIn("keys day-1, day-2", str(error))

    @ddt.data(Sketch("d", 1.0, ("xyz",)), Sketch("d", 1.0, ("12",)), Sketch("d", 0.0),
              Sketch("d", 2.0))
    def test_what_is_no_sketch_is_named(self, wrong):
        self.assertIn("Sketch.", str(self.assertRaises(
            exception.PlanningError, sketch.compare, [wrong])))

    def test_nothing_to_compare(self):
        self.assertRaises(exception.PlanningError, sketch.compare, [])
        found = sketch.compare([sketch_of([]), sketch_of([])])
        self.assertEqual((0.0, 0.0), (found.union.pages, found.share))

    def test_an_empty_sample_is_no_proof_of_absence(self):
        found = sketch.compare([Sketch("d", 0.25), Sketch("d", 0.25)])
        self.assertEqual((0.0, 12.0, 1.0), (found.union.pages, found.union.error_pages,
                                            found.share_error))

    def test_distinct(self):
        found = sketch.distinct(Sketch("d", 0.5, ("0000000000000001", "0000000000000002")))
        self.assertEqual((4.0, 4 * 4096), (found.pages, found.bytes))
