import fixtures

from nova_batch_migrate.agent import remembered, scan
from tests.unit.agent.processes import Guest
from tests.unit.agent.test_scan import ScanCase


class TestReuse(ScanCase):

    def setUp(self):
        super().setUp()
        self.addCleanup(remembered.forget)

    def looks(self):
        """Return a list that grows with every slice that is read."""
        seen, real_look, real_read = [], scan.ContentReader.look, scan.ContentReader.read_contents
        for name, real in (("look", real_look), ("read_contents", real_read)):
            def read(this, guest, *which, real=real):
                seen.append(guest.id)
                return real(this, guest, *which)
            self.useFixture(fixtures.MonkeyPatch(
                f"nova_batch_migrate.agent.scan.ContentReader.{name}", read))
        return seen

    def test_young_contents_are_used_again_beside_new_guests(self):
        old, new = self.useFixture(Guest()), self.useFixture(Guest("memfd"))
        old.write({0: 1, 1: 2})
        new.write({5: 1})
        first, = self.measure(old, reuse_seconds=60)["servers"]
        seen = self.looks()
        found = self.measure(old, new, reuse_seconds=60)
        self.assertEqual({new.id}, set(seen))
        again, fresh = found["servers"]
        self.assertEqual((False, True, False),
                         (first["reused"], again["reused"], fresh["reused"]))
        self.assertEqual(first["windows"], again["windows"])
        self.assertEqual({frozenset({old.id}): 1, frozenset({old.id, new.id}): 1},
                         {frozenset(entry["servers"]): entry["pages"]
                          for entry in found["page_classes"]["classes"]})
        # numbers are those of one scan: both have the content that is in common
        self.assertEqual(([0, -1], [0]), (again["sequence"]["contents"],
                                          fresh["sequence"]["contents"]))
        self.assertEqual({"pairs": 1, "held": 1}, found["confirmation"])

    def test_the_same_guests_while_they_are_young_are_not_looked_at_at_all(self):
        one, two, three = (self.useFixture(Guest()) for _ in range(3))
        for at, guest in enumerate((one, two, three)):
            guest.write({0: 1, 1: 2 + at})
        first = self.measure(one, two, reuse_seconds=60, sketch_key="00" * 32, sketch_key_id="a")
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.agent.memory.GuestMemory.read", None))
        begun = self.clock.now
        again = self.measure(one, two, reuse_seconds=60, seconds=9.0, sketch_key="00" * 32,
                             sketch_key_id="a")
        self.assertEqual(begun, self.clock.now)
        self.assertEqual([True, True], [each["reused"] for each in again["servers"]])
        for found in (first, again):
            for each in found["servers"]:
                del each["reused"]
        self.assertEqual(first, again)
        # others beside them: what they have in common is counted anew
        self.assertRaises(TypeError, self.measure, one, two, three, reuse_seconds=60)

    def test_old_contents_another_key_and_another_process_are_read_anew(self):
        guest = self.useFixture(Guest())
        guest.write({0: 1})
        self.measure(guest, reuse_seconds=60)
        seen = self.looks()
        self.assertTrue(self.measure(guest, reuse_seconds=60)["servers"][0]["reused"])
        self.assertEqual([], seen)
        self.assertFalse(self.measure(guest, reuse_seconds=60, seed=8)["servers"][0]["reused"])
        self.clock.now += 61
        self.assertFalse(self.measure(guest, reuse_seconds=60)["servers"][0]["reused"])
        self.assertFalse(self.measure(guest)["servers"][0]["reused"])
        self.assertEqual(3 * 9, len(seen))

    def test_beyond_twice_the_budget_the_oldest_are_forgotten(self):
        guests = [self.useFixture(Guest()) for _ in range(3)]
        for at, guest in enumerate(guests):
            guest.write({page: 100 * at + page + 1 for page in range(10)})
            self.measure(guest, page_budget=12, reuse_seconds=60)
        self.assertEqual([False, True, True],
                         [remembered.known(guest.id) is not None for guest in guests])

    def test_what_is_an_hour_old_goes_when_another_comes(self):
        old, new = self.useFixture(Guest()), self.useFixture(Guest())
        for guest in (old, new):
            guest.write({0: 1})
            self.measure(guest)
            self.clock.now += 3601
        self.assertIsNone(remembered.known(old.id))
        self.assertIsNotNone(remembered.known(new.id))
