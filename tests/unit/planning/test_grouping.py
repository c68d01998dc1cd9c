import itertools
import random

from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate.planning import commonality, grouping
from nova_batch_migrate.planning.replay import Replay
from nova_batch_migrate.planning.scope import Scope
from nova_batch_migrate.planning.telemetry import PageSequence
from tests.unit.planning import builders

MANY = 10 ** 12


def names(groups):
    return [" ".join(i.removeprefix("id-") for i in g.servers) for g in groups]


def known(servers, *classes):
    return commonality.of_host(builders.host(servers, builders.classes(*classes)))


def group(servers, *classes, scope="project", fits=lambda ids: True, dictionary=MANY, most=8):
    return grouping.group(servers, known(servers, *classes), Scope(scope, servers),
                          fits, dictionary, most)


def servers(text, **fields):
    return [builders.server(name, content_mib=10, **fields) for name in text.split()]


class TestGroup(base.BaseTestCase):

    def test_families_find_each_other(self):
        # The family of a and b shares most, so it begins; x shares nothing.
        self.assertEqual(["a b", "c d", "x"], names(group(
            servers("a b c d x"), ("a b", 900), ("c d", 800), ("x", 700))))

    def test_the_next_member_has_most_in_common_with_the_whole_group(self):
        # a begins (900); b brings 500, then c has 200 + 300 with a and b, d only 100 with a.
        self.assertEqual(["a b c", "d"], names(group(
            servers("a b c d"), ("a b", 500), ("a c", 200), ("b c", 300), ("a d", 300), most=3)))

    def test_trivial_content_makes_no_members(self):
        # 10 MiB are 2560 distinct pages: 1 % of them are 25.6.
        self.assertEqual(["a", "b"], names(group(servers("a b"), ("a b", 25))))
        self.assertEqual(["a b"], names(group(servers("a b"), ("a b", 26))))

    def test_the_dictionary_bounds_recurring_content(self):
        classes = ("a b", 500), ("a c", 400), ("b c", 100)
        self.assertEqual(["a b c"], names(group(servers("a b c"), *classes,
                                                dictionary=1000 * 4096)))
        found = group(servers("a b c"), *classes, dictionary=999 * 4096)
        self.assertEqual(["a b", "c"], names(found))
        self.assertIn("dictionary of 3 MiB", found[0].reason)

    def test_content_of_projects_is_not_mixed_unless_asked(self):
        mine, other = builders.server("a"), builders.server("b", project="q")
        for scope, expected in (("project", ["a", "b"]), ("host", ["a b"]), ("off", ["a", "b"])):
            self.assertEqual(expected, names(group([mine, other], ("a b", 5000), scope=scope)))

    def test_one_destination_must_take_all(self):
        found = group(servers("a b c"), ("a b c", 900), fits=lambda ids: len(ids) < 3)
        self.assertEqual(["a b", "c"], names(found))
        self.assertIn("no destination could take more", found[0].reason)

    def test_three_pairs_save_more_than_two_threes(self):
        # {a b d} and {c e f} keep a-b and e-f and share the background four times; as pairs a-c,
        # b-d and e-f are kept, and the background three times: 600 + 900 + 700 more than 4 * 100.
        classes = ("a c", 600), ("b d", 900), ("e f", 700), ("a b c d e f", 100)
        self.assertEqual(["b d", "e f", "a c"], names(group(servers("a b c d e f"), *classes,
                                                            most=3)))

    def test_background_joins_who_is_left(self):
        # Nobody is related to c, d or e but by what all of them hold.
        found = group(servers("a b c d e"), ("a b", 900), ("a b c d e", 100), most=3)
        self.assertEqual([2, 3], sorted(len(g.servers) for g in found))
        self.assertIn("0.4 MiB of it by almost every server", found[0].reason)

    def test_who_belongs_together_moves_together(self):
        # a begins with b, its closest; but c and d lose more by being parted than a and b gain.
        classes = ("a b", 500), ("b c", 450), ("a d", 450)
        self.assertEqual(["b c", "a d"], sorted(names(group(
            servers("a b c d"), *classes, most=2)), reverse=True))

    def test_reasons_can_be_checked(self):
        found = group(servers("a b"), ("a b", 512))
        self.assertIn("2.0 MiB of content is held by more than one of the 2 members",
                      found[0].reason)


