"""Sets that move together: whole passes on a real database, with Nova and the relays played."""

import dataclasses
import datetime

from oslo_utils import fixture as time_fixture
from oslo_utils import timeutils
from oslotest import base

from nova_batch_migrate import conf, exception
from nova_batch_migrate.conductor import (
    executor,
    gangs,
    healing,
    loading,
    reconciler,
    relays,
    request,
)
from nova_batch_migrate.db import api as db
from tests.unit.conductor import build
from tests.unit.db import fixture

MEMBERS = ("s0", "s1", "s2")


class PlayedNova:
    """Nova at our edge: a migration for every call, ended as the test says."""

    def __init__(self):
        self.servers = {i: build.server(id=i, name=i) for i in MEMBERS}
        self.rows = {i: [] for i in MEMBERS}
        self.issued, self.stopped, self.refused = [], [], {}
        self.why = "the stream broke"

    def server(self, server_id):
        return self.servers.get(server_id)

    def servers_on(self, host):
        return [server for server in self.servers.values() if server.host == host]

    def at_rest_on(self, host, locked_too=True):
        return frozenset(i for i, server in self.servers.items() if server.host == host
                         and server.vm_state in ("active", "paused")
                         and (locked_too or not server.locked))

    def migrations(self, server_id):
        return list(self.rows[server_id])

    def migrations_from(self, host, number):
        everything = [row for rows in self.rows.values() for row in rows if row.source == host]
        return sorted(everything, key=lambda row: row.id, reverse=True)[:number]

    def live_migrate(self, server_id, host):
        if server_id in self.refused:
            raise self.refused[server_id]
        self.issued.append(server_id)
        self.rows[server_id].append(build.migration(
            len(self.issued), "running", host, server_id=server_id))

    def end(self, server_id, status="error"):
        """End a server's newest migration; completed: the server is at the destination."""
        last = self.rows[server_id][-1]
        self.rows[server_id][-1] = dataclasses.replace(last, status=status)
        if status == "completed":
            self.servers[server_id] = dataclasses.replace(
                self.servers[server_id], host=last.destination)

    def abort_migration(self, server_id, migration_id):
        self.stopped.append(server_id)
        self.end(server_id, "cancelled")

    def leave_in_error(self, server_id):
        """What Nova 34 does once libvirt's call has come back, behind a verdict long told."""
        self.servers[server_id] = dataclasses.replace(
            self.servers[server_id], status="ERROR", vm_state="error")

    def reset_state_active(self, server_id):
        self.servers[server_id] = dataclasses.replace(
            self.servers[server_id], status="ACTIVE", vm_state="active")

    def last_action_error(self, server_id):
        return self.why


class PlayedAgents:
    """The agents' relays: what is open, who was counted out, what became of the set."""

    def __init__(self):
        self.without, self.policy = set(), "together"
        self.open, self.sets, self.out = {}, [], []
        self.state, self.reason, self.answers = "gathering", None, True
        self.at_it, self.left, self.left_out = set(), set(), []

    def relay(self, ctxt, host):
        if host in self.without:
            return None
        return {"address": host, "port": 49300, "dictionary_free_bytes": 64 << 20,
                "switchover_policy": self.policy}

    def presence(self, ctxt, host, server):
        return {"present": host == "cmpa" or server in self.left, "state": "running",
                "migrating": server in self.at_it, "post_copy": False}

    def open_group(self, ctxt, host, group):
        self.open[group["id"]] = group
        if group["role"] == "source":
            self.sets.append(group["synchronized"])
            self.state, self.reason = "gathering", None

    def close_group(self, ctxt, host, group_id):
        self.open.pop(group_id, None)
        return {}

    def leave_group(self, ctxt, host, group_id, server):
        self.out.append(server)

    def relay_statistics(self, ctxt, host):
        if not self.answers:
            raise exception.AgentRefused(reason="no relay")
        return {"groups": [
            {"id": group_id, "servers": {}, "synchronized": [
                {"members": members, "state": self.state, "reason": self.reason, "failed": [],
                 "left_out": self.left_out, "over": False}
                for members in group["synchronized"]]} for group_id, group in self.open.items()]}

    def progress(self, ctxt, host, servers):
        return {}

    def completed(self, ctxt, host, server):
        return None


