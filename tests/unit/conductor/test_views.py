from oslotest import base

from nova_batch_migrate.conductor import actuals, request, views
from tests.unit.conductor import build

PROJECTION = {"projected_seconds": 15.0, "stream_seconds": 10.0, "queue_seconds": 1.0,
              "nova_seconds": 4.0, "raw_bytes": 1000, "wire_bytes": 1000,
              "downtime_seconds": 0.05, "verdict": "converges", "interval_seconds": [14.0, 16.0]}


def server_row(**changes):
    row = dict.fromkeys((
        "reason", "certainty", "command", "migration_id", "next_attempt_at", "issued_at",
        "finished_at", "projection", "current_projection", "actual", "progress"))
    return row | {"server_id": "s1", "name": "web1", "project_id": "p", "source": "cmpa",
                  "destination": "cmpb", "status": "pending", "group_index": 0, "order_index": 0,
                  "memory_bytes": 1 << 28, "attempts": 0, "healed": False} | changes


def batch_row(**changes):
    return {"id": "b1", "status": "running", "user_id": "u", "project_id": "p", "error": None,
            "request": request.normalize({"hosts": ["cmpa"]}), "created_at": build.NOW,
            "updated_at": build.NOW, "started_at": build.ago(20), "finished_at": None,
            "state": {}} | changes


