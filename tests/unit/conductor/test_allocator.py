"""Shares of the wire handed out, kept up, and taken back; agents are played."""

from oslo_utils import fixture as oslo_fixture
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.conductor import allocator
from nova_batch_migrate.planning import allocation
from tests.unit.conductor import build
from tests.unit.conductor.test_views import PROJECTION, batch_row, server_row
from tests.unit.planning import builders

MIB = 1 << 20
#: Of the wire, what is payload.
PAYLOAD = 0.5


class FakeAgents:
    """Links, and the speeds that were asked of them."""

    def __init__(self):
        self.seen = builders.bandwidth(
            100, link_bytes_per_second=100 * MIB / PAYLOAD).to_dict()
        self.looks, self.tuned, self.refusal = [], [], None

    def bandwidth(self, ctxt, host):
        self.looks.append(host)
        if isinstance(self.seen, Exception):
            raise self.seen
        return self.seen

    def tune(self, ctxt, host, server, bytes_per_second=None):
        if self.refusal:
            raise self.refusal
        self.tuned.append((server, bytes_per_second / MIB))

    def limit_group(self, ctxt, host, group, bytes_per_second):
        self.tuned.append((group, bytes_per_second / MIB))


class AllocatorTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.agents = FakeAgents()
        self.clock = self.useFixture(oslo_fixture.TimeFixture(build.NOW))
        self.rows = {name: self.row(name) for name in "ab"}
        self.batch = batch_row()

    @staticmethod
    def row(name, **changes):
        return server_row(server_id=name, status="migrating", current_projection=PROJECTION | {
            "raw_bytes": 100 * MIB}) | changes

    def save(self, **changes):
        self.batch["state"] = self.batch["state"] | changes

    def allocate(self, *streams):
        """Let a conductor that remembers nothing allocate; return what it asked for."""
        self.agents.tuned = []
        allocator.Allocator(self.agents, allocator.Steering(self.agents)).allocate(
            None, self.batch, self.rows, list(streams), self.save)
        return self.agents.tuned

    def test_a_cap_of_the_operator_is_wire_and_holds_a_lone_stream(self):
        self.batch["request"]["max_bandwidth_mib_s"] = 16
        self.assertEqual([("a", 8.0)], self.allocate("a"))
        self.assertEqual({"a": 16 * MIB}, self.batch["state"]["allocation"]["wire"])

    def test_without_a_cap_a_lone_stream_is_left_alone(self):
        self.assertEqual([], self.allocate("a"))
        self.assertEqual({"a": 200 * MIB}, self.batch["state"]["allocation"]["wire"])

    def test_shares_follow_need(self):
        self.rows["b"]["progress"] = {"job": {
            "memory_remaining_bytes": 100 * MIB, "dirty_rate_pages_per_second": 40 * 256}}
        (first, some), (second, more) = self.allocate("a", "b")
        self.assertEqual(("a", "b"), (first, second))
        self.assertGreaterEqual(more, 50.0)
        self.assertAlmostEqual(100.0, some + more, places=3)

    def test_a_link_nobody_knows_is_not_divided(self):
        self.agents.seen = builders.bandwidth(100, source="unknown").to_dict()
        self.assertEqual([], self.allocate("a", "b"))
        self.agents.seen = exception.AgentUnavailable(host="cmpa")
        self.clock.advance_time_seconds(60)
        self.assertEqual([], self.allocate("a", "b"))

    def test_what_is_in_force_is_not_asked_for_again_at_once(self):
        self.assertEqual(2, len(self.allocate("a", "b")))
        self.assertEqual([], self.allocate("a", "b"))
        self.assertEqual(["cmpa"], self.agents.looks)

    def test_another_conductor_applies_again_what_may_have_been_lost(self):
        asked = self.allocate("a", "b")
        self.clock.advance_time_seconds(allocator.APPLY_AGAIN_SECONDS + 1)
        self.assertEqual(asked, self.allocate("a", "b"))

    def test_the_link_is_looked_at_again_after_a_while(self):
        self.allocate("a", "b")
        self.agents.seen = builders.bandwidth(50).to_dict()
        self.clock.advance_time_seconds(allocator.LOOK_SECONDS + 1)
        self.assertEqual([("a", 25.0), ("b", 25.0)], self.allocate("a", "b"))

    def test_who_remains_gets_what_the_other_had(self):
        self.allocate("a", "b")
        self.rows["b"]["status"] = "completed"
        self.assertEqual([("a", 0.0)], self.allocate("a"))
        self.assertEqual({}, self.batch["state"]["allocation"]["applied"])
        self.assertEqual([], self.allocate("a"))

    def test_who_joins_is_given_room_first(self):
        self.batch["request"]["max_bandwidth_mib_s"] = 200
        self.assertEqual([("a", 100.0)], self.allocate("a"))
        self.assertEqual([("a", 50.0), ("b", 50.0)], self.allocate("b", "a"))

    def test_a_cap_on_who_did_not_leave_is_taken_back(self):
        self.batch["request"]["max_bandwidth_mib_s"] = 16
        self.allocate("a")
        self.rows["a"]["status"] = "waiting"
        self.assertEqual([("a", 0.0)], self.allocate())
        self.assertEqual([], self.allocate())
        self.assertEqual({}, self.batch["state"]["allocation"]["applied"])

    def test_a_cap_is_taken_back_when_the_agent_is_there_again(self):
        self.batch["request"]["max_bandwidth_mib_s"] = 16
        self.allocate("a")
        self.rows["a"]["status"] = "failed"
        self.agents.refusal = exception.AgentUnavailable(host="cmpa")
        self.allocate()
        self.agents.refusal = None
        self.assertEqual([], self.allocate())
        self.clock.advance_time_seconds(allocator.APPLY_AGAIN_SECONDS + 1)
        self.assertEqual([("a", 0.0)], self.allocate())

    def test_one_that_just_ended_is_no_reason_to_stop(self):
        self.agents.refusal = exception.AgentRefused(reason="not a domain")
        self.allocate("a", "b")
        self.assertEqual({"a", "b"}, self.batch["state"]["allocation"]["applied"].keys())

    def test_novas_own_cap_is_kept(self):
        self.agents.seen = builders.bandwidth(
            100, nova_cap_bytes_per_second=10.0 * MIB).to_dict()
        # capped at 10 QEMU sends eight portions in each tenth of a second
        sent = allocation.qemu_bytes_per_second(10) / MIB
        self.assertEqual([("a", sent), ("b", sent)], self.allocate("a", "b"))
        self.rows["b"]["status"] = "completed"
        self.assertEqual([], self.allocate("a"))

    def test_a_relays_group_is_one_stream_and_is_held_by_the_relay(self):
        self.batch["request"]["max_bandwidth_mib_s"] = 16
        self.rows["c"] = self.row("c", source="cmpz")
        for row in self.rows.values():
            row["current_projection"] = (row["current_projection"] or {}) | {"relay": True}
        for name in "ab":
            self.rows[name]["status"] = "pending"
        self.assertEqual([], self.allocate("a", "b"), "the group is opened with its cap")
        for name in "ab":
            self.rows[name]["status"] = "migrating"
        self.batch["state"] = {"relay_groups": {"cmpa/0": ["cmpb"], "cmpz/0": []}}
        # 200 MiB through the relay of cmpa, 100 without one from cmpz, of 8 in all
        (group, more), (alone, some) = self.allocate("a", "b", "c")
        self.assertEqual(("b1/cmpa/0/cmpb", "c"), (group, alone))
        least = allocation.LEAST_BYTES_PER_SECOND / MIB
        self.assertAlmostEqual(least + (8 - 2 * least) / 3, some, delta=0.01)
        self.assertAlmostEqual(8.0, some + more, delta=0.01)
        self.rows["a"]["status"] = self.rows["b"]["status"] = "completed"
        self.assertEqual([("c", 8.0)], self.allocate("c"))

    def test_groups_of_one_source_share_what_relays_leave_of_its_link(self):
        self.rows["b"]["destination"] = "cmpc"
        for row in self.rows.values():
            row["current_projection"] |= {"relay": True}
        b, c = "b1/cmpa/0/cmpb", "b1/cmpa/0/cmpc"
        # as they were opened
        self.batch["state"] = {"relay_groups": {"cmpa/0": ["cmpb", "cmpc"]},
                               "allocation": {"applied": {b: 49 * MIB, c: 49 * MIB}}}
        self.rows["b"]["status"] = "waiting"
        self.assertEqual([(b, 98.0)], self.allocate("a"))
        self.rows["b"]["status"] = "migrating"
        self.assertEqual([(b, 49.0)], self.allocate("a", "b"))
        # one is over, the other has waited: its cap is still known
        self.assertEqual([], self.allocate())
        self.rows["a"]["status"] = "completed"
        self.assertEqual([(c, 98.0)], self.allocate("b"))
        self.batch["state"]["relay_groups"] = {}
        self.rows["b"]["status"] = "completed"
        self.assertEqual([], self.allocate())
        self.assertEqual({}, self.batch["state"]["allocation"]["applied"])

    def test_an_operators_cap_below_the_link_is_used_up_by_groups(self):
        self.batch["request"]["max_bandwidth_mib_s"] = 16
        self.rows["b"]["destination"] = "cmpc"
        self.batch["state"] = {"relay_groups": {"cmpa/0": ["cmpb", "cmpc"]}}
        for row in self.rows.values():
            row["current_projection"] |= {"relay": True}
        self.assertEqual([4.0, 4.0], [cap for _, cap in self.allocate("a", "b")])
