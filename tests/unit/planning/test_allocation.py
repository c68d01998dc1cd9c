import math

import ddt
from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate.planning import allocation
from nova_batch_migrate.planning.allocation import MIB, Need


def need(name, remaining_mib, dirty_mib=0.0, source="s", **fields):
    return Need(name, source, remaining_mib * MIB, dirty_mib * MIB, **fields)


def mib(needs, link=100.0, budget=math.inf, previous=None):
    """Return shares in MiB/s; one link for every source."""
    links = {n.source: link * MIB for n in needs}
    found = allocation.shares(needs, links, budget * MIB,
                              previous and {k: v * MIB for k, v in previous.items()})
    return {name: round(share / MIB, 1) for name, share in found.items()}


@ddt.ddt
class TestShares(base.BaseTestCase):

    @ddt.data(
        # one alone has the whole link, or what the operator permits of it
        ([need("a", 100)], {}, {"a": 100}),
        ([need("a", 100)], {"budget": 8}, {"a": 8}),
        # the least of 1.25 each, and the rest by remaining bytes: 97.5/4, 97.5*3/4
        ([need("a", 100), need("b", 300)], {}, {"a": 25.6, "b": 74.4}),
        # who dirties 40 MiB/s gets 50 first; 1.25 is b's already, 48.75 are divided equally
        ([need("a", 100, 40), need("b", 100)], {}, {"a": 74.4, "b": 25.6}),
        # two floors of 75 are too much for one link: the one nearer to its end converges
        ([need("a", 100, 60), need("b", 300, 60)], {"budget": 80}, {"a": 75.9, "b": 4.1}),
        # Nova's own cap on a migration leaves the rest to the others
        ([need("a", 100, most_bytes_per_second=10.0 * MIB), need("b", 100)], {},
         {"a": 10, "b": 90}),
        # two sources share the batch's budget, each within its link
        ([need("a", 100), need("b", 300, source="t")], {"budget": 42, "link": 30},
         {"a": 12, "b": 30}),
        ([], {}, {}),
    )
    @ddt.unpack
    def test_by_hand(self, needs, limits, expected):
        self.assertEqual(expected, mib(needs, **limits))

    def test_without_any_limit_nobody_is_held(self):
        found = allocation.shares([need("a", 100)], {}, math.inf)
        self.assertEqual({"a": math.inf}, found)

    def test_small_changes_change_nothing(self):
        needs = [need("a", 100), need("b", 300)]
        near, far = {"a": 27.0, "b": 73.0}, {"a": 40.0, "b": 60.0}
        self.assertEqual(near, mib(needs, previous=near))
        self.assertEqual({"a": 25.6, "b": 74.4}, mib(needs, previous=far))

    def test_what_fits_no_more_is_changed_however_little_it_is(self):
        needs = [need("a", 100), need("b", 300)]
        previous = {"a": 25.5, "b": 74.5}
        self.assertEqual({"a": 24.9, "b": 72.1}, mib(needs, 97, previous=previous))

    def test_who_came_or_went_changes_the_shares(self):
        self.assertEqual({"a": 100}, mib([need("a", 100)], previous={"a": 26.0, "b": 74.0}))


class TestQemu(base.BaseTestCase):

    def test_what_qemu_sends_under_a_cap_as_measured(self):
        for asked, sent in ((1, 1.253), (2, 2.505), (4, 5.010), (8, 8.767), (16, 16.282),
                            (32, 32.563)):
            self.assertAlmostEqual(sent, allocation.qemu_bytes_per_second(asked) / MIB, delta=0.02)

    @given(strategies.floats(0.1, 3000))
    def test_the_highest_cap_that_keeps_to_it(self, wanted):
        cap = allocation.qemu_cap_mib(wanted * MIB)
        self.assertGreaterEqual(cap, 1)
        if cap > 1:
            self.assertLessEqual(allocation.qemu_bytes_per_second(cap), wanted * MIB)
        self.assertGreater(allocation.qemu_bytes_per_second(cap + 1), wanted * MIB)


NEEDS = strategies.lists(strategies.tuples(
    strategies.floats(0, 5000), strategies.floats(0, 60), strategies.sampled_from("st"),
    strategies.sampled_from([math.inf, 5.0, 30.0])), min_size=1, max_size=8)


class TestProperties(base.BaseTestCase):

    @settings(deadline=None, max_examples=150)
    @given(NEEDS, strategies.floats(11, 500), strategies.one_of(
        strategies.just(math.inf), strategies.floats(11, 300)))
    def test_limits_hold_and_nothing_lies_idle(self, drawn, link, budget):
        needs = [need(str(at), left, dirty, source, most_bytes_per_second=most * MIB)
                 for at, (left, dirty, source, most) in enumerate(drawn)]
        links = {"s": link * MIB, "t": 2 * link * MIB}
        budget *= MIB
        found = allocation.shares(needs, links, budget)
        used = {source: sum(found[n.id] for n in needs if n.source == source) for source in links}
        least = {source: allocation.LEAST_BYTES_PER_SECOND * sum(n.source == source for n in needs)
                 for source in links}
        for source, limit in links.items():
            self.assertLessEqual(used[source], max(limit, least[source]) * 1.0001)
        self.assertLessEqual(
            sum(used.values()),
            max(budget, allocation.LEAST_BYTES_PER_SECOND * len(needs)) * 1.0001)
        floors = {source: sum(n.floor for n in needs if n.source == source) for source in links}
        possible = sum(floors.values()) <= budget and all(
            floors[source] <= limit for source, limit in links.items())
        for n in needs:
            self.assertLessEqual(found[n.id], n.most_bytes_per_second * 1.0001)
            if possible:
                self.assertGreaterEqual(found[n.id], n.floor * 0.9999)
            full = (sum(used.values()) >= budget * 0.999
                    or used[n.source] >= links[n.source] * 0.999
                    or found[n.id] >= n.most_bytes_per_second * 0.999)
            self.assertTrue(full, (n, found))
