import types

from oslotest import base

from nova_batch_migrate import conf
from nova_batch_migrate.conductor import loading
from tests.unit.conductor import build
from tests.unit.conductor.test_views import batch_row, server_row


class BatchStateTest(base.BaseTestCase):
    def _state(self, rows, kept, **control):
        control = {"started": False, "paused": False, "abort": None, "replan": False} | control
        batch = batch_row(control=control, state=kept)
        return loading.batch_state(batch, rows, {}, conf.CONF.conductor, build.NOW)

    def _rows(self, *rows):
        return [server_row(server_id=f"s{i}", status=status, group_index=group,
                           known_migrations=[]) for i, (status, group) in enumerate(rows)]

    def test_boundary_is_between_two_groups_of_one_plan(self):
        planned = {"plan_groups": {"cmpa": 0}}
        for rows, expected in (
                ((("pending", 0), ("pending", 1)), set()),
                ((("completed", 0), ("pending", 1)), {"cmpa"}),
                ((("completed", 0), ("migrating", 1), ("pending", 1)), set()),
                ((("completed", 0), ("completed", 1)), set())):
            self.assertEqual(expected, self._state(self._rows(*rows), planned).boundary, rows)
        fresh = {"plan_groups": {"cmpa": 1}}
        self.assertFalse(
            self._state(self._rows(("completed", 0), ("pending", 1)), fresh).boundary)

    def test_measuring_may_hold_up_a_twentieth_of_the_batch(self):
        # 20 s into a batch of 200: 10 s may be lost
        for kept, expected in (
                ({}, 10.0),
                ({"held_up_seconds": 4.0}, 6.0),
                ({"held_up_seconds": 4.0, "held_up_since": build.ago(2).isoformat()}, 4.0),
                ({"held_up_seconds": 11.0}, -1.0)):
            self.assertEqual(expected, self._state(
                [], {"projected_seconds": 200.0} | kept).patience_seconds)
        self.assertEqual(20.0, self._state([], {"projected_seconds": 9e3}).patience_seconds)
        self.assertEqual(1.0, self._state([], {}).patience_seconds)

    def test_no_more_at_once_than_the_bandwidth_has_room_for(self):
        for cap, expected in ((None, 8), (100, 8), (6, 4), (1, 1)):
            batch = batch_row(control={"started": True, "paused": False, "abort": None,
                                       "replan": False})
            batch["request"] = batch["request"] | {"max_parallel": 8, "max_bandwidth_mib_s": cap}
            found = loading.batch_state(batch, [], {}, conf.CONF.conductor, build.NOW)
            self.assertEqual(expected, found.settings.max_parallel)

    def test_as_many_at_once_as_planned(self):
        self.assertEqual({3: 8}, self._state([], {"at_once": {"3": 8}}).at_once)

    def test_one_at_once_where_nobody_has_said_or_planned_how_many(self):
        found = self._state([], {})
        self.assertEqual((1, {}), (found.settings.max_parallel, found.at_once))

    def test_the_first_plan_stays_the_promise(self):
        plan = types.SimpleNamespace(projected_seconds=9.0, raw_bytes=90, notes=("a",),
                                     deadline_met=True)
        own = {"projected_seconds": 9.0, "raw_bytes": 90}
        first = {"projected_seconds": 5.0, "raw_bytes": 50}
        for promised, expected in ((None, own), (first | {"notes": ["b"]}, first)):
            self.assertEqual({"first": expected, "notes": ["a"], "deadline_met": True},
                             loading.told(plan, promised))

    def test_a_group_that_began_without_a_relay_is_no_relays_group(self):
        kept = {"relayed": [0, 1, 2], "relay_groups": {"cmpa/0": ["cmpb"], "cmpa/1": []}}
        self.assertEqual(frozenset({0, 2}), self._state([], kept).relayed)

    def test_memory_has_crossed_when_pages_are_sent_again(self):
        for job, expected in (({}, False), ({"iteration": 1, "elapsed_seconds": 14.9}, False),
                              ({"iteration": 2, "elapsed_seconds": 3.0}, True),
                              ({"iteration": 1, "elapsed_seconds": 15.1}, True)):
            rows = self._rows(("migrating", 0))
            rows[0] |= {"progress": {"job": job},
                        "current_projection": {"help": "pause", "stream_seconds": 10.0}}
            row, = self._state(rows, {}).rows
            self.assertEqual(("pause", expected), (row.help, row.crossed_once))

    def test_groups_that_began_and_did_not_end(self):
        kept = {"groups_started": {"cmpa/0": "x", "a/b/3": "x"}, "groups_ended": ["cmpa/0"]}
        self.assertEqual((("a/b", 3),), self._state([], kept).open_groups)

    def test_plan_only_needs_a_start_others_do_not(self):
        self.assertTrue(self._state([], {}).started)
        batch = batch_row(control={"started": False, "paused": False, "abort": None,
                                   "replan": False}, state={})
        batch["request"] = batch["request"] | {"plan_only": True}
        self.assertFalse(loading.batch_state(batch, [], {}, conf.CONF.conductor,
                                             build.NOW).started)

    def test_the_age_of_a_measurement_and_of_a_breakage(self):
        kept = {"measure": {"purpose": "initial", "state": "running", "error": None,
                            "started_at": build.ago(12).isoformat()}}
        rows = self._rows(("migrating", 0))
        rows[0]["progress"] = {"broken_since": build.ago(3).isoformat()}
        seen = self._state(rows, kept)
        self.assertEqual((12.0, build.ago(3)), (seen.measure.age_seconds,
                                                seen.rows[0].broken_since))
