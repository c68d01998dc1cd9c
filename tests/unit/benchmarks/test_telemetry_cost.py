"""The slowdown that pairs of windows give, and the parts that make the pairs, on real processes."""
import ctypes
import mmap
import os
import pathlib
import sys
import threading
import time
import types

import fixtures
import numpy
from oslotest import base

from tests.unit.benchmarks import paths  # noqa: F401

from nbmbench import cli, passes  # noqa: E402  isort: skip
from nbmbench.rig import progress  # noqa: E402  isort: skip
from nbmbench.suite import telemetry_cost  # noqa: E402  isort: skip

#: Tells every 10 ms what time it is by its clock.
CLOCK_TELLER = """
import json, pathlib, sys
from nbmbench import passes
clock = passes.HeldClock(passes.shared(pathlib.Path(sys.argv[1])))
print(flush=True)
begun = clock.monotonic()
while True:
    clock.sleep(0.01)
    print(json.dumps(clock.monotonic() - begun), flush=True)
"""


def passed(slowdowns: list[float], kind: str = "plan", shares: list[float] = (),
           pairs: list[int] = ()) -> dict:
    return {"case": "pass", "kind": kind, "seconds": 10.0, "read_bytes": 70, "cpu_seconds": 2.0,
            "windows_read_bytes_per_second": 6.0, "pairs": list(pairs) or [1] * len(slowdowns),
            "agent_cpu_share": list(shares) or [0.0] * len(slowdowns),
            "unmeasured_pages_per_second": [1000] * len(slowdowns),
            "measured_pages_per_second": [1000 * (1 - each) for each in slowdowns]}


class TestFigures(base.BaseTestCase):
    def test_the_slowdown_is_that_of_the_rates(self):
        found = telemetry_cost.measured([passed([0.02, 0.02])])
        self.assertAlmostEqual(0.02, found["slowdown_plan"])
        self.assertEqual((2, 2), (found["pairs"], found["pairs_plan"]))
        self.assertEqual((7.0, 6.0, 0.2), (
            found["read_bytes_per_second_plan"], found["read_bytes_per_second_plan_windows"],
            found["agent_cpu_share_plan"]))

    def test_the_kind_that_slows_more_decides(self):
        cases = [passed([0.001])]
        self.assertNotIn("slowdown", telemetry_cost.measured(cases))
        self.assertAlmostEqual(
            0.02, telemetry_cost.measured([*cases, passed([0.02], "move")])["slowdown"])

    def test_no_side_is_favoured_where_only_the_machine_changes(self):
        """Its speed halves between two windows as often as it doubles."""
        found = telemetry_cost.measured([passed([0.5, -1.0])])
        self.assertAlmostEqual(0.0, found["slowdown_plan"])

    def test_each_window_has_the_same_weight(self):
        """A pass with more of them was longer."""
        for cases in ([passed([0.0] * 3), passed([0.1])], [passed([0.0, 0.1], pairs=[3, 1])]):
            found = telemetry_cost.measured(cases)
            self.assertAlmostEqual(1 - 0.9 ** 0.25, found["slowdown_plan"])
            self.assertEqual(4, found["pairs_plan"])

    def test_windows_at_work_are_told_apart(self):
        found = telemetry_cost.measured([passed([0.0, 0.1], shares=[0.1, 0.9]), passed([0.0])])
        self.assertEqual(1, found["pairs_at_work"])
        self.assertAlmostEqual(0.1, found["slowdown_at_work"])
        self.assertAlmostEqual(1 / 3, found["agent_cpu_share_plan_windows"])

    def test_passes_are_drawn_whole(self):
        """In each pass one window of two is slowed: that is no chance, and no interval."""
        low, high = telemetry_cost.intervals([passed([0.0, 0.02])] * 40)["slowdown_plan"]
        self.assertAlmostEqual(low, high)
        self.assertAlmostEqual(1 - 0.98 ** 0.5, low)

    def test_noise_that_hides_the_goal_is_inconclusive(self):
        noise = numpy.random.default_rng(3).normal(0, 0.05, 60)
        cases = [passed([float(0.005 + each - noise.mean())], "plan" if at % 2 else "move")
                 for at, each in enumerate(noise)]
        told = cli.recompute("telemetry_cost", cases)
        self.assertNotEqual("met", told["verdicts"]["slowdown"])
        self.assertGreater(told["intervals"]["slowdown"][1], 0.01)

    def test_thirty_pairs_of_each_kind_are_the_least(self):
        cases = [passed([0.0] * 29)]
        self.assertEqual(["1 pairs of windows in whole passes: plan",
                          "30 pairs of windows in whole passes: move"],
                         telemetry_cost.missing(cases))
        cases += [passed([0.0]), passed([0.0] * 30, "move")]
        self.assertEqual([], telemetry_cost.missing(cases))

    def test_a_case_is_what_its_windows_show(self):
        window = {"seconds": 0.5, "guest_cpu_seconds": 0.4, "guest_waited_seconds": 0.1,
                  "stolen_seconds": 0.0}
        unmeasured = window | {"pages": 100}
        idle, busy = ({"measured": window | {"pages": pages, "agent_cpu_seconds": seconds,
                                             "read_bytes": 10}, "unmeasured": unmeasured}
                      for pages, seconds in ((100, 0.05), (90, 0.45)))
        case = telemetry_cost._case(
            {"kind": "move", "seconds": 1.0, "read_bytes": 20, "cpu_seconds": 0.4},
            [idle, busy, dict(reversed(busy.items())), *[idle] * 10])
        self.assertEqual(12, case["measured_first"])
        self.assertEqual([2, 10, 1], case["pairs"])
        self.assertEqual([0.9, 0.1, 0.1], case["agent_cpu_share"])
        self.assertEqual([180, 200, 200], case["measured_pages_per_second"])
        self.assertEqual([200] * 3, case["unmeasured_pages_per_second"])
        self.assertEqual(20.0, case["windows_read_bytes_per_second"])
        for share in case["guest_cpu_share"].values():
            self.assertAlmostEqual(0.8, share)
        found = telemetry_cost.measured([case])
        self.assertAlmostEqual(0.1, found["slowdown_at_work"])
        self.assertAlmostEqual(1 - 0.9 ** (2 / 13), found["slowdown_move"])


