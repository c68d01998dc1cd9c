import threading
import time

import fixtures
from oslotest import base

from nova_batch_migrate.relay import switchover
from nova_batch_migrate.relay.switchover import Policy


class GangTest(base.BaseTestCase):
    def gang(self, members="ab", hold=30.0, pause=30.0, policy=Policy.TOGETHER,
             clock=time.monotonic):
        return switchover.Gang(frozenset(members), hold, pause, policy, clock)

    def started(self, call, *arguments):
        """Call in a thread; return the thread and the list its result goes to."""
        result = []
        thread = threading.Thread(target=lambda: result.append(call(*arguments)), daemon=True)
        thread.start()
        return thread, result

    def test_the_first_waits_running_until_all_are_there(self):
        gang = self.gang("abc")
        waiting = [self.started(gang.hold, name) for name in "ab"]
        time.sleep(0.05)
        self.assertTrue(all(thread.is_alive() for thread, _ in waiting))
        self.assertTrue(gang.hold("c"))
        for thread, result in waiting:
            thread.join(60)
            self.assertEqual([True], result)

    def test_the_conductor_is_told_how_far_it_is_and_why_it_was_called_off(self):
        gang = self.gang(hold=0.05)
        self.assertEqual({"members": ["a", "b"], "state": "gathering", "reason": None,
                          "failed": [], "left_out": [], "early": [], "over": False}, gang.as_dict())
        gang.hold("a")
        self.assertEqual(("called-off", "b did not come within 0.05 s"),
                         (gang.as_dict()["state"], gang.as_dict()["reason"]))
        gang = self.gang(policy=Policy.RELEASE)
        gang.failed("b", "it was reset")
        self.assertTrue(gang.hold("a"))
        gang.failed("a", "later")
        self.assertEqual(("released", ["a", "b"], ["b"]), tuple(
            gang.as_dict()[name] for name in ("state", "failed", "left_out")))

    def test_together_one_that_is_late_keeps_all_at_the_source(self):
        gang = self.gang(hold=0.05)
        self.assertFalse(gang.hold("a"))
        self.assertFalse(gang.hold("b"))

    def test_released_the_rest_goes_without_one_that_is_late(self):
        gang = self.gang("abc", hold=2.0, policy=Policy.RELEASE)
        waiting = [self.started(gang.hold, name) for name in "ab"]
        for thread, result in waiting:
            thread.join(60)
            self.assertEqual([True], result)
        self.assertFalse(gang.hold("c"))

    def test_a_member_that_fails_before_the_release_calls_it_off_or_is_left_out(self):
        for policy, goes in ((Policy.TOGETHER, False), (Policy.RELEASE, True)):
            gang = self.gang(policy=policy)
            thread, result = self.started(gang.hold, "a")
            gang.failed("b")
            thread.join(60)
            self.assertEqual([goes], result)

    def test_a_member_that_is_aborted_while_it_is_held_has_failed(self):
        for policy, goes in ((Policy.TOGETHER, False), (Policy.RELEASE, True)):
            gang = self.gang("abc", policy=policy)
            thread, result = self.started(gang.hold, "a")
            self.assertFalse(gang.hold("b", lambda: False))
            if policy is Policy.RELEASE:
                self.assertTrue(gang.hold("c"))
            thread.join(60)
            self.assertEqual([goes], result)

    def released(self, **changes):
        gang = self.gang(**changes)
        waiting, _ = self.started(gang.hold, "a")
        gang.hold("b")
        waiting.join(60)
        return gang

    def test_the_gate_opens_for_all_at_once_when_the_last_is_there(self):
        gang = self.released()
        gang.at_gate("a")
        passing = [self.started(gang.pass_gate) for _ in range(2)]
        time.sleep(0.3)
        self.assertTrue(all(thread.is_alive() for thread, _ in passing))
        self.assertIsNone(gang.opens_in())
        begun = time.monotonic()
        gang.at_gate("b")
        for thread, _ in passing:
            thread.join(60)
        self.assertGreaterEqual(time.monotonic() - begun, switchover.CLOSING_SECONDS)
        self.assertLessEqual(gang.opens_in(), 0)

    def test_who_lingers_hears_that_all_are_there_and_goes_when_it_opens(self):
        # long enough for a machine that has better things to do
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.relay.switchover.CLOSING_SECONDS", 6.0))
        gang = self.released()
        gang.at_gate("a")

        def lingers():
            gang.linger(120)
            return gang.opens_in()
        lingering, opened_in = self.started(lingers)
        time.sleep(0.05)
        self.assertTrue(lingering.is_alive())
        gang.at_gate("b")
        # at once: its pace is another one now
        lingering.join(60)
        self.assertGreater(opened_in[0], 0)
        begun = time.monotonic()
        gang.linger(0.05)
        self.assertGreaterEqual(time.monotonic() - begun, 0.05)
        begun = time.monotonic()
        gang.linger(120)
        self.assertLessEqual(gang.opens_in(), 0)
        # an open gate holds nobody
        gang.linger(120)
        self.assertLess(time.monotonic() - begun, 60)

    def test_a_member_that_fails_or_has_switched_over_opens_it(self):
        for what in (lambda gang: gang.failed("b"), lambda gang: gang.open_gate("b")):
            gang = self.released()
            gang.at_gate("a")
            passing, _ = self.started(gang.pass_gate)
            what(gang)
            passing.join(60)
            self.assertFalse(passing.is_alive())

    def test_it_is_over_when_all_were_let_go(self):
        gang = self.released()
        first, _ = self.started(gang.loaded, "a", list)
        self.assertFalse(gang.as_dict()["over"])
        gang.loaded("b", list)
        first.join(60)
        self.assertTrue(gang.as_dict()["over"])

    def test_who_does_not_wait_for_the_others_is_told(self):
        gang = self.released()
        gang.open_gate("b")
        self.assertEqual(["b"], gang.as_dict()["early"])
        # behind the gate everybody switches over
        gang.open_gate("a")
        self.assertEqual(["b"], gang.as_dict()["early"])
        gang = self.released(clock=lambda: 0.0)
        for each in "ab":
            gang.at_gate(each)
        self.assertGreater(gang.opens_in(), 0)
        gang.open_gate("a")
        self.assertEqual(["a"], gang.as_dict()["early"])

    def test_nobody_waits_at_the_gate_for_ever(self):
        now = [0.0]
        gang = switchover.Gang(frozenset("ab"), 30, 30, Policy.TOGETHER, lambda: now[0])
        waiting, _ = self.started(gang.hold, "a")
        gang.hold("b")
        waiting.join(60)
        gang.at_gate("a")
        passing, _ = self.started(gang.pass_gate)
        while passing.is_alive() and now[0] < 1000:
            passing.join(0.05)
            now[0] += 1.0
        # the clock may go on before the thread begins to wait
        self.assertTrue(20 < now[0] < 1000, now)

    def test_the_last_step_waits_until_every_destination_has_loaded(self):
        gang = self.gang()
        waiting, _ = self.started(gang.hold, "a")
        gang.hold("b")
        waiting.join(60)
        gone = []
        thread, _ = self.started(gang.loaded, "a", lambda: gone.append("a"))
        while "a" not in gang._loaded:
            time.sleep(0.01)
        self.assertEqual((True, []), (thread.is_alive(), gone))
        gang.loaded("b", lambda: gone.append("b"))
        # all of them by who comes last
        self.assertEqual(["a", "b"], gone)
        thread.join(60)
        self.assertEqual({"a", "b"}, gang.resumed_at.keys())

    def test_who_cannot_be_let_go_learns_of_it_himself(self):
        gang = self.released()
        gone = []

        def broken():
            raise BrokenPipeError("QEMU has gone")
        thread, result = self.started(self.assertRaises, BrokenPipeError, gang.loaded, "a", broken)
        gang.loaded("b", lambda: gone.append("b"))
        thread.join(60)
        self.assertEqual((["b"], 1), (gone, len(result)))

    def test_the_pause_is_bounded_and_a_failure_ends_it(self):
        for pause, fails in ((0.05, False), (30.0, True)):
            gang = self.gang(pause=pause)
            waiting, _ = self.started(gang.hold, "a")
            gang.hold("b")
            waiting.join(60)
            gone = []
            thread, _ = self.started(gang.loaded, "a", lambda gone=gone: gone.append("a"))
            if fails:
                gang.failed("b")
            thread.join(60)
            self.assertEqual((False, ["a"]), (thread.is_alive(), gone))
