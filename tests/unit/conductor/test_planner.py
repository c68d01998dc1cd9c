"""Which hosts a plan counts on as having a relay, and who stays because nobody measured it."""

import dataclasses
import time
from types import SimpleNamespace
from unittest import mock

import fixtures
from oslotest import base

from nova_batch_migrate import conf, exception
from nova_batch_migrate.conductor import loading, planner, request
from nova_batch_migrate.db import api as db
from nova_batch_migrate.planning.request import RelayHost
from nova_batch_migrate.planning.telemetry import ServerTelemetry
from tests.unit.conductor import build
from tests.unit.db import fixture
from tests.unit.planning import builders

SPEED = {"new_bytes_per_second": 4e8, "known_bytes_per_second": 1e9}


class PlayedRelays:
    def __init__(self, **found):
        self.found, self.asked = found, []

    def describe(self, ctxt, host):
        self.asked.append(host)
        return self.found.get(host)


class RelaysOfTest(base.BaseTestCase):
    def relays_of(self, played, sources=("cmpa", "cmpc"), destinations=("cmpb", "cmpd")):
        made = planner.Planner(conf.CONF, None, None, played)
        return made._relays_of({"request_id": "req-1"}, list(sources), list(destinations))

    def test_hosts_with_a_relay_and_what_it_was_measured_to_do(self):
        played = PlayedRelays(cmpa={"speed": SPEED}, cmpd={},
                              cmpb={"speed": None, "dictionary_bytes": 1 << 30})
        self.assertEqual((RelayHost("cmpa", 4e8, 1e9), RelayHost("cmpb", None, None, 1 << 30)),
                         self.relays_of(played, destinations=("cmpb",)))

    def test_there_is_no_way_with_a_relay_at_one_end_only(self):
        self.assertEqual((), self.relays_of(PlayedRelays(cmpa={"speed": SPEED})))
        alone = PlayedRelays(cmpb={"speed": SPEED})
        self.assertEqual((), self.relays_of(alone))
        self.assertEqual(["cmpa", "cmpc"], alone.asked)

    def test_a_plan_reckons_with_the_smallest_dictionary(self):
        self.assertEqual(512 << 20, planner._dictionary_bytes(()))
        self.assertEqual(1 << 28, planner._dictionary_bytes((
            RelayHost("a"), RelayHost("b", dictionary_bytes=1 << 30),
            RelayHost("c", dictionary_bytes=1 << 28))))

    def test_a_destination_without_room_is_no_end_of_a_way(self):
        relays = tuple(RelayHost(name) for name in ("cmpa", "cmpb", "cmpd"))
        self.assertEqual(relays[:2], planner._usable(relays, {"cmpa"}, {"cmpb": {}, "cmpc": {}}))
        self.assertEqual((), planner._usable(relays, {"cmpa"}, {"cmpc": {}}))


class PlayedNova:
    """Counts how often it is asked for what a plan needs; ``fails`` that many times first."""

    def __init__(self, fails=0):
        self.fails, self.asked = fails, 0

    def server_groups(self):
        return [{"id": "g"}]

    def hypervisors(self):
        return [SimpleNamespace(host="cmpb", node="node-b")]

    def servers_on(self, host):
        self.asked += 1
        if self.asked <= self.fails:
            raise exception.NovaTransientError(operation="list", reason="busy")
        return [SimpleNamespace(id="s1")]


