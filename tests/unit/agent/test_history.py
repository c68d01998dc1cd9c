import json
import os

import ddt
import fixtures
import numpy
from oslotest import base

from nova_batch_migrate.agent import history
from nova_batch_migrate.agent.history import Sample
from nova_batch_migrate.planning.telemetry import DirtyModel
from tests.unit.planning import series

NOW = 1.7e9
WRITER = DirtyModel(500, 4000)


def sample(ago, *seconds, model=WRITER):
    return Sample(NOW - ago, tuple((length, model.pages(length)) for length in seconds or (2, 60)))


@ddt.ddt
class TestHistories(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.directory = self.useFixture(fixtures.TempDir()).path
        self.path = os.path.join(self.directory, "sub", "history.json")
        self.now = NOW

    def histories(self):
        return history.Histories(self.path, lambda: self.now)

    def filled(self, samples=5):
        held = self.histories()
        for index in range(samples):
            held.add("a", sample(60 * (samples - index)))
        return held

    def test_an_hour_and_no_more(self):
        held = self.filled(90)
        self.assertEqual(59, len(held.samples("a")))
        self.now += 1800
        self.assertEqual(29, len(held.samples("a")))
        self.now += 1800
        self.assertIsNone(held.of("a", 65536))

    def test_series_and_model(self):
        found = self.filled().of("a", 65536)
        self.assertEqual((NOW - 300, NOW - 60), (found.at_seconds[0], found.at_seconds[-1]))
        self.assertAlmostEqual(WRITER.pages(2) / 2, found.pages_per_second[0], places=2)
        self.assertEqual((2.0, "content-diff"), (found.window_seconds, found.source))
        self.assertAlmostEqual(500, found.model.rate_pages_per_second, delta=5)
        self.assertAlmostEqual(4000, found.model.working_set_pages, delta=40)
        self.assertIsNone(found.periodicity)

    def test_one_length_gives_no_model(self):
        held = self.histories()
        held.add("a", sample(60, 2))
        self.assertIsNone(held.of("a", 65536).model)

    def test_a_period_far_below_the_minute_is_found(self):
        random = numpy.random.default_rng(1)
        at, window = series.moments("minutes", random)
        rates = series.duty(at, window, 30, 0.5, 0, 800, 20, random)
        self.now = at[-1] + 5
        held = self.histories()
        for moment, rate in zip(at, rates, strict=True):
            held.add("a", Sample(float(moment), ((window, float(rate * window)),)))
        self.assertAlmostEqual(30, held.of("a", 65536).periodicity.period_seconds, delta=0.2)

    def test_who_left_is_forgotten(self):
        held = self.filled()
        held.add("b", sample(60))
        held.keep_only({"b"})
        self.assertIsNone(held.of("a", 65536))
        self.assertIsNotNone(held.of("b", 65536))

    def test_it_outlives_a_restart(self):
        held = self.filled()
        held.save()
        before, after = held.of("a", 65536), self.histories().of("a", 65536)
        self.assertEqual((before.at_seconds, before.window_seconds),
                         (after.at_seconds, after.window_seconds))
        self.assertAlmostEqual(before.pages_per_second[-1], after.pages_per_second[-1], places=2)
        self.assertEqual(["history.json"], os.listdir(os.path.dirname(self.path)))

    def test_what_grew_old_while_nobody_ran_is_left_out(self):
        self.filled().save()
        self.now += 3600 - 150
        self.assertEqual([NOW - 120, NOW - 60],
                         [s.at_seconds for s in self.histories().samples("a")])

    def test_the_future_of_a_clock_that_was_set_back_is_left_out(self):
        self.filled().save()
        self.now -= 150
        self.assertEqual(3, len(self.histories().samples("a")))

    @ddt.data("", "{", "[]", "null", '{"version": 1}', '{"version": 2, "servers": {}}',
              '{"version": 1, "servers": {"a": [[1]]}}', '{"version": 1, "servers": {"a": 7}}',
              '{"version": 1, "servers": {"a": [[NaN, [[2, 3]]]]}}',
              '{"version": 1, "servers": {"a": [[1, [[0, 3]]]]}}',
              '{"version": 1, "servers": {"a": [[1, [[2, -3]]]]}}', "\0\1\2")
    def test_a_file_that_is_none_of_ours_is_a_warning(self, text):
        logger = self.useFixture(fixtures.FakeLogger())
        os.makedirs(os.path.dirname(self.path))
        with open(self.path, "w", encoding="utf-8") as opened:
            opened.write(text)
        held = self.histories()
        self.assertIn("begins anew", logger.output)
        held.add("a", sample(60))
        held.save()
        self.assertEqual(1, len(self.histories().samples("a")))

    def test_a_file_that_can_not_be_written_is_a_warning(self):
        logger = self.useFixture(fixtures.FakeLogger())
        with open(os.path.join(self.directory, "sub"), "w", encoding="utf-8"):
            pass
        self.filled().save()
        self.assertIn("could not be kept", logger.output)

    def test_the_file_is_bounded_and_keeps_the_newest(self):
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.agent.history.MOST_FILE_BYTES", 2000))
        self.filled(60).save()
        self.assertLess(os.path.getsize(self.path), 2000)
        with open(self.path, encoding="utf-8") as opened:
            kept = json.load(opened)["servers"]["a"]
        self.assertEqual(NOW - 60, kept[-1][0])
        self.assertGreater(len(kept), 10)
