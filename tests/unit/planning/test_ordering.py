import dataclasses
import itertools

from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate.planning import ordering, plan
from tests.unit.planning import builders


class TestAscending(base.BaseTestCase):

    def test_seconds_then_name_then_id_and_guesses_last(self):
        items = [(9.0, "a", "1"), (2.0, "c", "1"), (2.0, "b", "2"), (2.0, "b", "1"),
                 (1.0, "guess", "1")]
        found = ordering.ascending(items, seconds=lambda i: i[0], identity=lambda i: i[1:],
                                   last=lambda i: i[1] == "guess")
        self.assertEqual(["b1", "b2", "c1", "a1", "guess1"], [i[1] + i[2] for i in found])


def in_order(jobs):
    """jobs: name -> (seconds, deadline); return the names as ordered."""
    return ordering.ascending(jobs, lambda n: jobs[n][0], lambda n: (n,),
                              deadline=lambda n: jobs[n][1])


def late(jobs, order):
    now, count = 0.0, 0
    for name in order:
        now += jobs[name][0]
        count += jobs[name][1] is not None and now > jobs[name][1]
    return count


class TestDeadlines(base.BaseTestCase):

    def test_a_deadline_goes_before_the_projected_time_only_where_it_must(self):
        jobs = {"a": (10, None), "b": (20, None), "c": (30, 50)}
        self.assertEqual(["a", "c", "b"], in_order(jobs))
        self.assertEqual(["a", "b", "c"], in_order(jobs | {"c": (30, 60)}))
        self.assertEqual(["c", "a", "b"], in_order(jobs | {"c": (30, 30)}))

    def test_the_latest_is_late_where_not_all_can_be_kept(self):
        jobs = {"a": (10, 5), "b": (10, 8), "c": (5, None)}
        self.assertEqual(["a", "b", "c"], in_order(jobs))

    @settings(deadline=None, max_examples=80)
    @given(strategies.lists(strategies.tuples(
        strategies.integers(1, 9),
        strategies.one_of(strategies.none(), strategies.integers(1, 30))),
        min_size=1, max_size=6))
    def test_no_order_keeps_all_deadlines_with_a_smaller_sum_of_ends(self, drawn):
        jobs = dict(zip("abcdef", drawn, strict=False))

        def ends(order):
            return sum(itertools.accumulate(jobs[n][0] for n in order))

        order = in_order(jobs)
        self.assertEqual(sorted(jobs), sorted(order))
        keeping = [other for other in itertools.permutations(jobs) if not late(jobs, other)]
        if keeping:
            self.assertEqual(0, late(jobs, order))
            self.assertEqual(min(map(ends, keeping)), ends(order))


class TestEnds(base.BaseTestCase):

    def plan(self, limit=None, **fields):
        hosts = [builders.host([builders.server(name)], name=source)
                 for name, source in (("a", "s1"), ("b", "s2"))]
        return plan.make_plan(builders.plan_request(*hosts, destinations=(dataclasses.replace(
            builders.destination(), inbound_limit=limit),), **fields))

    def test_sources_run_side_by_side_unless_the_destination_holds_them_up(self):
        free, held = self.plan(), self.plan(1)
        alone, = (g.projected_seconds for g in free.groups[:1])
        self.assertAlmostEqual(alone, free.projected_seconds)
        self.assertAlmostEqual(2 * alone, held.projected_seconds)

    def test_an_inbound_limit_makes_streams_of_a_group_wait(self):
        servers = [builders.server(n) for n in "ab"]
        for limit, waiting in ((None, 0), (2, 0), (1, 1)):
            made = plan.make_plan(builders.plan_request(
                builders.host(servers, max_concurrent=2), max_parallel=2, strategy="none",
                destinations=(dataclasses.replace(builders.destination(), inbound_limit=limit),)))
            group, = made.groups
            self.assertEqual(waiting, sum(m.projection.queue_seconds > 0 for m in group.members))
