"""Issue, follow, complete, abort, heal: on a real database, with Nova and the agents played."""

import dataclasses
import datetime

from oslo_utils import fixture as time_fixture
from oslo_utils import timeutils
from oslotest import base

from nova_batch_migrate import conf, context, exception
from nova_batch_migrate.conductor import (
    actuals,
    executor,
    gangs,
    healing,
    loading,
    relays,
    request,
    state,
)
from nova_batch_migrate.db import api as db
from tests.unit.conductor import build
from tests.unit.db import fixture


class FakeNova:
    """Nova at our edge: what it shows, what it was asked."""

    def __init__(self):
        self.shown = build.server()
        self.listed = []
        self.asked = []
        self.refusal = None
        self.told = None

    def server(self, server_id):
        return self.shown

    def migrations(self, server_id):
        return self.listed

    def live_migrate(self, server_id, host):
        self.asked.append(("live_migrate", server_id, host))
        if self.refusal is not None:
            raise self.refusal

    def abort_migration(self, server_id, migration_id):
        self.asked.append(("abort", server_id, migration_id))

    def force_complete(self, server_id, migration_id):
        self.asked.append(("force", server_id, migration_id))
        if self.refusal is not None:
            raise self.refusal

    def reset_state_active(self, server_id):
        self.asked.append(("reset", server_id))

    def last_action_error(self, server_id):
        return self.told


class FakeAgents:
    def __init__(self):
        self.at = {"cmpa": {"present": True, "state": "running", "migrating": False,
                            "post_copy": False},
                   "cmpb": {"present": False, "state": None, "migrating": False,
                            "post_copy": False}}
        self.relayed, self.left, self.looks = {"groups": []}, [], 0
        self.job = {"memory_processed_bytes": 5, "elapsed_seconds": 2.0, "bytes_per_second": 1}

    def presence(self, ctxt, host, server):
        if isinstance(self.at[host], Exception):
            raise self.at[host]
        return self.at[host]

    def relay_statistics(self, ctxt, host):
        return self.relayed

    def leave_group(self, ctxt, host, group_id, server):
        self.left.append((host, group_id, server))

    def progress(self, ctxt, host, servers):
        self.looks += 1
        if isinstance(self.job, Exception):
            raise self.job
        return dict.fromkeys(servers, self.job)

    def completed(self, ctxt, host, server):
        return {"elapsed_seconds": 3.0, "memory_transferred_bytes": 9, "downtime_seconds": 0.1}


class FakePlacement:
    held = {"cmpa": {"VCPU": 1}}

    def allocations(self, server_id):
        return self.held


class FakeNeutron:
    hosts = {"cmpa"}

    def port_hosts(self, server_id):
        return self.hosts


class ExecutorTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixture.Database())
        self.nova, self.agents = FakeNova(), FakeAgents()
        self.placement, self.neutron = FakePlacement(), FakeNeutron()
        healer = healing.Healer(self.nova, self.placement, self.neutron, self.agents)
        through = relays.Relays(self.agents)
        self.executor = executor.Executor(conf.CONF, self.nova, self.agents, healer, through,
                                          gangs.Gangs(conf.CONF, through, healer))
        self.ctxt = context.service_context()
        self.batch = db.create_batch(
            {"request": request.normalize({"hosts": ["cmpa"]})},
            [loading.new_row(build.server()) | {"destination": "cmpb", "group_index": 0}])

    def row(self, **changes):
        if changes:
            db.update_server(self.batch["id"], "s1", changes)
        return db.servers_of(self.batch["id"])[0]

    def events(self):
        return [event["kind"] for event in db.events_of(self.batch["id"])]

    def issue(self):
        self.executor.issue(self.ctxt, self.batch, self.row(),
                            timeutils.utcnow().isoformat())
        return self.row()

    def carry_out(self, action):
        self.executor.carry_out(self.ctxt, self.batch, self.row(), action)
        return self.row()

    def test_the_intent_is_written_with_the_migrations_of_before(self):
        self.nova.listed = [build.migration(3, "error")]
        self.nova.refusal = exception.NovaTransientError(operation="x", reason="timeout")
        row = self.issue()
        self.assertEqual(("migrating", [3], 1),
                         (row["status"], row["known_migrations"], row["attempts"]))
        self.assertEqual(["warning"], self.events())

    def test_what_nova_refuses_for_good_fails_with_its_words(self):
        self.nova.refusal = exception.NovaPermanentError(operation="live-migrate",
                                                         reason="no such host")
        row = self.issue()
        self.assertEqual("failed", row["status"])
        self.assertIn("no such host", row["reason"])

    def test_a_last_look_before_the_call(self):
        for shown, status in ((build.server(locked=True), "skipped"), (None, "skipped"),
                              (build.server(host="cmpc"), "completed"),
                              (build.server(task_state="rebooting"), "waiting")):
            self.row(status="pending")
            self.nova.shown = shown
            self.assertEqual(status, self.issue()["status"])
        self.assertEqual([], self.nova.asked)

    def test_who_was_seen_at_rest_in_this_pass_is_not_looked_at_again(self):
        self.nova.shown = None
        for at_rest, status in ((True, "migrating"), (False, "skipped")):
            self.row(status="pending")
            self.executor.issue(self.ctxt, self.batch, self.row() | {"at_rest": at_rest},
                                timeutils.utcnow().isoformat())
            self.assertEqual(status, self.row()["status"])

    def test_who_has_a_task_waits_until_it_has_none_and_that_is_no_attempt(self):
        now = self.useFixture(time_fixture.TimeFixture(timeutils.utcnow()))
        self.nova.shown = build.server(task_state="image_snapshot")
        self.nova.refusal = exception.NovaTransientError(
            operation="live-migrate", reason="it is in task_state image_snapshot", conflict=True)
        for calls in (1, 1):
            self.executor.issue(self.ctxt, self.batch, self.row() | {"at_rest": True},
                                timeutils.utcnow().isoformat())
            row = self.row()
            self.assertEqual(("waiting", 0, calls),
                             (row["status"], row["attempts"], len(self.nova.asked)))
            self.assertEqual(timeutils.utcnow() + datetime.timedelta(
                seconds=executor.BUSY_SECONDS), row["next_attempt_at"])
            now.advance_time_seconds(executor.BUSY_SECONDS)
        self.nova.shown, self.nova.refusal = build.server(), None
        row = self.issue()
        self.assertEqual(("migrating", 1), (row["status"], row["attempts"]))
        self.assertNotIn("in_the_way", row["progress"])
        self.assertEqual(["warning", "issued"], self.events())

    def test_who_is_refused_with_nothing_in_the_way_is_asked_for_later_and_that_is_an_attempt(self):
        self.nova.shown = build.server()
        self.nova.refusal = exception.NovaTransientError(
            operation="live-migrate", reason="a conflict", conflict=True)
        for status, attempts in (("waiting", 0), ("migrating", 1)):
            self.executor.issue(self.ctxt, self.batch, self.row() | {"at_rest": True},
                                timeutils.utcnow().isoformat())
            row = self.row()
            self.assertEqual((status, attempts), (row["status"], row["attempts"]))

    def test_a_quiet_moment_is_waited_for_and_patience_begins_once(self):
        now = timeutils.utcnow()
        self.useFixture(time_fixture.TimeFixture(now))
        self.batch["request"]["max_wait_seconds"] = 60
        row = self.carry_out(state.AwaitMoment("s1", 12.0))
        self.assertEqual(("waiting", now + datetime.timedelta(seconds=12)),
                         (row["status"], row["next_attempt_at"]))
        self.assertIn("waits for its quiet moment, in 12 s", row["reason"])
        until = (now + datetime.timedelta(seconds=60)).isoformat()
        self.assertEqual(until, row["progress"]["wait_until"])
        timeutils.advance_time_seconds(30)
        row = self.carry_out(state.AwaitMoment("s1", 5.0))
        self.assertEqual(until, row["progress"]["wait_until"])
        self.assertEqual(["waiting"], self.events())
        row = self.issue()
        self.assertEqual(("migrating", None), (row["status"], row["reason"]))

    def test_progress_is_followed(self):
        self.issue()
        row = self.follow()
        self.assertEqual((7, self.agents.job), (row["migration_id"], row["progress"]["job"]))

    def follow(self):
        row = self.row()
        self.executor.watch(self.ctxt, "cmpa", [row])
        self.executor.carry_out(self.ctxt, self.batch, row,
                                state.Follow("s1", build.migration(7, "running")))
        return self.row()

    def test_the_job_of_a_migration_is_not_looked_at_in_every_pass(self):
        self.useFixture(time_fixture.TimeFixture())
        self.issue()
        for seconds, looks in ((0.5, 1), (1.6, 1), (0.5, 2), (0.5, 2)):
            row = self.follow()
            self.assertEqual((looks, self.agents.job), (self.agents.looks, row["progress"]["job"]))
            timeutils.advance_time_seconds(seconds)

    def test_an_agent_that_is_silent_leaves_the_last_job_known(self):
        self.useFixture(time_fixture.TimeFixture())
        self.issue()
        job = self.follow()["progress"]["job"]
        timeutils.advance_time_seconds(60)
        self.agents.job = exception.AgentUnavailable(host="cmpa")
        self.assertEqual(job, self.follow()["progress"]["job"])
        self.assertEqual(2, self.agents.looks)

    def test_a_stream_has_ended_when_its_job_has_gone(self):
        self.useFixture(time_fixture.TimeFixture())
        self.issue()
        job, self.agents.job = self.agents.job, None
        self.assertNotIn("streamed", self.follow()["progress"], "it has not begun")
        for told, ended in ((job, False), (exception.AgentUnavailable(host="cmpa"), False),
                            (None, True)):
            timeutils.advance_time_seconds(60)
            self.agents.job = told
            self.assertIs(ended, self.executor.watch(self.ctxt, "cmpa", [self.row()]))
            progress = self.follow()["progress"]
            self.assertEqual((ended, job), (progress.get("streamed", False), progress["job"]))
        timeutils.advance_time_seconds(60)
        self.assertFalse(self.executor.watch(self.ctxt, "cmpa", [self.row()]), "seen before")

    def test_completed_with_what_the_destination_saw(self):
        self.issue()
        row = self.carry_out(state.Complete("s1", "cmpb", build.migration(7, "completed")))
        self.assertEqual(("completed", 3.0, 9), (
            row["status"], row["actual"]["stream_seconds"], row["actual"]["raw_bytes"]))

    def carried(self):
        """Let a relay's group be open for the server; return the group's id."""
        self.batch["state"] = {"relay_groups": {"cmpa/0": ["cmpb"]}}
        return relays.group_id(self.batch["id"], "cmpa", 0, "cmpb")

    def test_what_a_relay_carried_has_raw_beside_wire_bytes(self):
        self.issue()
        counters = dict.fromkeys(actuals.SAVINGS, 1) | {
            "raw_bytes": 100, "wire_bytes": 30, "cpu_seconds": 0.5}
        self.agents.relayed = {"groups": [{"id": self.carried(), "servers": {"s1": counters}}]}
        actual = self.carry_out(
            state.Complete("s1", "cmpb", build.migration(7, "completed")))["actual"]
        self.assertEqual((100, 30, 1, 0.5), (
            actual["raw_bytes"], actual["wire_bytes"], actual["relay"]["cross_server_bytes"],
            actual["relay"]["cpu_seconds"]))
        self.assertEqual(actuals.AT_RELAY, actual["sources"]["bytes"])

    def test_what_failed_through_a_relay_goes_the_plain_way_next(self):
        self.issue()
        group = self.carried()
        row = self.carry_out(state.AttemptEnded("s1", None, True, "it broke"))
        self.assertEqual("waiting", row["status"])
        self.assertEqual([("cmpa", group, "s1")], self.agents.left)

    def test_nothing_goes_without_a_relay_where_the_operator_refused_that(self):
        self.batch["request"]["fallback"] = "refuse"
        self.issue()
        self.carried()
        row = self.carry_out(state.AttemptEnded("s1", None, True, "it broke"))
        self.assertEqual(("failed", f"it broke; {relays.REFUSED}"),
                         (row["status"], row["reason"]))
        self.assertEqual([], self.agents.left)
        # a group that could not be opened, then one that the plan leads past the relays
        self.batch["state"] = {"relay_groups": {"cmpa/0": []}}
        for relayed, status in ((True, "skipped"), (False, "migrating")):
            self.row(status="pending", reason=None, current_projection={"relay": relayed})
            asked = len(self.nova.asked)
            row = self.issue()
            self.assertEqual(status, row["status"])
            self.assertEqual(relayed, relays.REFUSED in (row["reason"] or ""))
            self.assertEqual(0 if relayed else 1, len(self.nova.asked) - asked)

    def test_the_counters_of_a_failed_attempt_are_not_those_of_the_plain_one(self):
        self.issue()
        counters = dict.fromkeys(actuals.SAVINGS, 1) | {"raw_bytes": 100, "wire_bytes": 30}
        self.agents.relayed = {"groups": [{"id": self.carried(), "servers": {"s1": counters}}]}
        self.carry_out(state.AttemptEnded("s1", None, True, "it broke"))
        self.issue()
        actual = self.carry_out(
            state.Complete("s1", "cmpb", build.migration(7, "completed")))["actual"]
        self.assertEqual((9, None), (actual["raw_bytes"], actual["relay"]))

    def test_abort_is_asked_for_once(self):
        self.issue()
        for _ in range(2):
            self.carry_out(state.StopMigration("s1", build.migration(7, "running")))
        self.assertEqual(1, [call[0] for call in self.nova.asked].count("abort"))

    def test_completion_by_force_is_noted_when_nova_took_it(self):
        self.row(status="migrating", current_projection={"help": "post-copy"})
        self.nova.refusal = exception.NovaTransientError(operation="x", reason="not running")
        self.assertIsNone(self.carry_out(state.ForceComplete("s1", build.migration(7)))["progress"])
        self.nova.refusal = None
        row = self.carry_out(state.ForceComplete("s1", build.migration(7)))
        self.assertEqual({"forced": True, "post_copy": True}, row["progress"])
        self.assertEqual(2, self.nova.asked.count(("force", "s1", 7)))
        self.assertEqual(["forced"], self.events())

    def test_a_failed_attempt_waits_and_comes_again(self):
        self.issue()
        row = self.carry_out(state.AttemptEnded("s1", None, True, "it broke"))
        self.assertEqual("waiting", row["status"])
        self.assertIsNotNone(row["next_attempt_at"])
        row = self.carry_out(state.AttemptEnded("s1", None, False, "it broke"))
        self.assertEqual(("failed", "it broke"), (row["status"], row["reason"]))

    def test_a_reason_that_will_not_change_is_not_tried_again(self):
        self.issue()
        self.nova.told = "No valid host was found. There are not enough hosts available."
        row = self.carry_out(state.AttemptEnded("s1", None, True, "it broke"))
        self.assertEqual("failed", row["status"])
        self.assertIn("No valid host", row["reason"])

    def _ended_in_error(self):
        self.nova.shown = build.server(status="ERROR", vm_state="error")
        self.row(status="migrating")
        return self._ended()

    def _ended(self):
        return self.carry_out(state.AttemptEnded("s1", build.migration(7, "error"), True, "x"))

    def test_a_guest_that_is_left_paused_is_reported_with_both_states_and_left_alone(self):
        here, away = self.agents.at["cmpa"], exception.AgentUnavailable(host="cmpb")
        for there, told in ((here | {"state": "paused"}, "paused on cmpa, paused on cmpb"),
                            (away, "paused on cmpa, unknown (")):
            self.agents.at = {"cmpa": here | {"state": "paused"}, "cmpb": there}
            self.row(status="pending")
            self.issue()
            asked = len(self.nova.asked)
            row = self.carry_out(state.AttemptEnded("s1", None, True, "it broke"))
            self.assertEqual("failed", row["status"])
            self.assertIn(told, row["reason"])
            self.assertIn("domstate", row["command"])
            self.assertEqual(asked, len(self.nova.asked))
        # nor is it healed where Nova has given it up
        self.nova.shown = build.server(status="ERROR", vm_state="error")
        self.agents.at = {"cmpa": here | {"state": "paused"}, "cmpb": here | {"present": False}}
        self.row(status="migrating")
        row = self.carry_out(state.AttemptEnded("s1", None, True, "it broke"))
        self.assertIn("paused on cmpa, not there on cmpb", row["reason"])
        self.assertIn("domstate", row["command"])
        self.assertEqual(asked, len(self.nova.asked))
        # who was paused before by its owner is nobody's fault
        self.nova.shown = build.server(status="PAUSED", vm_state="paused")
        self.row(status="migrating")
        self.assertEqual("waiting", self.carry_out(
            state.AttemptEnded("s1", None, True, "it broke"))["status"])

    def test_what_nova_left_in_error_is_healed(self):
        row = self._ended_in_error()
        self.assertEqual([("reset", "s1")], self.nova.asked)
        self.assertEqual((True, "waiting"), (row["healed"], row["status"]))
        self.assertIn("healed", self.events())

    def test_one_witness_against_it_is_enough(self):
        away = exception.AgentUnavailable(host="cmpb")
        here = self.agents.at["cmpa"]
        cases = [
            lambda: self.agents.at.update(cmpb=here),
            lambda: self.agents.at.update(cmpb=away),
            lambda: self.agents.at.update(cmpa=here | {"state": "in shutdown"}),
            lambda: self.agents.at.update(cmpa=here | {"present": False}),
            lambda: setattr(self.placement, "held", {"cmpa": {}, "cmpb": {}}),
            lambda: setattr(self.neutron, "hosts", {"cmpb"}),
            lambda: self.row(progress={"post_copy": True}),
        ]
        for spoil in cases:
            agents, placement, neutron = dict(self.agents.at), self.placement.held, \
                self.neutron.hosts
            spoil()
            row = self._ended_in_error()
            self.assertEqual("failed", row["status"])
            self.assertIn("not reset", row["reason"])
            self.agents.at, self.placement.held, self.neutron.hosts = agents, placement, neutron
            self.row(progress={})
        self.assertEqual([], self.nova.asked)

    def test_what_libvirt_has_not_ended_is_waited_for(self):
        self.useFixture(time_fixture.TimeFixture())
        here, gone = self.agents.at["cmpa"], self.agents.at["cmpb"]
        for unended in ({"cmpa": here | {"migrating": True}}, {"cmpb": here}):
            self.row(status="migrating", progress={})
            self.agents.at |= unended
            for _ in range(3):
                self.assertEqual("migrating", self._ended()["status"])
                timeutils.advance_time_seconds(4)
            self.agents.at = {"cmpa": here, "cmpb": gone}
            # the call has just come back: what Nova makes of it is waited for once more
            row = self._ended()
            self.assertEqual(("migrating", timeutils.utcnow().isoformat()),
                             (row["status"], row["progress"]["broken_since"]))
            self.assertEqual("waiting", self._ended()["status"])

    def test_what_libvirt_does_not_end_is_reported(self):
        self.useFixture(time_fixture.TimeFixture())
        self.agents.at["cmpb"] = self.agents.at["cmpa"]
        self.row(status="migrating")
        self._ended()
        timeutils.advance_time_seconds(healing.PATIENCE_SECONDS)
        row = self._ended()
        self.assertEqual("failed", row["status"])
        self.assertIn("libvirt on cmpb still has a domain of it (running on cmpa, running on cmpb)",
                      row["reason"])
        self.assertIn("domjobinfo", row["command"])

    def test_a_server_that_is_in_error_when_its_turn_comes_again_is_healed_first(self):
        self.row(status="waiting", attempts=1)
        self.nova.shown = build.server(status="ERROR", vm_state="error")
        row = self.issue()
        self.assertEqual([("reset", "s1")], self.nova.asked)
        self.assertEqual(("waiting", 1, True), (row["status"], row["attempts"], row["healed"]))
        self.placement.held = {"cmpa": {}, "cmpb": {}}
        row = self.issue()
        self.assertEqual("failed", row["status"])
        self.assertIn("not reset", row["reason"])

    def test_nova_places_it_elsewhere(self):
        self.nova.shown = dataclasses.replace(build.server(), status="ERROR", host="cmpb")
        row = self.carry_out(state.AttemptEnded("s1", None, True, "x"))
        self.assertIn("not on cmpa", row["reason"])
        self.assertEqual([], self.nova.asked)
