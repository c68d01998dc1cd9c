from oslotest import base

from nova_batch_migrate.agent import feedback
from nova_batch_migrate.planning.telemetry import DirtyWindow


def job(elapsed_ms, iteration, rate):
    return {"time_elapsed": elapsed_ms, "memory_iteration": iteration, "memory_dirty_rate": rate}


class TestFeedback(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.now = 0.0
        self.seen = feedback.Feedback(lambda: self.now)

    def windows(self, *jobs):
        for counters in jobs:
            self.seen.note("a", counters)
        return [(window.seconds, window.changed_pages) for window in self.seen.windows("a")]

    def test_each_sync_is_a_window_of_touched_pages(self):
        # round 0 takes 13 s, in which 100 pages/s become dirty; the next round 2 s
        self.assertEqual([(13.0, 1300.0), (2.0, 500.0)], self.windows(
            job(500, 1, 0), job(6000, 1, 0), job(13000, 2, 100), job(14000, 2, 100),
            job(15000, 3, 250)))
        self.assertEqual("migration", self.seen.windows("a")[0].source)

    def test_syncs_that_nobody_saw_or_qemu_did_not_count_are_no_windows(self):
        # two syncs between two looks; then one within a second of the last count
        self.assertEqual([], self.windows(
            job(500, 1, 0), job(4000, 3, 100), job(4500, 4, 100)))

    def test_a_new_attempt_begins_anew(self):
        self.assertEqual([(5.0, 50.0)], self.windows(
            job(0, 1, 0), job(13000, 2, 100), job(100, 1, 0), job(5000, 2, 10)))

    def test_old_attempts_are_forgotten(self):
        self.windows(job(0, 1, 0), job(5000, 2, 10))
        self.now = feedback.KEEP_SECONDS - 1
        self.assertEqual([DirtyWindow(5.0, 50.0, "migration")], self.seen.windows("a"))
        self.now += 1
        self.assertEqual([], self.seen.windows("a"))

    def test_counters_that_libvirt_leaves_out_are_zeros(self):
        self.assertEqual([], self.windows({"time_elapsed": 7}))
