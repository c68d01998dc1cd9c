import random

from oslotest import base

from tests.unit.benchmarks import paths  # noqa: F401

from nbmbench import projection_cases  # noqa: E402  isort: skip
from nbmbench.suite import projection  # noqa: E402  isort: skip


def told(projected, *runs):
    """A case of one guest: (verdict, seconds, bytes, upper end) projected; the same of each run."""
    verdict, seconds, size, *high = projected
    return {"projected": [[{"verdict": verdict, "stream_seconds": seconds, "raw_bytes": size,
                            "interval_seconds": [seconds - 1, *(high or [seconds + 1])]}]
                          for _ in runs],
            "runs": [[{"status": status, "total_seconds": took, "transferred_bytes": sent}]
                     for status, took, sent in runs]}


class TestCases(base.BaseTestCase):

    def test_what_is_held_out_comes_from_the_seed_alone(self):
        first, again, other = (projection_cases.held_out(random.Random(seed))
                               for seed in ("a", "a", "b"))
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)
        self.assertTrue(all(case.held_out for case in first))
        self.assertFalse(any(case.held_out for case in projection_cases.TUNED))

    def test_drawn_cases_stay_in_the_issues_bounds(self):
        for seed in range(50):
            for case in projection_cases.held_out(random.Random(seed)):
                self.assertTrue(10 <= case.link_mib_s <= 200, case)
                self.assertTrue(1 <= len(case.members) <= 4, case)
                for member in case.members:
                    self.assertTrue(4 <= member.working_set_mib <= 128, case)
                    self.assertLessEqual(member.pages_per_second, 25600)

    def test_there_are_enough_of_both_kinds(self):
        for cases in (projection_cases.TUNED, projection_cases.held_out(random.Random(1))):
            self.assertGreaterEqual(sum(len(case.members) * case.runs for case in cases), 55)


class TestMeasured(base.BaseTestCase):

    def test_errors_are_shares_of_what_was_measured(self):
        found = projection.measured([told(("converges", 11.0, 95.0), ("completed", 10.0, 100.0),
                                          ("completed", 10.0, 100.0))])
        self.assertEqual(2, found["migrations"])
        self.assertAlmostEqual(0.1, found["time_error_p50"])
        self.assertAlmostEqual(0.05, found["bytes_error_p90"])
        self.assertEqual((1.0, 0.0, 1.0), (found["verdict_accuracy"], found["repeatability_p90"],
                                           found["inside_interval"]))

    def test_a_wrong_verdict_has_no_time_error(self):
        found = projection.measured([told(("never", 30.0, 1.0), ("completed", 10.0, 100.0)),
                                     told(("never", 30.0, 1.0), ("aborted", 30.0, 500.0))])
        self.assertEqual({"migrations": 2, "boundary": 0, "verdict_accuracy": 0.5}, found)

    def test_what_ends_differently_the_second_time_is_counted_apart(self):
        found = projection.measured([told(("converges", 10.0, 100.0), ("completed", 10.0, 100.0),
                                          ("aborted", 30.0, 500.0))])
        self.assertEqual({"migrations": 2, "boundary": 2}, found)

    def test_so_is_what_takes_differently_long_where_the_projection_says_it_may(self):
        runs = ("completed", 10.0, 100.0), ("completed", 12.0, 120.0)
        for high, apart in ((10.5, 0), (11.1, 2), (None, 2)):
            found = projection.measured([told(("converges", 10.0, 100.0, high), *runs)])
            self.assertEqual(apart, found["boundary"], high)
