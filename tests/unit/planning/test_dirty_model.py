import ddt
import numpy
from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate.planning import dirty_model
from nova_batch_migrate.planning.telemetry import DirtyModel, DirtyWindow


def windows(*pairs, source="content-diff"):
    return [DirtyWindow(seconds, pages, source) for seconds, pages in pairs]


@ddt.ddt
class TestFit(base.BaseTestCase):

    @ddt.data((761, 2065), (5176, 15897), (10331, 16283), (24127, 16679))
    @ddt.unpack
    def test_finds_the_model_that_made_the_windows(self, rate, working_set):
        made = DirtyModel(rate, working_set)
        found = dirty_model.fit(windows(*((t, made.pages(t)) for t in (0.3, 1.0, 3.0))), 65536)
        self.assertAlmostEqual(1.0, found.rate_pages_per_second / rate, 3)
        self.assertAlmostEqual(1.0, found.working_set_pages / working_set, 3)
        self.assertEqual(("content-diff", dirty_model.LEAST_ERROR),
                         (found.source, found.relative_error))

    @ddt.data((5000, 16000, 20000, 200), (100, 900, 30000, 300), (1000, 20000, 6000, 2000))
    @ddt.unpack
    def test_tells_hot_pages_from_a_broad_working_set(self, rate, working_set, hot_rate, hot_pages):
        made = DirtyModel(rate, working_set, hot_rate_pages_per_second=hot_rate,
                          hot_pages=hot_pages)
        lengths = (0.1, 0.4, 0.5, 1.5, 1.9, 2.0, 6.0, 7.5, 7.9, 8.0)
        found = dirty_model.fit(windows(*((t, made.pages(t)) for t in lengths)), 65536)
        for seconds in (0.06, 0.1, 1.0, 8.0):
            self.assertAlmostEqual(1.0, found.pages(seconds) / made.pages(seconds), delta=0.03)
        self.assertAlmostEqual(1.0, found.hot_pages / hot_pages, delta=0.1)

    def test_nothing_changed_is_an_idle_server(self):
        self.assertEqual(DirtyModel(0, 0, 0, "content-diff"),
                         dirty_model.fit(windows((0.5, 0), (2.0, 0)), 65536))

    def test_no_window_is_no_source(self):
        self.assertEqual("none", dirty_model.fit([]).source)

    def test_one_length_cannot_show_the_working_set(self):
        # 1000 pages in 1 s, memory of 2000: W = 2000, so r = -2000 ln(1 - 1/2) = 1386.
        found = dirty_model.fit(windows((1.0, 1000)), 2000)
        self.assertEqual(2000, found.working_set_pages)
        self.assertAlmostEqual(1386.3, found.rate_pages_per_second, 1)
        self.assertEqual(dirty_model.ONE_LENGTH_ERROR, found.relative_error)

    def test_all_of_memory_changed(self):
        found = dirty_model.fit(windows((0.5, 900), (2.0, 1000)), 1000)
        self.assertLessEqual(found.working_set_pages, 1000)
        self.assertGreater(found.pages(2.0), 950)

    def test_flat_windows_give_the_lowest_rate_that_explains_them(self):
        # 100 pages are rewritten in every half second; how often cannot be seen.
        found = dirty_model.fit(windows((0.5, 100), (2.0, 100)), 65536)
        self.assertAlmostEqual(100, found.working_set_pages, delta=1)
        self.assertLessEqual(found.rate_pages_per_second, 6 / 0.5 * 101)

    def test_more_lengths_win_and_content_diff_at_a_tie(self):
        diff, sampled = windows((1.0, 10)), windows((1.0, 99), source="page-sampling")
        self.assertEqual("content-diff", dirty_model.fit(sampled + diff, 100).source)
        sampled += windows((2.0, 99), source="page-sampling")
        self.assertEqual("page-sampling", dirty_model.fit(diff + sampled, 100).source)

    def test_sampling_carries_its_rounding(self):
        # 256 pages/s is 1 MiB/s, told in whole MiB/s: half of it may be rounding.
        found = dirty_model.fit(windows((1.0, 256), (2.0, 512), source="page-sampling"), 65536)
        self.assertAlmostEqual(0.5, found.relative_error)

    @ddt.data((4000, 6144, 17), (20000, 32768, 17), (1000, 8192, 25), (0, 1, 17))
    @ddt.unpack
    def test_counted_hot_pages_stand_out_of_the_scatter(self, rate, working_set, hot_pages):
        """Looks at random writes at 0, 6, 6.1, 6.5 and 8 s; some of the pages are always hot."""
        chance = numpy.random.default_rng(7)
        gaps = numpy.array([6.0, 0.1, 0.4, 1.5])
        per_page = numpy.r_[numpy.full(working_set, rate / working_set), numpy.full(hot_pages, 100)]
        true = working_set * -numpy.expm1(-rate / working_set * 0.05) + hot_pages
        shaped, counted = [], []
        for _ in range(8):
            changed = chance.random((4, len(per_page))) < -numpy.expm1(-numpy.outer(gaps, per_page))
            seen = windows(*((gaps[first:end].sum(), float(changed[first:end].any(0).sum()))
                             for first in range(4) for end in range(first + 1, 5)))
            always = dirty_model.Always(tuple(gaps), float(changed.all(0).sum()))
            shaped.append(dirty_model.fit(seen, 65536).pages(0.05) - true)
            counted.append(dirty_model.fit(seen, 65536, always).pages(0.05) - true)
        self.assertLess(numpy.std(counted), 0.6 * numpy.std(shaped) + 0.5)
        self.assertLess(abs(numpy.mean(counted)), 0.02 * true + 1)

    @ddt.data(0.0, 500.0)
    def test_a_count_that_the_windows_speak_against_is_not_believed(self, pages):
        made = DirtyModel(4000, 6000, hot_rate_pages_per_second=8000, hot_pages=100)
        gaps = (6.0, 0.1, 0.4, 1.5)
        seen = windows(*((sum(gaps[first:end]), made.pages(sum(gaps[first:end])))
                         for first in range(4) for end in range(first + 1, 5)))
        found = dirty_model.fit(seen, 65536, dirty_model.Always(gaps, pages))
        for window in seen:
            self.assertAlmostEqual(1.0, found.pages(window.seconds) / window.changed_pages,
                                   delta=0.15)

    @settings(deadline=None, max_examples=60)
    @given(strategies.lists(strategies.tuples(strategies.floats(0.1, 10), strategies.integers(
        0, 5000)), min_size=1, max_size=6), strategies.integers(100, 10000),
        strategies.none() | strategies.floats(0, 20000))
    def test_the_working_set_is_never_more_than_memory(self, pairs, memory_pages, always_pages):
        always = (None if always_pages is None
                  else dirty_model.Always((0.1, 0.4, 1.5), always_pages))
        found = dirty_model.fit(windows(*pairs), memory_pages, always)
        self.assertLessEqual(found.working_set_pages, memory_pages)
        self.assertTrue(0 <= found.relative_error <= 1)
        self.assertLessEqual(found.pages(1e6), memory_pages)
