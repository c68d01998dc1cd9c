"""The check of guests on real guests: passes on a whole one, and fails on one whose memory was
touched.

Run by tools/test lab on a lab that is up; all guests that it finds are deleted first.
"""
from oslotest import base as oslo_base

from tests.lab import base, test_drain

from nbmlab import check, guests  # noqa: E402, isort: skip


class GuestCheckTestCase(base.LabTestCase):
    """One of the guests is moved; then one byte of it is changed from outside."""

    MEMBERS = test_drain.DrainTestCase.MEMBERS
    LINK_MIB_PER_SECOND = 0

    def test_a_changed_byte_is_found(self):
        touched = self.ids["lab-mid"]
        others = [server_id for server_id in self.ids.values() if server_id != touched]
        guest, = guests.named([touched])
        # nobody can use it any more
        self.addCleanup(guests.delete, [guest])
        guests.migrate(guest, self.destination)
        moved = check.verify({touched: self.ticks[touched]})
        self.assertTrue(moved[touched].alive, moved)
        self.assertTrue(moved[touched].memory_intact, moved)
        self.assertEqual(self.destination, self.hosts()[touched])

        before = check.snapshot([touched, *others])
        check.flip_byte(touched)
        after = check.verify(before)
        self.assertTrue(after[touched].alive, after)
        self.assertFalse(after[touched].memory_intact, after)
        self.assertIn("bad pages", after[touched].detail)
        self.assertTrue(all(after[server_id].alive and after[server_id].memory_intact
                            for server_id in others), after)


class JudgeTestCase(oslo_base.BaseTestCase):
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
