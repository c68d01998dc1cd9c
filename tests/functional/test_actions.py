"""Start, pause, resume, abort, replan and delete while servers move."""

from tests.functional import base


class Abort(base.BatchTestCase):
    """Three servers behind one another; the operator changes his mind during the first stream."""

    def setUp(self):
        super().setUp()
        self.first, = self.boot("first", memory_mib=256)
        self.rest = self.boot("second", "third", memory_mib=1024)
        self.hypervisors.hold()
        self.batch_id = self.drain(max_parallel=1)["id"]
        self.wait_for_stream(self.first)

    def assert_rest_untouched(self):
        self.assertEqual([self.first], self.hypervisors.moved_order())
        for server_id in self.rest:
            server = self.server(server_id)
            self.assertEqual(("ACTIVE", "cmpa"),
                             (server["status"], server["OS-EXT-SRV-ATTR:host"]))
            self.assertEqual("aborted", self.servers_of(self.batch_id)[server_id]["status"])

    def assert_source_enabled(self):
        service = self.compute_service("cmpa")
        self.assertEqual(("enabled", None), (service["status"], service["disabled_reason"]))

    def test_running_migrations_may_finish(self):
        self.assertEqual(202, self.act(self.batch_id, "abort", {"running": "finish"}).status)
        self.wait_for_batch(self.batch_id, "aborting")
        self.hypervisors.release()
        self.wait_for_batch(self.batch_id, "aborted")
        self.assertEqual("cmpb", self.host_of(self.first))
        self.assertEqual("completed", self.servers_of(self.batch_id)[self.first]["status"])
        self.assert_rest_untouched()
        self.assert_source_enabled()

    def test_running_migrations_are_aborted_and_nothing_stays_in_error(self):
        self.act(self.batch_id, "abort", {"running": "abort"})
        batch = self.wait_for_batch(self.batch_id, "aborted")
        server = self.server(self.first)
        self.assertEqual(("ACTIVE", "cmpa"),
                         (server["status"], server["OS-EXT-SRV-ATTR:host"]))
        # Nova 34 leaves such a server in ERROR; had it not, there was nothing to heal.
        self.assertTrue(self.servers_of(self.batch_id)[self.first]["healed"])
        self.assertIn("healed", self.kinds_of_events(batch["id"]))
        self.assertEqual([], self.hypervisors.domains_of("cmpb"))
        self.assert_rest_untouched()
        self.assert_source_enabled()

    def test_a_service_that_was_disabled_before_stays_disabled(self):
        self.act(self.batch_id, "abort", {"running": "finish"})
        self.hypervisors.release()
        self.wait_for_batch(self.batch_id, "aborted")
        service = self.compute_service("cmpa")
        self.api.put_service(service["id"], {"status": "disabled", "disabled_reason": "disk"})
        again = self.drain(plan_only=True)["id"]
        self.wait_for_batch(again, "planned")
        self.hypervisors.hold()
        self.act(again, "start")
        self.wait(self.hypervisors.running, "a stream to begin")
        self.act(again, "abort", {"running": "finish"})
        self.hypervisors.release()
        self.wait_for_batch(again, "aborted")
        service = self.compute_service("cmpa")
        self.assertEqual(("disabled", "disk"), (service["status"], service["disabled_reason"]))


class Pause(base.BatchTestCase):
    def test_nothing_new_starts_until_resume(self):
        first, = self.boot("first", memory_mib=256)
        second, = self.boot("second", memory_mib=1024)
        self.hypervisors.hold()
        batch_id = self.drain(max_parallel=1)["id"]
        self.wait_for_stream(first)
        self.assertEqual(202, self.act(batch_id, "pause").status)
        self.wait_for_batch(batch_id, "paused")
        self.hypervisors.release()
        self.wait(lambda: self.servers_of(batch_id)[first]["status"] == "completed",
                  "the first server to be completed")
        self.assertEqual("paused", self.batch(batch_id)["status"])
        self.assertEqual([first], self.hypervisors.moved_order())
        self.assertEqual("cmpa", self.host_of(second))
        self.assertEqual(202, self.act(batch_id, "resume").status)
        self.wait_for_batch(batch_id, "completed")
        self.assertEqual("cmpb", self.host_of(second))


class OtherActions(base.BatchTestCase):
    def test_a_planned_batch_can_be_aborted_or_planned_anew(self):
        self.boot("a")
        batch_id = self.drain(plan_only=True)["id"]
        self.wait_for_batch(batch_id, "planned")
        self.boot("late")
        self.assertEqual(202, self.act(batch_id, "replan").status)
        self.wait(lambda: len(self.batch(batch_id)["servers"]) == 2, "the late server to be seen")
        self.wait_for_batch(batch_id, "planned")
        self.act(batch_id, "abort")
        self.wait_for_batch(batch_id, "aborted")
        self.assertEqual([], self.hypervisors.streams)

    def test_an_action_that_does_not_fit_the_state_is_a_conflict_that_says_what_fits(self):
        batch_id = self.drain()["id"]
        self.wait_for_batch(batch_id, "completed")
        for action in ("start", "pause", "resume", "abort", "replan"):
            answer = self.act(batch_id, action)
            self.assertEqual(409, answer.status, (action, answer.body))
            self.assertIn("completed", answer.message)

    def test_delete_waits_for_the_end(self):
        server_id, = self.boot("a")
        self.hypervisors.hold()
        batch_id = self.drain()["id"]
        self.wait_for_stream(server_id)
        self.assertEqual(409, self.call("DELETE", f"/{batch_id}").status)
        self.hypervisors.release()
        self.wait_for_batch(batch_id, "completed")
        self.assertEqual(204, self.call("DELETE", f"/{batch_id}").status)
        self.assertEqual(404, self.call("GET", f"/{batch_id}").status)
