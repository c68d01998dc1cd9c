from oslotest import base

from nova_batch_migrate.relay import qemu_stream, runs
from nova_batch_migrate.relay.layout import Run
from tests.unit.benchmarks import paths  # noqa: F401  (before nbmbench)

from nbmbench import contract  # noqa: E402  isort: skip
from nbmbench.suite import (  # noqa: E402  isort: skip
    downtime,
    drain_time,
    in_flight,
    relay_throughput,
)


def alone(way, seconds, status="completed", run=0):
    return {"kind": "alone", "way": way, "status": status, "downtime_seconds": seconds,
            "run": run}


def members(*each):
    return [{"status": "completed", "downtime_seconds": pause, "resumed_at": moment}
            for pause, moment in each]


class TestDowntime(base.BaseTestCase):
    def test_what_the_relay_adds(self):
        told = downtime.measured([alone("plain", each) for each in (0.1, 0.2, 0.3)]
                                 + [alone("relay", each) for each in (0.2, 0.25, 0.5)])
        self.assertAlmostEqual(0.05, told["added_seconds_median"])
        self.assertAlmostEqual(0.2, told["added_seconds_worst"])

    def test_neighbours_are_compared_though_one_way_has_a_run_more(self):
        cases = [alone("plain", each) for each in (0.1, 0.2, 0.3, 9)] \
            + [alone("relay", each) for each in (0.15, 0.25, 0.35)]
        for end in downtime.intervals(cases)["added_seconds_median"]:
            self.assertAlmostEqual(0.05, end)

    def test_those_beside_sets_come_last_wherever_they_stand(self):
        cases = [alone("plain", 9, run=2), *(alone("plain", each, run=run) for run, each
                                             in enumerate((0.1, 0.2))),
                 *(alone("relay", each, run=run) for run, each in enumerate((0.15, 0.25)))]
        for end in downtime.intervals(cases)["added_seconds_median"]:
            self.assertAlmostEqual(0.05, end)

    def test_one_way_alone_adds_nothing_to_the_other(self):
        told = downtime.measured([
            alone("plain", 0.1), alone("single", 0.1),
            {"kind": "gang", "members": members((0.1, 5.0), (0.15, 5.03))}])
        self.assertNotIn("added_seconds_median", told)
        self.assertAlmostEqual(0.03, told["crowded_gang_skew_seconds"])

    def test_a_run_that_failed_leaves_the_figure_unmeasured(self):
        self.assertEqual({}, downtime.measured(
            [alone("plain", 0.1), alone("relay", 0.1), alone("relay", 9, "aborted")]))

    def test_skew_and_pause_of_a_set(self):
        told = downtime.measured([
            alone("plain", 0.1), alone("relay", 0.3), alone("single", 0.1), alone("single", 0.1),
            {"kind": "gang", "members": members((0.1, 5.0), (0.15, 5.03))},
            {"kind": "gang", "members": members((0.12, 7.0), (0.1, 7.01))}])
        self.assertAlmostEqual(0.02, told["crowded_gang_skew_seconds"])       # of 0.03 and 0.01
        self.assertAlmostEqual(0.05, told["crowded_gang_added_pause_seconds"])
        self.assertNotIn("gang_skew_seconds", told)

    def test_a_set_is_held_against_who_moved_alone_as_it_did(self):
        first = {"hosts_first": True}
        told = downtime.measured([
            alone("single", 0.05) | first, alone("plain", 9) | first, alone("single", 0.1),
            {"kind": "gang", "members": members((0.08, 5.0), (0.07, 5.01))} | first,
            {"kind": "gang", "members": members((0.3, 7.0), (0.1, 7.05))}])
        self.assertAlmostEqual(0.03, told["gang_added_pause_seconds"])
        self.assertAlmostEqual(0.01, told["gang_skew_seconds"])
        self.assertAlmostEqual(0.2, told["crowded_gang_added_pause_seconds"])
        self.assertAlmostEqual(0.05, told["crowded_gang_skew_seconds"])

    def test_what_is_left_of_the_runs_that_the_goals_ask_for(self):
        def through_nova(case, whole=True):
            return case | {"through": "nova", "whole": whole}
        cases = [through_nova(alone(way, 0.1)) for way in ("plain", "relay")
                 for _ in range(downtime.PAIRS)]
        cases += [through_nova({"kind": "gang", "hosts_first": first,
                                "members": members((0.1, 5.0), (0.15, 5.03))})
                  for first in (False, True) for _ in range(downtime.GANGS)]
        self.assertEqual([], downtime.missing(cases))
        self.assertEqual(["1 plain runs through Nova", "1 synchronized sets through Nova"],
                         downtime.missing([through_nova(cases[0], False), *cases[1:-1]]))
        self.assertEqual([f"{downtime.GANGS} synchronized sets through Nova on crowded processors"],
                         downtime.missing([c for c in cases if c.get("hosts_first") is not False]))


class TestRelayThroughput(base.BaseTestCase):
    def case(self, mode, source, destination=0.0, **more):
        return {"mode": mode, "raw_bytes": 10**9, "wall_seconds": 1.0, "wire_bytes": 10**8,
                "source_cpu_seconds": source, "destination_cpu_seconds": destination, **more}

    def test_the_slower_process_counts(self):
        told = relay_throughput.measured([
            self.case("dedup", 1.0, 2.0, profile="10 Gbit/s"),
            self.case("dedup-zstd", 1.25, 1.0, profile="10 Gbit/s"),
            self.case("dedup-zstd", 9.0, 1.0, profile="300 Mbit/s"),
            self.case("rival", 2.5), self.case("splice", 0.5), self.case("forwarder", 0.4),
            self.case("forwarder-direct", 0.3)])
        self.assertEqual(5e8, told["dedup_bytes_per_second"])
        self.assertEqual(2.0, told["dedup_zstd_vs_rival"])
        self.assertEqual((0.8, 0.6), (told["splice_vs_forwarder"],
                                      told["splice_vs_forwarder_direct"]))

    def test_memory_is_that_of_the_process_that_has_had_more(self):
        peaks = [{"source": 5, "destination": 7}, {"source": 8, "destination": 6}]
        told = relay_throughput.measured([
            self.case("dedup", 1.0, profile="10 Gbit/s", peak_memory_bytes=each)
            for each in peaks])
        self.assertEqual(8, told["peak_memory_bytes"])


