import argparse
import io
import json
import types

import fixtures
import yaml
from osc_lib import exceptions

from nova_batch_migrate.osc import plugin
from nova_batch_migrate.osc.v1 import action, create, insight
from nova_batch_migrate.osc.v1 import batch as batch_commands
from tests.unit.osc import screen
from tests.unit.sdk import fakes

URL = f"{fakes.BATCHES}/{fakes.BATCH_ID}"
PLAN = fakes.plan([("s1", "web")], [("s2", fakes.HOSTILE)])
MOVED = fakes.server(
    "s1", "web", status="completed", destination="cmpb", projected_seconds=24.0,
    projected_stream_seconds=20.0, projected_queue_seconds=0.0, projected_nova_seconds=4.0,
    actual_seconds=25.0, actual_stream_seconds=21.0, actual_queue_seconds=0.0,
    actual_nova_seconds=4.0, wire_bytes=2**20, downtime_seconds=0.06,
)
STAYED = fakes.server("s2", fakes.HOSTILE, status="skipped", reason="It is locked.")


class CommandTestCase(fakes.ApiTestCase):
    def setUp(self):
        super().setUp()
        self.out, self.err = io.StringIO(), io.StringIO()
        self.useFixture(fixtures.MonkeyPatch("sys.stderr", self.err))
        self.slept = []
        self.sleep = self.slept.append

    def run_command(self, command, *arguments, out=None):
        client_manager = types.SimpleNamespace(
            sdk_connection=types.SimpleNamespace(compute=self.compute)
        )
        client_manager.batch_migrate = plugin.make_client(client_manager)
        app = types.SimpleNamespace(stdout=out or self.out, client_manager=client_manager)
        instance = command(app, None)
        instance.sleep = self.sleep
        return instance.run(instance.get_parser("openstack").parse_args(list(arguments)))

    def api_shows(self, *answers, plan=PLAN):
        """Let POST and GET answer these states of the batch, one after the other."""
        bodies = [
            {"json": {"batch_migration": fakes.batch(status, servers)}}
            for status, servers in answers
        ]
        self.http.post(fakes.BATCHES, status_code=202, **bodies[0])
        self.http.post(f"{URL}/action", status_code=202, **bodies[0])
        self.http.get(URL, [{**bodies[0]}, *bodies[1:]])
        if plan is None:
            self.http.get(f"{URL}/plan", status_code=404)
        else:
            self.http.get(f"{URL}/plan", json={"plan": plan})


