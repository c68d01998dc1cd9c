import dataclasses

import ddt
from oslotest import base

from nova_batch_migrate.planning import doubt, plan, telemetry
from nova_batch_migrate.planning.telemetry import DirtyModel, History, PageSequence
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
        ({"present_pages": 0, "distinct_pages": 0}, "none of its memory is present"),
        ({"memory_bytes": 1 << 20}, "65536 pages in 256 pages of memory"),
        ({"swapped_pages": 10 ** 18}, "1e+18 pages are in swap of 65536"),
        ({"compress_own": 3.0}, "more than twice as large"),
        ({"compress_shared": 3.0}, "more than twice as large"),
        ({"changed": DirtyModel(5.0, 1e9)}, "writes to 1e+09 pages of 6.55e+04"),
        ({"changed": DirtyModel(5.0, 9.0, 1e30)}, "error of its dirty model is no number"),
        ({"changed": DirtyModel(hot_rate_pages_per_second=5.0)}, "working set of none"),
        ({"changed": DirtyModel(hot_rate_pages_per_second=1e18, hot_pages=5.0)}, "no memory is"),
        ({"sequence": PageSequence(0.5, (0, -10 ** 15))}, "in a sample of its 65536"),
        ({"sequence": PageSequence(0.5, (0, 2 ** 63))}, "not numbered from 0 on"),
        ({"history": History((1.0, 2.0), (3.0,), 2.0, "content-diff")}, "not as many rates"),
        ({"history": History((1.0,), (3.0,), 2.0, "content-diff", DirtyModel(1e18, 9.0))},
         "no memory is written"),
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

    @ddt.data(
        ({"page_classes": telemetry.PageClasses(True, 1.0, (
            telemetry.PageClass(("id-a", "id-b"), 10 ** 15),))}, "1e+15 contents in common"),
        ({"page_classes": telemetry.PageClasses(False, 1e-9, (
            telemetry.PageClass(("id-a", "id-b"), 100),))}, "1e+11 contents in common"),
        ({"mapped_classes": telemetry.PageClasses(True, 0.0)}, "mapped by two"),
        ({"portions": telemetry.Portions(0, 1.0)}, "a block has 0 bytes"),
        ({"portions": telemetry.Portions(512, 7.0)}, "hash space is 7"),
        ({"confirmation": telemetry.Confirmation(3, 9)}, "9 of 3 pairs held"),
    )
    @ddt.unpack
    def test_what_servers_cannot_have_in_common(self, wrong, words):
        host = dataclasses.replace(
            builders.host([builders.server("a"), builders.server("b")]), **wrong)
        found, notes = doubt.believable(host)
        self.assertIsNone(getattr(found, *wrong))
        self.assertIn(words, notes[0])
        self.assertEqual(notes[0], plan.make_plan(builders.plan_request(host)).notes[1])

    def test_what_almost_all_hold_goes_alone(self):
        host = builders.host([builders.server("a"), builders.server("b")], builders.classes(
            ("a b", 9000), background=telemetry.Background(2, 10 ** 9)))
        found, notes = doubt.believable(host)
        self.assertEqual((host.page_classes.classes, None),
                         (found.page_classes.classes, found.page_classes.background))
        self.assertIn("1e+09 pages in servers of at most 65536", notes[0])

    def test_classes_of_larger_servers_that_have_left_are_no_contradiction(self):
        host = builders.host(
            [builders.server("a", 10, memory_mib=64), builders.server("b", 10, memory_mib=64)],
            builders.classes(("gone left", 10 ** 6), ("a b", 2000), ("a gone", 300)))
        self.assertEqual((host, []), doubt.believable(host))

    def test_a_small_sample_may_be_off(self):
        host = builders.host([builders.server("a"), builders.server("b")])
        host = dataclasses.replace(host, page_classes=telemetry.PageClasses(
            False, 1 / 4096, (telemetry.PageClass(("id-a", "id-b"), 20),)))
        self.assertEqual((host, []), doubt.believable(host))

    @ddt.data(({"link_bytes_per_second": 0.0}, "carries nothing"),
              ({"goodput_bytes_per_second": 0.0}, "carries nothing"),
              ({"link_bytes_per_second": 1e18}, "no interface carries 1e+18"),
              ({"other_bytes_per_second": 1e18}, "no interface carries 1e+18"),
              ({"link_bytes_per_second": 1e6}, "payload at a speed of 1e+06"))
    @ddt.unpack
    def test_a_link_that_cannot_be_is_unknown(self, wrong, words):
        host = builders.host([builders.server("a")])
        host = dataclasses.replace(host, bandwidth=builders.bandwidth(100, **wrong))
        found = plan.make_plan(builders.plan_request(host))
        self.assertTrue(any(words in note for note in found.notes), found.notes)
        self.assertTrue(any("112 MiB/s are assumed" in note for note in found.notes))
        expected = plan.make_plan(builders.plan_request(dataclasses.replace(
            host, bandwidth=telemetry.Bandwidth("eth0", 0.0, 0.0, 0.0, "unknown"))))
        self.assertEqual(expected.projected_seconds, found.projected_seconds)

    def test_options_that_no_nova_has_are_its_defaults(self):
        """A downtime of nothing, or thousands of millions of steps, were planned without an end."""
        servers = [builders.server("a", dirty=DirtyModel(100.0, 500.0, 0.0, "content-diff"))]
        expected = plan.make_plan(builders.plan_request(builders.host(servers)))
        for name, wrong in (("downtime_ms", 0), ("downtime_ms", 10 ** 12),
                            ("downtime_steps", 10 ** 9), ("downtime_delay_seconds", 10 ** 9)):
            found = plan.make_plan(builders.plan_request(builders.host(servers, **{name: wrong})))
            self.assertEqual(expected.groups, found.groups)
            self.assertTrue(any(f"defaults: {telemetry.MigrationOptions.nova_name(name)}" in note
                                for note in found.notes))

    def test_classes_of_no_share_tell_nothing(self):
        for theta in (0.0, 7.0):
            host = builders.host([builders.server("a"), builders.server("b")])
            host = dataclasses.replace(host, page_classes=telemetry.PageClasses(
                False, theta, (telemetry.PageClass(("id-a", "id-b"), 9000),)))
            found = plan.make_plan(builders.plan_request(host))
            self.assertEqual([0, 0], [g.common_pages_bytes for g in found.groups])
            self.assertTrue(any(f"hash space is {theta:g}" in note for note in found.notes))
