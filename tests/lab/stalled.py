"""A guest whose destination stalls, on the real cloud: the others of its group arrive meanwhile.

Takes a minute, so tools/test leaves it out; on a lab that is up with its relays:
``python -m testtools.run tests.lab.stalled``. All guests that it finds are deleted first.
"""
import contextlib
import os
import signal

from tests.lab import relays

from nbmlab import check, drain, shell  # noqa: E402, isort: skip


class StalledTest(relays.RelayTestCase):
    def test_one_destination_stalls_and_the_others_arrive(self):
        batch_id = self.begin()
        victim, pid = self.strike_first(signal.SIGSTOP)
        try:
            shell.wait_for("the others", relays.BATCH_SECONDS, lambda: self.arrived(batch_id)
                           == {*self.ids.values()} - {victim}, every_seconds=0.5)
            # it is still in the middle, its guest running on
            self.assertEqual(pid, self.arriving(victim))
            seen = check.last_tick(victim)
            self.assertLess(self.ticks[victim].tick, seen.tick)
            shell.wait_for("a tick of the guest", 10,
                           lambda: check.last_tick(victim).tick > seen.tick)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        for server in self.finished(batch_id).values():
            self.assertEqual(1, server["attempts"], server)
            self.assertIsNotNone(server["relay"], server)

    @staticmethod
    def arrived(batch_id: str) -> set[str]:
        return {server["id"] for server in drain.batch(batch_id)["servers"]
                if server["status"] == "completed"}
