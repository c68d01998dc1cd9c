import ddt
import numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from oslotest import base

from nova_batch_migrate.planning import periodicity
from tests.unit.planning import series

BEGIN = series.BEGIN


def quiet_miss(found, period, on_share, shift, now):
    """Return how far the next quiet begin is off, as a share of the period."""
    true = (BEGIN + shift + on_share * period - now) % period
    told = (found.minimum_begins_seconds - now) % found.period_seconds
    return abs((told - true + period / 2) % period - period / 2) / period


@ddt.ddt
class TestFind(base.BaseTestCase):

    # a sample a minute at a random moment of it; a server followed every second
    @ddt.data(("minutes", 30, 0.5), ("minutes", 30, 0.2), ("minutes", 30, 0.8),
              ("minutes", 12, 0.5), ("minutes", 300, 0.5), ("minutes", 900, 0.3),
              ("followed", 30, 0.5), ("followed", 30, 0.2), ("followed", 30, 0.8),
              ("followed", 12, 0.5))
    @ddt.unpack
    def test_a_duty_cycle_is_found_with_period_and_phase(self, kind, period, on_share):
        certain = 0
        for seed in range(5):
            random = numpy.random.default_rng(seed)
            at, window = series.moments(kind, random)
            shift = random.random() * period
            rates = series.duty(at, window, period, on_share, shift, 800, 20, random)
            # one sample in ten is missing
            kept = random.random(len(at)) > 0.1
            found = periodicity.find(at[kept], rates[kept], window)
            if found.confidence < 0.9:
                continue  # a sample a minute may meet too few quiet stretches to be sure
            certain += 1
            self.assertAlmostEqual(period, found.period_seconds, delta=0.03 * period)
            self.assertLess(quiet_miss(found, period, on_share, shift, at[-1]), 0.12)
            self.assertAlmostEqual((1 - on_share) * period, found.minimum_lasts_seconds,
                                   delta=0.2 * period + window)
            mean = 800 * on_share + 20 * (1 - on_share)
            self.assertAlmostEqual(mean, found.mean_pages_per_second, delta=0.3 * mean)
            self.assertLess(found.minimum_pages_per_second, 0.5 * mean)
        self.assertGreaterEqual(certain, 4)

    def test_a_drifting_level_hides_nothing(self):
        random = numpy.random.default_rng(3)
        at, window = series.moments("minutes", random)
        rates = series.duty(at, window, 120, 0.5, 0, 800, 20, random)
        rates *= numpy.linspace(0.6, 1.6, len(at))
        found = periodicity.find(at, rates, window)
        self.assertAlmostEqual(120, found.period_seconds, delta=1)

    def test_a_gap_of_half_the_series_hides_nothing(self):
        # the agent was restarted and nobody sampled meanwhile
        random = numpy.random.default_rng(4)
        at, window = series.moments("minutes", random, 60)
        rates = series.duty(at, window, 40, 0.5, 7, 800, 20, random)
        kept = numpy.r_[0:20, 45:60]
        found = periodicity.find(at[kept], rates[kept], window)
        self.assertAlmostEqual(40, found.period_seconds, delta=0.5)

    @ddt.data("white", "normal", "bursts", "walk", "telegraph", "step", "trend", "constant",
              "idle")
    def test_what_has_no_period_is_not_called_periodic(self, kind):
        for schedule in ("minutes", "followed"):
            fooled = 0
            for seed in range(20):
                random = numpy.random.default_rng(seed)
                at, window = series.moments(schedule, random)
                found = periodicity.find(at, series.aperiodic(kind, len(at), random), window)
                fooled += found is not None and found.confidence > 0.9
            self.assertLessEqual(fooled, 2, (schedule, kind))

    @ddt.data(30, 33, 50, 600)
    def test_even_samples_of_short_windows_tell_no_period_from_another(self, period):
        # every 60 s: 50 s looks like 300 s
        at = BEGIN + 60.0 * numpy.arange(60)
        rates = series.duty(at, 2.0, period, 0.5, 3, 800, 20, numpy.random.default_rng(1))
        self.assertIsNone(periodicity.find(at, rates, 2.0))

    def test_too_few_periods_are_none(self):
        random = numpy.random.default_rng(1)
        at, window = series.moments("followed", random)
        self.assertIsNone(periodicity.find(
            at, series.duty(at, window, 60, 0.5, 0, 800, 20, random), window))

    def test_too_few_samples_are_none(self):
        self.assertIsNone(periodicity.find([], [], 1.0))
        self.assertIsNone(periodicity.find([BEGIN] * 40, [1.0, 2.0] * 20, 1.0))

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.floats(allow_nan=True, allow_infinity=True),
                              st.floats(allow_nan=True, allow_infinity=True)), max_size=60),
           st.floats(0.1, 10))
    def test_whatever_comes_in_what_comes_out_is_sane(self, samples, window):
        self.check([at for at, _ in samples], [rate for _, rate in samples], window)

    @settings(deadline=None)
    @given(st.integers(0, 2 ** 32), st.floats(8, 800), st.floats(0, 1), st.integers(0, 90))
    def test_any_duty_cycle_gives_a_sane_answer(self, seed, period, on_share, samples):
        random = numpy.random.default_rng(seed)
        at, window = series.moments("minutes", random, samples)
        self.check(at, series.duty(at, window, period, on_share, 0, 900, 3, random), window)

    def check(self, at, rates, window):
        found = periodicity.find(at, rates, window)
        if found is None:
            return
        self.assertTrue(0 <= found.confidence <= 1)
        self.assertTrue(0 <= found.minimum_begins_seconds < found.period_seconds)
        self.assertTrue(0 < found.minimum_lasts_seconds < found.period_seconds)
        self.assertTrue(
            0 <= found.minimum_pages_per_second <= 0.5 * found.mean_pages_per_second)
