"""How a pass asks Nova: once for many, and again where that left something open."""

import datetime
from unittest import mock

from oslo_utils import fixture as time_fixture
from oslo_utils import timeutils
from oslotest import base

from nova_batch_migrate import conf
from nova_batch_migrate.conductor import (
    executor,
    gangs,
    healing,
    loading,
    reconciler,
    relays,
    request,
    service,
    state,
)
from nova_batch_migrate.db import api as db
from tests.unit.conductor import build, test_gangs
from tests.unit.db import fixture

SERVERS = ("s0", "s1", "s2")


class CountedNova(test_gangs.PlayedNova):
    """Counts what it is asked; ``hides`` migrations of these servers from a source's list."""

    def __init__(self):
        super().__init__()
        self.calls, self.hides = [], set()

    def server(self, server_id):
        self.calls.append(("server", server_id))
        return super().server(server_id)

    def servers_on(self, host):
        self.calls.append(("servers_on", host))
        return super().servers_on(host)

    def at_rest_on(self, host, locked_too=True):
        self.calls.append(("at_rest_on", host) if locked_too else ("unlocked_on", host))
        return super().at_rest_on(host, locked_too)

    def server_groups(self):
        return []

    def compute_services(self):
        return [{"host": host, "state": "up", "status": "enabled", "disabled_reason": None,
                 "id": host} for host in ("cmpa", "cmpb")]

    def migrations(self, server_id):
        self.calls.append(("migrations", server_id))
        return super().migrations(server_id)

    def migrations_from(self, host, number):
        self.calls.append(("migrations_from", host))
        return [row for row in super().migrations_from(host, number)
                if row.server_id not in self.hides]


class PlayedMeasurer:
    """Finds what the test says."""

    found = None

    def poll(self, ctxt, batch, measure):
        return self.found


class PlayedPlanner:
    """Notes what it is to ask ahead."""

    def __init__(self):
        self.asked = []

    def ask_ahead(self, batch, sources):
        self.asked.append((batch["id"], sorted(sources)))


class ReconcilerTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixture.Database())
        self.useFixture(time_fixture.TimeFixture(datetime.datetime(2026, 11, 26, 2, 0, 0)))
        self.nova, agents = CountedNova(), test_gangs.PlayedAgents()
        self.measurer, self.planner = PlayedMeasurer(), PlayedPlanner()
        self.agents = agents
        through = relays.Relays(agents)
        healer = healing.Healer(self.nova, None, None, agents)
        sets = gangs.Gangs(conf.CONF, through, healer)
        self.reconciler = reconciler.Reconciler(
            conf.CONF, self.nova,
            executor.Executor(conf.CONF, self.nova, agents, healer, through, sets),
            self.measurer, self.planner, test_gangs.StillAllocator(), through, sets)

    def begin(self, status="running", include_locked=False, **kept):
        rows = [loading.new_row(self.nova.servers[i]) | {
            "destination": "cmpb", "group_index": 0, "order_index": n}
            for n, i in enumerate(SERVERS)]
        batch = db.create_batch({
            "request": request.normalize({"hosts": ["cmpa"], "max_parallel": 3,
                                          "include_locked": include_locked}),
            "state": {"limits": {"cmpa": 3}, "surveyed": True, "sources_disabled": True,
                      "plan_groups": {"cmpa": 0}, "sources": ["cmpa"],
                      "server_ids": list(SERVERS)} | kept}, rows)
        self.batch_id = batch["id"]
        db.update_batch(self.batch_id, {"status": status})

    def go_over(self):
        """Let a pass go over the batch; return what it did and the calls it made."""
        self.nova.calls = []
        done = self.reconciler.pass_over(self.batch_id)
        timeutils.advance_time_seconds(1.0)
        return done, self.nova.calls

    def statuses(self):
        return [row["status"] for row in db.servers_of(self.batch_id)]

    def test_what_is_asked_for_together_is_looked_at_together(self):
        self.begin()
        done, calls = self.go_over()
        self.assertEqual(state.Pass.STEPPED, done, "the rest would not be measured beside them")
        self.assertEqual(list(SERVERS), self.nova.issued)
        self.assertEqual([("unlocked_on", "cmpa"), *(("migrations", i) for i in SERVERS)], calls)

    def test_one_that_can_go_is_not_shown_in_full(self):
        self.begin(limits={"cmpa": 1})
        self.assertEqual([("unlocked_on", "cmpa"), ("migrations", "s0")], self.go_over()[1])
        self.assertEqual(["s0"], self.nova.issued)

    def test_who_is_not_at_rest_is_looked_at_alone(self):
        self.begin()
        self.nova.servers["s1"] = build.server(id="s1", name="s1", locked=True)
        self.nova.servers["s2"] = build.server(id="s2", name="s2", host="cmpc")
        calls = self.go_over()[1]
        self.assertEqual([("unlocked_on", "cmpa"), ("migrations", "s0"), ("server", "s1"),
                          ("server", "s2")], calls)
        self.assertEqual(["migrating", "skipped", "completed"], self.statuses())

    def test_locked_ones_are_seen_where_they_are_to_go(self):
        self.begin(include_locked=True)
        self.nova.servers["s1"] = build.server(id="s1", name="s1", locked=True)
        self.assertEqual([("at_rest_on", "cmpa"), *(("migrations", i) for i in SERVERS)],
                         self.go_over()[1])

    def test_one_list_tells_of_all_that_leave_a_host(self):
        self.begin()
        self.go_over()
        self.go_over()
        self.assertEqual([("migrations_from", "cmpa")], self.go_over()[1])
        for server_id in ("s0", "s1"):
            self.nova.end(server_id, "completed")
        self.assertEqual([("migrations_from", "cmpa"), ("at_rest_on", "cmpb")], self.go_over()[1])
        self.assertEqual(["completed", "completed", "migrating"], self.statuses())

    def test_who_is_not_at_rest_where_it_was_to_go_is_looked_into(self):
        self.begin()
        self.go_over()
        self.go_over()
        self.nova.end("s1", "completed")
        self.nova.leave_in_error("s1")
        self.nova.end("s2", "error")
        self.assertEqual([("migrations_from", "cmpa"), ("at_rest_on", "cmpb"), ("server", "s1"),
                          ("server", "s2")], self.go_over()[1])

    def test_what_the_list_does_not_have_is_asked_for_by_itself(self):
        self.begin()
        self.go_over()
        self.go_over()
        self.nova.hides = {"s1"}
        self.assertEqual([("migrations_from", "cmpa"), ("migrations", "s1")], self.go_over()[1])
        self.nova.end("s1", "completed")
        self.go_over()
        self.assertEqual(["migrating", "completed", "migrating"], self.statuses())

    def test_a_lone_migration_is_asked_for_by_itself(self):
        self.begin()
        self.go_over()
        for server_id in ("s0", "s1"):
            self.nova.end(server_id, "completed")
        self.go_over()
        self.assertEqual([("migrations", "s2")], self.go_over()[1])

    def test_a_survey_asks_only_for_those_that_it_misses(self):
        self.begin(status="accepted", surveyed=False)
        del self.nova.servers["s2"]
        done, calls = self.go_over()
        self.assertEqual(state.Pass.STEPPED, done)
        self.assertEqual([("servers_on", "cmpa"), ("server", "s2")], calls)
        self.assertEqual(["pending", "pending", "skipped"], self.statuses())

    def test_the_end_of_a_measurement_is_a_step_its_course_is_not(self):
        for ends, done in ((False, state.Pass.MEASURED), (True, state.Pass.STEPPED)):
            measure = {"purpose": "initial", "state": "running", "error": None, "hosts": {},
                       "started_at": timeutils.utcnow().isoformat()}
            self.begin(status="measuring", measure=measure)
            self.measurer.found = measure | ({"state": "done"} if ends else {})
            self.assertEqual(done, self.go_over()[0])
            db.delete_batch(self.batch_id)

    def test_what_a_first_plan_needs_is_asked_while_servers_are_measured(self):
        for purpose, found, asked in (("initial", "running", True), ("initial", "done", False),
                                      ("regroup", "running", False)):
            self.planner.asked = []
            self.begin(status="measuring", measure={
                "purpose": purpose, "state": "running", "error": None, "hosts": {"cmpa": {}},
                "started_at": timeutils.utcnow().isoformat()})
            self.measurer.found = {"purpose": purpose, "state": found, "hosts": {"cmpa": {}}}
            self.reconciler._measure(None, db.get_batch(self.batch_id), {}, None,
                                     state.PollMeasure())
            self.assertEqual([(self.batch_id, ["cmpa"])] if asked else [], self.planner.asked)
            db.delete_batch(self.batch_id)

    def test_a_survey_that_has_to_wait_is_no_step(self):
        self.begin(status="accepted", surveyed=False, busy_since=timeutils.utcnow().timestamp(),
                   surveyed_at=timeutils.utcnow().timestamp())
        self.assertEqual((state.Pass.FOLLOWED, []), self.go_over())

    def test_who_waits_for_the_end_of_a_stream_is_asked_for_without_a_rest(self):
        for parallel, seen in ((2, state.Pass.STEPPED), (3, state.Pass.FOLLOWED)):
            self.begin(limits={"cmpa": parallel})
            self.go_over()
            self.go_over()
            looks = []
            with mock.patch.object(self.reconciler._executor, "watch",
                                   side_effect=lambda *args, looks=looks: looks.append(args)
                                   or len(looks) == 2):
                done = [self.go_over()[0] for _ in range(3)]
            self.assertEqual([state.Pass.FOLLOWED, seen, state.Pass.FOLLOWED], done)
            self.assertEqual(["cmpa"] * 3, [args[1] for args in looks])
            db.delete_batch(self.batch_id)

    def test_a_set_that_was_let_go_is_told_apart_until_it_has_switched_over(self):
        self.begin(relay_groups={"cmpa/0": ["cmpb"]})
        self.go_over()
        self.agents.open = {relays.group_id(self.batch_id, "cmpa", 0, "cmpb"):
                            {"synchronized": [list(SERVERS)]}}
        for told, done in (("gathering", state.Pass.FOLLOWED),
                           ("released", state.Pass.SWITCHING),
                           ("called-off", state.Pass.FOLLOWED)):
            self.agents.state = told
            timeutils.advance_time_seconds(reconciler.RELAY_LOOK_SECONDS)
            self.assertEqual(done, self.go_over()[0])


class RestsTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.rests = service.Rests()

    def test_only_following_calls_for_a_rest(self):
        for done, over in ((state.Pass.STEPPED, True), (state.Pass.OVER, True),
                           (state.Pass.MEASURED, True), (state.Pass.FOLLOWED, False)):
            self.rests.note("b", done, 60.0)
            self.assertIs(over, self.rests.over("b"))
        self.assertTrue(self.rests.over("another"))

    def test_who_wants_something_ends_it(self):
        for done in (state.Pass.FOLLOWED, state.Pass.SWITCHING):
            self.rests.note("b", done, 60.0)
            self.rests.end("b")
            self.assertTrue(self.rests.over("b"))

    def test_a_set_that_switches_over_is_left_alone_however_quick_the_pass_was(self):
        self.rests.note("b", state.Pass.SWITCHING, 0.0)
        self.assertFalse(self.rests.over("b"))

    def test_it_is_as_long_as_the_pass_was_slow(self):
        self.rests.note("b", state.Pass.FOLLOWED, 0.0)
        self.assertTrue(self.rests.over("b"))
