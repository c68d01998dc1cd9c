"""From which tick on a pass of verification counts for a guest that has moved."""

import pathlib
import sys
from unittest import mock

from oslotest import base

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "lab"))

from nbmlab import check  # noqa: E402


def tick(number: int, since: int) -> check.Tick:
    return check.Tick(number, "boot-1", 5.0 + number, 0, since // 8, since, 0)


class VerifyTest(base.BaseTestCase):
    def verdict(self, moved):
        with mock.patch.object(check, "last_tick", return_value=tick(40, since=30)):
            return check.verify({"s1": tick(10, since=1)}, deadline_seconds=-1, moved=moved)["s1"]

    def test_a_pass_since_a_move_that_was_seen_to_end_will_do(self):
        self.assertTrue(self.verdict({"s1": tick(20, since=9)}).memory_intact)

    def test_one_that_began_before_that_will_not(self):
        self.assertFalse(self.verdict({"s1": tick(29, since=20)}).memory_intact)

    def test_where_nobody_saw_the_move_end_it_is_now(self):
        self.assertFalse(self.verdict({}).memory_intact)
        self.assertFalse(self.verdict(None).memory_intact)
