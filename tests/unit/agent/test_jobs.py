import threading

import fixtures
from oslotest import base

from nova_batch_migrate import exception, privsep
from nova_batch_migrate.agent import jobs

WINDOWS = [0.5, 2.0]
HOST = {"page_classes": {"exact": True, "theta": 1.0, "classes": [], "background": None}}


class JobsCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        privsep.memory_pctxt.set_client_mode(False)
        self.addCleanup(privsep.memory_pctxt.set_client_mode, True)
        self.may_end = threading.Event()
        self.addCleanup(self.may_end.set)
        self.running = []

    def measure(self, job, servers, windows_seconds, max_wait_seconds, seconds):
        self.running.append(job)
        self.may_end.wait(60)
        return [{"id": server} for server in servers], HOST

    def ended(self, held, job):
        """Return the first answer about a job that ended."""
        self.may_end.set()
        for thread in threading.enumerate():
            if thread.name == f"measure-{job}":
                thread.join(60)
        return held.get(job, 0)


class TestJobs(JobsCase):

    def test_a_job_runs_and_ends_with_its_results(self):
        held = jobs.Jobs(self.measure)
        job = held.start("batch", ["a", "b"], WINDOWS)
        self.assertEqual(("running", [], None, None), tuple(
            held.get(job, 0)[name] for name in ("state", "servers", "next_offset",
                                                "host")))
        self.assertEqual({"state": "done", "progress": 100, "error": None,
                          "servers": [{"id": "a"}, {"id": "b"}], "next_offset": None,
                          "host": HOST}, self.ended(held, job))

    def test_many_servers_come_in_chunks_and_the_classes_with_the_last(self):
        held = jobs.Jobs(self.measure)
        names = [f"server-{number}" for number in range(120)]
        job = held.start("batch", names, WINDOWS)
        self.ended(held, job)
        found, offset = [], 0
        while offset is not None:
            answer = held.get(job, offset)
            found += [server["id"] for server in answer["servers"]]
            self.assertLessEqual(len(answer["servers"]), 50)
            self.assertEqual(answer["next_offset"] is None, answer["host"] is not None)
            offset = answer["next_offset"]
        self.assertEqual(names, found)

    def test_the_same_question_while_it_runs_is_the_same_job(self):
        held = jobs.Jobs(self.measure)
        job = held.start("batch", ["a"], WINDOWS)
        self.assertEqual(job, held.start("batch", ["a"], WINDOWS))
        self.assertNotEqual(job, held.start("batch", ["a", "b"], WINDOWS))
        self.ended(held, job)
        self.assertNotEqual(job, held.start("batch", ["a"], WINDOWS))

    def test_one_measurement_runs_at_a_time(self):
        held = jobs.Jobs(self.measure)
        started = [held.start("batch", [name], WINDOWS) for name in "abc"]
        self.assertLessEqual(len(self.running), 1)
        for job in started:
            self.assertEqual("done", self.ended(held, job)["state"])
        self.assertEqual(set(started), set(self.running))

    def test_a_failure_is_told(self):
        def fail(job, servers, windows_seconds, max_wait_seconds, seconds):
            raise exception.AgentUnavailable("libvirt is gone")
        held = jobs.Jobs(fail)
        answer = self.ended(held, held.start("batch", ["a"], WINDOWS))
        self.assertEqual(("failed", "AgentUnavailable: libvirt is gone", 100),
                         (answer["state"], answer["error"], answer["progress"]))

    def test_jobs_are_forgotten_ten_minutes_after_their_end(self):
        now = [1000.0]
        self.useFixture(fixtures.MonkeyPatch("nova_batch_migrate.agent.jobs.time.monotonic",
                                             lambda: now[0]))
        held = jobs.Jobs(self.measure)
        job = held.start("batch", ["a"], WINDOWS)
        now[0] += 10_000
        self.assertEqual("running", held.get(job, 0)["state"])
        self.ended(held, job)
        now[0] += 599
        self.assertEqual("done", held.get(job, 0)["state"])
        now[0] += 2
        error = self.assertRaises(exception.AgentRefused, held.get, job, 0)
        self.assertIn("start the measurement again", str(error))

    def test_windows_without_length_are_refused(self):
        held = jobs.Jobs(self.measure)
        for windows in ([], [0.0, 1.0]):
            self.assertRaises(exception.AgentRefused, held.start, "batch", ["a"], windows)
