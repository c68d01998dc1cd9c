"""Sets that move together on the real cloud, and a member fails that the others do not wait for.

With the policy *release* the rest goes without it; behind the release it is reported under either
policy. It runs on at the source, whole, and so do the others where they have gone.

Takes some four minutes, so tools/test leaves it out; on a lab that is up with its relays:
``python -m testtools.run tests.lab.released``. All guests that it finds are deleted first.
"""
import contextlib
import os
import signal

from tests.lab import base
from tests.lab.test_synchronized import TogetherTestCase
from tests.lab.test_synchronized_faults import StruckTestCase

from nbmlab import check, drain, guests, shell  # noqa: E402, isort: skip

#: On this one a switchover takes longer than it takes to strike its QEMU.
_SLOW_SWITCHOVER_MIB_PER_SECOND = 3.0


class ThreeTestCase(StruckTestCase):
    """Two guests that talk to each other, and a third one that fails."""

    MEMBERS = (*TogetherTestCase.MEMBERS, guests.Wanted("quick-web", "together-c"))
    #: On the slow link the last of three comes nine seconds behind the first one.
    RELAY_OPTIONS = ("hold_seconds = 20",)

    @classmethod
    def setUpClass(cls):
        cls.start_relays_with(*cls.RELAY_OPTIONS)
        super().setUpClass()

    def setUp(self):
        super().setUp()
        self.victim = self.ids["together-c"]
        self.told_before = self.relay_log_bytes()

    def assert_others_moved(self, batch: dict, reason: str) -> None:
        """The two have moved together, their session lives; the third was reported and stayed."""
        servers = {server["id"]: server for server in batch["servers"]}
        lost = servers.pop(self.victim)
        self.assertEqual(("failed", 1), (lost["status"], lost["attempts"]), lost)
        self.assertIn(reason, lost["reason"])
        self.assertEqual([lost["reason"]], self.messages(batch["id"], "failed"))
        self.assertEqual([], self.messages(batch["id"], "called-off"))
        for server in servers.values():
            self.assertEqual(("completed", 1), (server["status"], server["attempts"]), server)
            self.assertIsNotNone(server["relay"], server)
        for server_id in servers:
            self.assertTrue(any(f"{server_id} was held running" in line
                                for line in self.told_by_relay(self.told_before)), server_id)
        self.assert_all_at(self.destination, but={self.victim})
        self.assert_session_alive()


class ReleaseTest(ThreeTestCase):
    """[relay] switchover_policy is *release* on both hosts."""

    RELAY_OPTIONS = (*ThreeTestCase.RELAY_OPTIONS, "switchover_policy = release")

    def test_the_rest_goes_without_one_whose_destination_fails(self):
        self.striking(signal.SIGKILL, 1, "together-c")
        batch = self.ended(self.together(), "partial")
        self.assert_others_moved(batch, "its set goes without it")

    def test_the_rest_goes_without_one_that_is_late(self):
        self.striking(signal.SIGSTOP, 1, "together-c")
        begun = check.last_tick(self.victim)
        batch_id = self.together()
        others = {*self.ids.values()} - {self.victim}
        shell.wait_for("the others", base.BATCH_SECONDS, lambda: others == {
            server["id"] for server in drain.batch(batch_id)["servers"]
            if server["status"] == "completed"}, every_seconds=0.5)
        # its destination still stands still, and it runs on
        pid, = self.struck
        self.assertEqual(pid, self.arriving(self.victim))
        self.assertGreater(check.last_tick(self.victim).tick, begun.tick)
        os.kill(pid, signal.SIGCONT)
        self.assert_others_moved(self.ended(batch_id, "partial"), "its set goes without it")


class BehindTheReleaseTest(ThreeTestCase):
    def test_one_that_fails_behind_the_release_is_reported(self):
        """Its guest stands still, and its destination has not said that all is there."""
        batch_id = self.together()
        shell.wait_for("the release", base.BATCH_SECONDS, lambda: [
            gang for group in self.statistics()["groups"] for gang in group["synchronized"]
            if gang["state"] == "released"], every_seconds=0.02)
        pid = self.arriving(self.victim)
        self.link_at(_SLOW_SWITCHOVER_MIB_PER_SECOND)
        self.wait_for_standstill(self.victim)
        os.kill(pid, signal.SIGSTOP)
        try:
            # nobody has resumed it there, so nothing is lost with this QEMU
            self.assertEqual([], base.running_at(self.victim))
            os.kill(pid, signal.SIGKILL)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.link_at(0)
        self.assert_others_moved(self.ended(batch_id, "partial"),
                                 "it failed after its set had been let go together")
