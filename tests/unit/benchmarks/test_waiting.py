from oslotest import base

from tests.unit.benchmarks import paths  # noqa: F401

from nbmbench.suite import waiting  # noqa: E402  isort: skip


def migration(way, run, seconds, sent, status="completed", **changes):
    return {"kind": "migration", "way": way, "run": run, "status": status,
            "total_seconds": seconds, "transferred_bytes": sent, "projected_seconds": seconds,
            **changes}


PERIOD = {"kind": "period", "true_period_seconds": 30,
          "periodicity": {"period_seconds": 30.6, "confidence": 0.99}}


class TestWaiting(base.BaseTestCase):

    def test_shares_are_of_whole_pairs(self):
        cases = [PERIOD, migration("waiting", 0, 9.0, 90), migration("at once", 0, 10.0, 100),
                 migration("waiting", 1, 7.0, 80), migration("at once", 1, 10.0, 100),
                 migration("waiting", 2, 1.0, 1), migration("at once", 2, 99.0, 9, "unfinished")]
        found = waiting.measured(cases)
        self.assertAlmostEqual(0.02, found["period_error"])
        self.assertAlmostEqual(0.2, found["saved_seconds_share"])
        self.assertAlmostEqual(0.15, found["saved_bytes_share"])
        low, high = waiting.intervals(cases)["saved_seconds_share"]
        self.assertTrue(0.1 - 1e-9 <= low <= 0.2 <= high <= 0.3 + 1e-9)

    def test_what_was_not_found_has_no_figure(self):
        self.assertEqual({}, waiting.measured([PERIOD | {"periodicity": None}]))
        self.assertEqual({}, waiting.intervals([PERIOD]))
