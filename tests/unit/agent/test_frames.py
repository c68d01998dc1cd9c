import os
import time

import fixtures
from oslotest import base

from nova_batch_migrate import privsep
from nova_batch_migrate.agent import frames, memory
from tests.unit.agent.processes import PAGE, PAGES, Guest


class TestMapped(base.BaseTestCase):
    """Guests that map one file of shared memory stand for those whose pages KSM has merged."""

    def setUp(self):
        super().setUp()
        privsep.frames_pctxt.set_client_mode(False)
        self.addCleanup(privsep.frames_pctxt.set_client_mode, True)
        self.path = os.path.join(self.useFixture(fixtures.TempDir(rootdir="/dev/shm")).path, "ram")
        with open(self.path, "wb") as shared:
            shared.truncate(PAGES * PAGE)

    def mapped(self, *guests, budget=1 << 30, read_bytes_per_second=1e12):
        found = frames.mapped([guest.wanted() for guest in guests], budget, read_bytes_per_second)
        if found is None:
            self.skipTest("frame numbers are hidden without CAP_SYS_ADMIN")
        return found, {frozenset(entry["servers"]): entry["pages"] for entry in found["classes"]}

    def test_frames_of_two_guests_are_counted_and_none_of_zeros(self):
        one, two = (self.useFixture(Guest(self.path)) for _ in range(2))
        alone = self.useFixture(Guest())
        alone.write({0: 1})
        for guest in (one, two):
            guest.write({0: 1, 1: 2, 2: 0})
        one.write({7: 8})
        found, classes = self.mapped(one, two, alone)
        self.assertEqual({frozenset({one.id, two.id}): 2}, classes)
        self.assertTrue(found["exact"])

    def test_beyond_the_budget_frames_are_sampled(self):
        one, two = (self.useFixture(Guest(self.path)) for _ in range(2))
        for guest in (one, two):
            guest.write({page: page + 1 for page in range(400)})
        found, classes = self.mapped(one, two, budget=PAGES)
        self.assertEqual((0.5, False), (found["theta"], found["exact"]))
        self.assertTrue(100 < classes[frozenset({one.id, two.id})] < 300, classes)

    def test_a_guest_that_is_gone_is_left_out(self):
        one, two, three = (self.useFixture(Guest(self.path)) for _ in range(3))
        for guest in (one, two, three):
            guest.write({0: 1})
        three.end()
        self.assertEqual({frozenset({one.id, two.id}): 1}, self.mapped(one, two, three)[1])

    def test_nobody_maps_nothing(self):
        self.assertEqual([], frames.mapped([], 1000, 1e9)["classes"])

    def test_reading_is_bounded_and_gives_way_to_guests(self):
        one, two = (self.useFixture(Guest(self.path)) for _ in range(2))
        for guest in (one, two):
            guest.write({page: page + 1 for page in range(100)})
        policies = []
        real = memory.GuestMemory.read

        def read(this, *arguments):
            policies.append(os.sched_getscheduler(0))
            return real(this, *arguments)
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.agent.memory.GuestMemory.read", read))
        begun = time.monotonic()
        _, classes = self.mapped(one, two, read_bytes_per_second=500 * PAGE)
        self.assertEqual([100], list(classes.values()))
        self.assertGreater(time.monotonic() - begun, 99 / 500)
        self.assertEqual({os.SCHED_IDLE}, set(policies))
