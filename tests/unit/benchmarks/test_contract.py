import math

from oslotest import base

from tests.unit.benchmarks import paths  # noqa: F401  (before nbmbench)

from nbmbench import contract  # noqa: E402  isort: skip
from nbmbench.contract import Goal  # noqa: E402  isort: skip


class TestJudge(base.BaseTestCase):
    def test_by_value_and_worse_end(self):
        low = Goal("<=", 0.4)
        for figure, interval, expected in (
                (0.39, None, "met"), (0.4, None, "met"), (0.41, None, "missed"),
                (0.39, (0.38, 0.40), "met"), (0.39, (0.30, 0.41), "inconclusive"),
                (0.41, (0.39, 0.43), "missed"), (None, None, "not measured"),
                (math.nan, None, "not measured")):
            self.assertEqual(expected, contract.judge(low, figure, interval))

    def test_at_least_has_its_worse_end_below(self):
        self.assertEqual("inconclusive", contract.judge(Goal(">=", 2.5), 2.6, (2.4, 9.0)))
        self.assertEqual("met", contract.judge(Goal(">=", 2.5), 2.6, (2.5, 2.7)))

    def test_refuses_another_comparison(self):
        self.assertRaises(ValueError, Goal, "<", 1)


class TestResult(base.BaseTestCase):
    GOALS = {"mean": Goal("<=", 3)}

    @staticmethod
    def measured(cases):
        return {"mean": sum(case["value"] for case in cases) / len(cases)}

    def test_held_out_cases_are_told_apart(self):
        cases = [{"value": 1}, {"value": 3}, {"value": 9, "held_out": True}]
        told = contract.result("x", self.GOALS, cases, self.measured)
        self.assertEqual({"mean": 2}, told["measured"])
        self.assertIs(True, told["met"])
        self.assertEqual({"mean": 9}, told["held_out"]["measured"])
        self.assertEqual({"mean": "missed"}, told["held_out"]["verdicts"])
        self.assertEqual(cases, told["cases"])

    def test_a_figure_that_is_missing_meets_nothing(self):
        told = contract.result("x", self.GOALS, [{"value": 1}], lambda cases: {})
        self.assertIs(False, told["met"])
        self.assertEqual({"mean": "not measured"}, told["verdicts"])

    def test_what_goals_need_and_cases_lack_makes_it_incomplete(self):
        cases = [{"value": 1}, {"value": 5, "held_out": True}]
        lacks = contract.result("x", self.GOALS, cases, self.measured,
                                missing=lambda cases: [f"{4 - len(cases)} values"])
        self.assertEqual((False, True, ["3 values"], {"mean": "met"}), (
            lacks["met"], lacks["incomplete"], lacks["missing"], lacks["verdicts"]))
        whole = contract.result("x", self.GOALS, cases, self.measured, missing=lambda cases: [])
        self.assertEqual((True, False, []),
                         (whole["met"], whole["incomplete"], whole["missing"]))
        cut = contract.cut_short(whole, "the rest")
        self.assertEqual((False, True, ["the rest"]),
                         (cut["met"], cut["incomplete"], cut["missing"]))

    def test_noise_makes_it_inconclusive(self):
        told = contract.result("x", self.GOALS, [{"value": 2}], self.measured,
                               lambda cases: {"mean": (1, 5)})
        self.assertIs(False, told["met"])
        self.assertIs(True, told["inconclusive"])


class TestHeldOut(base.BaseTestCase):
    def test_depends_on_commit_and_purpose_only(self):
        def draw(commit, purpose):
            return contract.Settings(commit=commit).held_out(purpose).random()

        self.assertEqual(draw("a", "x"), draw("a", "x"))
        self.assertNotEqual(draw("a", "x"), draw("b", "x"))
        self.assertNotEqual(draw("a", "x"), draw("a", "y"))


class TestBootstrap(base.BaseTestCase):
    def test_surrounds_the_median_and_narrows(self):
        few, many = ([1, 2, 3, 4, 5] * n for n in (2, 80))
        wide, narrow = contract.bootstrap(few), contract.bootstrap(many)
        self.assertTrue(wide[0] <= 3 <= wide[1])
        self.assertLessEqual(narrow[1] - narrow[0], wide[1] - wide[0])

    def test_one_value_says_nothing(self):
        self.assertEqual((-math.inf, math.inf), contract.bootstrap([3]))