class TestRelayed(base.BaseTestCase):
    """Streams of a group go through one dictionary, in the order of the names here."""

    def relayed(self, dictionary_pages, *contents):
        found = [builders.server(
            name, present_pages=len(numbers), distinct_pages=len(numbers),
            sequence=PageSequence(1.0, tuple(numbers))) for name, numbers in contents]
        held = {}
        for name, numbers in contents:
            for number in numbers:
                held.setdefault(number, []).append(name)
        host = builders.host(found, builders.classes(
            *((" ".join(names), 1) for names in held.values())))
        self.replay = Replay(host, "host", dictionary_pages * 4096)
        return grouping.relayed(
            found, commonality.of_host(host), Scope("host", found), lambda ids: True,
            dictionary_pages * 4096, self.replay, sorted)

    def test_where_all_fits_one_group_is_best_and_it_is_said(self):
        found = self.relayed(400, *((name, range(10)) for name in "abcdefghijkl"))
        self.assertEqual(["a b c d e f g h i j k l"], names(found))
        self.assertIn("one group for each destination saves most", found[0].reason)

    def test_families_that_would_throw_each_other_out_go_apart(self):
        # Two families of ten pages in turns: a ring of 11 never has what comes next.
        x, y = range(10), range(20, 30)
        found = self.relayed(11, ("a", x), ("b", y), ("c", x), ("d", y))
        self.assertEqual(["a c", "b d"], names(found))
        self.assertIn("0.1 MiB are sent once by groups that fit the dictionary, 0.1 MiB by one",
                      found[0].reason)

    def test_families_one_behind_the_other(self):
        # The same with four pages in all, which two groups would send twice. Of a full ring an
        # eighth is for what guests write meanwhile. In turns a's pages stay for c, and those of
        # b's family find no room.
        x, y = [*range(10), *range(96, 100)], [*range(20, 30), *range(96, 100)]
        found = self.relayed(17, ("a", x), ("b", y), ("c", x), ("d", y))
        self.assertEqual(["a b c d"], names(found))
        self.assertEqual(("id-a", "id-c", "id-b", "id-d"), found[0].order)
        self.assertIn("with relatives one behind the other (0.1 MiB in order of their times)",
                      found[0].reason)

    def test_of_orders_that_save_alike_the_one_in_which_compression_finds_more(self):
        # Eight pages of all and four of each of six kinds, two servers of a kind: a ring of 13 has
        # room for one kind beside what all have, so any order saves the same. What is found without
        # room is what was sent in full no longer ago than 13 pages: with the like five kinds ago
        # it is not.
        everybody = range(900, 908)
        found = self.relayed(13, *((name, [*everybody, *range(10 * kind, 10 * kind + 4)])
                                   for kind, pair in enumerate(("ag", "bh", "ci", "dj", "ek", "fl"))
                                   for name in pair))
        self.assertEqual(["a b c d e f g h i j k l"], names(found))
        order, in_order = found[0].order, sorted(found[0].servers)
        self.assertEqual("a g b h c i d j e k f l".split(),
                         [each.removeprefix("id-") for each in order])
        self.assertEqual(self.replay.saved_pages(in_order), self.replay.saved_pages(order))
        self.assertGreater(self.replay.far_pages(order), self.replay.far_pages(in_order) + 10)
        self.assertIn("; compression finds 0.1 MiB that it has no room for", found[0].reason)

    def test_of_the_orders_the_one_that_saves_most(self):
        """Three kinds of servers, each with some contents of its kind and of all."""
        told = set()
        for seed in range(130, 160):
            draw = random.Random(seed)
            kinds = [draw.sample(range(60), 12) for _ in range(3)]
            found = self.relayed(14, *((name, sorted({
                *draw.sample(kinds[draw.randrange(3)], 10), *draw.sample(range(60, 70), 3)}))
                for name in "abcdef"))
            if len(found) > 1:
                continue
            order = list(found[0].order or sorted(found[0].servers))
            saved = self.replay.saved_pages(order)
            for other in (sorted(order), order[::-1]):
                self.assertGreaterEqual(saved, self.replay.saved_pages(other), seed)
            told |= {words for words in (grouping.RELATIVES, grouping.IN_TURN)
                     if f"by it with {words} (" in found[0].reason}
            self.assertEqual(bool(found[0].order), bool(found[0].order_by))
        self.assertEqual({grouping.RELATIVES, grouping.IN_TURN}, told)

    def test_who_has_nothing_in_common_is_in_the_one_group_as_well(self):
        found = self.relayed(400, ("a", range(10)), ("b", range(20, 30)), ("c", range(10)))
        self.assertEqual(["a b c"], names(found))

    def test_one_group_though_it_does_not_fit(self):
        # Each has nine pages with the next one: no two neighbours' fit with a third, but a ring
        # of ten has room for one of them beside the first nine, and one place is not theirs.
        found = self.relayed(11, ("a", range(0, 9)), ("b", range(0, 18)), ("c", range(9, 18)))
        self.assertEqual(["a b c"], names(found))
        self.assertIn("yet 0.0 MiB are sent once by it, 0.0 MiB by groups that fit",
                      found[0].reason)


