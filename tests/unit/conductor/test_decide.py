"""The decisions as a table: this state, these actions."""

import dataclasses

import ddt
from oslotest import base

from nova_batch_migrate.conductor import decide
from nova_batch_migrate.conductor import state as st
from nova_batch_migrate.planning import conditions
from tests.unit.conductor import build

CMPA = frozenset({"cmpa"})
RUNNING = build.migration(7, "running")


def decided(*rows, truth=None, **changes):
    truths = {"s1": truth} if truth is not None else {}
    return decide.decide(build.batch(*rows, truths=truths, **changes))


class PhasesTest(base.BaseTestCase):
    def test_accepted_disables_surveys_and_measures(self):
        self.assertEqual(
            [st.DisableSources(), st.TakeSurvey(), st.SetStatus("measuring")],
            decided(build.row(), status="accepted", sources_disabled=False))

    def test_plan_only_and_servers_disable_nothing(self):
        expected = [st.TakeSurvey(), st.SetStatus("measuring")]
        self.assertEqual(expected, decided(build.row(), status="accepted", started=False,
                                           sources_disabled=False))
        self.assertEqual(expected, decided(build.row(), status="accepted", of_hosts=False,
                                           sources_disabled=False))

    def test_not_before_waits(self):
        self.assertEqual([], decided(build.row(), status="accepted",
                                     not_before=build.ago(-1)))
        self.assertNotEqual([], decided(build.row(), status="accepted", not_before=build.ago(0)))

    def test_measuring_starts_polls_and_plans(self):
        self.assertEqual([st.StartMeasure("initial")],
                         decided(build.row(), status="measuring", planned=False))
        self.assertEqual([st.PollMeasure()],
                         decided(build.row(), status="measuring",
                                 measure=st.Measure("initial", "running")))
        done = st.Measure("initial", "done")
        self.assertEqual([st.MakePlan(), st.SetStatus("running")],
                         decided(build.row(), status="measuring", measure=done))
        self.assertEqual([st.MakePlan(), st.SetStatus("planned")],
                         decided(build.row(), status="measuring", measure=done, started=False))

    def test_measuring_that_failed_ends_the_batch_before_anything_moved(self):
        failed = st.Measure("initial", "failed", error="no agent")
        self.assertEqual([st.Finish("failed", "no agent")],
                         decided(build.row(), status="measuring", measure=failed, planned=False))

    def test_measuring_arrivals_that_failed_costs_only_the_arrivals(self):
        failed = st.Measure("arrivals", "failed", error="no agent")
        new = build.row("s9", group_index=None)
        self.assertEqual(
            [st.DropMeasure("no agent"), st.Close("s9", "failed", "no agent"),
             st.SetStatus("running")],
            decided(new, build.row(status="completed"), status="measuring", measure=failed))

    def test_planned_waits_for_its_start(self):
        self.assertEqual([], decided(build.row(), status="planned", started=False))
        self.assertEqual([st.DisableSources(), st.SetStatus("running")],
                         decided(build.row(), status="planned", sources_disabled=False))
        self.assertEqual([st.TakeSurvey(), st.SetStatus("measuring")],
                         decided(build.row(), status="planned", started=False, replan=True))

    def test_the_end_looks_for_arrivals_once_more(self):
        done = build.row(status="completed")
        self.assertEqual([st.TakeSurvey()], decided(done))
        self.assertEqual([st.Finish("completed")], decided(done, surveyed=True))
        self.assertEqual([st.Finish("partial")],
                         decided(done, build.row("s2", "skipped"), surveyed=True))

    def test_abort_before_anything_moves(self):
        for status in ("accepted", "measuring", "planned"):
            self.assertEqual([st.Finish("aborted")],
                             decided(build.row(), status=status, abort="finish"))

    def test_abort_in_the_middle_starts_nothing_and_waits_for_the_running(self):
        moving, waiting = build.row(status="migrating"), build.row("s2")
        truth = st.Truth(build.server(), (RUNNING,))
        self.assertEqual(
            [st.Follow("s1", RUNNING), st.SetStatus("aborting")],
            decided(moving, waiting, truth=truth, abort="finish"))
        actions = decided(moving, waiting, truth=truth, abort="abort", status="aborting")
        self.assertIn(st.StopMigration("s1", RUNNING), actions)
        self.assertIn("aborted", [a.status for a in actions if isinstance(a, st.Close)])
        self.assertNotIn(st.Finish("aborted"), actions)
        self.assertEqual([st.Finish("aborted")],
                         decided(build.row(status="completed"), status="aborting",
                                 abort="finish"))


