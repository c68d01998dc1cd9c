import datetime

from oslotest import base

from nova_batch_migrate.conductor import decide, loading, waiting
from nova_batch_migrate.conductor import state as st
from nova_batch_migrate.planning.result import Wait
from tests.unit.conductor import build

NOW = build.NOW.replace(tzinfo=datetime.UTC).timestamp()


def wait(opens_in, period=30.0, lasts=5.0):
    return Wait(period, (NOW + opens_in) % period, lasts, 3.0, "duty")


class TestSeconds(base.BaseTestCase):

    def seconds(self, max_wait=60.0, **row):
        held = build.row(**row)
        return waiting.seconds(held, build.batch(held, max_wait_seconds=max_wait))

    def test_until_the_moment(self):
        self.assertAlmostEqual(12.0, self.seconds(wait=wait(12.0)), places=3)
        self.assertEqual(0.0, self.seconds(wait=wait(-2.0)))
        self.assertAlmostEqual(24.0, self.seconds(wait=wait(-6.0)), places=3)

    def test_who_has_no_moment_or_nobody_waits_for_goes_at_once(self):
        self.assertEqual(0.0, self.seconds())
        self.assertEqual(0.0, self.seconds(0.0, wait=wait(12.0)))

    def test_patience_counts_from_the_first_turn(self):
        self.assertEqual(0.0, self.seconds(10.0, wait=wait(12.0)))
        self.assertEqual(0.0, self.seconds(wait=wait(12.0), wait_until=build.ago(-11)))
        self.assertAlmostEqual(12.0, self.seconds(wait=wait(12.0), wait_until=build.ago(-13)),
                               places=3)

    def test_another_attempt_does_not_wait(self):
        self.assertEqual(0.0, self.seconds(wait=wait(12.0), status="waiting", attempts=1))


class TestDecide(base.BaseTestCase):

    def decide(self, *rows, **changes):
        return decide.decide(build.batch(*rows, max_wait_seconds=60.0, **changes))

    def test_others_of_the_group_go_meanwhile(self):
        waits, other = build.row("a", wait=wait(12.0)), build.row("b", order_index=1)
        first, second = self.decide(waits, other)
        self.assertEqual(("a", 12), (first.server_id, round(first.seconds)))
        self.assertIsInstance(first, st.AwaitMoment)
        self.assertEqual(st.Issue("b"), second)

    def test_its_moment_is_its_turn(self):
        self.assertEqual([st.Issue("a")], self.decide(build.row("a", wait=wait(-1.0))))
        held = build.row("a", "waiting", wait=wait(-1.0), next_attempt_at=build.ago(1),
                         wait_until=build.ago(-40))
        self.assertEqual([st.Issue("a")], self.decide(held))

    def test_until_then_it_is_left_alone(self):
        held = build.row("a", "waiting", wait=wait(5.0), next_attempt_at=build.ago(-5))
        self.assertEqual([], self.decide(held))

    def test_a_moment_that_passed_while_others_had_the_link_is_waited_for_again(self):
        held = build.row("a", "waiting", wait=wait(-6.0), next_attempt_at=build.ago(6),
                         wait_until=build.ago(-40))
        again, = self.decide(held)
        self.assertEqual(24, round(again.seconds))
        tired = build.row("a", "waiting", wait=wait(-6.0), next_attempt_at=build.ago(6),
                          wait_until=build.ago(-20))
        self.assertEqual([st.Issue("a")], self.decide(tired))

    def test_an_abort_ends_the_wait(self):
        held = build.row("a", "waiting", wait=wait(5.0), next_attempt_at=build.ago(-5))
        closed = self.decide(held, status="aborting", abort="finish")[0]
        self.assertEqual(("a", "aborted"), (closed.server_id, closed.status))


class TestLoading(base.BaseTestCase):

    def test_moments_come_from_the_present_plan(self):
        member = {"server_id": "a", "wait": wait(1.0).to_dict()}
        plan = {"groups": [{"members": [member, {"server_id": "b", "wait": None},
                                        {"server_id": "c"}]}]}
        batch = {"plan": plan, "request": {"max_wait_seconds": 60}}
        self.assertEqual({"a": wait(1.0)}, loading._waits(batch))
        self.assertEqual({}, loading._waits(batch | {"request": {}}))
        self.assertEqual({}, loading._waits(batch | {"plan": None}))
