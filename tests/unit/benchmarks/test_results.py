"""Recomputes every committed result from its cases: a `met` is never only somebody's word."""
import json

from oslotest import base

from tests.unit.benchmarks import paths

from nbmbench import cli, contract  # noqa: E402  isort: skip

COMMITTED = sorted([*(paths.ROOT / "benchmarks/results").glob("*.json"),
                    *(paths.ROOT / "tests/unit/benchmarks/examples").glob("*.json")])


class TestResults(base.BaseTestCase):
    def test_every_benchmark_has_a_result_to_recompute(self):
        told = {json.loads(path.read_text())["name"] for path in COMMITTED}
        self.assertEqual([], [name for name in cli.names() if name not in told])

    def test_modules_keep_the_contract(self):
        for name in cli.names():
            module = cli.load(name)
            self.assertIn(module.NEEDS, ("test", "lab"), name)
            self.assertTrue(module.__doc__, name)
            self.assertTrue(callable(module.run), name)
            for goal in module.GOALS.values():
                self.assertIsInstance(goal, contract.Goal, name)

    def test_figures_and_verdicts_follow_from_the_cases(self):
        for path in COMMITTED:
            told = json.loads(path.read_text())
            again = cli.recompute(told["name"], told["cases"])
            if cli.CUT_SHORT in told["missing"]:
                again = contract.cut_short(again, cli.CUT_SHORT)
            for key, value in json.loads(json.dumps(again)).items():
                self.assertEqual(value, told[key], f"{path.name}: {key}")
            self.assertIn("commit", told["machine"], path.name)

    def test_none_is_met_that_is_incomplete(self):
        for path in COMMITTED:
            told = json.loads(path.read_text())
            self.assertFalse(told["met"] and (told["incomplete"] or told["missing"]), path.name)
            self.assertEqual(bool(told["missing"]), told["incomplete"], path.name)

    def test_goals_that_hold_on_a_part_are_not_met(self):
        """The cases of a whole result meet its goals; with one kind of them gone they do not."""
        whole = json.loads((paths.ROOT / "benchmarks/results/fingerprint.json").read_text())
        self.assertTrue(whole["met"])
        part = cli.recompute("fingerprint", [case for case in whole["cases"]
                                             if case.get("guest") != "redis"])
        self.assertEqual({"ratio": "met"}, part["verdicts"])
        self.assertEqual((False, True), (part["met"], part["incomplete"]))