class OrderTest(base.BaseTestCase):
    def _issued(self, *rows, **changes):
        return [a.server_id for a in decided(*rows, **changes) if isinstance(a, st.Issue)]

    def test_one_after_the_other_in_the_order_of_the_plan(self):
        rows = [build.row("s1", order_index=1), build.row("s2", order_index=0),
                build.row("s3", group_index=1)]
        self.assertEqual(["s2"], self._issued(*rows))

    def test_through_relays_nova_prepares_a_few_at_once(self):
        rows = [build.row(f"s{i}", "migrating" if i < 2 else "pending", order_index=i)
                for i in range(6)]
        settings = st.Settings(relayed_parallel=5, max_preparing=2)

        def issued(*statuses, **changes):
            truths = {f"s{i}": st.Truth(build.server(), status and (build.migration(7, status),))
                      for i, status in enumerate(statuses)}
            return [a.server_id for a in decide.decide(build.batch(
                *rows, truths=truths, settings=settings,
                parallel_limits={"cmpa": 5}, **({"relayed": frozenset({0})} | changes)))
                if isinstance(a, st.Issue)]

        self.assertEqual([], issued("preparing", "queued"))
        self.assertEqual([], issued((), "accepted"))
        self.assertEqual(["s2"], issued("running", "preparing"))
        self.assertEqual(["s2", "s3"], issued("running", "post-migrating"))
        # without relays their streams begin together in any case
        settings = st.Settings(max_parallel=5, max_preparing=2)
        self.assertEqual(["s2", "s3", "s4"],
                         issued("preparing", "queued", relayed=frozenset()))

    def test_the_first_through_relays_has_nova_for_itself(self):
        def issued(*rows, status="preparing", **changes):
            truths = {row.server_id: st.Truth(build.server(), (build.migration(7, status),))
                      for row in rows if row.status == "migrating"}
            settings = st.Settings(relayed_parallel=8, max_preparing=3)
            return [a.server_id for a in decide.decide(build.batch(
                *rows, truths=truths, settings=settings, parallel_limits={"cmpa": 8},
                **({"relayed": frozenset({0})} | changes))) if isinstance(a, st.Issue)]

        waiting = [build.row(f"s{i}", order_index=i) for i in range(1, 6)]
        first = build.row("s0", "migrating")
        self.assertEqual(["s0"], issued(build.row("s0"), *waiting))
        self.assertEqual([], issued(first, *waiting))
        self.assertEqual(["s1", "s2", "s3"], issued(first, *waiting, status="running"))
        self.assertEqual(["s1", "s2", "s3"], issued(build.row("s0", "completed", attempts=1),
                                                    *waiting))
        # nor does one that Nova never gets ready keep the others waiting
        slow = build.row("s0", "migrating", issued_at=build.ago(conditions.FIRST_ALONE_SECONDS))
        self.assertEqual(["s1", "s2"], issued(slow, *waiting))
        # its stream may have begun: Nova ended the attempt
        again = build.row("s0", "waiting", attempts=1, next_attempt_at=build.ago(-5))
        self.assertEqual(["s1", "s2", "s3"], issued(again, *waiting))
        # those that wait for their turn in the relay are enough
        under_way = [build.row(f"s{i}", "migrating", order_index=i) for i in range(5)]
        self.assertEqual([], issued(*under_way, build.row("s5"), status="running"))
        self.assertEqual(["s5"], issued(*under_way[1:], build.row("s5"), status="running"))
        # whose stream has ended waits for no turn, however long Nova has work with it
        ended = [dataclasses.replace(row, streamed=True) for row in under_way[:2]]
        self.assertEqual(["s5", "s6"], issued(
            *ended, *under_way[2:], *(build.row(f"s{i}", order_index=i) for i in (5, 6, 7)),
            status="running"))
        # the group before tells nothing of this one
        done = build.row("s9", "completed", attempts=1, group_index=0)
        second = [build.row(f"s{i}", group_index=1, order_index=i) for i in range(3)]
        self.assertEqual(["s0"], issued(done, *second, relayed=frozenset({0, 1})))

    def test_as_many_as_request_and_source_permit(self):
        rows = [build.row(f"s{i}", order_index=i) for i in range(5)]
        three = st.Settings(max_parallel=3)
        self.assertEqual(["s0", "s1", "s2"], self._issued(*rows, settings=three))
        self.assertEqual(["s0"], self._issued(*rows, settings=three,
                                              parallel_limits={"cmpa": 1}))

    def test_as_many_as_planned_of_a_group_past_relays(self):
        rows = [build.row(f"s{i}", order_index=i) for i in range(5)]
        self.assertEqual(["s0", "s1"], self._issued(*rows, at_once={0: 2}))
        self.assertEqual(["s0"], self._issued(*rows, at_once={1: 2}))
        self.assertEqual(["s0"], self._issued(*rows, at_once={0: 2},
                                              parallel_limits={"cmpa": 1}))

    def test_a_group_that_relays_carry_has_a_number_of_its_own(self):
        rows = [build.row(f"s{i}", order_index=i) for i in range(5)]
        settings = st.Settings(max_parallel=1, relayed_parallel=3)
        self.assertEqual(["s0"], self._issued(*rows, settings=settings))
        self.assertEqual(["s0", "s1", "s2"],
                         self._issued(*rows, settings=settings, relayed=frozenset({0})))

    def test_a_group_waits_for_the_group_before_it(self):
        rows = [build.row("s1", "migrating"), build.row("s3", group_index=1)]
        self.assertEqual([], self._issued(*rows, settings=st.Settings(max_parallel=4)))

    def test_sources_go_side_by_side(self):
        rows = [build.row("s1"), build.row("s2", source="cmpc", group_index=1)]
        self.assertEqual(["s1", "s2"], self._issued(*rows))

    def test_a_destination_takes_no_more_than_its_limit(self):
        rows = [build.row("s1", "migrating", source="cmpc"), build.row("s2"),
                build.row("s3", order_index=1, destination="cmpd"),
                build.row("s4", order_index=2, destination="cmpd")]
        settings = st.Settings(max_parallel=4, max_inbound=1)
        self.assertEqual(["s3"], self._issued(*rows, settings=settings))
        self.assertEqual([], self._issued(*rows, settings=settings, inbound={"cmpd": 1}))
        settings = st.Settings(max_parallel=4, max_inbound=2)
        self.assertEqual(["s2", "s3", "s4"], self._issued(*rows, settings=settings))

    def test_a_failed_attempt_waits_for_its_time(self):
        later = build.row("s1", "waiting", next_attempt_at=build.ago(-5))
        now = build.row("s1", "waiting", next_attempt_at=build.ago(0))
        self.assertEqual([], self._issued(later))
        self.assertEqual(["s1"], self._issued(now))

    def test_paused_starts_nothing(self):
        actions = decided(build.row("s1"), paused=True)
        self.assertEqual([st.SetStatus("paused")], actions)
        self.assertEqual([st.SetStatus("running"), st.Issue("s1")],
                         decided(build.row("s1"), status="paused"))

    def test_replan_lets_the_running_end_first(self):
        truth = st.Truth(build.server(), (RUNNING,))
        rows = (build.row(status="migrating"), build.row("s2"))
        self.assertEqual([st.Follow("s1", RUNNING)], decided(*rows, truth=truth, replan=True))
        self.assertEqual([st.TakeSurvey(), st.SetStatus("measuring")],
                         decided(build.row("s2"), replan=True))