class BatchMigrateTest(CommandTestCase):
    def test_every_option_reaches_its_field(self):
        self.api_shows(("accepted", []))

        self.assertEqual(0, self.run_command(
            create.BatchMigrate, "--host", "cmpa", "--host", "cmpd", "--target-host", "cmpb",
            "--exclude-host", "cmpc", "--strategy", "pair", "--max-parallel", "2",
            "--max-bandwidth", "100", "--include-locked", "--enable-after",
            "--not-before", "2026-11-23T22:00+02:00", "--dedup-scope", "off",
            "--fallback", "refuse", "--deadline", "2026-11-24T06:00+02:00",
            "--together", "a,b", "--together", "c,d", "--max-wait", "90", "--urgent",
        ))

        self.assertEqual({"batch_migration": {
            "hosts": ["cmpa", "cmpd"], "target_hosts": ["cmpb"], "exclude_hosts": ["cmpc"],
            "strategy": "pair", "max_parallel": 2, "max_bandwidth_mib_s": 100,
            "include_locked": True, "leave_disabled": False,
            "not_before": "2026-11-23T20:00:00Z", "dedup_scope": "off",
            "fallback": "refuse", "deadline": "2026-11-24T04:00:00Z",
            "synchronized": [["a", "b"], ["c", "d"]], "max_wait_seconds": 90, "urgent": True,
        }}, self.sent("POST")[0].json())

    def test_servers_instead_of_hosts(self):
        self.api_shows(("accepted", []))

        self.run_command(create.BatchMigrate, "--server", "web", "--server", "db")

        self.assertEqual(
            {"batch_migration": {"servers": ["web", "db"]}}, self.sent("POST")[0].json()
        )

    def test_what_makes_no_sense_is_refused_before_anything_is_sent(self):
        for arguments in (
            (), ("--host", "a", "--server", "b"), ("--host", "a", "--max-parallel", "0"),
            ("--host", "a", "--not-before", "soon"), ("--host", "a", "--strategy", "best"),
            ("--host", "a", "--enable-after", "--leave-disabled"),
        ):
            self.assertRaises(SystemExit, self.run_command, create.BatchMigrate, *arguments)
        self.assertEqual([], self.sent("POST"))

    def test_without_wait_the_batch_is_shown_as_accepted(self):
        self.api_shows(("accepted", []))

        self.assertEqual(0, self.run_command(
            create.BatchMigrate, "--host", "cmpa", "-f", "value", "-c", "id"
        ))

        self.assertEqual(fakes.BATCH_ID + "\n", self.out.getvalue())

    def test_wait_shows_plan_progress_and_report(self):
        waiting = MOVED | {"status": "waiting"}
        self.api_shows(
            ("measuring", [waiting]), ("running", [waiting, STAYED]),
            ("running", [MOVED | {"status": "migrating"}, STAYED]), ("partial", [MOVED, STAYED]),
        )

        self.assertEqual(0, self.run_command(create.BatchMigrate, "--host", "cmpa", "--wait"))

        shown = self.out.getvalue()
        for earlier, later in zip(
            ("measuring", "Plan (strategy group)", "web: migrating cmpa -> cmpb",
             "web: completed in 25.0 s", "1 of 2 moved"),
            ("Plan (strategy group)", "web: migrating cmpa -> cmpb", "web: completed in 25.0 s",
             "1 of 2 moved", "| status "), strict=True,
        ):
            self.assertIn(earlier, shown)
            self.assertLess(shown.index(earlier), shown.index(later))
        self.assertIn(fakes.HOSTILE_ESCAPED, shown)
        self.assertNotIn(fakes.HOSTILE, shown)
        self.assertEqual("", self.err.getvalue())

    def test_wait_fails_when_a_server_that_was_to_move_has_not(self):
        self.api_shows(
            ("running", [MOVED]),
            ("partial", [MOVED | {"status": "failed", "reason": "No valid host."}, STAYED]),
        )

        self.assertEqual(1, self.run_command(create.BatchMigrate, "--host", "cmpa", "--wait"))

        self.assertIn("No valid host.", self.out.getvalue())

    def test_wait_fails_when_the_batch_was_aborted(self):
        self.api_shows(("running", []), ("aborted", [STAYED]))

        self.assertEqual(1, self.run_command(create.BatchMigrate, "--host", "cmpa", "--wait"))

    def test_a_host_without_servers_is_done_at_once(self):
        self.api_shows(("completed", []), plan=None)

        self.assertEqual(0, self.run_command(create.BatchMigrate, "--host", "cmpa", "--wait"))

    def test_json_goes_to_stdout_alone(self):
        self.api_shows(("running", [MOVED, STAYED]), ("partial", [MOVED, STAYED]))

        self.assertEqual(0, self.run_command(
            create.BatchMigrate, "--host", "cmpa", "--wait", "-f", "json"
        ))

        shown = json.loads(self.out.getvalue())
        self.assertEqual("partial", shown["status"])
        self.assertEqual(
            [20.0, 0.0, 4.0, 21.0, 0.0, 4.0],
            [shown["servers"][0][f"{kind}_{part}_seconds"] for kind in ("projected", "actual")
             for part in ("stream", "queue", "nova")],
        )
        self.assertEqual(fakes.HOSTILE, shown["servers"][1]["name"])
        self.assertNotIn("\x1b", self.out.getvalue())
        self.assertIn("Plan (strategy group)", self.err.getvalue())
        self.assertNotIn("\x1b", self.err.getvalue())

    def test_on_a_terminal_the_view_is_live(self):
        terminal = self.useFixture(screen.Terminal(columns=120, rows=60))
        self.api_shows(
            ("measuring", []), ("running", [MOVED | {"status": "migrating"}, STAYED]),
            ("running", [MOVED, STAYED]), ("partial", [MOVED, STAYED]),
        )

        self.assertEqual(0, self.run_command(
            create.BatchMigrate, "--host", "cmpa", "--wait", out=terminal.stream
        ))

        rows = terminal.rows()
        self.assertEqual(1, sum(row.endswith(": running") for row in rows), rows)
        self.assertEqual(1, sum(row.startswith("Plan (strategy") for row in rows), rows)
        self.assertTrue(terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l"))

    def test_an_interrupt_ends_the_watching_and_says_what_goes_on(self):
        self.api_shows(("running", [MOVED | {"status": "migrating"}]))

        def sleep(seconds):
            self.slept.append(seconds)
            raise KeyboardInterrupt

        self.sleep = sleep

        self.assertEqual(1, self.run_command(create.BatchMigrate, "--host", "cmpa", "--wait"))

        self.assertEqual(1, len(self.slept))
        self.assertIn("goes on without you", self.out.getvalue())
        self.assertIn(
            f"openstack server batch migration abort {fakes.BATCH_ID}", self.out.getvalue()
        )

    def test_plan_only_shows_the_plan_and_how_to_run_it(self):
        self.api_shows(("measuring", []), ("planned", [MOVED | {"status": "pending"}]))

        self.assertEqual(0, self.run_command(
            create.BatchMigrate, "--host", "cmpa", "--plan-only"
        ))

        self.assertEqual(
            {"batch_migration": {"hosts": ["cmpa"], "plan_only": True}},
            self.sent("POST")[0].json(),
        )
        shown = self.out.getvalue()
        self.assertIn("Group 1 on cmpa", shown)
        self.assertIn("to move it: openstack server unlock s2", shown)
        self.assertIn(f"batch migration start --wait {fakes.BATCH_ID}", shown)

    def test_plan_only_in_json_holds_the_whole_plan(self):
        self.api_shows(("planned", []))

        self.run_command(create.BatchMigrate, "--host", "cmpa", "--plan-only", "-f", "json")

        self.assertEqual(PLAN, json.loads(self.out.getvalue())["plan"])

    def test_a_refusal_is_one_clear_and_harmless_line(self):
        self.http.post(
            fakes.BATCHES, status_code=409,
            headers={"Content-Type": "application/json", "x-openstack-request-id": "req-1"},
            json={"conflictingRequest": {"code": 409, "message": "busy: \x1b[2J"}},
        )

        error = self.assertRaises(
            exceptions.CommandError, self.run_command, create.BatchMigrate, "--host", "cmpa"
        )

        self.assertEqual(r"busy: \x1b[2J (HTTP 409, req-1)", str(error))


class BatchCommandsTest(CommandTestCase):
    def test_list_filters_and_limits(self):
        self.http.get(fakes.BATCHES, json={"batch_migrations": [
            fakes.batch("running"), fakes.batch("completed", id="other"),
        ]})

        self.run_command(
            batch_commands.ListBatchMigration, "--status", "running", "--host", "cmpa",
            "--marker", "m", "--limit", "1", "-f", "json",
        )

        self.assertEqual(
            {"status": ["running"], "host": ["cmpa"], "marker": ["m"], "limit": ["1"]},
            self.sent("GET")[0].qs,
        )
        self.assertEqual([{
            "id": fakes.BATCH_ID, "status": "running", "hosts": ["cmpa"],
            "servers_requested": None, "created_at": "2026-11-23T08:00:00Z", "started_at": None,
            "finished_at": None,
        }], json.loads(self.out.getvalue()))

    def test_a_list_of_many_names_is_cut_for_people_only(self):
        self.http.get(fakes.BATCHES, json={"batch_migrations": [
            fakes.batch("running", servers_requested=["a", "b", "c", "d\x1b[2J", "e"]),
        ]})

        self.run_command(batch_commands.ListBatchMigration)
        self.assertIn("| a, b, c and 2 more |", self.out.getvalue())

        self.out.truncate(self.out.seek(0))
        self.run_command(batch_commands.ListBatchMigration, "-f", "json")
        self.assertEqual(5, len(json.loads(self.out.getvalue())[0]["servers_requested"]))

    def test_show_prints_the_report_and_a_summary(self):
        self.api_shows(("partial", [MOVED, STAYED]))

        self.assertEqual(
            0, self.run_command(batch_commands.ShowBatchMigration, fakes.BATCH_ID)
        )

        self.assertIn("1 of 2 moved", self.out.getvalue())
        self.assertIn(fakes.HOSTILE_ESCAPED, self.out.getvalue())
        self.assertRegex(self.out.getvalue(), r"\| projected_seconds +\| 60.0 ")

    def test_show_wait_follows_to_the_end(self):
        self.api_shows(("running", [MOVED]), ("running", [MOVED]), ("completed", [MOVED]))

        self.assertEqual(
            0, self.run_command(batch_commands.ShowBatchMigration, "--wait", fakes.BATCH_ID)
        )

        self.assertIn("Plan (strategy group)", self.out.getvalue())

    def test_show_wait_does_not_wait_for_somebody_to_start_it(self):
        self.http.get(URL, [
            {"json": {"batch_migration": fakes.batch(status, [], plan_only=True)}}
            for status in ("measuring", "measuring", "planned")
        ])
        self.http.get(f"{URL}/plan", json={"plan": PLAN})

        self.assertEqual(
            0, self.run_command(batch_commands.ShowBatchMigration, "--wait", fakes.BATCH_ID)
        )

        self.assertIn("Group 1 on cmpa", self.out.getvalue())
        self.assertIn(f"batch migration start --wait {fakes.BATCH_ID}", self.out.getvalue())

    def test_yaml_and_value_hold_the_same(self):
        self.api_shows(("partial", [MOVED, STAYED]))

        self.run_command(batch_commands.ShowBatchMigration, fakes.BATCH_ID, "-f", "yaml")
        self.assertEqual(
            fakes.HOSTILE, yaml.safe_load(self.out.getvalue())["servers"][1]["name"]
        )

        self.run_command(
            batch_commands.ShowBatchMigration, fakes.BATCH_ID, "-f", "value", "-c", "servers"
        )
        self.assertNotIn("\x1b", self.out.getvalue())

    def test_delete_tries_all_and_fails_if_one_failed(self):
        self.http.delete(URL, status_code=204)
        self.http.delete(
            f"{fakes.BATCHES}/busy", status_code=409,
            headers={"Content-Type": "application/json"},
            json={"conflictingRequest": {"code": 409, "message": "It is running."}},
        )

        error = self.assertRaises(
            exceptions.CommandError, self.run_command, batch_commands.DeleteBatchMigration,
            "busy", fakes.BATCH_ID,
        )

        self.assertIn("1 of 2", str(error))
        self.assertEqual(2, len(self.sent("DELETE")))


class InsightTest(CommandTestCase):
    def test_the_plan_in_json_can_be_recomputed(self):
        self.api_shows(("planned", []))

        self.run_command(insight.ShowPlan, fakes.BATCH_ID, "-f", "json")

        self.assertEqual(PLAN, json.loads(self.out.getvalue()))

    def test_the_plan_for_people(self):
        self.api_shows(("planned", []))

        self.run_command(insight.ShowPlan, fakes.BATCH_ID)

        self.assertIn("Group 1 on cmpa", self.out.getvalue())
        self.assertNotIn(fakes.HOSTILE, self.out.getvalue())

    def test_commonality(self):
        chart = {
            "servers": [
                {"id": server_id, "name": name, "distinct_bytes": 2**20,
                 "self_duplicate_bytes": 0, "common_bytes": 2**19}
                for server_id, name in (("s1", "web"), ("s2", fakes.HOSTILE))
            ],
            "pairs": [{"a": "s1", "b": "s2", "bytes": 2**19, "share": 0.5,
                       "mapped_bytes": None, "portion_bytes": None}],
            "exact": True, "background_bytes": 0, "confirmation": None, "hosts": [],
            "host_pairs": [],
        }
        self.http.get(f"{URL}/commonality", json={"commonality": chart})

        self.run_command(insight.ShowCommonality, fakes.BATCH_ID)
        self.assertIn("50 %", self.out.getvalue())
        self.assertIn(fakes.HOSTILE_ESCAPED, self.out.getvalue())

        self.out.truncate(self.out.seek(0))
        self.run_command(insight.ShowCommonality, fakes.BATCH_ID, "-f", "json")
        self.assertEqual(chart, json.loads(self.out.getvalue()))

    def test_events_are_harmless_in_every_format(self):
        self.http.get(f"{URL}/events", json={"events": [{
            "id": 7, "created_at": "2026-11-23T08:00:00Z", "kind": "issued", "server_id": "s2",
            "message": fakes.HOSTILE, "request_id": "req-1",
        }]})

        for form in ("table", "value", "csv", "json", "yaml"):
            self.run_command(insight.ListEvents, fakes.BATCH_ID, "-f", form, "--marker", "6")
            self.assertNotIn("\x1b", self.out.getvalue(), form)
            self.assertNotIn("\u202e", self.out.getvalue(), form)
        self.assertEqual({"marker": ["6"]}, self.sent("GET")[0].qs)


class ActionTest(CommandTestCase):
    def test_each_command_sends_its_action(self):
        self.api_shows(("running", []))
        for command, body in (
            (action.StartBatchMigration, {"start": None}),
            (action.PauseBatchMigration, {"pause": None}),
            (action.ResumeBatchMigration, {"resume": None}),
            (action.ReplanBatchMigration, {"replan": None}),
            (action.AbortBatchMigration, {"abort": {"running": "finish"}}),
        ):
            self.assertEqual(0, self.run_command(command, fakes.BATCH_ID, "-f", "json"))
            self.assertEqual(body, self.sent("POST")[-1].json())

    def test_start_wait_follows_and_judges(self):
        planned = fakes.batch("planned", [MOVED], plan_only=True)
        ended = fakes.batch("partial", [MOVED | {"status": "failed"}], plan_only=True)
        self.http.post(f"{URL}/action", status_code=202, json={"batch_migration": planned})
        # The conductor may take a moment to begin.
        self.http.get(URL, [{"json": {"batch_migration": each}} for each in (planned, ended)])
        self.http.get(f"{URL}/plan", json={"plan": PLAN})

        self.assertEqual(
            1, self.run_command(action.StartBatchMigration, "--wait", fakes.BATCH_ID)
        )

    def test_abort_wait_is_content_with_an_aborted_batch(self):
        self.api_shows(("aborting", [MOVED]), ("aborted", [MOVED, STAYED]))

        self.assertEqual(0, self.run_command(
            action.AbortBatchMigration, "--running", "abort", "--wait", fakes.BATCH_ID
        ))

        self.assertEqual({"abort": {"running": "abort"}}, self.sent("POST")[0].json())


class PluginTest(CommandTestCase):
    def test_the_shell_finds_what_it_needs(self):
        parser = plugin.build_option_parser(argparse.ArgumentParser())

        options = parser.parse_args(["--os-batch-migrate-api-version", "1"])

        self.assertEqual("1", getattr(options, plugin.API_VERSION_OPTION))
        self.assertIn(plugin.DEFAULT_API_VERSION, plugin.API_VERSIONS)
        self.assertEqual("batch_migrate", plugin.API_NAME)
