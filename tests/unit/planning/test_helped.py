import ddt
from oslotest import base

from nova_batch_migrate.planning import plan
from tests.unit.planning import builders
from tests.unit.planning.builders import MIB, host, plan_request, server

#: 150 MiB/s over a link of 100: never by itself. 150 MiB are written over and over.
WILD = builders.DirtyModel(150 * 256.0, 150 * 256.0, 0.0, "content-diff")


@ddt.ddt
class TestHelped(base.BaseTestCase):

    def plan(self, means, **options):
        return plan.make_plan(plan_request(
            host([server("a"), server("wild", 200, dirty=WILD)], **options),
            on_non_convergence=means))

    @ddt.data(
        ("pause", {"permit_post_copy": True}, "ask for on_non_convergence post-copy"),
        ("post-copy", {}, "does not permit post-copy"),
        ("auto-converge", {}, "does not slow guests down"),
        ("skip", {}, "pre-copy cannot end at this bandwidth"))
    @ddt.unpack
    def test_who_stays_is_told_what_nova_does_not_permit(self, means, options, told):
        found = self.plan(means, **options)
        why, = found.staying
        self.assertEqual("wild", why.name)
        self.assertIn(told, why.reason)

    def test_paused_once_its_memory_has_crossed(self):
        found = self.plan("pause")
        self.assertEqual((), found.staying)
        wild = next(m for group in found.groups for m in group.members if m.name == "wild")
        # 200 MiB at 100 MiB/s, and behind 0.2 s of set-up what these 2.2 s dirtied meanwhile:
        # 150 MiB x (1 - exp(-2.2)) = 133 MiB, while it stands still
        projected = wild.projection
        self.assertEqual(("pause", "never"), (projected.help, projected.verdict))
        self.assertAlmostEqual(0.2 + 2.0 + 1.33, projected.stream_seconds, delta=0.15)
        self.assertAlmostEqual(1.33, projected.downtime_seconds, delta=0.03)
        self.assertAlmostEqual(333 * MIB, projected.raw_bytes, delta=4 * MIB)
        self.assertIn("Nova pauses it once its memory has crossed", wild.reason)
        self.assertIn("it dirties 150.0 MiB/s", wild.reason)
        calm = next(m for group in found.groups for m in group.members if m.name == "a")
        self.assertEqual((None, "converges"), (calm.projection.help, calm.projection.verdict))

    def test_post_copy_takes_as_long_and_stops_it_for_a_moment(self):
        found = self.plan("post-copy", permit_post_copy=True)
        wild = next(m for group in found.groups for m in group.members if m.name == "wild")
        self.assertEqual("post-copy", wild.projection.help)
        self.assertLess(wild.projection.downtime_seconds, 0.01)
        self.assertAlmostEqual(333 * MIB, wild.projection.raw_bytes, delta=4 * MIB)

    def test_not_even_by_force_before_nova_gives_up(self):
        found = self.plan("pause", completion_timeout_seconds_per_gib=1)
        self.assertEqual(["wild"], [staying.name for staying in found.staying])

    def test_a_helped_member_keeps_its_place_in_json(self):
        found = self.plan("pause")
        self.assertEqual(found, plan.Plan.from_dict(found.to_dict()))
        self.assertEqual(found, plan.make_plan(plan.PlanRequest.from_dict(
            found.request.to_dict())))