class RegroupTest(base.BaseTestCase):
    rest = (build.row("s2", group_index=1), build.row("s3", group_index=2))

    def test_the_rest_is_measured_beside_the_running_group(self):
        self.assertIn(st.StartMeasure("regroup"),
                      decided(build.row(status="migrating"), *self.rest))
        self.assertEqual([], decided(build.row(status="migrating")))

    def test_after_a_group_the_rest_is_planned_again(self):
        done = st.Measure("regroup", "done")
        self.assertEqual([st.MakePlan()], decided(*self.rest, boundary=CMPA, measure=done))

    def test_a_late_measurement_does_not_hold_the_batch(self):
        running = st.Measure("regroup", "running", 30.0)
        self.assertEqual([st.PollMeasure(), st.GoOn()], decided(
            *self.rest, boundary=CMPA, measure=running, patience_seconds=-0.1))
        self.assertEqual([st.PollMeasure(), st.HoldUp()],
                         decided(*self.rest, boundary=CMPA, measure=running))
        self.assertEqual([st.PollMeasure()],
                         decided(*self.rest, boundary=CMPA, measure=running, held_up=True))

    def test_who_waits_for_figures_holds_no_other_source_up(self):
        other = build.row("s4", source="cmpc", group_index=3)
        running = st.Measure("regroup", "running", 1.0)
        self.assertEqual(
            [st.PollMeasure(), st.Issue("s4")],
            decided(*self.rest, other, boundary=CMPA, measure=running, held_up=True))
        done = st.Measure("regroup", "done")
        migrating = build.row("s4", "migrating", source="cmpc", group_index=3)
        self.assertEqual([st.MakePlan()],
                         decided(*self.rest, migrating, boundary=CMPA, measure=done))

    def test_a_failed_measurement_keeps_the_old_plan(self):
        failed = st.Measure("regroup", "failed", error="agent gone")
        self.assertEqual([st.DropMeasure("agent gone")],
                         decided(*self.rest, boundary=CMPA, measure=failed))


