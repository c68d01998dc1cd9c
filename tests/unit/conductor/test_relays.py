from oslotest import base

from nova_batch_migrate import context, exception
from nova_batch_migrate.conductor import loading, relays, request
from nova_batch_migrate.db import api as db
from nova_batch_migrate.planning.telemetry import PageClass, PageClasses
from nova_batch_migrate.relay import values
from tests.unit.conductor import build
from tests.unit.db import fixture

FREE = {"cmpa": 512 << 20, "cmpb": 128 << 20, "cmpc": 512 << 20}


class FakeAgents:
    """Agents whose relays note what is opened and closed."""

    def __init__(self):
        self.without, self.refusing, self.said = set(), set(), []
        self.free = dict(FREE)
        self.statistics = {"groups": []}
        self.left_open = {}

    def relay(self, ctxt, host):
        if host in self.without:
            return None
        left = self.left_open.get(host, [])
        return {"address": f"{host}.example", "port": 49300, "group_ids": list(left),
                "dictionary_free_bytes": 0 if left else self.free[host]}

    def open_group(self, ctxt, host, group):
        if host in self.refusing:
            raise exception.AgentRefused(reason="no room")
        self.said.append(("open", host, values.Group.from_dict(group)))

    def close_group(self, ctxt, host, group_id):
        self.said.append(("close", host, group_id))
        if group_id in self.left_open.get(host, ()):
            self.left_open[host].remove(group_id)
        return {"raw_bytes": 50 << 20, "wire_bytes": 20 << 20} if host == "cmpa" else {}

    def relay_statistics(self, ctxt, host):
        return self.statistics

    def opened(self):
        return [(host, group) for what, host, group in self.said if what == "open"]


class RelaysTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixture.Database())
        self.agents, self.ctxt = FakeAgents(), context.service_context()
        self.relays = relays.Relays(self.agents)
        self.batch = self.make_batch()

    def make_batch(self, **asked):
        batch = db.create_batch({"request": request.normalize({"hosts": ["cmpa"]} | asked)}, [])
        batch["telemetry"] = {"cmpa": {"bandwidth": {"goodput_bytes_per_second": 1e7},
                                       "options": {"downtime_ms": 300}}}
        return batch

    def rows(self, *destinations):
        return [loading.new_row(build.server(id=f"s{n}")) | {
            "destination": destination, "group_index": 0, "order_index": n,
            "project_id": f"p{n}"} for n, destination in enumerate(destinations)]

    def begin(self, *destinations):
        opened, _ = self.relays.begin(self.ctxt, self.batch, "cmpa", 0, self.rows(*destinations))
        return opened

    def events(self):
        return [event["message"] for event in db.events_of(self.batch["id"])]

    def test_the_destination_is_opened_first_and_both_know_the_same(self):
        self.assertEqual(["cmpb"], self.begin("cmpb", "cmpb"))
        (first, at_destination), (second, at_source) = self.agents.opened()
        self.assertEqual(("cmpb", "cmpa"), (first, second))
        self.assertEqual(("destination", "source"), (at_destination.role, at_source.role))
        self.assertEqual(at_destination.token, at_source.token)
        self.assertEqual(("cmpb.example", 49300),
                         (at_source.peer_address, at_source.peer_port))
        # what both have room for
        self.assertEqual(128 << 20, at_source.dictionary_bytes)
        self.assertEqual([("s0", 0, "p0"), ("s1", 1, "p1")],
                         [(m.server_id, m.order, m.scope) for m in at_source.members])
        self.assertEqual((1e7, 0.3, None), (at_source.link_bytes_per_second,
                                            at_source.downtime_seconds,
                                            at_source.wire_bytes_per_second))

    def test_a_batch_without_its_heavy_columns_does(self):
        db.update_batch(self.batch["id"], {"telemetry": self.batch["telemetry"]})
        self.batch = db.get_batch(self.batch["id"], heavy=False)
        self.assertEqual(["cmpb"], self.begin("cmpb"))
        self.assertEqual([0.3] * 2, [group.downtime_seconds for _, group in self.agents.opened()])

    def test_the_source_knows_for_whom_to_keep_what_a_server_brings(self):
        self.batch["telemetry"]["cmpa"]["page_classes"] = PageClasses(True, 1.0, (
            PageClass(("s0", "s2", "s3"), 90), PageClass(("s0", "s1"), 10),
            PageClass(("s1", "s3"), 80))).to_dict()
        rows = [row | {"project_id": "p"} for row in self.rows(*["cmpb"] * 4)]
        # as the plan orders them, whatever order their rows have
        self.relays.begin(self.ctxt, self.batch, "cmpa", 0, rows[::-1])
        kept = {member.server_id: member.kept_for for member in self.agents.opened()[1][1].members}
        self.assertEqual({"s0": 3, "s1": 3, "s2": 3, "s3": None}, kept)
        # another project's dictionary is another one
        rows[3]["project_id"] = "q"
        self.agents.said.clear()
        self.relays.begin(self.ctxt, self.batch, "cmpa", 0, rows)
        kept = {member.server_id: member.kept_for for member in self.agents.opened()[1][1].members}
        self.assertEqual({"s0": 2, "s1": None, "s2": None, "s3": None}, kept)

    def test_every_destination_has_a_group_of_its_own(self):
        self.assertEqual(["cmpb", "cmpc"], self.begin("cmpc", "cmpb", "cmpc"))
        members = {host: [m.server_id for m in group.members]
                   for host, group in self.agents.opened() if host != "cmpa"}
        self.assertEqual({"cmpb": ["s1"], "cmpc": ["s0", "s2"]}, members)

    def test_memory_is_shared_and_nobody_takes_more_than_it_can_use(self):
        def sizes():
            self.agents.said.clear()
            self.begin("cmpb", "cmpc")
            return {host: group.dictionary_bytes >> 20 for host, group in self.agents.opened()
                    if host != "cmpa"}

        # of 512 MiB at the source one half, of which cmpb has room for 128; the rest is cmpc's
        self.assertEqual({"cmpb": 128, "cmpc": 512}, sizes())
        self.batch["telemetry"]["cmpa"]["servers"] = [
            {"id": "s0", "distinct_pages": 10}, {"id": "s1", "distinct_pages": 25600}]
        self.assertEqual({"cmpb": 16, "cmpc": 150}, sizes())

    def test_without_memory_left_a_group_goes_the_plain_way(self):
        self.agents.free["cmpb"] = 3 << 20
        self.assertEqual([], self.begin("cmpb"))
        self.assertIn("3 MiB are left for its dictionary", self.events()[-1])

    def test_every_project_has_room_in_a_dictionary_or_the_group_goes_without(self):
        self.batch["telemetry"]["cmpa"]["servers"] = [
            {"id": f"s{n}", "distinct_pages": 10} for n in range(10)]
        self.assertEqual(["cmpb"], self.begin(*["cmpb"] * 10))
        for _, group in self.agents.opened():
            self.assertEqual(40 << 20, group.dictionary_bytes)
        self.agents.free["cmpb"] = 39 << 20
        self.assertEqual([], self.begin(*["cmpb"] * 10))
        self.assertIn("it needs 40 for 10 projects", self.events()[-1])
        self.batch = self.make_batch(dedup_scope="host")
        self.assertEqual(["cmpb"], self.begin(*["cmpb"] * 10))

    def test_scope_and_cap_are_the_operators(self):
        self.batch = self.make_batch(dedup_scope="host", max_bandwidth_mib_s=10)
        self.begin("cmpb")
        group = self.agents.opened()[0][1]
        self.assertEqual("host", group.members[0].scope)
        self.assertEqual(10 << 20, group.wire_bytes_per_second)

    def test_a_link_that_is_known_for_sure_is_not_filled_to_the_brim(self):
        self.batch["telemetry"]["cmpa"]["bandwidth"]["source"] = "tc"
        self.begin("cmpb")
        self.assertEqual(0.98e7, self.agents.opened()[0][1].wire_bytes_per_second)

    def test_towards_several_destinations_it_begins_with_no_more_than_to_one(self):
        self.batch["telemetry"]["cmpa"]["bandwidth"]["source"] = "tc"
        rows = self.rows("cmpb", "cmpc", "cmpb")
        for row, size in zip(rows, (1, 2, 5), strict=True):
            row["current_projection"] = {"raw_bytes": size << 30}

        def caps():
            self.agents.said.clear()
            self.relays.begin(self.ctxt, self.batch, "cmpa", 0, rows)
            return {host: round(group.wire_bytes_per_second)
                    for host, group in self.agents.opened() if host != "cmpa"}

        self.assertEqual({"cmpb": 7_350_000, "cmpc": 2_450_000}, caps())
        # the allocator knows: it gives one that is alone the rest
        kept = db.get_batch(self.batch["id"])["state"]["allocation"]["applied"]
        ids = [relays.group_id(self.batch["id"], "cmpa", 0, each) for each in ("cmpb", "cmpc")]
        self.assertEqual(dict(zip(ids, (7_350_000, 2_450_000), strict=True)), kept)
        # towards one of them again, of the same batch
        rows = rows[:1]
        self.assertEqual({"cmpb": 9_800_000}, caps())
        self.assertEqual([ids[1]], [*self.batch["state"]["allocation"]["applied"]])

    def test_without_a_relay_at_one_end_it_goes_the_plain_way_and_says_so(self):
        self.agents.without = {"cmpb"}
        self.assertEqual([], self.begin("cmpb"))
        self.assertEqual([], self.agents.opened())
        self.assertIn("without a relay: no nova-batch-relay answers on cmpb", self.events()[-1])

    def test_a_set_reaches_the_relays_as_one_however_the_request_named_it(self):
        self.batch["request"]["synchronized"] = [["s0", "s1"], ["s1", "s2"], ["s2", "elsewhere"]]
        self.batch["state"] = {"dirty": {"s0": 5000}}
        self.relays.begin(self.ctxt, self.batch, "cmpa", 0, self.rows("cmpb", "cmpc", "cmpb"), True)
        for _, group in self.agents.opened():
            self.assertEqual((frozenset({"s0", "s1", "s2"}),), group.synchronized)
        # how they are led to their switchover depends on what they write
        self.assertEqual({"s0": 5000, "s2": None}, {
            m.server_id: m.dirty_bytes_per_second for m in self.agents.opened()[0][1].members})
        self.agents.said.clear()
        self.begin("cmpb", "cmpb")
        self.assertEqual((), self.agents.opened()[0][1].synchronized)

    def test_a_set_does_not_go_past_the_relay(self):
        self.agents.without = {"cmpb"}
        opened, refused = self.relays.begin(self.ctxt, self.batch, "cmpa", 0,
                                            self.rows("cmpb", "cmpc"), True)
        self.assertEqual(["cmpc"], opened)
        self.assertIn("no nova-batch-relay answers", refused["cmpb"])
        self.assertIn("does not go to cmpb", "".join(self.events()))

    def test_a_refusal_at_the_source_leaves_nothing_open_at_the_destination(self):
        self.agents.refusing = {"cmpa"}
        self.assertEqual([], self.begin("cmpb"))
        group_id = relays.group_id(self.batch["id"], "cmpa", 0, "cmpb")
        self.assertEqual({"cmpa", "cmpb"},
                         {host for what, host, told in self.agents.said[-2:]
                          if (what, told) == ("close", group_id)})

    def test_what_an_ended_batch_has_left_open_is_closed_and_its_memory_had(self):
        ended = self.make_batch()
        db.finish_batch(ended["id"], "completed", None, None)
        mine, other = self.batch["id"], self.make_batch()["id"]
        open_now = [f"{mine}/cmpz/1/cmpb", f"{other}/cmpy/0/cmpb"]
        self.agents.left_open = {"cmpb": [f"{ended['id']}/cmpz/0/cmpb", "purged/cmpz/0/cmpb",
                                          *open_now]}
        self.relays.describe(self.ctxt, "cmpb")
        self.assertEqual(open_now, self.agents.left_open["cmpb"])
        self.agents.left_open = {"cmpb": [f"{ended['id']}/cmpz/0/cmpb"]}
        self.assertEqual(["cmpb"], self.begin("cmpb"))

    def test_closing_tells_raw_beside_wire(self):
        self.begin("cmpb")
        total = self.relays.end(self.ctxt, self.batch, "cmpa", 0, ["cmpb"])
        mine = relays.group_id(self.batch["id"], "cmpa", 0, "cmpb")
        self.assertEqual({mine: {"raw_bytes": 50 << 20, "wire_bytes": 20 << 20}}, total)
        self.assertIn("50 MiB of streams crossed as 20 MiB", self.events()[-1])

    def test_figures_are_those_of_the_servers_own_group(self):
        row, = self.rows("cmpb")
        mine = relays.group_id(self.batch["id"], "cmpa", 0, "cmpb")
        self.agents.statistics = {"groups": [
            {"id": "another", "servers": {"s0": {"raw_bytes": 1}}},
            {"id": mine, "servers": {"s0": {"raw_bytes": 7}}}]}
        self.assertEqual({"raw_bytes": 7}, self.relays.figures(self.ctxt, self.batch, row))
        self.batch["state"] = {"relay_groups": {"cmpa/0": ["cmpb"], "cmpz/1": []}}
        looked, switching = self.relays.look(self.ctxt, self.batch)
        self.assertEqual(({mine}, False), (looked.keys(), switching))
        self.assertEqual((7, 0), (looked[mine]["servers"]["s0"]["raw_bytes"],
                                  looked[mine]["servers"]["s0"]["delta_bytes"]))

    def test_a_set_switches_over_from_its_release_until_all_are_let_go(self):
        self.batch["state"] = {"relay_groups": {"cmpa/0": ["cmpb"]}}
        mine = relays.group_id(self.batch["id"], "cmpa", 0, "cmpb")
        for group, told, switching in (
                (mine, ("gathering", False), False), (mine, ("released", False), True),
                (mine, ("released", True), False), (mine, ("called-off", False), False),
                ("another", ("released", False), False)):
            self.agents.statistics = {"groups": [{"id": group, "synchronized": [
                {"members": ["s0", "s1"], "state": told[0], "over": told[1]}]}]}
            self.assertIs(switching, self.relays.look(self.ctxt, self.batch)[1], told)

    def test_a_row_is_carried_where_its_group_is_open(self):
        row, = self.rows("cmpb")
        self.batch["state"] = {"relay_groups": {"cmpa/0": ["cmpb"]}}
        self.assertTrue(relays.carries(self.batch, row))
        self.assertFalse(relays.carries(self.batch, row | {"destination": "cmpc"}))
        self.assertFalse(relays.carries(self.batch, row | {"group_index": 1}))
        self.assertFalse(relays.carries(self.batch, row | {"progress": {"plain": True}}))
