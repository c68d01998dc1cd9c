import numpy
from oslotest import base

from nova_batch_migrate.agent import confirm, fingerprint, memory
from nova_batch_migrate.planning import sketch as planning_sketch
from nova_batch_migrate.planning.telemetry import Sketch
from tests.unit.agent import processes
from tests.unit.agent.processes import PAGE, Guest

SEED = 7
KEY = bytes(range(32))


class ConfirmCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.reader = confirm.PageReader(memory.Buffer(), memory.Pace(1e12))
        self.random = numpy.random.default_rng(1)

    def open(self, guest, seeds, theta=1.0):
        """Return a guest's memory and the sample that a scan would have of these pages."""
        ram = memory.GuestMemory(guest.pid, [guest.pages * PAGE])
        self.addCleanup(ram.close)
        hashes = [fingerprint.hash_page(processes.content(seed), SEED) for seed in seeds.values()]
        return ram, fingerprint.Sample(numpy.array(list(seeds), dtype=numpy.uint32),
                                       numpy.array(hashes, dtype=numpy.uint64), 1.0).below(theta)


class TestCompare(ConfirmCase):

    def test_the_pairs_that_still_hold_are_counted(self):
        seeds = {page: page + 1 for page in range(20)}
        one, two = self.useFixture(Guest()), self.useFixture(Guest("memfd"))
        for guest in (one, two):
            guest.write(seeds)
        found = [self.open(guest, seeds) for guest in (one, two)]
        self.assertEqual({"pairs": 20, "held": 20},
                         confirm.compare(found, self.reader, self.random))
        # written, and given back to the host, since they were hashed
        two.write({3: 500, 4: 501, 5: processes.HOLE})
        self.assertEqual({"pairs": 20, "held": 17},
                         confirm.compare(found, self.reader, self.random))
        self.assertEqual(5, confirm.compare(found, self.reader, self.random, pairs=5)["pairs"])

    def test_pages_are_read_many_at_a_time_and_told_by_number(self):
        guest, other = self.useFixture(Guest()), self.useFixture(Guest())
        written = {page: page + 1 for page in range(0, 1020)}
        guest.write(written)
        guest.write({5: processes.HOLE, 600: processes.HOLE})
        ram, _ = self.open(guest, {0: 1})
        found = [(page, bytes(content)) for page, content in
                 self.reader.pages(ram, [*range(1019, -1, -1)])]
        self.assertEqual([(page, processes.content(page + 1)) for page in range(1019, -1, -1)
                          if page not in (5, 600)], found)
        gone, _ = self.open(other, {0: 1})
        other.end()
        self.assertEqual([], list(self.reader.pages(gone, [0, 1])))

    def test_a_guest_that_ended_holds_nothing(self):
        one, two = self.useFixture(Guest()), self.useFixture(Guest())
        for guest in (one, two):
            guest.write({0: 1})
        found = [self.open(guest, {0: 1}) for guest in (one, two)]
        two.end()
        self.assertEqual({"pairs": 1, "held": 0},
                         confirm.compare(found, self.reader, self.random))

    def test_without_anything_in_common_nothing_is_confirmed(self):
        one, two = self.useFixture(Guest()), self.useFixture(Guest())
        alone = self.open(one, {0: 1, 1: 1})
        self.assertIsNone(confirm.compare([alone], self.reader, self.random))
        self.assertIsNone(confirm.compare([alone, self.open(two, {0: 2})], self.reader,
                                          self.random))


class TestSketch(ConfirmCase):

    def sketch(self, *guests):
        return Sketch.from_dict(confirm.sketch(list(guests), self.reader, SEED, KEY, "day/1"))

    def test_hosts_are_compared_as_the_planner_does_also_at_unlike_shares(self):
        one, two = self.useFixture(Guest()), self.useFixture(Guest())
        first, second = ({page: page + 1 for page in range(400)},
                         {page: page + 201 for page in range(400)})
        one.write(first)
        two.write(second)
        whole = self.sketch(self.open(one, first))
        self.assertEqual((1.0, 400), (whole.theta, len(whole.identities)))
        part = self.sketch(self.open(two, second, theta=0.3))
        self.assertEqual(0.25, part.theta)
        found = planning_sketch.compare([whole, part])
        both = [fingerprint.hash_page(processes.content(seed), SEED) < 1 << 62
                for seed in range(201, 401)]
        self.assertEqual(4 * sum(both), found.intersection.pages)

    def test_pages_written_since_are_left_out(self):
        guest = self.useFixture(Guest())
        guest.write({0: 1, 1: 2})
        found = self.open(guest, {0: 1, 1: 2})
        guest.write({1: 3})
        self.assertEqual(1, len(self.sketch(found).identities))

    def test_another_key_names_contents_otherwise(self):
        content, selection = processes.content(1), (1 << 50) + 12345
        mine = confirm.identity(content, selection, KEY)
        self.assertNotEqual(mine, confirm.identity(content, selection, bytes(32)))
        # only the zero bits at the head of the selecting hash show
        self.assertEqual(mine, confirm.identity(content, (1 << 50) + 54321, KEY))
        self.assertEqual(51, mine.bit_length())
        self.assertEqual(0, confirm.identity(content, 0, KEY))

    def test_no_guest_has_no_sketch(self):
        self.assertIsNone(confirm.sketch([], self.reader, SEED, KEY, "day/1"))