class GroupsTest(base.BaseTestCase):
    def test_a_group_is_over_when_all_its_members_are(self):
        began = {"open_groups": (("cmpa", 0),)}
        self.assertEqual(st.EndGroup("cmpa", 0), decided(
            build.row(status="failed"), build.row("s2", group_index=1), **began)[0])
        self.assertEqual([st.EndGroup("cmpa", 0), st.TakeSurvey()],
                         decided(build.row(status="completed"), **began))
        self.assertEqual([], decided(build.row(status="completed"),
                                     build.row("s2", "migrating"), **began))

    def test_a_group_that_goes_together_needs_all_at_once(self):
        rows = [build.row(f"s{i}", order_index=i) for i in range(3)]
        self.assertEqual([st.Issue(f"s{i}") for i in range(3)],
                         decided(*rows, together=frozenset({0})))


class RoomTest(base.BaseTestCase):
    def test_who_has_ended_makes_room_in_the_same_pass(self):
        ours = build.migration(7, "completed")
        done = st.Truth(build.server(host="cmpb"), (ours,))
        rows = (build.row("s1", "migrating"), build.row("s2"))
        one = {"parallel_limits": {"cmpa": 1}}
        self.assertEqual([st.Complete("s1", "cmpb", ours), st.Issue("s2")],
                         decided(*rows, truth=done, **one))
        self.assertEqual([st.Follow("s1", RUNNING)],
                         decided(*rows, truth=st.Truth(build.server(), (RUNNING,)), **one))
        self.assertEqual([st.Close("s1", "skipped", "the server was deleted"), st.Issue("s2")],
                         decided(*rows, truth=st.Truth(None, ()), **one))


