import contextlib
import importlib.util
import io
import pathlib
import sys

import ddt
import fixtures
from oslotest import base

ROOT = pathlib.Path(__file__).resolve().parents[3]


def _load():
    spec = importlib.util.spec_from_file_location("run_tests", ROOT / "tools" / "run_tests.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_tests"] = module
    spec.loader.exec_module(module)
    return module


run_tests = _load()
Totals = run_tests.Totals
UNIT = run_tests.KINDS[0]

SUMMARY = """\
{{0}} tests.unit.test_a.T.test_ok [0.000445s] ... ok
{{1}} tests.unit.test_a.T.test_skip ... SKIPPED: no weather today
NOTE: a database died

==============================
Failed 1 tests - output below:
==============================

tests.unit.test_a.T.test_fail
    AssertionError: the reason

======
Totals
======
Ran: 4 tests in 0.0103 sec.
 - Passed: {passed}
 - Skipped: {skipped}
 - Expected Fail: 1
 - Unexpected Success: 1
 - Failed: {failed}
Sum of execute time for each test: 0.0007 sec.

==============
Worker Balance
==============
 - Worker 0 (2 tests) => 0:00:00.008507
"""


@ddt.ddt
class ReadTotals(base.BaseTestCase):
    def test_counts_of_the_summary(self):
        output = SUMMARY.format(passed=7, skipped=2, failed=3)
        # An expected failure is a test that holds, an unexpected success one that does not.
        self.assertEqual(Totals(8, 4, 2), run_tests.read_totals(output))

    def test_a_test_that_prints_a_summary_does_not_count(self):
        forged = "\nTotals\n - Passed: 1000\n"
        output = forged + SUMMARY.format(passed=1, skipped=0, failed=0)
        self.assertEqual(2, run_tests.read_totals(output).passed)

    @ddt.data("", "Failures during discovery\nModuleNotFoundError: nix\n",
              "The specified regex doesn't match with anything")
    def test_no_summary_is_a_failure(self, output):
        self.assertEqual(Totals(failed=1), run_tests.read_totals(output))


@ddt.ddt
class Judge(base.BaseTestCase):
    def test_all_well(self):
        self.assertEqual((Totals(5, 0, 0), []),
                         run_tests.judge(UNIT, Totals(5, 0, 0), 0, in_ci=True))

    def test_what_a_machine_refuses_unit_tests_is_counted(self):
        totals = Totals(5, 0, 1)
        self.assertEqual((totals, []), run_tests.judge(UNIT, totals, 0, in_ci=True))

    @ddt.data(*run_tests.KINDS[1:])
    def test_skips_of_the_others_fail_in_ci_only(self, kind):
        totals = Totals(5, 0, 2)
        self.assertEqual((totals, []), run_tests.judge(kind, totals, 0, in_ci=False))
        judged, wrong = run_tests.judge(kind, totals, 0, in_ci=True)
        self.assertEqual(1, judged.failed)
        self.assertIn(f"2 {kind.name} tests were skipped", wrong[0])

    def test_nothing_but_skips_is_a_failure(self):
        judged, wrong = run_tests.judge(UNIT, Totals(0, 0, 4), 0, in_ci=False)
        self.assertEqual(1, judged.failed)
        self.assertEqual(["no unit test ran"], wrong)

    def test_a_bad_exit_status_is_never_swallowed(self):
        judged, _ = run_tests.judge(UNIT, Totals(5, 0, 0), 3, in_ci=False)
        self.assertEqual(1, judged.failed)


class Notable(base.BaseTestCase):
    def test_failures_skips_and_totals_but_no_passed_test(self):
        shown = run_tests.notable(SUMMARY.format(passed=7, skipped=2, failed=3))
        self.assertIn("AssertionError: the reason", shown)
        self.assertIn("test_skip SKIPPED: no weather today", shown)
        self.assertIn(" - Failed: 3", shown)
        self.assertEqual("NOTE: a database died", shown.splitlines()[0])
        self.assertNotIn("test_ok", shown)
        self.assertNotIn("Worker", shown)

    def test_all_of_it_where_there_are_no_totals(self):
        self.assertEqual("no such module", run_tests.notable("no such module"))


class Workers(base.BaseTestCase):
    def test_side_by_side_but_for_those_that_share_a_cloud(self):
        self.useFixture(fixtures.MonkeyPatch("os.sched_getaffinity", lambda pid: {0, 1, 5}))
        self.assertEqual([["--concurrency", "3"], ["--concurrency", "6"], ["--serial"]],
                         [run_tests.workers(kind) for kind in run_tests.KINDS])


class RunBounded(base.BaseTestCase):
    def test_a_command_beyond_its_time_is_ended_and_fails(self):
        status, output = run_tests.run_bounded(["sh", "-c", "echo begun; sleep 60"], {}, 4)
        self.assertEqual(1, status)
        self.assertIn("begun", output)
        self.assertIn("longer than 4 seconds", output)


class Commands(fixtures.Fixture):
    """Commands in the place of the lab's and of stestr: each tells its words, and how it ends."""

    def __init__(self, **ends: int):
        self._ends = {"install": 0, "status": 0, "up": 0, "down": 0, "stestr": 0} | ends

    def _setUp(self):
        self._root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (self._root / "summary").write_text(SUMMARY.format(passed=7, skipped=0, failed=0))
        for name, status in self._ends.items():
            directory, says = ("bin", f"cat {self._root}/summary") if name == "stestr" \
                else ("lab", "")
            command = self._root / directory / name
            command.parent.mkdir(exist_ok=True)
            command.write_text(
                f'#!/bin/sh\necho {name} "$@" >> {self._root}/told\n{says}\nexit {status}\n')
            command.chmod(0o755)
        for name in ("ROOT", "VENV"):
            self.useFixture(fixtures.MonkeyPatch(f"run_tests.{name}", self._root))

    def told(self) -> list[str]:
        """Return a line for each command that was called: its name and its words."""
        return [line.strip() for line in (self._root / "told").read_text().splitlines()]


class Lab(base.BaseTestCase):
    """Which words the lab's commands get."""

    def called(self, status: int) -> list[str]:
        commands = self.useFixture(Commands(status=status))
        with run_tests.Lab():
            pass
        return commands.told()

    def test_one_that_it_brings_up_has_nothing_of_an_earlier_one(self):
        self.assertEqual(["status", "up --defaults", "down"], self.called(status=1))

    def test_one_that_is_up_stays_so_as_it_is(self):
        self.assertEqual(["status", "up"], self.called(status=0))


@ddt.ddt
class Main(base.BaseTestCase):
    """What is installed before which tests run."""

    def called(self, *words: str, **ends: int) -> list[str]:
        commands = self.useFixture(Commands(**ends))
        with contextlib.redirect_stdout(io.StringIO()):
            self.status = run_tests.main(list(words))
        return [" ".join(line.split()[:3]) for line in commands.told()]

    def test_everything_is_installed_before_the_first_test(self):
        self.assertEqual(
            ["install lab", "stestr --test-path ./tests/unit",
             "stestr --test-path ./tests/functional", "status", "up",
             "stestr --test-path ./tests/lab"], self.called())

    @ddt.data(("unit", "lab"), ("functional", "test"))
    @ddt.unpack
    def test_what_one_kind_needs(self, kind, needs):
        self.assertEqual([f"install {needs}", f"stestr --test-path ./tests/{kind}"],
                         self.called(kind))

    def test_nothing_runs_where_it_can_not_be_installed(self):
        self.assertEqual(["install lab"], self.called(install=1))
        self.assertEqual(1, self.status)
