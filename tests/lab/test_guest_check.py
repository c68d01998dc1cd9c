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
        self.guests = guests.boot([guests.Wanted("writer-mid", "check-touched", "cmpa"),
                                   guests.Wanted("web", "check-whole", "cmpa")])
        self.addCleanup(guests.delete, self.guests)

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

    def test_a_guest_that_stands_still_or_was_reset_is_not_alive(self):
        guest = self.guests[0]
        before = check.snapshot([guest.id])[guest.id]
        self.assertFalse(check.judge(before, before, before, late=True).alive)
        other = check.dataclasses.replace(before, boot_id="another", tick=before.tick + 50)
        self.assertFalse(check.judge(before, before, other, late=False).alive)