@ddt.ddt
class ServerTest(base.BaseTestCase):
    """Nova's truth about one server whose migration was asked for."""

    def _decided(self, truth, abort=None, **row):
        batch = build.batch(build.row("s1", "migrating", **row), truths={"s1": truth},
                            abort=abort)
        return decide.decide_server(batch.rows[0], batch)

    @ddt.data("accepted", "queued", "preparing", "running", "running (post-copy)")
    def test_in_flight(self, status):
        ours = build.migration(7, status)
        self.assertEqual([st.Follow("s1", ours)],
                         self._decided(st.Truth(build.server(), (ours,))))

    @ddt.data(({}, False), ({"help": "pause"}, False),
              ({"help": "pause", "crossed_once": True}, True),
              ({"help": "pause", "crossed_once": True, "forced": True}, False),
              ({"crossed_once": True}, False))
    @ddt.unpack
    def test_who_does_not_converge_is_completed_by_force_once_its_memory_has_crossed(
            self, row, expected):
        forced = st.ForceComplete("s1", RUNNING)
        decided_ = self._decided(st.Truth(build.server(), (RUNNING,)), **row)
        self.assertEqual(expected, forced in decided_)
        preparing = build.migration(7, "preparing")
        self.assertEqual([st.Follow("s1", preparing)], self._decided(
            st.Truth(build.server(), (preparing,)), **row))

    def test_not_yet_scheduled_is_ours(self):
        ours = build.migration(7, "accepted", destination=None)
        self.assertEqual([st.Follow("s1", ours)],
                         self._decided(st.Truth(build.server(), (ours,))))

    def test_done(self):
        ours = build.migration(7, "completed")
        self.assertEqual([st.Complete("s1", "cmpb", ours)],
                         self._decided(st.Truth(build.server(host="cmpb"), (ours,))))

    def test_completed_but_still_busy_waits(self):
        ours = build.migration(7, "completed")
        truth = st.Truth(build.server(host="cmpb", task_state="migrating"), (ours,))
        self.assertEqual([], self._decided(truth))

    def test_an_older_migration_is_not_ours(self):
        truth = st.Truth(build.server(), (build.migration(3, "error"),))
        self.assertEqual([], self._decided(truth, known_migrations=(3,)))

    def test_a_lost_call_is_repeated_after_a_while(self):
        truth = st.Truth(build.server(), ())
        self.assertEqual([], self._decided(truth))
        self.assertEqual([st.CallAgain("s1")], self._decided(truth, issued_at=build.ago(11)))

    def test_a_lost_call_is_not_repeated_while_nova_is_busy_with_the_server(self):
        truth = st.Truth(build.server(task_state="migrating"), ())
        self.assertEqual([], self._decided(truth, issued_at=build.ago(11)))

    def test_a_lost_call_is_not_repeated_after_an_abort(self):
        actions = self._decided(st.Truth(build.server(), ()), abort="finish",
                                issued_at=build.ago(11))
        self.assertEqual("aborted", actions[0].status)

    def test_somebody_else_moved_it(self):
        foreign = build.migration(9, "completed", destination="cmpc")
        self.assertEqual([st.Complete("s1", "cmpc")],
                         self._decided(st.Truth(build.server(host="cmpc"), (foreign,))))

    def test_somebody_else_moves_it(self):
        foreign = build.migration(9, "running", destination="cmpc")
        truth = st.Truth(build.server(task_state="migrating"), (foreign,))
        self.assertEqual([], self._decided(truth, issued_at=build.ago(60)))

    def test_deleted(self):
        self.assertEqual("skipped", self._decided(st.Truth(None, ()))[0].status)

    def test_in_flight_a_server_that_was_not_asked_for_is_not_taken_for_deleted(self):
        self.assertEqual([st.Follow("s1", RUNNING)],
                         self._decided(st.Truth(None, (RUNNING,), asked=False)))

    def test_which_migration_is_ours(self):
        old, ours = build.migration(3, "completed"), build.migration(7)
        foreign = build.migration(9, destination="cmpc")
        self.assertEqual(([foreign, ours], ours),
                         decide.new_migrations((3,), "cmpb", (foreign, ours, old)))
        self.assertEqual(([foreign], None), decide.new_migrations((3,), "cmpb", (foreign, old)))

    @ddt.data("failed", "error", "cancelled")
    def test_broken_settles_first(self, status):
        """Nova 34 shows ACTIVE for 0.7 s before it turns to ERROR."""
        truth = st.Truth(build.server(), (build.migration(7, status),))
        self.assertEqual([st.NoteBroken("s1")], self._decided(truth))
        self.assertEqual([], self._decided(truth, broken_since=build.ago(1)))

    @ddt.data(("failed", 1, True), ("error", 2, True), ("error", 3, False),
              ("cancelled", 1, False))
    @ddt.unpack
    def test_retries_are_bounded_and_a_cancelled_one_is_not_repeated(self, status, attempts,
                                                                    retry):
        truth = st.Truth(build.server(), (build.migration(7, status),))
        action, = self._decided(truth, broken_since=build.ago(9), attempts=attempts)
        self.assertEqual(retry, action.retry)

    def test_abort_stops_only_what_nova_can_abort(self):
        for status, stops in (("accepted", 0), ("queued", 1), ("running", 1),
                              ("running (post-copy)", 0)):
            ours = build.migration(7, status)
            actions = self._decided(st.Truth(build.server(), (ours,)), abort="abort")
            self.assertEqual(stops, len([a for a in actions if isinstance(a, st.StopMigration)]),
                             status)