class TestHeld(base.BaseTestCase):
    def test_its_clock_stands_still_while_it_is_held(self):
        scratch = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        went = 0.0
        with passes.Held([sys.executable, "-c", CLOCK_TELLER], scratch) as held:
            told = held.told()
            # it went until it was held for the first time
            first = max(told, default=0.0)
            for _ in range(4):
                begun, before = time.monotonic(), len(told)
                held.go_on()
                while len(told) == before or time.monotonic() < begun + 0.1:
                    time.sleep(0.01)
                    told = held.told()
                held.hold()
                went += time.monotonic() - begun
                told = held.told()
                time.sleep(0.3)
                self.assertEqual(told, held.told())
            self.assertEqual(sorted(told), told)
            # it was held for three times as long as it went
            self.assertGreater(told[-1], 0.1)
            self.assertLess(told[-1], first + went + 0.4)
            self.assertGreater(held.cpu_seconds, 0)

    def test_a_program_that_ends_is_told(self):
        scratch = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        held = passes.Held([sys.executable, "-c", ""], scratch)
        self.assertRaisesRegex(RuntimeError, "does not come up", held.__enter__)


class TestWatching(base.BaseTestCase):
    """A guest's table of writes is found among other pages, in this very process, and watched."""

    PAGES = 1024        # of the buffer: two pages of counts

    def guest(self, ram: mmap.mmap) -> types.SimpleNamespace:
        begin = ctypes.addressof(ctypes.c_char.from_buffer(ram))
        return types.SimpleNamespace(
            pid=os.getpid(), ram=lambda: (begin, begin + len(ram)),
            spec=types.SimpleNamespace(name="busy", family=types.SimpleNamespace(
                load=types.SimpleNamespace(working_set_mib=self.PAGES >> 8))))

    def setUp(self):
        super().setUp()
        self.random = numpy.random.default_rng(5)
        ram = mmap.mmap(-1, 8 << 20)
        self.words = numpy.frombuffer(ram, numpy.uint64).reshape(-1, 512)
        self.words[:900] = self.random.integers(1, 1 << 63, (900, 512))
        # alike, but nobody writes
        self.words[1000] = 7
        self.tables = self.words[[1500, 1203]]
        self.tables[:] = 1
        self.write(50_000)
        self.found = self.guest(ram)

    def write(self, count: int) -> None:
        # as the guest does: any page is as likely as another
        at = self.random.integers(0, self.PAGES, count)
        self.tables += numpy.bincount(at, minlength=self.PAGES).reshape(2, 512).astype(
            numpy.uint64)
        self.words[[1500, 1203]] = self.tables

    def writing(self, over: threading.Event) -> None:
        while not over.wait(0.02):
            self.write(1000)

    def test_it_counts_what_was_written(self):
        over = threading.Event()
        writer = threading.Thread(target=self.writing, args=(over,))
        writer.start()
        try:
            found = progress.Progress(self.found, seconds=20)
        finally:
            over.set()
            writer.join()
        before = found.pages()
        self.assertEqual(int(self.tables.sum()) - self.PAGES, before)
        self.write(4321)
        self.assertEqual(4321, found.pages() - before)

    def test_a_window_tells_what_came_to_pass_in_it(self):
        self.useFixture(fixtures.MonkeyPatch(
            "nbmbench.suite.telemetry_cost.WINDOW_SECONDS", 0.3))
        scratch = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        over = threading.Event()
        writer = threading.Thread(target=self.writing, args=(over,))
        writer.start()
        try:
            watch = telemetry_cost.Watch(self.found)
            with passes.Held([sys.executable, "-c", CLOCK_TELLER], scratch) as held:
                found = [telemetry_cost._window(watch, held, is_measured)
                         for is_measured in (True, False)]
        finally:
            over.set()
            writer.join()
        for window in found:
            self.assertGreaterEqual(window["seconds"], 0.3)
            self.assertGreater(window["pages"], 0)
            self.assertEqual(0, window["pages"] % 1000)
            self.assertGreaterEqual(window["guest_cpu_seconds"], 0)
        self.assertGreater(found[0]["agent_cpu_seconds"], 0)
        self.assertEqual(0, found[0]["read_bytes"])
        self.assertNotIn("agent_cpu_seconds", found[1])

    def test_a_guest_that_tells_something_else_is_not_believed(self):
        over = threading.Event()
        writer = threading.Thread(target=self.writing, args=(over,))
        writer.start()
        try:
            watch = telemetry_cost.Watch(self.found)
        finally:
            over.set()
            writer.join()
        for wrote, is_true in ((50_000, False), (10 ** 9, False), (watch.look()["pages"], True)):
            self.found.last_tick = lambda wrote=wrote: types.SimpleNamespace(wrote_pages=wrote)
            if is_true:
                watch.check()
            else:
                self.assertRaisesRegex(RuntimeError, "table of writes", watch.check)

    def test_a_guest_that_does_not_write_has_none(self):
        self.assertRaisesRegex(RuntimeError, "which has 2", progress.Progress, self.found, 0)
