import argparse
import json
import pathlib

import fixtures
from oslotest import base

from tests.unit.benchmarks import paths  # noqa: F401  (before nbmbench)

from nbmbench import cli  # noqa: E402  isort: skip


class TestMerge(base.BaseTestCase):
    """Parts of a benchmark joined, each of which says how it ran."""

    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)

    def part(self, way, seconds):
        told = cli.recompute("drain_time", [
            {"fleet": "alike", "link_mbit": 300, "way": way, "seconds": seconds, "moved": 8,
             "guests": 8, "whole": 8}])
        return self.written(way, told | {
            "machine": {"commit": "c0ffee"}, "quick": False, "only": [way], "began": "now",
            "seconds": 60.0})

    def written(self, name, told):
        path = self.root / f"{name}.json"
        path.write_text(json.dumps(told))
        return path

    @staticmethod
    def merged(*parts):
        return cli._merged(argparse.Namespace(name="drain_time", merge=parts))

    def test_a_part_can_be_added_to_what_was_merged_before(self):
        first = self.merged(self.part("nova-all", 40.0), self.part("project", 10.0))
        self.assertEqual(0.25, first["measured"]["alike_vs_best"])
        told = self.merged(self.written("first", first), self.part("nova-five", 20.0))
        self.assertEqual(0.5, told["measured"]["alike_vs_best"])
        self.assertEqual([["nova-all"], ["project"], ["nova-five"]],
                         [part["only"] for part in told["parts"]])
        self.assertEqual((180.0, True), (told["seconds"], told["incomplete"]))
