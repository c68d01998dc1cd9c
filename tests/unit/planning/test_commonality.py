import dataclasses
import itertools

from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate.planning import commonality
from nova_batch_migrate.planning.commonality import Commonality
from nova_batch_migrate.planning.telemetry import (
    PAGE_BYTES,
    Background,
    PageClass,
    PageClasses,
    Sketch,
)
from tests.unit.planning import builders


def count(contents):
    """What an agent does: contents by server -> page classes, every content looked at."""
    holders = {}
    for server, pages in contents.items():
        for page in pages:
            holders.setdefault(page, []).append(server)
    sets = {}
    for servers in holders.values():
        sets[tuple(servers)] = sets.get(tuple(servers), 0) + 1
    return PageClasses(True, 1.0, tuple(PageClass(s, n) for s, n in sets.items()))


CONTENTS = strategies.lists(
    strategies.sets(strategies.integers(0, 60)), min_size=1, max_size=7).map(
        lambda sets: {f"s{at}": pages for at, pages in enumerate(sets)})


class TestSums(base.BaseTestCase):

    @settings(deadline=None, max_examples=80)
    @given(CONTENTS, strategies.data())
    def test_equal_brute_force_over_the_pages(self, contents, data):
        known = Commonality(list(contents), count(contents))
        group = data.draw(strategies.lists(strategies.sampled_from(list(contents)), unique=True))
        union = set().union(*(contents[s] for s in group))
        twice = {p for p in union if sum(p in contents[s] for s in group) > 1}
        self.assertEqual(len(union), known.unique_pages(group))
        self.assertEqual(len(twice), known.recurring_pages(group))
        pairs = known.pair_pages()
        for (i, a), (j, b) in itertools.permutations(enumerate(contents), 2):
            self.assertEqual(len(contents[a] & contents[b]), pairs[i, j])
        for a in contents:
            others = set().union(*(contents[b] for b in contents if b != a))
            self.assertEqual(len(contents[a] & others), known.shared_pages(a))

    def test_more_classes_than_one_chunk(self):
        classes = PageClasses(True, 1.0, (PageClass(("a", "b"), 2),) * 5000)
        self.assertEqual(10000, Commonality(["a", "b"], classes).pair_pages()[0, 1])

    def test_the_last_that_holds_half_of_what_a_server_shares(self):
        known = Commonality(list("abcde"), count({
            "a": range(10), "b": range(20, 30), "c": [*range(6), 20], "d": range(4),
            "e": [99]}))
        # of a's 6 that others hold c has 6 and d 4; c's are a's as well, which is before it
        self.assertEqual([3, 2, 3, 3, 4], known.last_kin(list("abcde")))
        self.assertEqual([2, 2, 2], known.last_kin(list("dca")))
        self.assertEqual([0, 1], known.last_kin(["stranger", "a"]))

    def test_a_sample_is_scaled_and_not_exact(self):
        classes = PageClasses(False, 0.25, (PageClass(("a", "b"), 2), PageClass(("a",), 3)))
        known = Commonality(["a", "b"], classes)
        self.assertEqual((8.0, 20.0, False), (known.recurring_pages(["a", "b"]),
                                              known.unique_pages(["a", "b"]), known.exact))

    def test_background_is_held_by_all(self):
        known = Commonality(["a", "b", "c"], PageClasses(
            True, 1.0, (PageClass(("a", "b"), 2),), Background(2, 10)))
        self.assertEqual((12, 10), (known.recurring_pages(["a", "b"]),
                                    known.recurring_pages(["b", "c"])))
        self.assertFalse(known.exact)

    def test_servers_that_are_gone_do_not_count(self):
        known = Commonality(["a"], PageClasses(True, 1.0, (PageClass(("a", "gone"), 5),)))
        self.assertEqual((0, 5), (known.shared_pages("a"), known.unique_pages(["a"])))