class AskAheadTest(base.BaseTestCase):
    BATCH = {"id": "b1", "request_id": "req-1"}

    def planner(self, nova):
        placement = SimpleNamespace(free_capacity=lambda names, nodes: {"cmpb": nodes})
        made = planner.Planner(conf.CONF, nova, placement, PlayedRelays())
        self.useFixture(fixtures.MockPatchObject(made, "destinations", lambda batch: ["cmpb"]))
        return made

    def test_a_plan_takes_the_answers_that_are_there_once(self):
        nova = PlayedNova()
        made = self.planner(nova)
        made.ask_ahead(self.BATCH, {"cmpa": {}})
        made.ask_ahead(self.BATCH, {"cmpa": {}})
        self.assertEqual(1, nova.asked)
        found = made._answers(self.BATCH, ["cmpa"])
        self.assertEqual((("cmpb",), {"cmpb": {"cmpb": "node-b"}}, ({"id": "g"},), 1),
                         (found.names, found.capacity, found.groups, nova.asked))
        self.assertEqual("s1", found.servers[0].id)
        made._answers(self.BATCH, ["cmpa"])
        self.assertEqual(2, nova.asked)

    def test_what_is_old_or_of_other_hosts_is_asked_for_again(self):
        nova = PlayedNova()
        made = self.planner(nova)
        made.ask_ahead(self.BATCH, ["cmpa"])
        made._answers(self.BATCH, ["cmpa", "cmpc"])
        self.assertEqual(3, nova.asked)
        made.ask_ahead(self.BATCH, ["cmpa"])
        late = time.monotonic() + planner.ANSWERS_SECONDS
        with mock.patch.object(time, "monotonic", lambda: late):
            made._answers(self.BATCH, ["cmpa"])
        self.assertEqual(5, nova.asked)

    def test_a_nova_that_fails_then_is_asked_by_the_plan(self):
        made = self.planner(PlayedNova(fails=1))
        made.ask_ahead(self.BATCH, ["cmpa"])
        self.assertEqual("s1", made._answers(self.BATCH, ["cmpa"]).servers[0].id)


class StepTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixture.Database())
        self.made = planner.Planner(conf.CONF, None, None, None)
        relay = tuple(RelayHost(host) for host in ("cmpa", "cmpb"))
        self.answers = planner.Answers(
            ("cmpa",), ("cmpb",), {"cmpb": {"memory_bytes": 1 << 34, "vcpus": 64, "pcpus": 0,
                                            "disk_gb": None}}, (), relay,
            tuple(build.server(id=f"id-{name}", name=name) for name in "abc"), 0.0)
        self.useFixture(fixtures.MockPatchObject(
            self.made, "_answers", lambda batch, sources: self.answers))

    def plan(self, batch):
        self.made.step(SimpleNamespace(request_id="req-1"), batch)
        return db.get_batch(batch["id"])

    def test_groups_of_a_later_plan_go_on_in_number_everywhere(self):
        told = builders.host([builders.server(name) for name in "abc"]).to_dict()
        batch = db.create_batch(
            {"request": request.normalize({"hosts": ["cmpa"], "strategy": "none"}),
             "telemetry": {"cmpa": told}},
            [loading.new_row(server) for server in self.answers.servers])
        first = self.plan(batch)
        self.assertEqual([0, 1, 2], [group["index"] for group in first["plan"]["groups"]])
        self.assertEqual(([0, 1, 2], {"cmpa": 0}),
                         (first["state"]["relayed"], first["state"]["plan_groups"]))
        done = next(row for row in db.servers_of(batch["id"]) if row["group_index"] == 0)
        db.update_server(batch["id"], done["server_id"], {"status": "completed"})
        later = self.plan(first)
        self.assertEqual([3, 4], [group["index"] for group in later["plan"]["groups"]])
        self.assertEqual([0, 3, 4], sorted(
            row["group_index"] for row in db.servers_of(batch["id"])))
        self.assertEqual(([0, 1, 2, 3, 4], {"cmpa": 3}),
                         (later["state"]["relayed"], later["state"]["plan_groups"]))
        self.assertEqual({}, later["state"]["at_once"])

    def test_what_is_left_of_a_group_under_way_goes_on_in_it(self):
        """Two sources; one is planned anew because a group of the other has ended."""
        told = {host: builders.host([builders.server(name) for name in names],
                                    builders.classes((" ".join(names), 50_000)), name=host,
                                    mib_s=10, max_concurrent=2).to_dict()
                for host, names in (("cmpa", "abc"), ("cmpc", "de"))}
        self.answers = dataclasses.replace(self.answers, sources=("cmpa", "cmpc"), servers=tuple(
            build.server(id=f"id-{name}", name=name, host="cmpa" if name in "abc" else "cmpc")
            for name in "abcde"))
        for scope in ("off", "project"):
            batch = db.create_batch(
                {"request": request.normalize({"hosts": ["cmpa", "cmpc"], "dedup_scope": scope}),
                 "telemetry": told},
                [loading.new_row(server) for server in self.answers.servers])
            first = self.plan(batch)
            index = {group["source"]: group["index"] for group in first["plan"]["groups"]}
            self.assertEqual(2, len(first["plan"]["groups"]))
            begun = next(member["server_id"] for group in first["plan"]["groups"]
                         if group["source"] == "cmpa" for member in group["members"])
            db.update_server(batch["id"], begun, {"status": "migrating"})
            later = self.plan(first)
            self.assertEqual(
                {"cmpa": index["cmpa"], "cmpc": 2 + index["cmpc"]},
                {group["source"]: group["index"] for group in later["plan"]["groups"]})
            self.assertEqual([index["cmpa"]] * 3, [
                row["group_index"] for row in db.servers_of(batch["id"])
                if row["source"] == "cmpa"])

            def under_way(changed=None, batch=later, **kept):
                rows = [row | (changed or {}) if row["status"] == "pending" else row
                        for row in db.servers_of(batch["id"])]
                return planner._under_way(rows, batch["state"] | kept)

            plan = self.made.make(later, db.servers_of(batch["id"]), 0)
            rest = next(group for group in plan.groups if group.source == "cmpa")
            for expected, present in (
                    (True, under_way()),
                    # its relays are open to other destinations, or are none
                    (False, under_way({"destination": "cmpd"})),
                    (False, under_way(relayed=[])) if scope == "project" else
                    (False, under_way(relayed=[index["cmpa"]])),
                    # it began without one
                    (scope == "off", under_way(relay_groups={f"cmpa/{index['cmpa']}": {}})),
                    (False, under_way({"group_index": 7})),
                    (False, under_way(together=[index["cmpa"]]))):
                self.assertEqual(expected, planner._goes_on(rest, plan.groups, present))

    def test_of_groups_past_relays_it_is_kept_how_many_migrate_at_once(self):
        told = builders.host([builders.server(name) for name in "abc"],
                             max_concurrent=2).to_dict()
        one_by_one = {"0": 1, "1": 1, "2": 1}
        for scope, wanted, expected in (("off", None, {"0": 2}), ("off", 1, one_by_one),
                                        ("project", None, {})):
            batch = db.create_batch(
                {"request": request.normalize({"hosts": ["cmpa"], "dedup_scope": scope,
                                               "max_parallel": wanted}),
                 "telemetry": {"cmpa": told}},
                [loading.new_row(server) for server in self.answers.servers])
            planned = self.plan(batch)
            self.assertEqual(expected, planned["state"]["at_once"])
        # a group of an earlier plan may still be under way
        db.update_batch(batch["id"], {"state": planned["state"] | {"at_once": {"0": 3}}})
        self.assertEqual({"0": 3}, self.plan(db.get_batch(batch["id"]))["state"]["at_once"])


class UnmeasuredTest(base.BaseTestCase):
    ROW = {"server_id": "id-a", "name": "a", "source": "cmpa"}

    def test_whom_the_agent_does_not_mention_stays_and_is_named(self):
        found = planner._unmeasured(self.ROW, [])
        self.assertEqual(("id-a", "likely"), (found.server_id, found.certainty))
        self.assertIn("the agent sent no figures for it", found.reason)
        self.assertIn("server migrate --live-migration --wait id-a", found.command)

    def test_the_agents_words_are_told(self):
        host = SimpleNamespace(servers=(ServerTelemetry("id-a", error="it is migrating"),))
        self.assertIn("it is migrating", planner._unmeasured(self.ROW, [host]).reason)