class ViewsTest(base.BaseTestCase):
    def test_progress_is_bytes_done_of_bytes_planned(self):
        rows = [
            server_row(status="completed", current_projection=PROJECTION),
            server_row(server_id="s2", status="migrating", issued_at=build.ago(5),
                       current_projection=PROJECTION,
                       progress={"job": {"memory_processed_bytes": 500,
                                         "bytes_per_second": 100}}),
            server_row(server_id="s3", current_projection=PROJECTION),
            server_row(server_id="s4", status="skipped"),
        ]
        shown = views.batch(batch_row(), rows, build.NOW)
        self.assertEqual(50, shown["progress"])
        self.assertEqual([100, 50, 0, 0], [s["progress"] for s in shown["servers"]])
        # half a stream and half of Nova's part make room, then one whole server
        self.assertEqual(5.0 + 2.0 + 14.0, shown["eta_seconds"])
        self.assertEqual(500, shown["raw_bytes"])

    def test_the_share_of_the_wire_is_shown_while_it_migrates(self):
        rows = [server_row(status="migrating", issued_at=build.NOW),
                server_row(server_id="s2", status="completed")]
        shown = views.batch(batch_row(state={"allocation": {"wire": {"s1": 900}}}), rows,
                            build.NOW)
        self.assertEqual([900, None],
                         [s["bandwidth_bytes_per_second"] for s in shown["servers"]])
        self.assertEqual(900, shown["bandwidth_bytes_per_second"])
        through = views.batch(batch_row(state={"allocation": {"wire": {"b1/cmpa/0/cmpb": 50}}}),
                              [rows[0], rows[0] | {"server_id": "s3"}], build.NOW)
        self.assertEqual(([50, 50], 50), (
            [s["bandwidth_bytes_per_second"] for s in through["servers"]],
            through["bandwidth_bytes_per_second"]))
        self.assertIsNone(views.batch(batch_row(), [], build.NOW)["bandwidth_bytes_per_second"])

    def test_what_relays_have_counted_is_shown_while_servers_migrate(self):
        counters = dict.fromkeys(actuals.SAVINGS, 5) | {
            "raw_bytes": 100, "wire_bytes": 30, "bytes_per_second": 3.0, "cpu_seconds": 0.25}
        group = counters | {"bytes_per_second": 7.0, "dictionary_bytes": 64, "cpu_seconds": 0.5,
                            "dictionary_fill_bytes": 32, "servers": {"s1": counters}}
        kept = {"relay_groups": {"cmpa/0": ["cmpb"]},
                "relay_figures": {"at": 0.0, "groups": {"b1/cmpa/0/cmpb": group}}}
        moving = server_row(status="migrating", issued_at=build.NOW,
                            progress={"job": {"memory_processed_bytes": 110}})
        rows = [moving, moving | {"server_id": "s2"},
                moving | {"progress": moving["progress"] | {"plain": True}}]
        shown = views.batch(batch_row(state=kept), rows, build.NOW)
        self.assertEqual([30, 110, 110], [each["wire_bytes"] for each in shown["servers"]])
        self.assertEqual([5, None, None], [each["relay"] and each["relay"]["delta_bytes"]
                                           for each in shown["servers"]])
        self.assertEqual((3.0, 0.25), tuple(shown["servers"][0]["relay"][name] for name in (
            "bytes_per_second", "cpu_seconds")))
        one, = shown["relay_groups"]
        self.assertEqual(("cmpa", 0, "cmpb", True, 100, 30, 7.0, 32, 0.5), tuple(
            one[name] for name in (
                "source", "group", "destination", "open", "raw_bytes", "wire_bytes",
                "bytes_per_second", "dictionary_fill_bytes", "cpu_seconds")))
        closed = views.batch(batch_row(state=kept | {"relay_groups": {}}), [], build.NOW)
        self.assertIs(False, closed["relay_groups"][0]["open"])

    def test_a_deadline_by_the_plan_then_by_the_clock(self):
        asked = batch_row()["request"] | {"deadline": build.ago(0).isoformat()}
        for changes, expected in (
                ({}, None), ({"met": False}, False),
                ({"met": False, "finished_at": build.ago(1)}, True),
                ({"met": True, "finished_at": build.ago(-1)}, False)):
            kept = {"told": {"deadline_met": changes.pop("met", None)}}
            shown = views.batch(batch_row(request=asked, state=kept, **changes), [], build.NOW)
            self.assertIs(expected, shown["deadline_met"])
            self.assertEqual("2026-11-23T02:00:00Z", shown["deadline"])
        self.assertIsNone(views.batch(batch_row(), [], build.NOW)["deadline_met"])

    def test_a_server_is_never_done_before_nova_says_so(self):
        row = server_row(status="migrating", current_projection=PROJECTION,
                         progress={"job": {"memory_processed_bytes": 5000,
                                           "bytes_per_second": 1}})
        self.assertEqual(99, views.server(row, build.NOW, build.NOW)["progress"])

    def test_projected_beside_actual(self):
        row = server_row(status="completed", projection=PROJECTION,
                         current_projection=PROJECTION | {"projected_seconds": 17.0},
                         actual={"actual_seconds": 15.5, "stream_seconds": 10.4,
                                 "queue_seconds": 1.1, "nova_seconds": 4.0, "raw_bytes": 1010,
                                 "wire_bytes": 1010, "downtime_seconds": 0.04, "sources": {}})
        shown = views.server(row, build.NOW, build.NOW)
        self.assertEqual((15.0, 17.0, 15.5), (shown["projected_seconds"],
                                              shown["current_projected_seconds"],
                                              shown["actual_seconds"]))
        for part in ("stream", "queue", "nova"):
            self.assertEqual(PROJECTION[f"{part}_seconds"], shown[f"projected_{part}_seconds"])
            self.assertIsNotNone(shown[f"actual_{part}_seconds"])

    def test_members_of_a_group_end_together_and_groups_one_after_another(self):
        moving = server_row(status="migrating", issued_at=build.ago(5),
                            current_projection=PROJECTION | {"queue_seconds": 0.0})
        waiting = server_row(server_id="s3", current_projection=PROJECTION | {
            "queue_seconds": 14.0})
        other = server_row(server_id="s4", group_index=1, current_projection=PROJECTION | {
            "queue_seconds": 0.0})
        elsewhere = server_row(server_id="s5", source="cmpc", group_index=2,
                               current_projection=PROJECTION)
        for rows, expected in (
                ([moving, moving | {"server_id": "s2"}], 9.0),
                ([moving, waiting], 14.0 - 5.0 + 14.0),
                ([moving, waiting, other], 14.0 - 5.0 + 14.0 + 14.0),
                ([moving, elsewhere], 15.0),
                # behind the plan: as soon as one that migrates is done
                ([moving, waiting | {"current_projection": PROJECTION | {"queue_seconds": 2.0}}],
                 9.0 + 14.0)):
            self.assertEqual(expected, views.batch(batch_row(), rows, build.NOW)["eta_seconds"])

    def test_no_eta_before_there_is_a_projection(self):
        self.assertIsNone(views.batch(batch_row(), [server_row()], build.NOW)["eta_seconds"])

    def test_times_are_utc_and_marked_so(self):
        shown = views.batch(batch_row(finished_at=build.NOW, status="completed"), [], build.NOW)
        self.assertEqual("2026-11-23T02:00:00Z", shown["finished_at"])
        self.assertEqual((20.0, 100, None), (shown["actual_seconds"], shown["progress"],
                                             shown["eta_seconds"]))
        self.assertNotIn("servers", views.batch(batch_row(), None, build.NOW))
