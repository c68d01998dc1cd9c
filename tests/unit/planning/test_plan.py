import dataclasses
import json

import ddt
from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.planning import explaining, plan, relaying
from nova_batch_migrate.planning.learning import Learned
from nova_batch_migrate.planning.nova_pace import NovaPace
from nova_batch_migrate.planning.relay_pace import RelayPace
from nova_batch_migrate.planning.request import Staying
from nova_batch_migrate.planning.telemetry import (
    Confirmation,
    DirtyModel,
    History,
    PageSequence,
    Periodicity,
    Sketch,
)
from tests.unit.planning import builders
from tests.unit.planning.builders import destination, plan_request, server


def order(found):
    """The plan as text: groups, and members in their order."""
    return [" ".join(m.name for m in group.members) for group in found.groups]


def busy(rate):
    return DirtyModel(float(rate), 20000.0, 0.05, "content-diff")


#: 100 MiB/s carry 25,550 pages/s.
ENDLESS = busy(99_999)


class TestPlan(base.BaseTestCase):

    def test_small_ones_first_and_times_by_hand(self):
        found = plan.make_plan(plan_request(builders.host(
            [server("big", 200), server("small", 100)])))
        self.assertEqual(["small", "big"], order(found))
        first, second = (g.members[0].projection for g in found.groups)
        # Set-up 0.2 s; 100 or 200 MiB (and 8 bytes a page) at 100 MiB/s; Nova's 4 s.
        self.assertAlmostEqual(1.2, first.stream_seconds, delta=0.11)
        self.assertAlmostEqual(2.2, second.stream_seconds, delta=0.11)
        self.assertEqual((0.0, 4.0), (second.queue_seconds, second.nova_seconds))
        self.assertAlmostEqual(sum(g.projected_seconds for g in found.groups),
                               found.projected_seconds)

    def test_members_queue_behind_each_other(self):
        found = plan.make_plan(plan_request(builders.host(
            [server("big", 200), server("small", 100)], builders.classes(("big small", 9999)))))
        self.assertEqual(["small big"], order(found))
        small, big = found.groups[0].members
        self.assertEqual((0, 1), (small.order, big.order))
        self.assertAlmostEqual(small.projection.projected_seconds, big.projection.queue_seconds)
        self.assertAlmostEqual(big.projection.projected_seconds, found.groups[0].projected_seconds)
        self.assertEqual(9999 * 4096, found.groups[0].common_pages_bytes)
        self.assertIn("1 of 2 by ascending projected time", small.reason)
        self.assertIn("destination of its group", small.reason)

    def test_common_content_is_no_discount_without_a_relay(self):
        hosts = [builders.host([server("a"), server("b")], builders.classes(*classes))
                 for classes in ((), (("a b", 9999),))]
        apart, together = (plan.make_plan(plan_request(host)) for host in hosts)
        self.assertEqual((apart.raw_bytes, apart.wire_bytes),
                         (together.raw_bytes, together.wire_bytes))
        self.assertEqual(together.raw_bytes, together.wire_bytes)
        self.assertIn(explaining.NO_RELAY, together.notes)

    def test_it_says_where_no_relay_can_carry_the_streams(self):
        for options, word in (({"native_tls": True}, "encrypts"),
                              ({"permit_post_copy": True}, "post-copy"),
                              ({"assumed": ("live_migration_with_native_tls",)},
                               "live_migration_with_native_tls could not be read")):
            made = builders.host([builders.server("a")], **options)
            self.assertIn(word, relaying.unrelayed(made))
            self.assertIn(relaying.unrelayed(made),
                          plan.make_plan(builders.plan_request(made)).notes)
        self.assertIsNone(relaying.unrelayed(builders.host([builders.server("a")])))

    def test_common_content_crosses_once_with_a_relay(self):
        # Two guests of 25,600 pages, of which 9,999 are in both.
        host = builders.host([server("a"), server("b")], builders.classes(("a b", 9999)))
        without, found = (plan.make_plan(plan_request(host, relay=relay))
                          for relay in (False, True))
        self.assertTrue(found.relay)
        self.assertNotIn(explaining.NO_RELAY, found.notes)
        # a round more or less of what is always hot
        self.assertAlmostEqual(without.raw_bytes, found.raw_bytes, delta=1e-3 * without.raw_bytes)
        self.assertAlmostEqual(9999 * 4096, without.wire_bytes - found.wire_bytes,
                               delta=0.02 * 9999 * 4096)
        self.assertLess(found.projected_seconds, without.projected_seconds)

    def test_with_a_relay_only_what_goes_to_the_same_destination_is_common(self):
        host = builders.host([server("a"), server("b")], builders.classes(("a b", 9999)))
        room = tuple(destination(name, 0.25) for name in ("d1", "d2"))
        found = plan.make_plan(plan_request(host, relay=True, destinations=room))
        self.assertAlmostEqual(found.raw_bytes, found.wire_bytes, delta=0.01 * found.raw_bytes)

    def test_a_periodic_server_is_projected_for_the_phase_it_is_met_in(self):
        # Of 60 s 30 are quiet, from the epoch on. 100 MiB take a second; nobody waits.
        found = Periodicity(60.0, 0.0, 30.0, 0.0, 20000.0, 0.99)
        history = History((), (), 1.0, "content-diff", busy(20000), found)
        host = builders.host([server("a", dirty=busy(20000), history=history)])
        quiet, loud, unknown = (
            plan.make_plan(plan_request(host, now_seconds=now, nova_seconds=0.0)).groups[0]
            .members[0].projection.stream_seconds for now in (60.0, 95.0, None))
        self.assertAlmostEqual(1.2, quiet, delta=0.1)
        self.assertGreater(loud, unknown)
        self.assertGreater(unknown, quiet)

    def test_what_was_learned_is_in_fields_of_its_own(self):
        host = builders.host([server("a")])
        plain, found = (plan.make_plan(plan_request(host, learned=learned)).groups[0].members[0]
                        .projection for learned in (None, Learned(5, 1.5, 0.1, 0.2)))
        self.assertIsNone(plain.learned_seconds)
        self.assertEqual((plain.projected_seconds, plain.stream_seconds, plain.interval_seconds),
                         (found.projected_seconds, found.stream_seconds, found.interval_seconds))
        self.assertAlmostEqual(1.5 * plain.stream_seconds + plain.nova_seconds,
                               found.learned_seconds)
        self.assertAlmostEqual(plain.downtime_seconds + 0.2, found.learned_downtime_seconds)

    def test_the_whole_has_what_was_learned_of_all_streams_or_nothing(self):
        host = builders.host([server("a"), server("b")])
        nothing, of_others, found = (plan.make_plan(plan_request(host, **fields)) for fields in (
            {}, {"learned_relayed": Learned(5, 1.5, 0.1)}, {"learned": Learned(5, 1.5, 0.1)}))
        self.assertIsNone(nothing.learned_seconds)
        self.assertIsNone(of_others.learned_seconds)
        self.assertEqual(nothing.projected_seconds, found.projected_seconds)
        self.assertEqual(found.learned_seconds, sum(max(
            member.projection.learned_seconds for member in group.members)
            for group in found.groups))
        self.assertGreater(found.learned_seconds, 1.1 * found.projected_seconds)

    def test_streams_through_relays_have_their_own_lessons(self):
        host = builders.host([server("a")])
        for relay, factor in ((False, 1.5), (True, 0.9)):
            found = plan.make_plan(plan_request(
                host, relay=relay, learned=Learned(5, 1.5, 0.1),
                learned_relayed=Learned(5, 0.9, 0.1))).groups[0].members[0].projection
            self.assertAlmostEqual(factor * found.stream_seconds + found.nova_seconds,
                                   found.learned_seconds)

    def test_what_was_learned_of_nova_counts_and_stands_beside_what_is_assumed(self):
        host = builders.host([server("a")])
        assumed, learned = (plan.make_plan(plan_request(
            host, nova_seconds=4.0, learned_nova=pace))
            for pace in (None, NovaPace(6.0, 0.4, 0.3, 0.1, 12)))
        for made, seconds in ((assumed, 4.0), (learned, 6.0)):
            self.assertEqual(seconds, made.groups[0].members[0].projection.nova_seconds)
            self.assertEqual(4.0, made.request.nova_seconds)
        told, = set(learned.notes) - set(assumed.notes)
        self.assertIn("6.0 s, 30 % more for each other migration beside it, as 12 migrations", told)
        self.assertEqual(learned, plan.make_plan(plan.PlanRequest.from_dict(
            learned.request.to_dict())))

    def test_what_relays_take_beside_the_link_counts_where_they_carry(self):
        host = builders.host([server("a")])

        def made(relay, pace):
            return plan.make_plan(plan_request(host, relay=relay, learned_relay=pace))

        without, paced = made(True, None), made(True, RelayPace(2.5e-9, 0.4, 12))
        one, other = (each.groups[0].members[0].projection for each in (without, paced))
        self.assertAlmostEqual(2.5e-9 * one.raw_bytes, other.stream_seconds - one.stream_seconds,
                               delta=0.1 * other.stream_seconds)
        self.assertGreater(other.stream_seconds, one.stream_seconds)
        told, = set(paced.notes) - set(without.notes)
        self.assertIn("2.5 s for each GB beside what its link takes, as 12 streams", told)
        self.assertEqual(paced, plan.make_plan(plan.PlanRequest.from_dict(
            paced.request.to_dict())))
        plain = made(False, RelayPace(2.5e-9, 0.4, 12))
        self.assertEqual((made(False, None).groups, made(False, None).notes),
                         (plain.groups, plain.notes))
        # relays that hold nothing up are not worth a note
        self.assertEqual(without.notes, made(True, RelayPace(0.0, 0.4, 12)).notes)

    def test_what_is_not_known_of_nova_widens_the_interval(self):
        host = builders.host([server("a")])
        sure, unsure = (plan.make_plan(plan_request(host, nova_seconds=4.0, nova_deviation=each))
                        .groups[0].members[0].projection for each in (0.0, 0.4))
        self.assertEqual(sure.projected_seconds, unsure.projected_seconds)
        # 90 % of them lie within 1.645 deviations: 4 s x exp(0.658), and divided by it.
        self.assertAlmostEqual(4 * 0.931, unsure.interval_seconds[1] - sure.interval_seconds[1],
                               delta=0.1)
        self.assertAlmostEqual(4 * 0.482, sure.interval_seconds[0] - unsure.interval_seconds[0],
                               delta=0.1)

    def test_common_content_counts_per_destination(self):
        found = plan.make_plan(plan_request(
            builders.host([server("a"), server("b"), server("c"), server("d")],
                          builders.classes(("a b c d", 9999))),
            destinations=(destination("d1", 0.5), destination("d2", 0.5))))
        # Four guests of 0.25 GiB: two for each destination, in a group each.
        self.assertEqual([9999 * 4096, 9999 * 4096],
                         [g.common_pages_bytes for g in found.groups])
        self.assertEqual([1, 1], [len({m.destination for m in g.members}) for g in found.groups])

    def test_who_does_not_converge_stays_with_figures(self):
        given_ = Staying("id-l", "l", "cmpa", "it is locked", "certain", None)
        found = plan.make_plan(plan_request(
            builders.host([server("a"), server("b", dirty=ENDLESS)]), staying=(given_,)))
        self.assertEqual(["a"], order(found))
        self.assertEqual([given_, found.staying[1]], list(found.staying))
        stays = found.staying[1]
        self.assertEqual(("id-b", "b", "cmpa", "likely"),
                         (stays.server_id, stays.name, stays.source, stays.certainty))
        self.assertIn("dirties 390.6 MiB/s of memory, and the link carries 100.0 MiB/s",
                      stays.reason)
        self.assertIn("openstack server migrate --wait id-b", stays.command)

    def test_who_nova_would_abort_stays(self):
        host = builders.host([server("a", 256)], mib_s=1, completion_timeout_seconds_per_gib=10)
        stays, = plan.make_plan(plan_request(host)).staying
        self.assertIn("Nova gives up, 20 s after the start", stays.reason)

    def test_who_finds_no_room_stays(self):
        found = plan.make_plan(plan_request(
            builders.host([server("a"), server("b")], builders.classes(("a b", 9999))),
            destinations=(destination("d1", 0.3),)))
        self.assertEqual(["a"], order(found))
        self.assertIn("has room", found.staying[0].reason)
        self.assertEqual(0, found.groups[0].common_pages_bytes)

    def test_its_own_host_is_no_destination(self):
        found = plan.make_plan(plan_request(
            builders.host([server("a")]), destinations=(destination("cmpa"),)))
        self.assertEqual([], order(found))
        self.assertIn("no destination is allowed", found.staying[0].reason)

    def test_an_unmeasured_server_goes_last_without_an_upper_end(self):
        unmeasured = server("a", error="domain is gone", present_pages=0, total_pages=0)
        for strategy in ("group", "pair", "none"):
            found = plan.make_plan(plan_request(
                builders.host([unmeasured, server("b", 250)]), strategy=strategy))
            self.assertEqual(["b", "a"], order(found))
            last = found.groups[1].members[0]
            self.assertIsNone(last.projection.interval_seconds[1])
            self.assertIn("could not be measured (domain is gone)", last.reason)

    def test_parallel_is_bounded_by_nova_and_said(self):
        host = builders.host([server("a"), server("b")], builders.classes(("a b", 9999)),
                             max_concurrent=1)
        found = plan.make_plan(plan_request(host, max_parallel=2))
        self.assertGreater(found.groups[0].members[1].projection.queue_seconds, 1)
        self.assertTrue(any("at most 1 at once, not 2" in note for note in found.notes))
        for wanted in (None, 100):
            found = plan.make_plan(plan_request(host, max_parallel=wanted))
            self.assertTrue(any("at most 1 at once, not 2" in note for note in found.notes))

    def test_past_relays_as_many_at_once_as_end_soonest(self):
        unlike = [server(name, 200) for name in "abcdefghij"]

        def made(servers=unlike, classes=None, max_concurrent=8, **fields):
            return plan.make_plan(plan_request(
                builders.host(servers, classes, max_concurrent=max_concurrent),
                **{"max_parallel": None} | fields))
        # Nova's 4 s for each of them, beside the 2 s that its stream takes
        found, one_by_one = made(), made(max_parallel=1)
        self.assertEqual([(2, 2), (8, 4)],
                         [(len(group.members), group.parallel) for group in found.groups])
        self.assertIn("8 beside each other", found.groups[1].reason)
        self.assertLess(found.projected_seconds, 0.6 * one_by_one.projected_seconds)
        self.assertEqual([1] * 10, [group.parallel for group in one_by_one.groups])
        # where only streams take time, each has the link for itself
        self.assertEqual({1}, {group.parallel for group in made(
            nova_seconds=0.0, setup_seconds=0.0).groups})
        self.assertEqual({2}, {group.parallel for group in made(max_concurrent=2).groups})
        self.assertEqual({1}, {group.parallel for group in made(
            max_bandwidth_bytes_per_second=2.0 * builders.MIB).groups})
        # of four, three at once are no better than two
        self.assertEqual([4], [group.parallel for group in made(unlike[:4]).groups])
        both = made(classes=builders.classes(("a b", 9999)))
        self.assertEqual([2, 8], sorted(len(group.members) for group in both.groups))
        self.assertEqual({2, 4}, {group.parallel for group in both.groups})

    def test_nobody_goes_beside_another_where_one_at_a_time_may(self):
        unlike = [server(name, 200) for name in "abcd"]
        alone = builders.host(unlike, max_concurrent=4)
        narrow = (dataclasses.replace(destination(), inbound_limit=1),)
        for fields in ({"nova_seconds": 0.0, "setup_seconds": 0.0}, {"destinations": narrow},
                       {"max_parallel": 1}):
            found = plan.make_plan(plan_request(alone, **{"max_parallel": None} | fields))
            self.assertEqual([1] * 4, [len(group.members) for group in found.groups], fields)
        # FIG. 6 to the letter: no destination has room for two
        found = plan.make_plan(plan_request(
            builders.host(unlike[:2], max_concurrent=4), max_parallel=None, strategy="pair",
            destinations=(destination("d1", 0.3), destination("d2", 0.3))))
        self.assertEqual([1, 1], [len(group.members) for group in found.groups])

    def test_all_sources_share_what_the_bandwidth_limit_has_room_for(self):
        def at_once(sources):
            hosts = [builders.host([server(f"{name}{at}", 3, 64) for name in "abcd"],
                                   name=f"cmp{at}", max_concurrent=8) for at in range(sources)]
            found = plan.make_plan(plan_request(
                *hosts, destinations=(destination("dst"),), max_parallel=None, nova_seconds=20.0,
                max_bandwidth_bytes_per_second=8.0 * builders.MIB))
            return {group.parallel for group in found.groups}, found.notes
        (one, notes), (four, _) = at_once(1), at_once(4)
        self.assertEqual(({4}, {1}), (one, four))
        self.assertFalse([note for note in notes if "at once" in note])

    def test_who_was_reckoned_with_the_whole_link_has_it(self):
        never = DirtyModel(40000.0, 50000.0, 0.05, "content-diff")
        quiet_half = History(
            tuple(map(float, range(60))), (40000.0,) * 60, 2.0, "content-diff", never,
            Periodicity(40.0, 0.0, 20.0, 100.0, 40000.0, 0.99))
        waiting = [server(name, 1500, 1600, dirty=never, history=quiet_half) for name in "yz"]
        idle = [server(name, 1500, 1600) for name in "abc"]
        common = builders.classes(("a b c y z", 100000))
        for classes in (None, common):
            found = plan.make_plan(plan_request(
                builders.host([*idle, *waiting], classes, max_concurrent=4), max_parallel=None,
                max_wait_seconds=60.0, now_seconds=25.0))
            streams = [m.projection.stream_seconds for group in found.groups
                       for m in group.members if m.wait]
            self.assertEqual(2, len(streams))
            self.assertLess(max(streams), 16.0)
        busy_ones = [server(name, 1000, 1100, dirty=never) for name in "yz"]
        for classes in (None, common):
            found = plan.make_plan(plan_request(
                builders.host([*idle, *busy_ones], classes, max_concurrent=4), max_parallel=None,
                on_non_convergence="pause"))
            streams = [m.projection.stream_seconds for group in found.groups
                       for m in group.members if m.projection.help]
            self.assertEqual(2, len(streams))
            self.assertLess(max(streams), 16.0)

    def test_who_has_a_deadline_or_was_not_measured_stays_alone_beside_others_that_do_not(self):
        servers = [server("a"), server("b"), server("c"),
                   server("d", error="gone", present_pages=0, total_pages=0)]
        host = builders.host(servers, max_concurrent=4)
        request = plan_request(host, max_parallel=None)
        hurried = tuple(dataclasses.replace(each, deadline_seconds=60.0 if each.id == "id-c"
                                            else None) for each in request.movable)
        found = plan.make_plan(dataclasses.replace(request, movable=hurried))
        self.assertEqual([["a", "b"], ["c"], ["d"]],
                         sorted([member.name for member in group.members]
                                for group in found.groups))

    def test_one_that_would_not_converge_beside_others_does_not_hold_them_up(self):
        # the first of them is alone with the link once the others are done
        slow = [server(name, 200, dirty=busy(20_000)) for name in "yz"]
        found = plan.make_plan(plan_request(
            builders.host([*(server(name, 200) for name in "abcd"), *slow], max_concurrent=4),
            max_parallel=None))
        self.assertEqual([(["z"], 1), (["a", "b", "c", "d", "y"], 3)],
                         [([m.name for m in group.members], group.parallel)
                          for group in found.groups])

    def test_who_converges_only_alone_goes_alone(self):
        # 20,000 pages/s are below the link's 25,550, and far above half of it.
        host = builders.host(
            [server("a", 200, dirty=busy(20_000)), server("b", 200, dirty=busy(20_000))],
            builders.classes(("a b", 9999)), max_concurrent=2)
        found = plan.make_plan(plan_request(host, max_parallel=2))
        self.assertEqual(["a", "b"], sorted(order(found)))
        self.assertIn("alone: it does not converge beside other streams",
                      [g.reason for g in found.groups])

    def test_sources_run_side_by_side_and_share_the_limit(self):
        one = builders.host([server("a", 200)], name="cmpa")
        two = builders.host([server("b", 100)], name="cmpc")
        found = plan.make_plan(plan_request(
            one, two, max_bandwidth_bytes_per_second=20.0 * builders.MIB))
        self.assertEqual([("cmpa", 0), ("cmpc", 1)], [(g.source, g.index) for g in found.groups])
        # QEMU keeps to 10 MiB/s with 7 portions of 32 pages each tenth of a second: 8.77 MiB/s.
        self.assertAlmostEqual(4.2 + 200 / 8.77, found.projected_seconds, delta=0.4)
        self.assertTrue(any("10.0 MiB/s for each of 2 sources" in note for note in found.notes))

    def test_what_two_sources_have_in_common_is_said(self):
        one, two = (dataclasses.replace(
            builders.host([server(name)], name=name), sketch=Sketch(
                "day-1", 1.0, tuple(f"{number:016x}" for number in range(first, first + 512))))
            for name, first in (("cmpa", 0), ("cmpc", 256)))
        notes = " ".join(plan.make_plan(plan_request(one, two)).notes)
        self.assertIn("cmpa and cmpc have 1 MiB (+-0) of content in common, 50 % (+-0)", notes)
        two = dataclasses.replace(two, sketch=Sketch("day-2", 1.0, ()))
        notes = " ".join(plan.make_plan(plan_request(one, two)).notes)
        self.assertIn("cmpa and cmpc: what they have in common is not known", notes)

    def test_what_goes_by_its_history_alone_is_said(self):
        hour = DirtyModel(100.0, 400.0, 1.0, "history")
        found = plan.make_plan(plan_request(builders.host(
            [server("a", dirty=hour, contents_read=False), server("b")])))
        self.assertIn("1 of 2 servers go by their history alone", " ".join(found.notes))
        reasons = {m.name: m.reason for group in found.groups for m in group.members}
        self.assertIn("by its history alone", reasons["a"])
        self.assertNotIn("by its history alone", reasons["b"])

    def test_relatives_go_one_behind_the_other_but_never_against_a_deadline(self):
        pages, of_all = 20 * builders.PAGES_PER_MIB, 2000
        kin = {"a": 0, "b": 1, "c": 0, "d": 1}
        host = builders.host(
            [server(name, 28 + at, sequence=PageSequence(1.0, (
                *range(kin[name] * pages, (kin[name] + 1) * pages),
                *range(3 * pages, 3 * pages + of_all))))
             for at, name in enumerate("abcd")],
            builders.classes(("a c", pages), ("b d", pages), ("a b c d", of_all)))
        # an eighth of a full one is taken by what guests write meanwhile
        asked = dict(relay=True, dedup_scope="host",
                     dictionary_bytes=(pages + of_all + 1) * 8 // 7 * 4096)
        found = plan.make_plan(plan_request(host, **asked))
        self.assertEqual(["a c b d"], order(found))
        self.assertIn("2 of 4 by relatives one behind the other",
                      found.groups[0].members[1].reason)
        request = plan_request(host, **asked)
        request = dataclasses.replace(request, movable=tuple(
            dataclasses.replace(m, deadline_seconds=600.0) if m.id == "id-d" else m
            for m in request.movable))
        found = plan.make_plan(request)
        self.assertEqual(["a b c d"], order(found))
        self.assertIn("2 of 4 by ascending projected time", found.groups[0].members[1].reason)

    def test_pairs_keep_the_order_of_figure_6(self):
        host = builders.host(
            [server("a", 200), server("b", 200), server("c", 50), server("d", 50)],
            builders.classes(("a b", 9999), ("c d", 5000)))
        found = plan.make_plan(plan_request(host, strategy="pair"))
        self.assertEqual(["c d", "a b"], order(found))

    def test_what_fits_the_dictionary_wholly_is_said(self):
        host = builders.host([server("a"), server("b")], builders.classes(("a b", 2560)))
        found = plan.make_plan(plan_request(host))
        self.assertTrue(any("(10 MiB) fits a dictionary of 512 MiB" in n for n in found.notes))

    def test_whose_contents_could_not_be_read_is_said(self):
        found = plan.make_plan(plan_request(builders.host([
            server("a"), server("b", contents_read=False, source_note="no /proc/7/mem")])))
        reasons = {m.name: m.reason for g in found.groups for m in g.members}
        self.assertIn("its contents were not read and count as unlike any other (no /proc/7/mem); "
                      "to cmpb", reasons["b"])
        self.assertNotIn("not read", reasons["a"])

    def test_what_is_mapped_by_both_and_what_held_is_said(self):
        host = builders.host([server("a"), server("b")], builders.classes(("a b", 9000)))
        self.assertFalse(any("byte by byte" in n or "KSM" in n
                             for n in plan.make_plan(plan_request(host)).notes))
        host = dataclasses.replace(host, mapped_classes=builders.classes(("a b", 2560), ("a", 99)),
                                   confirmation=Confirmation(512, 384))
        notes = plan.make_plan(plan_request(host)).notes
        self.assertTrue(any(n.startswith("cmpa: 10.0 MiB of content are page frames that servers "
                                         "map together already") for n in notes), notes)
        self.assertTrue(any(n.startswith("cmpa: 384 of 512 pairs") and "75 % of what is in common"
                            in n for n in notes), notes)

    def test_what_is_assumed_is_said(self):
        host = builders.host([server("a")], assumed=("live_migration_downtime",))
        host = dataclasses.replace(host, bandwidth=builders.bandwidth(0, source="unknown"))
        notes = " ".join(plan.make_plan(plan_request(host)).notes)
        self.assertIn("Set [agent] link_mib_s", notes)
        self.assertIn("Nova's defaults: live_migration_downtime", notes)

    def test_nothing_to_move(self):
        found = plan.make_plan(plan_request(builders.host([])))
        self.assertEqual(((), 0.0, 0), (found.groups, found.projected_seconds, found.raw_bytes))


@ddt.ddt
class TestRefusals(base.BaseTestCase):

    @ddt.data(
        ({"max_parallel": 0}, "max_parallel must be at least 1"),
        ({"max_bandwidth_bytes_per_second": 0.0}, "leave it out for no limit"),
        ({"nova_before_share": 5.0}, "before_share is a share"),
        ({"nova_deviation": 1e6}, "at most 5"),
        ({"movable": (builders.movable(server("a")),) * 2}, "movable server id-a is there twice"),
        ({"destinations": (destination("d"), destination("d"))}, "destination d is there twice"),
    )
    @ddt.unpack
    def test_contradictions(self, wrong, words):
        request = plan_request(builders.host([server("a")]))
        error = self.assertRaises(exception.PlanningError, plan.make_plan,
                                  dataclasses.replace(request, **wrong))
        self.assertIn(words, str(error))


class TestLackingTelemetry(base.BaseTestCase):

    def test_who_the_only_host_lacks_is_on_it_and_goes_last_unmeasured(self):
        lacking = builders.movable(server("x", memory_mib=512))
        request = plan_request(builders.host([server("a")]))
        found = plan.make_plan(dataclasses.replace(request, movable=(lacking, *request.movable)))
        self.assertEqual([("id-a",), ("id-x",)],
                         [tuple(m.server_id for m in g.members) for g in found.groups])
        member = found.groups[1].members[0]
        self.assertIn("could not be measured (the telemetry lacks it", member.reason)
        self.assertGreaterEqual(member.projection.wire_bytes, 512 << 20)
        self.assertIsNone(member.projection.interval_seconds[1])
        # what it was made from is shown as it was
        self.assertEqual(1, len(found.request.hosts[0].servers))

    def test_of_several_hosts_nobody_knows_which_and_its_set_stays(self):
        hosts = (builders.host([server("a")]), builders.host([server("b")], name="cmpz"))
        request = plan_request(*hosts, relay=True)
        found = plan.make_plan(dataclasses.replace(
            request, movable=(*request.movable, builders.movable(server("x"))),
            synchronized=(("id-a", "id-x"),)))
        self.assertEqual(["id-b"], [m.server_id for g in found.groups for m in g.members])
        reasons = {each.server_id: each.reason for each in found.staying}
        self.assertIn("no host's telemetry names it", reasons["id-x"])
        self.assertIn("it moves together with id-x", reasons["id-a"])


class TestCrowdedLink(base.BaseTestCase):

    def test_it_is_said_that_a_tenth_is_reckoned_with(self):
        def notes(other):
            host = builders.host([server("a")])
            host = dataclasses.replace(host, bandwidth=builders.bandwidth(
                100, other_bytes_per_second=other * builders.MIB))
            return [n for n in plan.make_plan(plan_request(host)).notes if "other traffic" in n]

        self.assertEqual([], notes(80))
        self.assertIn("takes 95 of the link's 100 MiB/s; 10.0 MiB/s", notes(95)[0])


GUESTS = strategies.lists(strategies.tuples(
    strategies.integers(1, 250), strategies.integers(0, 30_000), strategies.sampled_from("pq"),
    strategies.booleans()), min_size=1, max_size=8)
CLASSES = strategies.lists(strategies.tuples(strategies.sets(
    strategies.integers(0, 7), min_size=1, max_size=5), strategies.integers(0, 5000)), max_size=8)


def drawn(guests, classes, strategy, parallel, rooms):
    servers = [server(f"s{at}", content, dirty=busy(rate), project=project,
                      error=None if measured else "gone")
               for at, (content, rate, project, measured) in enumerate(guests)]
    found = [(" ".join(f"s{at}" for at in sorted(members)), pages) for members, pages in classes]
    return plan_request(
        builders.host(servers, builders.classes(*found), max_concurrent=3), strategy=strategy,
        max_parallel=parallel, destinations=tuple(
            destination(f"d{at}", gib) for at, gib in enumerate(rooms)))


REQUESTS = strategies.builds(
    drawn, GUESTS, CLASSES, strategies.sampled_from(["group", "pair", "none"]),
    strategies.none() | strategies.integers(1, 3),
    strategies.lists(strategies.floats(0, 2), min_size=1, max_size=3))


class TestProperties(base.BaseTestCase):

    @settings(deadline=None, max_examples=40)
    @given(REQUESTS)
    def test_any_plan(self, request):
        found = plan.make_plan(request)
        members = [m for g in found.groups for m in g.members]
        self.assertEqual(sorted(s.id for s in request.movable),
                         sorted([m.server_id for m in members]
                                + [s.server_id for s in found.staying]))
        self.assertEqual(sum(m.projection.wire_bytes for m in members), found.wire_bytes)
        self.assertAlmostEqual(sum(g.projected_seconds for g in found.groups),
                               found.projected_seconds)
        self.assertEqual(list(range(len(found.groups))), [g.index for g in found.groups])
        for member in members:
            self.assertEqual("converges", member.projection.verdict)
        room = {d.host: d.free_memory_bytes for d in request.destinations}
        for member in members:
            room[member.destination] -= 256 * builders.MIB
        self.assertGreaterEqual(min(room.values()), 0)
        if request.strategy != "pair":
            measured = [g.projected_seconds for g in found.groups
                        if "could not be measured" not in g.members[0].reason]
            self.assertEqual(sorted(measured), measured)

    @settings(deadline=None, max_examples=20)
    @given(REQUESTS, strategies.randoms(use_true_random=False))
    def test_the_same_plan_from_json_and_from_any_order(self, request, random):
        found = plan.make_plan(request)
        data = json.loads(json.dumps(found.to_dict()))
        self.assertEqual(found, plan.Plan.from_dict(data))
        self.assertEqual(found, plan.make_plan(plan.PlanRequest.from_dict(data["request"])))
        movable = list(request.movable)
        random.shuffle(movable)
        again = plan.make_plan(dataclasses.replace(request, movable=tuple(movable)))
        self.assertEqual((found.groups, found.staying), (again.groups, again.staying))


class TestWaiting(base.BaseTestCase):
    """A duty cycle: 20 s quiet of each 40 s, from 0 s on; 8,000 pages/s on average."""

    MEAN = DirtyModel(8000.0, 20000.0, 0.05, "content-diff")

    def request(self, now=25.0, max_wait=60.0, mean=MEAN, **fields):
        count = round(mean.rate_pages_per_second)
        history = History(
            tuple(float(at) for at in range(60)), (float(count),) * 60, 2.0, "content-diff", mean,
            Periodicity(40.0, 0.0, 20.0, 100.0, float(count), 0.99))
        return plan_request(builders.host([server("duty", 200, dirty=mean, history=history)]),
                            max_wait_seconds=max_wait, now_seconds=now, **fields)

    def member(self, **fields):
        found = plan.make_plan(self.request(**fields))
        return found.groups[0].members[0]

    def test_it_waits_for_its_quiet_stretch_and_the_plan_says_why(self):
        at_once, waiting = self.member(max_wait=0.0), self.member()
        self.assertEqual((None, 0.0), (at_once.wait, at_once.wait_seconds))
        # quiet again in 15 s; half of Nova's 4 s come before the stream
        self.assertAlmostEqual(13.0, waiting.wait_seconds)
        self.assertLess(waiting.projection.stream_seconds, at_once.projection.stream_seconds - 0.5)
        self.assertLess(waiting.projection.raw_bytes, at_once.projection.raw_bytes)
        self.assertAlmostEqual(13.0, waiting.projection.queue_seconds)
        self.assertAlmostEqual(13.0 + 4.0 + waiting.projection.stream_seconds,
                               waiting.projection.projected_seconds)
        self.assertIn("waits for its quiet moment: duty writes 100 pages/s in 20 of every 40 s",
                      waiting.reason)

    def test_in_the_quiet_stretch_it_goes_at_once(self):
        member = self.member(now=5.0)
        self.assertIsNotNone(member.wait)
        self.assertEqual(0.0, member.wait_seconds)

    def test_who_converges_only_while_quiet_moves_then(self):
        never = DirtyModel(40_000.0, 50_000.0, 0.05, "content-diff")
        stays = plan.make_plan(self.request(max_wait=0.0, mean=never))
        self.assertEqual(1, len(stays.staying))
        member = self.member(mean=never)
        self.assertIn("it would not converge", member.wait.reason)

    def test_without_a_clock_or_patience_nobody_waits(self):
        self.assertIsNone(self.member(now=None).wait)
        self.assertIsNone(self.member(max_wait=10.0).wait)

    def test_members_of_a_set_do_not_wait(self):
        duty = self.request().hosts[0].servers[0]
        other = server("other", 100)
        hosts = [builders.host([duty, other], max_concurrent=2)]
        found = plan.make_plan(plan_request(
            *hosts, max_wait_seconds=60.0, now_seconds=25.0, max_parallel=2, relay=True,
            synchronized=((duty.id, other.id),)))
        self.assertEqual([None, None], [m.wait for m in found.groups[0].members])

    def test_the_plan_with_waits_comes_back_from_json(self):
        found = plan.make_plan(self.request())
        again = plan.Plan.from_dict(json.loads(json.dumps(found.to_dict())))
        self.assertEqual(found, again)
        self.assertEqual(found, plan.make_plan(again.request))


class TestDictionaries(base.BaseTestCase):

    def test_a_relays_dictionary_takes_room_where_a_group_arrives(self):
        servers = [server(name, memory_mib=512) for name in "ab"]
        for relay, moving in ((False, 2), (True, 1)):
            found = plan.make_plan(plan_request(
                builders.host(servers), destinations=(destination(memory_gib=1.0),),
                dictionary_bytes=256 * builders.MIB, relay=relay))
            self.assertEqual(moving, sum(len(group.members) for group in found.groups))
