import dataclasses
import pathlib
import sys
import tempfile
from unittest import mock

import numpy
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.cmd import chart
from nova_batch_migrate.planning import plan
from nova_batch_migrate.planning.request import Staying
from tests.unit.planning import builders
from tests.unit.planning.builders import server

PNG = b"\x89PNG\r\n\x1a\n"


class TestChart(base.BaseTestCase):

    def draw(self, made):
        path = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()), "plan.png")
        chart.draw(made, path)
        return path.read_bytes()

    def made(self, *servers, classes=(), **fields):
        return plan.make_plan(builders.plan_request(
            builders.host(servers, builders.classes(*classes)), **fields))

    def test_shares_by_hand(self):
        made = self.made(server("a", distinct_pages=100), server("b", distinct_pages=50),
                         server("c", error="gone"), classes=[("a b", 20), ("a", 80)])
        common, share = chart.shares(made, ["id-b", "id-c", "id-a"])
        self.assertEqual((20 * 4096, 0.4), (common[0, 2], share[0, 2]))
        self.assertTrue(numpy.isnan(share[0, 1]))
        self.assertTrue(numpy.isnan(share[0, 0]))

    def test_a_picture_of_any_plan(self):
        stays = Staying("id-x", "x", "cmpa", "it is locked", "certain")
        plans = [
            self.made(),
            self.made(server("a")),
            self.made(server("$\\frac{$"), server("b\x1b[31m\n"), server("日本"), staying=(stays,),
                      classes=[("$\\frac{$ 日本", 9000)]),
            self.made(*(server(f"s{at}") for at in range(120))),
        ]
        for made in plans:
            self.assertTrue(self.draw(made).startswith(PNG))

    def test_groups_of_a_source_stand_one_behind_the_other(self):
        made = self.made(server("a"), server("b", 200))
        rows = chart._rows(made)
        self.assertEqual([0.0, made.groups[0].projected_seconds],
                         [row.begins_seconds for row in rows])
        self.assertEqual([(0, 1), (1, 2)], chart._spans(rows))

    def test_too_many_servers(self):
        made = self.made(server("a"))
        many = dataclasses.replace(made, staying=tuple(
            Staying(f"id-{at}", "x", "cmpa", "locked", "certain") for at in range(300)))
        error = self.assertRaises(exception.PlanningError, self.draw, many)
        self.assertIn("300 servers at the most, this plan has 301", str(error))

    def test_without_matplotlib_it_is_said_what_to_do(self):
        with mock.patch.dict(sys.modules, {"matplotlib": None}):
            error = self.assertRaises(exception.PlanningError, self.draw, self.made(server("a")))
        self.assertIn("pip install 'nova-batch-migrate[chart]'", str(error))
