import pathlib
from types import SimpleNamespace
from unittest import mock

import fixtures
from oslotest import base

from tests.unit.benchmarks import paths  # noqa: F401  (before nbmbench)

from nbmbench import filled  # noqa: E402  isort: skip
from nbmbench.suite import drain_time  # noqa: E402  isort: skip


#: What Nova shows as a server's status, as its database has it.
STATES = {"ACTIVE": ("active", None), "MIGRATING": ("active", "migrating"),
          "ERROR": ("error", None)}


def guest(number, host="cmpa", status="ACTIVE"):
    return SimpleNamespace(id=f"g{number}", host=host, status=status)


class TestMove(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.now, self.here = 0.0, [guest(0), guest(1)]
        self.useFixture(fixtures.MonkeyPatch(
            "nbmbench.suite.drain_time.time.monotonic", lambda: self.now))
        self.useFixture(fixtures.MonkeyPatch(
            "nbmbench.suite.drain_time.cloud.Places",
            lambda: SimpleNamespace(look=lambda: {
                each.id: (each.host, *STATES[each.status]) for each in self.here})))
        self.calls = mock.Mock()
        self.useFixture(fixtures.MonkeyPatch(
            "nbmbench.suite.drain_time.Cloud", lambda: self.calls))
        self.move = drain_time._Move([guest(0), guest(1)], "cmpb")

    def at(self, seconds, *here):
        self.now, self.here = seconds, here
        self.move.look()

    def test_it_is_over_when_nova_has_all_at_the_destination(self):
        self.assertTrue(self.move.next())
        self.assertTrue(self.move.next())
        self.assertFalse(self.move.next())
        self.assertEqual(2, self.calls.post.call_count)
        self.at(1, guest(0, status="MIGRATING"), guest(1, status="MIGRATING"))
        self.at(8, guest(0, "cmpb", "MIGRATING"), guest(1, status="MIGRATING"))
        self.assertEqual({}, self.move.arrived)
        self.at(9, guest(0, "cmpb"), guest(1, "cmpb", "MIGRATING"))
        self.assertEqual(1, self.move.under_way())
        self.at(10, guest(0, "cmpb"), guest(1, "cmpb"))
        self.assertEqual({"g0": 9, "g1": 10}, self.move.arrived)
        self.assertTrue(self.move.over)

    def test_who_is_back_at_the_source_has_not_moved(self):
        self.move.next()
        self.at(1, guest(0), guest(1))         # Nova may not show it yet
        self.assertEqual(set(), self.move.failed)
        self.at(20, guest(0), guest(1))        # the other was not asked for
        self.assertEqual({"g0"}, self.move.failed)
        self.move.all_asked_for()
        self.at(30, guest(0), guest(1, status="ERROR"))
        self.assertEqual({"g0", "g1"}, self.move.failed)
        self.assertTrue(self.move.over)


class TestFilled(base.BaseTestCase):
    def test_no_more_files_than_wanted_and_what_does_not_fit_or_is_small_is_left_out(self):
        root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        sources, tree = root / "sources", root / "tree"
        sources.mkdir()
        tree.mkdir()
        (tree / "there").write_bytes(b"x" * 400)
        for name, size in (("a", 300), ("b", 500), ("c", 200), ("d", 200)):
            (sources / name).write_bytes(name.encode() * size)
        self.useFixture(fixtures.MonkeyPatch("nbmbench.filled.LEAST_FILE_BYTES", 200))
        (sources / "e").write_bytes(b"e" * 100)
        filled._fill(tree, [sources / name for name in "abcde"], 1000)
        held = sorted(path.name for path in (tree / "srv").rglob("*") if path.is_file())
        self.assertEqual(["a", "c"], held)
