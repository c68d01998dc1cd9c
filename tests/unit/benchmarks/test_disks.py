import dataclasses

from oslotest import base

from tests.unit.benchmarks import paths  # noqa: F401

from nbmbench import cli  # noqa: E402  isort: skip
from nbmbench.suite import disks  # noqa: E402  isort: skip


def moved(case, seconds=20.0, sent=200, projected=(20.0, 200), alike=True, status="completed"):
    return {**dataclasses.asdict(case), "seconds": seconds, "sent_bytes": sent,
            "projected": {"stream_seconds": projected[0], "raw_bytes": projected[1]},
            "disks_alike": alike, "memory": {"status": status}}


class TestDisks(base.BaseTestCase):

    def test_the_worst_case_counts(self):
        cases = [moved(disks.TUNED[0]), moved(disks.TUNED[1], projected=(21.0, 198)),
                 moved(disks.TUNED[2], projected=(19.4, 204))]
        found = cli.recompute("disks", cases)
        self.assertAlmostEqual(0.05, found["measured"]["time_error_max"])
        self.assertAlmostEqual(0.02, found["measured"]["bytes_error_max"])
        self.assertTrue(found["met"])
        slow = [*cases[:2], moved(disks.TUNED[2], projected=(22.0, 204))]
        self.assertEqual("missed", cli.recompute("disks", slow)["verdicts"]["time_error_max"])

    def test_what_is_left_or_went_wrong_is_not_met(self):
        whole = [moved(case) for case in disks.TUNED]
        self.assertTrue(cli.recompute("disks", whole)["met"])
        for wrong in (whole[:2], [*whole[:2], moved(disks.TUNED[2], alike=False)],
                      [*whole[:2], moved(disks.TUNED[2], status="failed")]):
            found = cli.recompute("disks", wrong)
            self.assertEqual((False, True), (found["met"], found["incomplete"]))