class TestDrainTime(base.BaseTestCase):
    def case(self, way, seconds, moved=8, link=300, fleet="alike", whole=8):
        return {"fleet": fleet, "link_mbit": link, "way": way, "seconds": seconds,
                "moved": moved, "guests": 8, "whole": whole}

    def test_the_best_contender_on_the_goals_link(self):
        told = drain_time.measured([
            self.case("nova-serial", 80), self.case("nova-all", 40), self.case("project", 10),
            self.case("nova-all", 1, link=1000), self.case("qemu-all", 20)])
        self.assertEqual((0.25, 0.5), (told["alike_vs_best"], told["alike_vs_multifd_zstd"]))

    def test_relays_without_nova_are_held_to_plain_qemu_alone(self):
        told = drain_time.measured([
            self.case("nova-all", 80), self.case("qemu-serial", 20), self.case("qemu-all", 25),
            self.case("qemu-relay", 15), self.case("qemu-relay", 1, whole=7)])
        self.assertEqual(0.75, told["alike_relay_vs_multifd_zstd"])
        self.assertNotIn("alike_vs_best", told)
        self.assertNotIn("alike_vs_multifd_zstd", told)

    def test_who_did_not_move_all_is_no_contender(self):
        told = drain_time.measured([
            self.case("nova-all", 5, moved=7), self.case("nova-serial", 6, whole=7),
            self.case("nova-five", 50), self.case("project", 10)])
        self.assertEqual(0.2, told["alike_vs_best"])
        self.assertNotIn("alike_300_nova_all_seconds", told)

    def test_neither_fleet_may_be_slower_than_plain_qemu_with_multifd_and_zstd(self):
        told = contract.result("drain_time", drain_time.GOALS, [
            self.case(way, seconds, fleet=fleet) for fleet, mine in (("alike", 19), ("mixed", 21))
            for way, seconds in (("project", mine), ("qemu-all", 20), ("nova-all", 80),
                                 ("qemu-relay", mine))],
            drain_time.measured, missing=drain_time.missing)
        self.assertEqual({"alike_vs_best": "met", "mixed_vs_best": "met",
                          "alike_vs_multifd_zstd": "met", "mixed_vs_multifd_zstd": "missed",
                          "alike_relay_vs_multifd_zstd": "met",
                          "mixed_relay_vs_multifd_zstd": "missed"},
                         told["verdicts"])

    def test_it_is_whole_when_every_way_emptied_a_host_on_each_link(self):
        ways = (*drain_time.NOVA, "project", *drain_time.PLAIN)
        cases = [self.case(way, 10, fleet=fleet, link=link) for link in (300, 1000, 100)
                 for fleet in drain_time.FLEETS for way in ways]
        self.assertEqual([], drain_time.missing(cases))
        self.assertEqual(["alike 300 nova-two"], drain_time.missing(cases[1:]))
        self.assertEqual(["mixed 100 qemu-relay"], drain_time.missing(cases[:-1]))
        goals_link = [case for case in cases if case["link_mbit"] == 300]
        self.assertEqual(32, len(drain_time.missing(goals_link)))
        self.assertIn("mixed 1000 project", drain_time.missing(goals_link))


class TestInFlight(base.BaseTestCase):
    def case(self, way, median, most=9e6):
        return {"way": way, "bytes_median": median, "bytes_p90": 2 * median, "bytes_most": most,
                "send_buffer_bytes_median": 1e5, "link_queue_bytes_median": 2e5}

    def test_goals_are_for_the_median_of_the_runs(self):
        told = contract.result("in_flight", in_flight.GOALS, [
            *(self.case("relay", each) for each in (3e5, 7.5e5, 9e5)),
            self.case("plain", 15e5, most=2e6)], in_flight.measured)
        self.assertEqual(7.5e5, told["measured"]["relay_bytes_median"])
        self.assertEqual(0.020, told["measured"]["relay_seconds"])
        self.assertEqual(9e6, told["measured"]["relay_bytes_most"])
        self.assertEqual({"relay_bytes_median": "missed", "relay_vs_plain": "met"},
                         told["verdicts"])

    def test_without_the_other_nothing_is_compared(self):
        self.assertNotIn("relay_vs_plain", in_flight.measured([self.case("relay", 1e6)]))

    def test_what_it_writes_is_a_stream_with_rounds(self):
        pages = in_flight.PAGES
        whole = in_flight._head() + in_flight._section(0, pages) + in_flight._section(0, 3)
        parser, table = qemu_stream.QemuStream(), runs.Runs()
        at, end = 0, 0
        while end < len(whole):
            end = min(end + (1 << 20), len(whole))
            while (following := parser.parse(memoryview(whole), at, end, table)) > at:
                at = following
        self.assertEqual(len(whole), at)
        self.assertEqual(pages * 4096, parser.position.ram_bytes)
        self.assertEqual("later", parser.position.phase)
        found = [count for kind, _, count, _, _ in table.table.tolist() if kind != Run.VERBATIM]
        self.assertEqual(pages + 3, sum(found))
