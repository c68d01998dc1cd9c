import dataclasses

from hypothesis import given
from hypothesis import strategies as st
from oslotest import base

from nova_batch_migrate.planning import timing
from nova_batch_migrate.planning.result import Wait
from nova_batch_migrate.planning.telemetry import History, Periodicity
from tests.unit.planning import builders

# quiet from 100.0 to 115.0, 130.0 to 145.0 and so on
DUTY = Periodicity(30.0, 10.0, 15.0, 20.0, 410.0, 0.99)


def periodic(periodicity=DUTY):
    history = History((1.0,), (410.0,), 2.0, "content-diff", None, periodicity)
    return dataclasses.replace(builders.server("duty"), history=history)


class TestBestMoment(base.BaseTestCase):

    def test_the_whole_stream_lies_in_the_quiet_stretch(self):
        # 5 s of stream, asked for 3 s before: from 7.0 on, for 15 - 1.1 * 5 s
        wait = timing.best_moment(DUTY, 5.0, 3.0, 8.0, 60.0)
        self.assertEqual((30.0, 7.0, 9.5, 3.0), (
            wait.period_seconds, wait.opens_seconds, wait.lasts_seconds, wait.saved_seconds))
        self.assertIn("20 pages/s in 15 of every 30 s, 410 pages/s on average", wait.reason)
        self.assertIn("3.0 s of the stream less", wait.reason)

    def test_a_stream_that_does_not_fit_or_gains_nothing_is_not_waited_for(self):
        self.assertIsNone(timing.best_moment(DUTY, 15.1, 0.0, 40.0, 60.0))
        self.assertIsNone(timing.best_moment(DUTY, 10.0, 0.0, 10.4, 60.0))

    def test_nobody_counts_on_a_moment_that_may_come_too_late(self):
        # closed for 20.5 s
        self.assertIsNone(timing.best_moment(DUTY, 5.0, 0.0, 8.0, 20.4))
        self.assertIsNotNone(timing.best_moment(DUTY, 5.0, 0.0, 8.0, 20.6))

    def test_who_would_not_converge_otherwise_waits(self):
        wait = timing.best_moment(DUTY, 14.9, 0.0, None, 60.0)
        self.assertIsNone(wait.saved_seconds)
        self.assertIn("it would not converge", wait.reason)
        # a tenth of the quiet stretch stays open
        self.assertAlmostEqual(1.5, wait.lasts_seconds)


class TestWaiting(base.BaseTestCase):

    WAIT = Wait(30.0, 7.0, 9.5, 3.0, "")

    def test_seconds_until_the_moment(self):
        for now, seconds in ((97.0, 0.0), (100.0, 0.0), (106.5, 0.0), (107.0, 20.0),
                             (126.0, 1.0), (127.0, 0.0)):
            self.assertAlmostEqual(seconds, timing.seconds_until(self.WAIT, now), msg=str(now))

    def test_nobody_waits_longer_than_asked(self):
        self.assertEqual(20.0, timing.seconds_to_wait(self.WAIT, 107.0, 20.0))
        self.assertEqual(0.0, timing.seconds_to_wait(self.WAIT, 107.0, 19.9))
        self.assertEqual(0.0, timing.seconds_to_wait(None, 107.0, 100.0))

    @given(st.floats(1, 2000), st.floats(0, 1), st.floats(0.05, 0.95), st.floats(0, 2e9))
    def test_behind_the_wait_the_moment_is_open(self, period, begins, lasts, now):
        wait = Wait(period, begins * period * 0.999, lasts * period, None, "")
        seconds = timing.seconds_until(wait, now)
        self.assertTrue(0 <= seconds <= period)
        if seconds:
            # floats near 2e9 know seconds to some 1e-7
            self.assertEqual(0.0, timing.seconds_until(wait, now + seconds + 1e-5))


class TestPeriodicityOf(base.BaseTestCase):

    def test_only_what_is_certain_is_waited_for(self):
        self.assertIsNone(timing.periodicity_of(builders.server("steady")))
        self.assertEqual(DUTY, timing.periodicity_of(periodic()))
        self.assertIsNone(timing.periodicity_of(
            periodic(dataclasses.replace(DUTY, confidence=0.8))))
