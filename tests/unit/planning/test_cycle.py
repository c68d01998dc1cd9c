from hypothesis import HealthCheck, given, settings, strategies
from oslotest import base

from nova_batch_migrate.planning.cycle import LEAST_CONFIDENCE, Cycle
from nova_batch_migrate.planning.telemetry import Periodicity


def periodicity(**fields):
    """Of 30 s, 10 s are quiet, from the 5th on; 20 of a mean of 100 pages/s then."""
    values = dict(period_seconds=30.0, minimum_begins_seconds=5.0, minimum_lasts_seconds=10.0,
                  minimum_pages_per_second=20.0, mean_pages_per_second=100.0, confidence=0.9)
    return Periodicity(**{**values, **fields})


class TestCycle(base.BaseTestCase):

    def test_by_hand(self):
        cycle = Cycle.of(periodicity())
        # 10 s at 0.2 and 20 s at f: a mean of 1 makes f = 1.4.
        self.assertAlmostEqual(1.4, cycle.busy_factor)
        self.assertAlmostEqual(5 * 1.4, cycle.busy_seconds(0, 5))
        self.assertAlmostEqual(10 * 0.2, cycle.busy_seconds(5, 15))
        self.assertAlmostEqual(1.4 + 10 * 0.2 + 1.4, cycle.busy_seconds(1804, 1816))

    def test_none_is_made_of_what_is_not_sure(self):
        for found in (None, periodicity(confidence=LEAST_CONFIDENCE - 0.01),
                      periodicity(mean_pages_per_second=0.0),
                      periodicity(minimum_lasts_seconds=30.0)):
            self.assertIsNone(Cycle.of(found))

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(strategies.floats(1, 100), strategies.floats(0, 0.99), strategies.floats(0.01, 0.99),
           strategies.floats(0, 1e6), strategies.integers(1, 9))
    def test_whole_periods_are_as_busy_as_the_mean(self, period, begins, share, start, periods):
        cycle = Cycle.of(periodicity(
            period_seconds=period, minimum_begins_seconds=begins * period,
            minimum_lasts_seconds=share * period))
        self.assertAlmostEqual(
            1.0, cycle.busy_seconds(start, start + periods * period) / (periods * period), 5)
