from oslotest import base

from nova_batch_migrate.planning.throttle import THROTTLE_MOST, Throttle


class TestThrottle(base.BaseTestCase):

    def periods(self, *dirtied, seconds=1.0):
        """A throttle that saw so many pages found dirty in periods of 100 sent ones."""
        throttle = Throttle()
        for pages in dirtied:
            throttle.passed(seconds)
            throttle.sent(100.0)
            throttle.dirtied(pages)
        return throttle

    def test_one_bad_period_is_forgiven(self):
        self.assertEqual(0.0, self.periods(60.0).share)

    def test_two_slow_the_guest_by_a_fifth_then_by_a_tenth_more(self):
        self.assertEqual(0.2, self.periods(60.0, 60.0).share)
        self.assertEqual(0.2, self.periods(60.0, 60.0, 60.0).share)
        self.assertAlmostEqual(0.3, self.periods(*[60.0] * 4).share)

    def test_half_of_what_was_sent_is_not_too_much(self):
        self.assertEqual(0.0, self.periods(*[50.0] * 9).share)

    def test_less_than_a_second_is_no_period(self):
        self.assertEqual(0.0, self.periods(*[60.0] * 3, seconds=0.3).share)

    def test_it_never_stops_a_guest(self):
        self.assertEqual(THROTTLE_MOST, self.periods(*[100.0] * 40).share)
