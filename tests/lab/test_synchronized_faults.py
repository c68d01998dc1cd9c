"""Two guests that are to move together on the real cloud, and one of them fails: both stay.

Run by tools/test lab on a lab that is up with its relays, with the guests of test_synchronized.
"""
import contextlib
import os
import signal
import threading
import time

from tests.lab import base, relays
from tests.lab.test_synchronized import TogetherTestCase

from nbmlab import check, drain, shell  # noqa: E402, isort: skip

#: [relay] hold_seconds of the lab.
HOLD_SECONDS = 10
#: On this one a stream lasts longer than it takes until its QEMU is struck.
SLOW_LINK_MIB_PER_SECOND = 6.0


class StruckTestCase(TogetherTestCase):
    """The QEMU that awaits one of the guests is struck by a signal."""

    def setUp(self):
        super().setUp()
        self.struck: set[int] = set()

    def messages(self, batch_id: str, kind: str) -> list[str]:
        return [event["message"] for event in drain.events(batch_id) if event["kind"] == kind]

    def strike(self, server_id: str, what: signal.Signals, times: int) -> None:
        """Send a signal to the QEMU that awaits the server, as often as one comes."""
        struck = self.struck
        end = time.monotonic() + 2 * base.BATCH_SECONDS
        while len(struck) < times and time.monotonic() < end:
            pid = self.arriving(server_id)
            if pid is not None and pid not in struck \
                    and self.sent(server_id) > relays.WELL_ON_ITS_WAY:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, what)
                    struck.add(pid)
            time.sleep(0.1)

    def striking(self, what: signal.Signals, times: int, victim: str = "together-b") -> None:
        """Strike a guest's QEMU at the destination in a thread of its own."""
        thread = threading.Thread(target=self.strike, args=(self.ids[victim], what, times),
                                  daemon=True)
        thread.start()
        self.addCleanup(thread.join)

    def together(self) -> str:
        self.link_at(SLOW_LINK_MIB_PER_SECOND)
        return self.request(synchronized=[self.members])


class CalledOffTestCase(StruckTestCase):
    def test_where_one_destination_fails_twice_all_stay_running(self):
        self.striking(signal.SIGKILL, 2)
        batch = self.ended(self.together(), "partial", 2 * base.BATCH_SECONDS)
        for server in batch["servers"]:
            self.assertEqual(("failed", 2), (server["status"], server["attempts"]),
                             (server, drain.events(batch["id"])))
            self.assertIn("it moves together with 1 others, or not", server["reason"])
        self.assert_all_at(self.source)
        self.assert_session_alive()

    def test_one_that_does_not_come_is_waited_for_no_longer_than_allowed(self):
        self.striking(signal.SIGSTOP, 1)
        begun = check.snapshot(sorted(self.ids.values()))
        batch_id = self.together()
        shell.wait_for("the end of the wait", base.BATCH_SECONDS,
                       lambda: self.messages(batch_id, "called-off"), every_seconds=0.5)
        self.assertIn(f"did not come within {HOLD_SECONDS} s",
                      self.messages(batch_id, "called-off")[0])
        for pid in self.struck:
            # so that libvirt can tell it to end
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.link_at(self.LINK_MIB_PER_SECOND)
        # held running: a guest that had stood still would have told nothing meanwhile
        for server_id, before in begun.items():
            self.assertGreater(check.last_tick(server_id).tick, before.tick + HOLD_SECONDS)
        self.all_moved(batch_id)
        self.assert_session_alive()
