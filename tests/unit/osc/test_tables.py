from oslotest import base

from nova_batch_migrate.osc import tables
from nova_batch_migrate.sdk.batch_migration import BatchMigration
from tests.unit.sdk import fakes


class GridTest(base.BaseTestCase):
    def test_columns_are_aligned_by_what_a_terminal_shows(self):
        self.assertEqual(
            ["NAME     N  X", "データ   7  a", r"\n      12"],
            tables.grid(("NAME", "N", "X"), [("データ", 7, "a"), ("\n", 12, None)], right="N"),
        )


class PlanLinesTest(base.BaseTestCase):
    def test_a_plan_tells_groups_order_times_and_who_stays(self):
        plan = fakes.plan([("s1", "web"), ("s2", fakes.HOSTILE)], [("s3", "db")])

        self.assertEqual([
            "Plan (strategy group): 2 servers to move in 1 group, 1 to stay; projected 0:48, "
            "2.0 MiB on the wire",
            "Note: No discount for common content.",
            "",
            "Group 1 on cmpa: 0:48, 2.0 MiB, 0.5 MiB in common",
            "  most in common",
        ], tables.plan_lines(plan)[:5])
        header, first, second, *rest = tables.plan_lines(plan)[5:]
        self.assertEqual(
            ["1", "web", "cmpb", "24.0", "20-30", "20.0", "0.0", "4.0", "1.0", "MiB", "50", "ms",
             "converges"], first.split(),
        )
        self.assertIn(fakes.HOSTILE_ESCAPED, second)
        self.assertEqual([
            "", "Staying:", "  db on cmpa (certain): It is locked.",
            "    to move it: openstack server unlock s3",
        ], rest)

    def test_how_many_share_the_link_is_told(self):
        for fields, relay, told in (({"parallel": 4}, False, True), ({"parallel": 1}, False, False),
                                    ({}, False, False), ({"parallel": 4}, True, False),
                                    ({"parallel": 4, "synchronized": True}, False, False)):
            plan = fakes.plan([("s1", "web")], [])
            plan["groups"][0] |= fields
            plan["groups"][0]["members"][0]["projection"]["relay"] = relay
            self.assertEqual(told, ", 4 at once" in tables.plan_lines(plan)[3], fields)

    def test_what_was_learned_stands_beside_the_projection(self):
        plan = fakes.plan([("s1", "web")], []) | {"learned_seconds": 61.0}
        self.assertIn("projected 0:48 (1:01 if streams go as finished ones did), ",
                      tables.plan_lines(plan)[0])

    def test_an_empty_plan(self):
        self.assertEqual(2, len(tables.plan_lines(fakes.plan([]))))


class ReportLinesTest(base.BaseTestCase):
    def test_projected_stands_beside_actual_in_the_plans_order(self):
        moved = {
            "status": "completed", "destination": "cmpb", "projected_seconds": 24.0,
            "actual_seconds": 25.5, "projected_bytes": 2**22, "projected_wire_bytes": 2**20,
            "wire_bytes": 3 * 2**19, "downtime_seconds": 0.061,
        }
        batch = BatchMigration.existing(**fakes.batch("partial", [
            fakes.server("s3", "db", status="skipped", reason="It is locked.",
                         command="openstack server unlock s3"),
            fakes.server("s2", "b", group=1, order=0, **moved),
            fakes.server("s1", "a", group=0, order=1, **moved),
        ], actual_seconds=71.0))

        head, _, *rows = tables.report_lines(batch)

        self.assertEqual(
            f"Batch migration {fakes.BATCH_ID}: partial, 2 of 3 moved in 1:11 (projected 1:00)",
            head,
        )
        self.assertEqual(["a", "b", "db"], [row.split()[0] for row in rows])
        self.assertEqual(
            ["a", "completed", "cmpa", "cmpb", "24.0", "25.5", "1.0", "MiB", "1.5", "MiB", "61",
             "ms"], rows[0].split(),
        )
        self.assertTrue(
            rows[2].endswith("It is locked.; to move it: openstack server unlock s3"), rows[2]
        )

    def test_what_relays_made_of_the_streams_is_added_up(self):
        def carried(raw_mib, wire_mib, **relay):
            return {"raw_bytes": raw_mib << 20, "wire_bytes": wire_mib << 20, "relay": {
                "zero_bytes": 512 << 20, "self_duplicate_bytes": 8 << 20,
                "cross_server_bytes": 40 << 20, "delta_bytes": 4 << 20, "literal_bytes": 48 << 20,
                "compressed_bytes": 24 << 20} | relay}
        plain = {"raw_bytes": 100 << 20, "wire_bytes": 100 << 20, "relay": None}
        batch = BatchMigration.existing(**fakes.batch("completed", [
            fakes.server("s1", "a", **carried(100, 60, cpu_seconds=1.25, bytes_per_second=1e6)),
            fakes.server("s2", "b", **carried(100, 20, cpu_seconds=0.5, bytes_per_second=None)),
            fakes.server("s3", "c", **plain)]))
        self.assertEqual(
            "Relays: 200.0 MiB of streams crossed as 80.0 MiB (40 %): a server's own duplicates "
            "16.0 MiB, other servers' content 80.0 MiB, similar pages 8.0 MiB, compression "
            "48.0 MiB; 1.0 GiB of memory were zero pages; 1.8 s of a core at the source",
            tables.report_lines(batch)[-1])
        # of an older conductor, and without relays
        older = BatchMigration.existing(**fakes.batch("completed", [
            fakes.server("s1", "a", **carried(100, 60))]))
        self.assertTrue(tables.report_lines(older)[-1].endswith("were zero pages"))
        none = BatchMigration.existing(**fakes.batch("completed", [
            fakes.server("s3", "c", **plain)]))
        self.assertFalse(any("Relays" in line for line in tables.report_lines(none)))


