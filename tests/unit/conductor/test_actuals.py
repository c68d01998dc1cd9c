from oslotest import base

from nova_batch_migrate.conductor import actuals
from tests.unit.conductor import build

JOB = {"elapsed_seconds": 10.5, "memory_transferred_bytes": 1000, "downtime_seconds": 0.06}
SEEN = {"elapsed_seconds": 9.0, "memory_processed_bytes": 900}


class ActualTest(base.BaseTestCase):
    def _actual(self, completed, seen, queued=0.0):
        return actuals.actual(build.ago(30), build.ago(15), build.NOW, queued, completed, seen)

    def test_three_parts_make_the_whole(self):
        done = self._actual(JOB, SEEN, queued=2.0)
        self.assertEqual((30.0, 17.0, 10.5, 2.5),
                         (done["actual_seconds"], done["queue_seconds"], done["stream_seconds"],
                          done["nova_seconds"]))
        self.assertEqual((1000, 0.06), (done["raw_bytes"], done["downtime_seconds"]))
        self.assertEqual(actuals.AT_DESTINATION, done["sources"]["stream"])

    def test_novas_seconds_before_the_stream_end_when_it_began(self):
        began = build.ago(13).isoformat()
        done = actuals.actual(build.ago(30), build.ago(15), build.NOW, 0.5, JOB, SEEN,
                              stream_began_at=began)
        self.assertEqual((4.0, 1.5, 0.5), (done["nova_seconds"], done["nova_before_seconds"],
                                           done["nova_queued_seconds"]))
        self.assertIsNone(self._actual(JOB, SEEN)["nova_before_seconds"])
        self.assertIsNone(self._actual(None, None)["nova_before_seconds"])

    def test_without_an_agent_at_the_destination_the_last_look_counts_and_is_named(self):
        done = self._actual(None, SEEN)
        self.assertEqual((9.0, 900, None), (done["stream_seconds"], done["raw_bytes"],
                                            done["downtime_seconds"]))
        self.assertEqual(actuals.LAST_SEEN, done["sources"]["stream"])

    def test_what_nobody_saw_is_not_guessed(self):
        done = self._actual(None, None)
        self.assertIsNone(done["stream_seconds"])
        self.assertIsNone(done["nova_seconds"])
        self.assertEqual(30.0, done["actual_seconds"])