class TestNone(base.BaseTestCase):

    def test_ascending_by_time_as_many_as_may_run_at_once(self):
        times = {"id-a": 3.0, "id-b": 1.0, "id-c": 2.0}
        for parallel, expected in ((1, ["b", "c", "a"]), (2, ["b c", "a"])):
            self.assertEqual(expected, names(grouping.none(
                servers("a b c"), times.get, parallel)))


class TestPair(base.BaseTestCase):
    """FIG. 6, cases to be followed with a pencil."""

    classes = (("a b", 900), ("c d", 800), ("a c", 700), ("b d", 100))

    def pair(self, text, classes, seconds, fits=lambda ids: True, dictionary=MANY, scope="project"):
        found = servers(text)
        return grouping.pair(
            found, known(found, *classes), Scope(scope, found), fits,
            lambda ids: seconds("".join(i.removeprefix("id-") for i in ids)), dictionary)

    def test_pairs_by_commonality_then_the_shortest_goes_first(self):
        # 610: ab (900) and cd (800) are the pairs; 614: cd takes 5 s and goes first.
        found = self.pair("a b c d", self.classes, {"ab": 9.0, "cd": 5.0}.get)
        self.assertEqual(["c d", "a b"], names(found))
        self.assertIn("shortest projected time (5.0 s) of 2 pairs", found[0].reason)

    def test_fallback_the_least_common_server_goes_alone(self):
        # No pair can go: a has 1600 in common, b 1000, c 1500, d 900. d goes, [0076]; then ab
        # (900) is the pair and fails; of a 1600, b 900 and c 700, c goes, and at last ab again.
        found = self.pair("a b c d", self.classes, lambda pair: None)
        self.assertEqual(["d", "c", "a", "b"], names(found))
        self.assertIn("[0076]", found[0].reason)

    def test_pairs_are_formed_again_after_the_fallback(self):
        # With ab and cd impossible, d goes alone; the rest pairs ab again, fails, c goes, a, b.
        # Had ac been possible, it would be found only once b is gone: pairs are by commonality.
        found = self.pair("a b c", (("a b", 900), ("a c", 700)), {"ac": 3.0}.get)
        # a 1600, b 900, c 700: c is least and goes, though ac would have been possible.
        self.assertEqual(["c", "a", "b"], names(found))

    def test_the_odd_one_goes_last(self):
        found = self.pair("a b c", (("a b", 900), ("b c", 10)), lambda pair: 1.0)
        self.assertEqual(["a b", "c"], names(found))
        self.assertIn("no partner", found[1].reason)

    def test_criteria_of_612(self):
        classes = (("a b", 900),)
        self.assertEqual(["a", "b"], names(self.pair(
            "a b", classes, lambda pair: 1.0, fits=lambda ids: False)))
        self.assertEqual(["a", "b"], names(self.pair(
            "a b", classes, lambda pair: 1.0, dictionary=899 * 4096)))

    def test_without_dedup_all_pairs_are_equal_and_names_decide(self):
        found = self.pair("b a d c", self.classes, lambda pair: 1.0, scope="off")
        self.assertEqual(["a b", "c d"], names(found))


