import dataclasses

import ddt
from oslotest import base

from nova_batch_migrate.planning import doubt, plan, telemetry
from nova_batch_migrate.planning.telemetry import DirtyModel, PageSequence
from tests.unit.planning import builders


@ddt.ddt
class TestContradiction(base.BaseTestCase):

    def test_what_agrees_is_believed(self):
        host = builders.host([builders.server("a"), builders.server("b", error="gone")])
        self.assertEqual((host, []), doubt.believable(host))

    @ddt.data(
        ({"present_pages": 70_000}, "70000 pages are present of 65536"),
        ({"zero_pages": 30_000}, "30000 zero pages are more than the 25600"),
        ({"self_duplicate_pages": 20_000}, "45600 contents are counted in 25600 pages"),
        ({"compress_changed": 40.0}, "more than twice as large"),
        ({"sequence": PageSequence(0.0, ())}, "not between 0 and 1"),
        ({"changed": DirtyModel(500.0, 0.0)}, "500 pages/s of a working set of none"),
        ({"touched": DirtyModel(1e18, 1e9)}, "no memory is written at 1e+18 pages/s"),
    )
    @ddt.unpack
    def test_what_cannot_be_true(self, wrong, words):
        self.assertIn(words, doubt.contradiction(builders.server("a", **wrong)))

    def test_it_is_planned_without_a_discount_and_named(self):
        absurd = builders.server("a", zero_pages=30_000)
        host = builders.host([absurd, builders.server("b"), builders.server("c")],
                             builders.classes(("a b", 9000), ("b c", 9000)))
        found = plan.make_plan(builders.plan_request(host, relay=True))
        alone = next(g for g in found.groups if g.members[0].name == "a")
        self.assertEqual((1, 0), (len(alone.members), alone.common_pages_bytes))
        member = alone.members[0]
        self.assertEqual(found.groups[-1], alone)
        self.assertIn("could not be measured (its figures cannot be true", member.reason)
        self.assertGreaterEqual(member.projection.wire_bytes, absurd.memory_bytes)
        self.assertIsNone(member.projection.interval_seconds[1])
        self.assertTrue(any("cmpa: a counts as not measured" in note for note in found.notes))

    def test_classes_of_no_share_tell_nothing(self):
        for theta in (0.0, 7.0):
            host = builders.host([builders.server("a"), builders.server("b")])
            host = dataclasses.replace(host, page_classes=telemetry.PageClasses(
                False, theta, (telemetry.PageClass(("id-a", "id-b"), 9000),)))
            found = plan.make_plan(builders.plan_request(host))
            self.assertEqual([0, 0], [g.common_pages_bytes for g in found.groups])
            self.assertTrue(any(f"hash space is {theta:g}" in note for note in found.notes))