class CommonalityLinesTest(base.BaseTestCase):
    def chart(self, count, exact=True):
        servers = [
            {"id": f"s{i}", "name": f"web-{i}", "distinct_bytes": 2**20,
             "self_duplicate_bytes": 0, "common_bytes": 2**19} for i in range(count)
        ]
        pairs = [
            {"a": f"s{a}", "b": f"s{b}", "bytes": (a + b) * 2**18, "share": 0.25,
             "mapped_bytes": None, "portion_bytes": None}
            for a in range(count) for b in range(a + 1, count)
        ]
        return {"servers": servers, "pairs": pairs, "exact": exact, "background_bytes": 0,
                "confirmation": None, "hosts": [], "host_pairs": []}

    def test_pairs_with_most_in_common_come_first(self):
        lines = tables.commonality_lines(self.chart(3))

        self.assertEqual("web-0    1.0 MiB          0.0 MiB              0.5 MiB", lines[1])
        self.assertEqual(["web-1", "web-2", "0.8", "MiB", "25", "%"], lines[6].split())
        self.assertEqual(3, len(lines[6:]))

    def test_many_pairs_are_cut_and_an_estimate_is_called_one(self):
        lines = tables.commonality_lines(self.chart(10, exact=False))

        self.assertEqual("... and 5 pairs with less; -f json has them all", lines[-2])
        self.assertEqual("Estimated from a sample of the contents.", lines[-1])

    def test_what_is_one_already_and_what_was_confirmed_is_said(self):
        chart = self.chart(2)
        chart["pairs"][0] |= {"mapped_bytes": 2**20, "portion_bytes": 2**21}
        chart["confirmation"] = {"pairs": 512, "held": 500}
        chart["host_pairs"] = [
            {"a": "cmpa", "b": "cmpb", "bytes": 2**22, "error_bytes": 2**20, "reason": None},
            {"a": "cmpa", "b": "cmpc", "bytes": None, "error_bytes": None,
             "reason": "measure again"}]

        lines = tables.commonality_lines(chart)
        self.assertEqual(["SERVER", "AND", "IN_COMMON", "SHARE_OF_SMALLER", "MAPPED_BY_BOTH",
                          "BLOCKS_BESIDE"], lines[4].split())
        self.assertEqual(["0.2", "MiB", "25", "%", "1.0", "MiB", "2.0", "MiB"],
                         lines[5].split()[2:])
        self.assertEqual(
            ["Over all pairs, 1.0 MiB are mapped by both already (KSM).",
             "Over all pairs, 2.0 MiB are blocks in common inside of other pages.",
             "cmpa and cmpb have 4.0 MiB in common (+- 1.0 MiB).",
             "cmpa and cmpc: what they have in common is not known: measure again",
             "500 of 512 pairs of pages compared byte by byte were still equal."], lines[-5:])

    def test_what_was_not_looked_for_has_no_column(self):
        self.assertNotIn("MAPPED", "".join(tables.commonality_lines(self.chart(3))))
