import numpy
from oslotest import base

from nova_batch_migrate.planning import commonality, plan
from nova_batch_migrate.planning.telemetry import PAGE_BYTES
from tests.unit.benchmarks import paths  # noqa: F401  (before nbmbench)

from nbmbench import exact_groups  # noqa: E402  isort: skip
from nbmbench.suite import grouping_quality, planner_scale  # noqa: E402  isort: skip
from nbmbench.synthetic_cloud import Cloud, Shape  # noqa: E402  isort: skip


class TestCloud(base.BaseTestCase):

    def test_the_same_seed_is_the_same_cloud(self):
        self.assertEqual(Cloud(7).draw_request(50), Cloud(7).draw_request(50))
        self.assertNotEqual(Cloud(7).draw_request(50), Cloud(8).draw_request(50))

    def test_counts_agree_with_classes_and_sequences(self):
        host = Cloud(3, Shape(servers_per_host=12, sequence_theta=1.0)).draw_request(12).hosts[0]
        known = commonality.of_host(host)
        for server in host.servers:
            self.assertEqual(server.distinct_pages, known.unique_pages([server.id]))
            contents = numpy.array(server.sequence.contents)
            numbered = contents[contents >= 0]
            self.assertEqual(server.distinct_pages + len(numbered) - len(set(numbered.tolist())),
                             len(numbered) - contents[contents < 0].sum())
            self.assertLessEqual((server.content_pages + server.zero_pages) * PAGE_BYTES,
                                 server.memory_bytes)

    def test_it_can_be_planned_and_read_again(self):
        request = Cloud(1).draw_request(60, relay=True)
        made = plan.make_plan(plan.PlanRequest.from_dict(request.to_dict()))
        self.assertEqual(60, sum(len(g.members) for g in made.groups) + len(made.staying))


class TestExactGroups(base.BaseTestCase):

    def test_savings_by_hand(self):
        saved, recurring = exact_groups.saved_pages(
            [(0b111, 10.0), (0b011, 5.0)], numpy.array([0b111, 0b011, 0b100], dtype=numpy.uint32))
        self.assertEqual(([25.0, 15.0, 0.0], [15.0, 15.0, 0.0]),
                         (saved.tolist(), recurring.tolist()))


class TestFigures(base.BaseTestCase):

    def test_the_worst_step_is_the_growth(self):
        cases = [{"servers": n, "kind": "no relay", "seconds": s, "peak_bytes": n}
                 for n, s in ((100, 1.0), (1000, 1.0), (10_000, 20.0), (10_000, 40.0))]
        found = planner_scale.measured(cases)
        self.assertEqual((40.0, 10_000), (found["seconds_10000"], found["peak_bytes_10000"]))
        self.assertAlmostEqual(1.477, found["exponent"], places=3)
        self.assertNotIn("exponent", planner_scale.measured(cases[1:]))

    def test_the_fifth_percentile(self):
        cases = [{"kind": "optimal", "worth_it": at > 0, "saved_pages": float(at),
                  "fast_pages": at / 2, "optimal_pages": 100.0} for at in range(101)]
        found = grouping_quality.measured(cases)
        self.assertEqual((100, 1), (found["instances"], found["not_worth_it"]))
        self.assertAlmostEqual(0.0595, found["saving_vs_optimal"])
        self.assertEqual(0.01, found["saving_vs_optimal_min"])
        self.assertEqual(0.005, found["saving_vs_optimal_fast_min"])

    def test_one_plan_below_a_simple_way_is_enough(self):
        cases = [{"kind": "replay", "saved_pages": saved, "one_group_pages": 10.0,
                  "random_order_pages": 8.0} for saved in (9.0, 31.0)]
        found = grouping_quality.measured(cases)
        self.assertEqual((0.9, 2.0), (found["saving_vs_baseline"],
                                      found["saving_vs_baseline_total"]))