class PlayedPlacement:
    providers = {"cmpa"}

    def allocations(self, server_id):
        return dict.fromkeys(self.providers, {"VCPU": 1})


class PlayedNeutron:
    def port_hosts(self, server_id):
        return {"cmpa"}


class StillMeasurer:
    """Nothing is measured."""


class StillAllocator:
    def allocate(self, *_):
        """Nothing: there is no wire."""

    def release(self, *_):
        """Nothing: there is no wire."""


class GangsTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixture.Database())
        self.useFixture(time_fixture.TimeFixture(datetime.datetime(2026, 11, 26, 2, 0, 0)))
        self.nova, self.agents = PlayedNova(), PlayedAgents()
        through = relays.Relays(self.agents)
        self.placement = PlayedPlacement()
        healer = healing.Healer(self.nova, self.placement, PlayedNeutron(), self.agents)
        sets = gangs.Gangs(conf.CONF, through, healer)
        self.reconciler = reconciler.Reconciler(
            conf.CONF, self.nova,
            executor.Executor(conf.CONF, self.nova, self.agents, healer, through, sets),
            StillMeasurer(), None, StillAllocator(), through, sets)
        self.begin()

    def begin(self, destinations=("cmpb", "cmpb", "cmpb"), limit=4):
        rows = [loading.new_row(self.nova.servers[i]) | {
            "destination": destination, "group_index": 0, "order_index": n}
            for n, (i, destination) in enumerate(zip(MEMBERS, destinations, strict=True))]
        batch = db.create_batch({
            "request": request.normalize({"servers": list(MEMBERS)}), "status": "running",
            "plan": {"relay": True, "groups": []},
            "state": {"together": [0], "limits": {"cmpa": limit}, "surveyed": True,
                      "plan_groups": {"cmpa": 0}, "sources": ["cmpa"],
                      "server_ids": list(MEMBERS)}}, rows)
        self.batch_id = batch["id"]
        db.update_batch(self.batch_id, {"status": "running"})

    def passes(self, number=1, seconds=2.0):
        """Let some passes go over the batch, time going on in between."""
        for _ in range(number):
            self.reconciler.pass_over(self.batch_id)
            timeutils.advance_time_seconds(seconds)

    def rows(self):
        return {row["server_id"]: row for row in db.servers_of(self.batch_id)}

    def statuses(self):
        return [row["status"] for _, row in sorted(self.rows().items())]

    def events(self, kind):
        return [event["message"] for event in db.events_of(self.batch_id) if event["kind"] == kind]

    def break_all(self):
        """The relay has called the set off and reset the streams: all migrations end."""
        self.agents.state, self.agents.reason = "called-off", "s1 failed: it was reset"
        for server_id in MEMBERS:
            self.nova.end(server_id)

    def begin_and_call_off(self):
        """Let the set begin and be called off, until no member migrates any more."""
        self.passes()
        self.break_all()
        while "migrating" in self.statuses():
            self.passes()

    def test_all_are_started_in_one_pass_and_the_relay_knows_them_as_one(self):
        self.passes()
        self.assertEqual(list(MEMBERS), self.nova.issued)
        self.assertEqual([[list(MEMBERS)]], self.agents.sets)

    def test_nobody_is_started_before_all_can_be(self):
        later = timeutils.utcnow() + datetime.timedelta(seconds=30)
        db.update_server(self.batch_id, "s2", {"status": "waiting", "next_attempt_at": later})
        self.passes(3)
        self.assertEqual([], self.nova.issued)
        self.passes(1, seconds=30)
        self.passes()
        self.assertEqual(list(MEMBERS), self.nova.issued)

    def test_a_set_that_is_called_off_goes_again_only_whole_and_once(self):
        self.passes()
        self.agents.state, self.agents.reason = "called-off", "s1 failed: it was reset"
        self.nova.end("s1")
        # Nova settles; the others are ended by us, whatever the relay did
        self.passes(4)
        self.assertEqual({"s0", "s2"}, set(self.nova.stopped))
        self.assertEqual(3, len(self.nova.issued), "a member went on alone")
        self.passes(12)
        self.assertEqual(6, len(self.nova.issued))
        self.assertEqual(["s0", "s1", "s2"], sorted(self.nova.issued[3:]))
        self.assertEqual([[list(MEMBERS)]] * 2, self.agents.sets)
        self.break_all()
        self.passes(15)
        self.assertEqual(6, len(self.nova.issued))
        self.assertEqual(["failed"] * 3, self.statuses())
        for row in self.rows().values():
            self.assertIn("together with 2 others, or not: s1 failed: it was reset", row["reason"])
        self.assertEqual({"cmpa"}, {server.host for server in self.nova.servers.values()})

    def test_a_second_round_may_end_well(self):
        self.passes()
        self.break_all()
        self.passes(12)
        self.agents.state = "released"
        for server_id in MEMBERS:
            self.nova.end(server_id, "completed")
        self.passes(2)
        self.assertEqual(["completed"] * 3, self.statuses())

    def assert_began_anew_whole(self):
        self.assertEqual(["s0", "s1", "s2"], sorted(self.nova.issued[3:]))
        self.assertEqual(["migrating"] * 3, self.statuses())
        self.assertEqual({"ACTIVE"}, {server.status for server in self.nova.servers.values()})

    def test_a_member_whose_libvirt_is_late_is_waited_for(self):
        self.passes()
        self.agents.at_it = {"s1"}
        self.break_all()
        self.passes(15)
        self.assertEqual((3, "migrating"), (len(self.nova.issued), self.rows()["s1"]["status"]))
        # the call comes back, and only now Nova leaves the server in ERROR
        self.agents.at_it = set()
        self.passes()
        self.nova.leave_in_error("s1")
        self.passes(12)
        self.assert_began_anew_whole()
        self.assertTrue(self.rows()["s1"]["healed"])

    def test_a_member_that_nova_leaves_in_error_last_of_all_is_healed_before_it_begins_anew(self):
        self.begin_and_call_off()
        self.nova.leave_in_error("s1")
        self.passes(8)
        self.assert_began_anew_whole()

    def test_a_member_that_nova_is_busy_with_is_waited_for(self):
        self.begin_and_call_off()
        idle = self.nova.servers["s1"]
        self.nova.servers["s1"] = dataclasses.replace(idle, task_state="migrating")
        self.passes(15)
        self.assertEqual((3, 1), (len(self.nova.issued), len(self.agents.sets)))
        self.nova.servers["s1"] = idle
        self.passes(5)
        self.assert_began_anew_whole()
        known, = db.get_batch(self.batch_id)["state"]["gangs"].values()
        self.assertIsNone(known["unsettled_since"], "the next wait would be cut short by this one")

    def assert_given_up(self, why):
        self.passes(60)
        self.assertEqual(3, len(self.nova.issued))
        self.assertEqual(["failed"] * 3, self.statuses())
        for row in self.rows().values():
            self.assertIn(why, row["reason"])
            self.assertIn("look", row["reason"].lower())

    def test_a_member_that_cannot_be_healed_is_not_waited_for_for_ever(self):
        self.begin_and_call_off()
        self.nova.leave_in_error("s1")
        self.placement.providers = {"cmpa", "cmpb"}
        self.assert_given_up("Placement has allocations of it on cmpa, cmpb")

    def test_a_domain_that_is_left_at_the_destination_is_not_waited_for_for_ever(self):
        self.passes()
        self.agents.left = {"s1"}
        self.break_all()
        self.assert_given_up("libvirt on cmpb still has a domain of it")

    def test_what_will_not_change_calls_it_off_for_good(self):
        self.nova.refused["s1"] = exception.NovaPermanentError(operation="x", reason="no room")
        self.passes(20)
        self.assertEqual(["failed"] * 3, self.statuses())
        self.assertEqual((["s0"], ["s0"]), (self.nova.issued, self.nova.stopped))
        self.assertIn("no room", self.rows()["s0"]["reason"])
        self.assertEqual(1, len(self.events("called-off")))

    def test_a_member_that_is_gone_keeps_the_others(self):
        self.passes()
        del self.nova.servers["s2"]
        self.passes(12)
        self.assertEqual(["failed", "failed", "skipped"], self.statuses())
        self.assertIn("s2", self.agents.out)
        self.assertIn("s2 does not move: the server was deleted", self.rows()["s0"]["reason"])

    def test_a_member_that_went_out_before_the_start_keeps_the_others(self):
        db.update_server(self.batch_id, "s2", {"status": "skipped", "reason": "it is locked"})
        self.passes(3)
        self.assertEqual([], self.nova.issued)
        self.assertEqual(["failed", "failed", "skipped"], self.statuses())

    def test_released_the_rest_goes_without_a_member_that_fails(self):
        self.agents.policy = "release"
        self.passes()
        self.nova.end("s1")
        self.passes(6)
        self.assertEqual(["migrating", "failed", "migrating"], self.statuses())
        self.assertEqual(["s1"], sorted(set(self.agents.out)))
        self.assertEqual([], self.nova.stopped)
        self.agents.state = "released"
        for server_id in ("s0", "s2"):
            self.nova.end(server_id, "completed")
        self.passes(2)
        self.assertEqual(["completed", "failed", "completed"], self.statuses())
        self.assertIn("goes without it", self.rows()["s1"]["reason"])
        self.assertEqual(3, len(self.nova.issued))

    def test_who_came_too_late_and_ends_after_the_others_were_let_go_was_left_out(self):
        self.agents.policy = "release"
        self.passes()
        self.agents.state, self.agents.left_out = "released", ["s1"]
        self.nova.end("s0", "completed")
        self.nova.end("s1")
        self.passes(6)
        self.assertEqual(["completed", "failed", "migrating"], self.statuses())
        self.assertIn("its set goes without it", self.rows()["s1"]["reason"])

    def test_after_the_release_who_fails_is_reported_and_the_others_go(self):
        self.passes()
        self.agents.state = "released"
        self.nova.end("s1")
        self.nova.end("s0", "completed")
        self.passes(6)
        self.assertEqual(["completed", "failed", "migrating"], self.statuses())
        self.nova.end("s2", "completed")
        self.passes(2)
        self.assertEqual(["completed", "failed", "completed"], self.statuses())
        self.assertIn("after its set had been let go", self.rows()["s1"]["reason"])
        self.assertEqual(([], 3), (self.nova.stopped, len(self.nova.issued)))

    def test_a_relay_that_is_gone_does_not_make_anybody_go_alone(self):
        self.passes()
        self.agents.answers = False
        self.agents.without = {"cmpa"}
        self.break_all()
        self.passes(15)
        self.assertEqual(["failed"] * 3, self.statuses())
        self.assertEqual(3, len(self.nova.issued))
        self.assertIn("no nova-batch-relay answers on cmpa", self.rows()["s0"]["reason"])

    def without_a_relay_at_one_destination(self, policy):
        self.agents.policy, self.agents.without = policy, {"cmpc"}
        self.begin(("cmpb", "cmpc", "cmpb"))
        self.passes(2)
        self.assertIn("no nova-batch-relay answers on cmpc", self.rows()["s1"]["reason"])
        return self.statuses()

    def test_without_a_relay_at_one_destination_all_stay(self):
        self.assertEqual(["failed"] * 3, self.without_a_relay_at_one_destination("together"))
        self.assertEqual([], self.nova.issued)

    def test_without_a_relay_at_one_destination_the_rest_may_go(self):
        self.assertEqual(["migrating", "failed", "migrating"],
                         self.without_a_relay_at_one_destination("release"))
        self.assertEqual([["s0", "s2"]], self.agents.sets[-1])

    def test_a_conductor_that_died_before_it_opened_the_relays_goes_on_with_them(self):
        batch = db.get_batch(self.batch_id)
        db.update_batch(self.batch_id, {"state": batch["state"] | {
            "groups_started": {"cmpa/0": timeutils.utcnow().isoformat()},
            "relay_groups": {"cmpa/0": ["cmpb"]}}})
        self.passes()
        self.assertEqual([[list(MEMBERS)]], self.agents.sets)
        self.assertEqual(list(MEMBERS), self.nova.issued)

    def test_more_than_may_be_under_way_at_once_stay(self):
        self.begin(limit=2)
        self.passes(2)
        self.assertEqual(["failed"] * 3, self.statuses())
        self.assertIn("cmpa lets 2 migrate at once", self.rows()["s0"]["reason"])
        self.assertEqual([], self.nova.issued)
