"""Which streams go through relays: by source, by destination, and by what pays."""

from oslotest import base

from nova_batch_migrate.planning import explaining, plan
from nova_batch_migrate.planning.dirty_model import DirtyModel
from nova_batch_migrate.planning.relay_pace import RelayPace
from nova_batch_migrate.planning.request import RelayHost
from tests.unit.planning import builders
from tests.unit.planning.builders import MIB, destination, plan_request, server

TWO_ALIKE = (server("a"), server("b")), builders.classes(("a b", 25000))
TWO_UNLIKE = (server("a"), server("b")), builders.classes()


def relays(*names, new=None, known=None):
    return tuple(RelayHost(name, new, known) for name in names)


def ways(found):
    """Return who goes through relays, and the reasons of who does not."""
    members = [m for group in found.groups for m in group.members]
    return (sorted(m.name for m in members if m.projection.relay),
            {m.name: m.reason.partition("without a relay: ")[2] for m in members
             if not m.projection.relay})


class RelayingTest(base.BaseTestCase):
    def made(self, *hosts, **fields):
        return plan.make_plan(plan_request(*hosts, relay=True, **fields))

    def test_one_host_without_a_relay_is_no_reason_for_the_others(self):
        hosts = [builders.host([server(name, 10)], name=host)
                 for name, host in (("a", "cmpa"), ("c", "cmpc"))]
        found = self.made(*hosts, relays=relays("cmpa", "cmpb"))
        self.assertEqual((["a"], {"c": "cmpc: no nova-batch-relay answers there"}), ways(found))
        self.assertTrue(found.relay)
        self.assertNotIn(explaining.NO_RELAY, found.notes)
        self.assertIn("Without a relay: c: cmpc: no nova-batch-relay answers there.", found.notes)

    def test_native_tls_of_one_source_leaves_the_others_their_relay(self):
        hosts = [builders.host([server("a")]),
                 builders.host([server("c")], name="cmpc", native_tls=True)]
        found = self.made(*hosts)
        carried, why = ways(found)
        self.assertEqual(["a"], carried)
        self.assertIn("encrypts its streams itself", why["c"])
        self.assertTrue(any("encrypts its streams itself" in note for note in found.notes))

    def test_a_destination_without_a_relay_parts_a_group(self):
        servers, classes = TWO_ALIKE
        room = tuple(destination(name, 0.25) for name in ("d1", "d2"))
        found = self.made(builders.host(servers, classes), destinations=room,
                          relays=relays("cmpa", "d1"), dictionary_bytes=0)
        carried, why = ways(found)
        self.assertEqual(1, len(carried))
        self.assertEqual(["no nova-batch-relay answers on d2"], list(why.values()))
        self.assertEqual(2, len(found.groups))

    def test_a_dictionary_too_small_for_what_is_in_common_is_told(self):
        words = "98 MiB of content is held by more than one server, more than a dictionary of"
        host = builders.host(*TWO_ALIKE)
        for mib, relayed, told in ((64, True, True), (128, True, False), (64, False, False)):
            found = plan.make_plan(plan_request(host, relay=relayed, dictionary_bytes=mib * MIB))
            self.assertEqual(told, any(words in note for note in found.notes), found.notes)

    def test_off_is_told(self):
        found = self.made(builders.host([server("a")]), dedup_scope="off")
        self.assertEqual(([], {"a": "dedup_scope is off"}), ways(found))
        self.assertFalse(found.relay)
        self.assertIn(explaining.NO_RELAY, found.notes)

    def test_who_needs_a_relay_to_converge_stays_where_there_is_none(self):
        # pages change faster than a link of 50 MiB/s carries them, and compress to a tenth
        busy = server("a", dirty=DirtyModel(30000.0, 20000.0, 0.05, "content-diff"),
                      compress_changed=0.1, compress_unchanged=0.1)
        host = builders.host([busy], mib_s=50)
        self.assertEqual(["a"], ways(self.made(host))[0])
        found = self.made(host, relays=relays("cmpa"))
        self.assertEqual((), found.groups)
        self.assertIn("the link carries 50.0 MiB/s", found.staying[0].reason)

    def test_a_link_faster_than_the_relay_is_used_without_it_unless_content_is_alike(self):
        slow = relays("cmpa", "cmpb", new=200.0 * MIB, known=4000.0 * MIB)
        for (servers, classes), mib_s, carried in (
                (TWO_UNLIKE, 100, ["a", "b"]), (TWO_UNLIKE, 1000, []),
                (TWO_ALIKE, 250, ["a", "b"])):
            found = self.made(builders.host(servers, classes, mib_s=mib_s), relays=slow)
            self.assertEqual(carried, ways(found)[0], mib_s)
        found = self.made(builders.host(*TWO_UNLIKE, mib_s=1000), relays=slow)
        without = plan.make_plan(plan_request(builders.host(*TWO_UNLIKE, mib_s=1000)))
        self.assertEqual(without.projected_seconds, found.projected_seconds)
        self.assertIn("the link carries 1000 MiB/s, the relays work through 200 MiB/s",
                      ways(found)[1]["a"])

    def test_one_server_with_nothing_in_common_goes_past_relays_that_pay_for_the_others(self):
        slow = relays("cmpa", "cmpb", new=200.0 * MIB, known=4000.0 * MIB)
        alike = [server(name, 1000, 2048) for name in "abcd"]
        common = builders.classes(("a b c d", 250000))

        def made(mib, mib_s, **fields):
            host = builders.host([*alike, server("u", mib, 2 * mib)], common, mib_s=mib_s,
                                 max_concurrent=5)
            return self.made(host, dictionary_bytes=2 << 30, relay_max_parallel=5,
                             **({"relays": slow} | fields))
        found = made(8000, 400)
        carried, why = ways(found)
        self.assertEqual((["a", "b", "c", "d"], ["u"]), (carried, list(why)))
        self.assertIn("what it has in common saves less", why["u"])
        past = made(8000, 400, relays=relays("cmpa"))
        self.assertEqual([], ways(past)[0])
        self.assertLess(found.projected_seconds, past.projected_seconds)
        # a small one is not worth a group of its own, nor is any on a link that relays can fill
        self.assertEqual(5, len(ways(made(100, 400))[0]))
        self.assertEqual(5, len(ways(made(8000, 150))[0]))

    def test_what_finished_streams_took_beside_their_link_counts_against_relays(self):
        fast = relays("cmpa", "cmpb", new=400.0 * MIB, known=4000.0 * MIB)
        host = builders.host(*TWO_UNLIKE, mib_s=200, max_concurrent=2)
        carried = {}
        for seconds_a_gb in (None, 1.0, 4.0, 9.0):
            pace = seconds_a_gb and RelayPace(seconds_a_gb / 1e9, 0.1, 20)
            found = self.made(host, relays=fast, learned_relay=pace or None)
            carried[seconds_a_gb] = ways(found)[0]
        self.assertEqual({None: ["a", "b"], 1.0: ["a", "b"], 4.0: [], 9.0: []}, carried)

    def test_relays_are_compared_with_as_many_at_once_as_end_soonest_past_them(self):
        servers = [server(name, 1000, 1100) for name in "abcdef"]
        host = builders.host(servers, builders.classes(("a b c d e f", 30000)), mib_s=112,
                             max_concurrent=8)
        fast = relays("cmpa", "cmpb", new=300.0 * MIB, known=3000.0 * MIB)
        past = plan.make_plan(plan_request(host, max_parallel=None)).projected_seconds
        carried = []
        for seconds_a_gb in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0):
            found = self.made(host, relays=fast, max_parallel=None, relay_max_parallel=1000,
                              learned_relay=RelayPace(seconds_a_gb / 1e9, 0.1, 20))
            carried.append(bool(ways(found)[0]))
            # what relays save on the wire is worth as much
            self.assertLess(found.projected_seconds, past / 0.95)
        self.assertEqual(sorted(carried, reverse=True), carried)
        self.assertEqual({True, False}, set(carried))

    def test_relays_carry_what_was_not_read_unless_they_are_slower_than_the_link(self):
        unread = [server(name, 200, 256, contents_read=False) for name in "ab"]
        pace = RelayPace(9.0 / 1e9, 0.1, 20)
        for mib_s, carried in ((36, ["a", "b"]), (1000, [])):
            found = self.made(
                builders.host(unread, mib_s=mib_s, max_concurrent=4), max_parallel=None,
                relay_max_parallel=1000, learned_relay=pace,
                relays=relays("cmpa", "cmpb", new=200.0 * MIB, known=4000.0 * MIB))
            self.assertEqual(carried, ways(found)[0], mib_s)
        read = [server(name, 200, 256) for name in "ab"]
        found = self.made(
            builders.host(read, mib_s=36, max_concurrent=4), max_parallel=None,
            relay_max_parallel=1000, learned_relay=pace,
            relays=relays("cmpa", "cmpb", new=200.0 * MIB, known=4000.0 * MIB))
        self.assertEqual([], ways(found)[0])

    def test_one_that_does_not_converge_beside_others_is_no_reason_for_slow_relays(self):
        servers = [*(server(f"i{at}", 1000, 1100) for at in range(8)),
                   *(server(f"y{at}", 1000, 1100, dirty=DirtyModel(
                       34000.0, 20000.0, 0.05, "content-diff")) for at in range(2))]
        found = self.made(builders.host(servers, mib_s=250, max_concurrent=8), max_parallel=None,
                          relays=relays("cmpa", "cmpb", new=150.0 * MIB, known=4000.0 * MIB))
        self.assertEqual(([], ()), (ways(found)[0], found.staying))
        self.assertEqual([2, 8], sorted(len(group.members) for group in found.groups))

    def test_those_that_are_alone_in_their_project_go_through_relays_beside_each_other(self):
        servers = [server(name, 200, project=f"p{name}") for name in "abcdefgh"]
        found = self.made(builders.host(servers, max_concurrent=8), max_parallel=None,
                          relay_max_parallel=1000)
        group, = found.groups
        self.assertEqual((8, 8), (len(ways(found)[0]), group.parallel))
        self.assertIn("8 beside each other, each with too little in common", group.reason)

    def test_a_relay_that_is_the_narrow_part_is_reckoned_with(self):
        host = builders.host(*TWO_ALIKE, mib_s=250)
        unknown, slow = (self.made(host, relays=relays(
            "cmpa", "cmpb", new=new, known=4000.0 * MIB)).projected_seconds
            for new in (None, 200.0 * MIB))
        self.assertLess(unknown, slow)

    def test_each_way_has_its_own_number_at_once(self):
        host = builders.host([server(name, 10) for name in "abcd"],
                             builders.classes(("a b c d", 2000)), max_concurrent=4)
        for found, queues in (
                (self.made(host, relay_max_parallel=4), 1),
                (self.made(host, relay_max_parallel=4, relays=relays("cmpa")), 4)):
            self.assertEqual(queues, len({m.projection.queue_seconds for group in found.groups
                                          for m in group.members}))
