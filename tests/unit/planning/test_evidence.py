import math

from hypothesis import HealthCheck, given, settings, strategies
from oslotest import base

from nova_batch_migrate.planning import evidence
from nova_batch_migrate.planning.evidence import Scatter, Seen

SCATTER = Scatter(assumed=0.3, batch=0.3, migration=0.0, doubling=0.25)


def estimate(*seen, scatter=SCATTER):
    return evidence.estimate(seen, scatter)


def batches(count, value=0.5, unlike=0.0):
    return [Seen(value, str(number), unlike) for number in range(count)]


class EstimateTest(base.BaseTestCase):

    def test_nothing_seen_is_what_is_assumed(self):
        found = estimate()
        self.assertEqual(0.0, found.mean)
        self.assertAlmostEqual(math.hypot(0.3, 0.3), found.deviation)

    def test_one_batch_as_sure_as_the_assumption_is_halfway(self):
        self.assertAlmostEqual(0.1, estimate(Seen(0.2)).mean)

    def test_many_alike_batches_prevail(self):
        found = estimate(*batches(30))
        self.assertAlmostEqual(0.5, found.mean, delta=0.02)
        self.assertAlmostEqual(0.3, found.deviation, delta=0.01)

    def test_migrations_of_one_batch_are_one_batch(self):
        one, many = (estimate(*[Seen(0.2, "a")] * count).mean for count in (1, 50))
        self.assertAlmostEqual(one, many)

    def test_of_a_batch_the_median_counts(self):
        self.assertAlmostEqual(0.0, estimate(Seen(0.0), Seen(0.0), Seen(3.0)).mean)

    def test_unlike_ones_never_prevail_however_many(self):
        # Two doublings off: their bias has a variance of 2 x 0.0625, the assumption one of 0.09.
        bound = 0.5 * (1 / 0.125) / (1 / 0.125 + 1 / 0.09)
        found = estimate(*batches(5000, unlike=2.0)).mean
        self.assertAlmostEqual(bound, found, delta=0.001)
        self.assertLess(estimate(*batches(3, unlike=2.0)).mean, found)

    def test_an_alike_batch_outweighs_many_unlike_ones(self):
        unlike = [Seen(0.5, f"u{number}", 3.0) for number in range(50)]
        self.assertLess(estimate(*unlike, *batches(5, 0.0)).mean, 0.1)

    def test_an_odd_batch_pulls_no_harder_than_one_a_deviation_off(self):
        usual = batches(4, 0.0)
        most = max(estimate(*usual, Seen(value, "odd")).mean for value in (0.3, 1.0, 3.0, 10.0))
        self.assertLessEqual(most, estimate(*usual, Seen(0.4, "odd")).mean + 0.001)
        self.assertLess(most, 0.07)

    def test_what_is_old_counts_less(self):
        self.assertEqual(1.0, evidence.age(7 * 86400))
        self.assertEqual(0.0, evidence.age(-5.0))
        fresh, old = (estimate(Seen(0.2, "a", evidence.age(days * 86400))).mean
                      for days in (0, 28))
        self.assertLess(old, 0.6 * fresh)

    def test_doublings(self):
        self.assertEqual((2.0, 2.0, 0.0), (evidence.doublings(1, 4), evidence.doublings(4, 1),
                                           evidence.doublings(3, 3)))

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(strategies.lists(strategies.tuples(
        strategies.floats(-3, 3), strategies.integers(0, 5), strategies.floats(0, 10)),
        max_size=20))
    def test_it_lies_between_the_assumption_and_what_was_seen(self, given_):
        seen = [Seen(value, str(batch), unlike) for value, batch, unlike in given_]
        found = estimate(*seen)
        values = [0.0, *(each.value for each in seen)]
        self.assertLessEqual(min(values) - 1e-9, found.mean)
        self.assertGreaterEqual(max(values) + 1e-9, found.mean)
        self.assertGreaterEqual(found.deviation, 0.3)