class TestChart(base.BaseTestCase):

    def test_figure_3(self):
        a = builders.server("a", distinct_pages=100, self_duplicate_pages=7)
        b = builders.server("b", distinct_pages=50)
        c = builders.server("c", distinct_pages=10)
        found = commonality.chart([builders.host([a, b, c], builders.classes(
            ("a b", 20), ("a b c", 5), ("a", 75)))])
        self.assertEqual(
            [("a", 100, 7, 25), ("b", 50, 0, 25), ("c", 10, 0, 5)],
            [(s["name"], s["distinct_bytes"] // PAGE_BYTES,
              s["self_duplicate_bytes"] // PAGE_BYTES, s["common_bytes"] // PAGE_BYTES)
             for s in found["servers"]])
        self.assertEqual(
            [("id-a", "id-b", 25, 0.5), ("id-a", "id-c", 5, 0.5), ("id-b", "id-c", 5, 0.5)],
            [(p["a"], p["b"], p["bytes"] // PAGE_BYTES, p["share"]) for p in found["pairs"]])
        self.assertEqual((True, 0), (found["exact"], found["background_bytes"]))

    def test_frames_blocks_and_confirmed_pages_are_told_apart(self):
        host = builders.host([builders.server("a", distinct_pages=100),
                              builders.server("b", distinct_pages=50)],
                             builders.classes(("a b", 20)))
        data = {**host.to_dict(),
                "mapped_classes": {"exact": True, "theta": 1.0, "classes": [
                    {"servers": ["id-a", "id-b"], "pages": 6}]},
                "portions": {"block_bytes": 512, "theta": 0.5, "classes": [
                    {"servers": ["id-a", "id-b"], "pages": 4}]},
                "confirmation": {"pairs": 10, "held": 9}}
        found = commonality.chart([type(host).from_dict(data), type(host).from_dict(
            {**data, "host": "cmpc", "servers": []})])
        self.assertEqual((20 * PAGE_BYTES, 6 * PAGE_BYTES, 8 * 512), tuple(
            found["pairs"][0][name] for name in ("bytes", "mapped_bytes", "portion_bytes")))
        self.assertEqual({"pairs": 20, "held": 18}, found["confirmation"])
        plain = commonality.chart([host])
        self.assertEqual((None, None, None), (
            plain["pairs"][0]["mapped_bytes"], plain["pairs"][0]["portion_bytes"],
            plain["confirmation"]))

    def test_hosts_are_not_compared_and_unmeasured_servers_are_left_out(self):
        one = builders.host([builders.server("a"), builders.server("x", error="gone")])
        two = builders.host([builders.server("b")], name="cmpc")
        found = commonality.chart([one, two])
        self.assertEqual(["a", "b"], [s["name"] for s in found["servers"]])
        self.assertEqual([], found["pairs"])

    def test_hosts_are_compared_by_their_sketches(self):
        def of(name, numbers, key="day-1"):
            return dataclasses.replace(
                builders.host([builders.server(name)], name=name), sketch=Sketch(
                    key, 0.5, tuple(f"{number:016x}" for number in numbers)))

        hosts = [of("cmpa", range(40)), of("cmpb", range(30, 50)), of("cmpc", (1,), "day-2"),
                 builders.host([], name="cmpd")]
        one, *other = commonality.chart(hosts)["host_pairs"]
        # 10 in a half of hash space are 20 contents, of the 40 that the smaller one has
        self.assertEqual(("cmpa", "cmpb", 20 * PAGE_BYTES, 0.5, None),
                         tuple(one[name] for name in ("a", "b", "bytes", "share", "reason")))
        self.assertEqual(round(1.96 * 5 ** 0.5 * 2) * PAGE_BYTES, one["error_bytes"])
        self.assertEqual([("cmpa", "cmpc", None), ("cmpb", "cmpc", None)],
                         [(pair["a"], pair["b"], pair["bytes"]) for pair in other])
        self.assertIn("keys day-1, day-2", other[0]["reason"])

    def test_what_cannot_be_true_is_left_out(self):
        servers = [builders.server("a"), builders.server("b"),
                   builders.server("c", zero_pages=1 << 40)]
        host = builders.host(servers, builders.classes(("a b", 10 ** 15), ("a c", 5)))
        found = commonality.chart([host])
        self.assertEqual(["a", "b"], [each["name"] for each in found["servers"]])
        self.assertEqual([(0, False)], [(pair["bytes"], found["exact"])
                                        for pair in found["pairs"]])

    def test_what_a_host_holds_in_all(self):
        host = builders.host([builders.server("a"), builders.server("b")],
                             builders.classes(("a b", 20), ("a", 5)))
        self.assertEqual([{"host": "cmpa", "distinct_bytes": 25 * PAGE_BYTES}],
                         commonality.chart([host])["hosts"])

    def test_a_host_without_classes_is_not_exact(self):
        host = builders.host([builders.server("a")])
        data = {**host.to_dict(), "page_classes": None}
        self.assertFalse(commonality.chart([type(host).from_dict(data)])["exact"])