CLASSES = strategies.lists(strategies.tuples(
    strategies.lists(strategies.sampled_from("abcdefgh"), min_size=1, unique=True).map(" ".join),
    strategies.integers(0, 3000)), max_size=12)


class TestProperties(base.BaseTestCase):

    @settings(deadline=None, max_examples=50)
    @given(CLASSES, strategies.integers(1, 4), strategies.integers(0, 4000))
    def test_everybody_is_in_one_group_within_the_limits(self, classes, most, dictionary_pages):
        all_servers = servers("a b c d e f g h")
        found = group(all_servers, *classes, most=most, dictionary=dictionary_pages * 4096)
        self.assertEqual(sorted(s.id for s in all_servers),
                         sorted(i for g in found for i in g.servers))
        facts = known(all_servers, *classes)
        for one in found:
            self.assertLessEqual(len(one.servers), most)
            self.assertLessEqual(facts.recurring_pages(one.servers), dictionary_pages)
        self.assertEqual(found, group(list(reversed(all_servers)), *classes, most=most,
                                      dictionary=dictionary_pages * 4096))

    @settings(deadline=None, max_examples=50)
    @given(CLASSES, strategies.dictionaries(strategies.integers(0, 27), strategies.none() |
                                            strategies.sampled_from([1.0, 2.0, 3.0])))
    def test_pairs_as_the_figure_step_by_step(self, classes, times):
        all_servers = servers("a b c d e f g h")
        facts = known(all_servers, *classes)
        column = {i: at for at, i in enumerate(facts.server_ids)}
        common = facts.pair_pages()
        left, expected = [s.id for s in all_servers], []
        while left:
            # 608, 610, on what is left, from nothing.
            pairs, free = [], set(left)
            for a, b in sorted(itertools.combinations(left, 2),
                               key=lambda ab: -common[column[ab[0]], column[ab[1]]]):
                if a in free and b in free:
                    pairs.append((a, b))
                    free -= {a, b}
            able = [ab for ab in pairs if times.get(hash_of(ab)) is not None]
            if able:
                chosen = min(able, key=lambda ab: times[hash_of(ab)])
            else:
                chosen = (min(left, key=lambda i: sum(
                    common[column[i], column[j]] for j in left)),)
            expected.append(chosen)
            left = [i for i in left if i not in chosen]
        found = grouping.pair(
            all_servers, facts, Scope("project", all_servers), lambda ids: True,
            lambda ids: times.get(hash_of(ids)), MANY)
        self.assertEqual(expected, [g.servers for g in found])

    @settings(deadline=None, max_examples=50)
    @given(CLASSES, strategies.dictionaries(strategies.integers(0, 27), strategies.none() |
                                            strategies.floats(1, 9)))
    def test_pairs_cover_everybody_once(self, classes, times):
        all_servers = servers("a b c d e f g h")
        found = grouping.pair(
            all_servers, known(all_servers, *classes), Scope("project", all_servers),
            lambda ids: True, lambda ids: times.get(hash_of(ids)), MANY)
        self.assertEqual(sorted(s.id for s in all_servers),
                         sorted(i for g in found for i in g.servers))
        self.assertLessEqual(max(len(g.servers) for g in found), 2)


def hash_of(ids):
    """A number 0..27 of a pair that is the same in every run."""
    return sum(map(ord, "".join(ids))) % 28
