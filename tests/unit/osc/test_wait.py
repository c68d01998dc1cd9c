import requests
from openstack import exceptions

from nova_batch_migrate.osc import wait
from nova_batch_migrate.sdk.batch_migration import BatchMigration
from tests.unit.sdk import fakes

URL = f"{fakes.BATCHES}/{fakes.BATCH_ID}"


class _View:
    def __init__(self):
        self.seen = []

    @staticmethod
    def interval_seconds(batch):
        return 5.0

    def show(self, batch):
        self.seen.append(batch.status)

    def notice(self, message):
        self.seen.append(message)

    def close(self):
        self.seen.append("closed")


class WatchTest(fakes.ApiTestCase):
    def setUp(self):
        super().setUp()
        self.view = _View()
        self.slept = []
        self.watch = wait.Watch(self.compute, self.view, sleep=self.slept.append)
        self.batch = BatchMigration.existing(id=fakes.BATCH_ID)

    def answers(self, *answers):
        self.http.get(URL, [
            answer if isinstance(answer, dict)
            else {"json": {"batch_migration": fakes.batch(answer, [])}}
            for answer in answers
        ])

    def test_it_shows_every_state_until_the_wanted_one(self):
        self.answers("measuring", "planned", "running", "completed")

        batch = self.watch.until(self.batch, wait.FINAL)

        self.assertEqual("completed", batch.status)
        self.assertEqual(
            ["measuring", "planned", "running", "completed", "closed"], self.view.seen
        )
        self.assertEqual([5.0, 5.0, 5.0], self.slept)

    def test_a_lost_connection_is_waited_out_with_growing_pauses(self):
        lost = {"exc": requests.exceptions.ConnectionError("refused")}
        hung = {"exc": requests.exceptions.ReadTimeout("slow")}
        no_conductor = {
            "status_code": 503, "headers": {"Content-Type": "application/json"},
            "json": {"serviceUnavailable": {"code": 503, "message": "No conductor."}},
        }
        self.answers("running", lost, hung, no_conductor, lost, lost, lost, lost, "completed")

        batch = self.watch.until(self.batch, wait.FINAL)

        self.assertEqual("completed", batch.status)
        self.assertEqual([5.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0], self.slept)
        self.assertIn("the batch migration goes on. Asking again in 1 s.", self.view.seen[1])
        self.assertIn("(No conductor.)", self.view.seen[3])

    def test_a_refusal_is_not_waited_out(self):
        self.answers({"status_code": 404})

        self.assertRaises(
            exceptions.NotFoundException, self.watch.until, self.batch, wait.FINAL
        )

        self.assertEqual(([], ["closed"]), (self.slept, self.view.seen))

    def test_a_batch_that_had_nothing_to_move_has_no_plan(self):
        self.http.get(f"{URL}/plan", status_code=404)

        self.assertIsNone(self.watch.plan(self.batch))

    def test_people_are_not_sent_the_telemetry_behind_a_plan(self):
        self.http.get(f"{URL}/plan", json={"plan": {"groups": []}})

        for whole, query in ((False, {"request": ["false"]}), (True, {})):
            self.assertEqual({"groups": []}, self.watch.plan(self.batch, whole=whole))
            self.assertEqual(query, self.http.last_request.qs)


class UnmovedTest(fakes.ApiTestCase):
    def left(self, servers, first_plan, last_plan):
        batch = BatchMigration.existing(**fakes.batch("partial", servers))
        return [server["id"] for server in wait.unmoved(batch, first_plan, last_plan)]

    def test_those_the_plan_named_as_staying_do_not_count(self):
        plan = fakes.plan([("s1", "web")], [("s2", "db")])

        self.assertEqual([], self.left([
            fakes.server("s1", status="completed"), fakes.server("s2", status="skipped"),
        ], plan, plan))

    def test_everything_else_that_is_not_completed_counts(self):
        plan = fakes.plan([("s1", "web"), ("s2", "db")])
        for status in ("failed", "aborted", "skipped", "pending", "migrating"):
            self.assertEqual(["s2"], self.left([
                fakes.server("s1", status="completed"), fakes.server("s2", status=status),
            ], plan, plan))

    def test_what_the_first_plan_promised_is_not_excused_by_a_later_one(self):
        first = fakes.plan([("s1", "web")])
        later = fakes.plan([], [("s1", "web")])

        self.assertEqual(
            ["s1"], self.left([fakes.server("s1", status="skipped")], first, later)
        )

    def test_an_arrival_that_a_later_plan_named_as_staying_does_not_count(self):
        first = fakes.plan([("s1", "web")])
        later = fakes.plan([], [("s9", "new")])

        self.assertEqual([], self.left([
            fakes.server("s1", status="completed"), fakes.server("s9", status="skipped"),
        ], first, later))

    def test_a_host_without_servers_leaves_nothing(self):
        self.assertEqual([], self.left([], None, None))
