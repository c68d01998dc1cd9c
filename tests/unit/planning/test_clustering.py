import itertools

from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate.planning import clustering, commonality
from nova_batch_migrate.planning.cluster_state import Facts, Limits, State
from tests.unit.planning import builders

NAMES = "abcdef"
CLASSES = strategies.lists(strategies.tuples(
    strategies.lists(strategies.sampled_from(NAMES), min_size=2, unique=True).map(" ".join),
    strategies.integers(1, 500)), max_size=10)


def facts(classes):
    servers = [builders.server(name, content_mib=1) for name in NAMES]
    return servers, commonality.of_host(builders.host(servers, builders.classes(*classes)))


def partitions(items):
    """All ways to part the items into groups."""
    if not items:
        yield []
        return
    for rest in partitions(items[1:]):
        yield [[items[0]], *rest]
        for at, group in enumerate(rest):
            yield [*rest[:at], [items[0], *group], *rest[at + 1:]]


def saved(known, groups):
    return sum(pages * max(0, sum(i in holders for i in group) - 1)
               for group in groups for holders, pages in known.classes)


class TestChain(base.BaseTestCase):

    def test_relatives_stand_behind_one_another(self):
        servers, known = facts([("a c", 100), ("b d", 50), ("a b c d e f", 10)])
        self.assertEqual("acbdef", "".join(i[-1] for i in clustering.chain(servers, known)))

    def test_the_nearer_count_more(self):
        # d has 90 in common with the last but one, e has 50 with the last
        servers, known = facts([("a b", 500), ("b c", 400), ("a d", 90), ("c e", 50)])
        self.assertEqual("bacedf", "".join(i[-1] for i in clustering.chain(servers, known)))

    def test_likes_follow_each_other_in_the_order_given(self):
        # of 256 contents a third makes a kind; what all have makes none
        servers, known = facts([("a e", 100), ("b f", 80), ("a b c d e f", 200)])
        for of_times, expected in ((servers, "aebcdf"), (servers[::-1], "feadcb")):
            self.assertEqual(expected, "".join(i[-1] for i in clustering.by_kind(
                of_times, known)))

    def test_one_cluster_of_everyone(self):
        servers, known = facts([("a c", 100), ("b d", 50)])
        found = clustering.everyone(servers, known)
        self.assertEqual((6, 150.0), (len(found.servers), found.recurring_pages))


class TestClusters(base.BaseTestCase):

    @settings(deadline=None, max_examples=60)
    @given(CLASSES, strategies.integers(1, 6), strategies.integers(100, 3000),
           strategies.sampled_from([None, "abc", "abcd"]))
    def test_limits_are_kept_and_the_best_is_near(self, classes, most, dictionary, together):
        servers, known = facts(classes)

        def fits(ids):
            return together is None or len(ids) <= len(together)

        def permitted(group):
            return (len(group) <= most and fits(group)
                    and (len(group) < 2 or known.recurring_pages(group) <= dictionary))

        found = clustering.clusters(servers, known, Limits(fits, dictionary, most, 0.0))
        groups = [list(cluster.servers) for cluster in found]
        self.assertEqual(sorted(s.id for s in servers), sorted(itertools.chain(*groups)))
        for cluster, group in zip(found, groups, strict=True):
            self.assertTrue(permitted(group))
            self.assertEqual(known.recurring_pages(group), cluster.recurring_pages)
        best = max(saved(known, way) for way in partitions([s.id for s in servers])
                   if all(map(permitted, way)))
        self.assertLessEqual(0.75 * best, saved(known, groups))

    @settings(deadline=None, max_examples=60)
    @given(CLASSES, strategies.lists(strategies.tuples(strategies.integers(0, 5),
                                                       strategies.integers(0, 2)), max_size=12))
    def test_sums_are_kept_up_to_date(self, classes, moves):
        servers, known = facts(classes)
        state = State(Facts(servers, known), Limits(lambda ids: True, 1e9, None, 0.0))
        groups = [state.new_group() for _ in range(3)]
        for server in range(len(servers)):
            state.add(server, groups[0])
        for server, to in moves:
            state.remove(server, state.group_of[server])
            state.add(server, groups[to])
        ids = [[servers[s].id for s in group.members] for group in groups]
        self.assertEqual(saved(known, ids), state.saved)
        self.assertEqual([known.recurring_pages(i) for i in ids], [g.recurring for g in groups])
        self.assertEqual(state.saved, sum(state.saved_in(group) for group in groups))
        self.assertEqual(state.saved, state.copy().saved)
