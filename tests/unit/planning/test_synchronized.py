from oslotest import base

from nova_batch_migrate.planning import plan, synchronized
from nova_batch_migrate.planning.request import RelayHost
from tests.unit.planning import builders
from tests.unit.planning.builders import MIB, host, plan_request, server


def ask(*hosts, sets, **fields):
    return plan_request(*hosts, synchronized=tuple(
        tuple(f"id-{name}" for name in names.split()) for names in sets),
        **{"relay": True, "dictionary_bytes": MIB} | fields)


def planned(request):
    """Return the groups as names, and reasons of those that stay by name."""
    made = plan.make_plan(request)
    return ([" ".join(sorted(m.name for m in group.members)) for group in made.groups],
            {staying.name: staying.reason for staying in made.staying}, made)


class TestMerged(base.BaseTestCase):

    def test_sets_that_share_a_server_are_one(self):
        for sets, expected in (
                ((), ()),
                ((("a", "b"), ("c", "d")), (("a", "b"), ("c", "d"))),
                ((("a", "b"), ("c", "d"), ("b", "c")), (("a", "b", "c", "d"),)),
                ((("a",), ("b", "b")), ())):
            self.assertEqual(sorted(map(sorted, expected)),
                             sorted(map(sorted, synchronized.merged(sets))))


class TestPlanned(base.BaseTestCase):

    def test_a_set_is_one_group_and_starts_together(self):
        request = ask(host([server(n) for n in "abcd"], max_concurrent=3), sets=["a d", "d b"],
                      max_parallel=1)
        groups, staying, made = planned(request)
        self.assertEqual({}, staying)
        self.assertIn("a b d", groups)
        together = made.groups[groups.index("a b d")]
        self.assertTrue(together.synchronized)
        self.assertEqual([0.0] * 3, [m.projection.queue_seconds for m in together.members])
        self.assertFalse(made.groups[groups.index("c")].synchronized)

    def test_more_than_nova_lets_migrate_at_once(self):
        request = ask(host([server(n) for n in "abc"], max_concurrent=2), sets=["a b c"])
        groups, staying, _ = planned(request)
        self.assertEqual(([], ["a", "b", "c"]), (groups, sorted(staying)))
        self.assertIn("max_concurrent_live_migrations there to 3 or more", staying["a"])

    def test_memory_over_several_connections_can_not_be_held(self):
        request = ask(host([server(n) for n in "abc"], max_concurrent=4, parallel_connections=2),
                      sets=["a b"])
        groups, staying, made = planned(request)
        self.assertEqual((["c"], ["a", "b"]), (groups, sorted(staying)))
        self.assertIn("live_migration_parallel_connections = 2", staying["a"])
        # others go through a relay all the same
        self.assertTrue(made.relay)

    def test_servers_of_two_hosts(self):
        request = ask(host([server("a")], max_concurrent=4),
                      host([server("b"), server("c")], name="cmpz", max_concurrent=4),
                      sets=["a b"])
        groups, staying, _ = planned(request)
        self.assertEqual(["c"], groups)
        self.assertIn("cmpa and cmpz", staying["b"])

    def test_where_one_stays_all_stay(self):
        dirty = builders.DirtyModel(100_000, 60_000, 0, "content-diff")
        wild = server("wild", dirty=dirty)
        request = ask(host([server("a"), server("b"), wild], max_concurrent=4), sets=["a wild"])
        groups, staying, _ = planned(request)
        self.assertEqual(["b"], groups)
        self.assertIn("it moves together with id-wild: it dirties", staying["a"])

    def test_where_one_cannot_move_all_stay(self):
        request = ask(host([server("a"), server("b")], max_concurrent=4), sets=["a locked"])
        groups, staying, _ = planned(request)
        self.assertEqual(["b"], groups)
        self.assertIn("id-locked, which cannot move", staying["a"])

    def test_where_one_finds_no_room_all_stay(self):
        servers = [server("a", memory_mib=1024), server("b", memory_mib=1024)]
        request = ask(host(servers, max_concurrent=2), sets=["a b"],
                      destinations=(builders.destination(memory_gib=1.5),))
        groups, staying, _ = planned(request)
        self.assertEqual(([], ["a", "b"]), (groups, sorted(staying)))

    def test_without_a_relay_nobody_can_let_them_go_together(self):
        request = ask(host([server(n) for n in "abc"], max_concurrent=2), sets=["a b"],
                      relay=False)
        groups, staying, _ = planned(request)
        self.assertEqual(["c"], groups)
        self.assertIn("no relay carries the streams", staying["a"])

    def test_a_set_does_not_go_where_no_relay_answers_nor_past_one_that_does_not_pay(self):
        servers = host([server(n) for n in "abc"], max_concurrent=2)
        for relays, stays in ((("cmpa",), True), (("cmpb",), True), (("cmpa", "cmpb"), False)):
            # far slower than the link: for others it would not pay
            request = ask(servers, sets=["a b"], relays=tuple(
                RelayHost(name, 3e7, 3e7) for name in relays))
            groups, staying, made = planned(request)
            self.assertEqual(stays, "a" in staying, relays)
            if stays:
                self.assertIn("only a relay lets them go together: no nova-batch-relay answers"
                              if "cmpa" in relays else "no nova-batch-relay answers there",
                              staying["a"])
                continue
            together = made.groups[groups.index("a b")]
            self.assertEqual([True, True], [m.projection.relay for m in together.members])
