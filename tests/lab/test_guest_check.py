"""The check of guests on real guests: passes on a whole one, and fails on one whose memory was
touched.

Run by tools/test lab on a lab that is up; boots guests of its own and deletes them.
"""
import pathlib
import sys

from oslotest import base

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "lab"))

from nbmlab import check, guests  # noqa: E402


class GuestCheckTestCase(base.BaseTestCase):
    """Two guests are booted and moved; then one byte of one of them is changed from outside."""

    def setUp(self):
        super().setUp()
        # also those that a failed boot leaves behind
        self.addCleanup(lambda: guests.delete(
            [guest for guest in guests.listed() if guest.name.startswith("check-")]))
        self.guests = guests.boot([guests.Wanted("writer-mid", "check-touched", "cmpa"),
                                   guests.Wanted("web", "check-whole", "cmpa")])

    def test_a_changed_byte_is_found(self):
        touched, whole = sorted(self.guests, key=lambda guest: guest.name)
        before = check.snapshot([touched.id, whole.id])
        guests.migrate(touched, "cmpb")
        moved = check.verify(before)
        self.assertTrue(moved[touched.id].alive, moved)
        self.assertTrue(moved[touched.id].memory_intact, moved)
        self.assertEqual({"cmpb"}, {guest.host for guest in guests.named([touched.id])})

        before = check.snapshot([touched.id, whole.id])
        check.flip_byte(touched.id)
        after = check.verify(before)
        self.assertTrue(after[touched.id].alive, after)
        self.assertFalse(after[touched.id].memory_intact, after)
        self.assertIn("bad pages", after[touched.id].detail)
        self.assertTrue(after[whole.id].alive, after)
        self.assertTrue(after[whole.id].memory_intact, after)


class JudgeTestCase(base.BaseTestCase):
    """What a guest's lines are taken for; no cloud is asked."""

    def tick(self, tick, since=0, bad=0, boot_id="boot-1"):
        return check.Tick(tick, boot_id, 5.0 + tick, 0, since // 8, since, bad)

    def test_a_pass_that_began_after_the_move_is_waited_for(self):
        before, moved = self.tick(10), self.tick(20, since=8)
        self.assertIsNone(check.judge(before, moved, self.tick(24, since=21), late=False))
        verdict = check.judge(before, moved, self.tick(32, since=22), late=False)
        self.assertEqual((True, True), (verdict.alive, verdict.memory_intact))

    def test_a_guest_that_stands_still_is_not_alive(self):
        verdict = check.judge(self.tick(10), self.tick(10), self.tick(10), late=True)
        self.assertEqual((False, False), (verdict.alive, verdict.memory_intact))
        self.assertIn("stands still", verdict.detail)

    def test_a_mute_console_after_the_move_is_not_alive(self):
        verdict = check.judge(self.tick(10), None, None, late=True)
        self.assertEqual((False, False), (verdict.alive, verdict.memory_intact))

    def test_a_reset_guest_is_not_alive_however_it_ticks(self):
        newest = self.tick(90, since=80, boot_id="boot-2")
        verdict = check.judge(self.tick(10), newest, newest, late=False)
        self.assertEqual((False, False), (verdict.alive, verdict.memory_intact))
        self.assertIn("reset", verdict.detail)

    def test_one_bad_page_is_memory_that_is_not_intact(self):
        verdict = check.judge(self.tick(10), self.tick(20), self.tick(40, since=30, bad=1),
                              late=False)
        self.assertEqual((True, False), (verdict.alive, verdict.memory_intact))

    def test_without_a_whole_pass_memory_is_not_called_intact(self):
        verdict = check.judge(self.tick(10), self.tick(20), self.tick(40, since=18), late=True)
        self.assertEqual((True, False), (verdict.alive, verdict.memory_intact))
