import os
import pathlib

import ddt
import fixtures
import numpy
from oslotest import base

from nova_batch_migrate.agent import memory
from tests.unit.agent import processes
from tests.unit.agent.processes import PAGE, PAGES, Guest


def read_all(ram):
    """Return {page: bytes} of all present pages."""
    buffer = memoryview(bytearray(memory.SLICE_PAGES * PAGE))
    found, first = {}, 0
    for part in ram.slices():
        present, _ = ram.presence(part)
        size = ram.read(part, present, buffer)
        for index, page in enumerate(numpy.flatnonzero(present).tolist()):
            found[first + page] = bytes(buffer[index * PAGE:(index + 1) * PAGE])
        assert size == len(numpy.flatnonzero(present)) * PAGE
        first += part.pages
    return found


@ddt.ddt
class TestGuestMemory(base.BaseTestCase):

    def open(self, guest):
        ram = memory.GuestMemory(guest.pid, [guest.pages * PAGE])
        self.addCleanup(ram.close)
        return ram

    @ddt.data("anonymous", "memfd")
    def test_reads_the_present_pages_and_only_them(self, kind):
        guest = self.useFixture(Guest(kind))
        seeds = {0: 1, 1: 2, 7: 3, 511: 4, 512: 5, 700: 0, PAGES - 1: 6}
        guest.write(seeds)
        self.assertEqual({page: processes.content(seed) for page, seed in seeds.items()},
                         read_all(self.open(guest)))

    def test_reading_fills_no_hole_of_a_memfd(self):
        guest = self.useFixture(Guest("memfd"))
        guest.write({3: 1, 900: 2})
        before = guest.file_bytes()
        self.assertEqual(2, len(read_all(self.open(guest))))
        self.assertEqual((2 * PAGE, 2 * PAGE), (before, guest.file_bytes()))

    def test_slices_cover_ram_without_overlap(self):
        slices = self.open(self.useFixture(Guest())).slices()
        self.assertEqual([512, 512, 3], [part.pages for part in slices])
        self.assertEqual([512 * PAGE] * 2, numpy.diff([part.address for part in slices]).tolist())

    def test_a_guest_that_ended_is_an_error_and_not_zeros(self):
        guest = self.useFixture(Guest())
        guest.write({0: 1})
        ram = self.open(guest)
        guest.end()
        self.assertRaises(memory.GuestMemoryError, read_all, ram)

    def test_ram_of_another_size_is_not_guessed(self):
        guest = self.useFixture(Guest())
        error = self.assertRaises(memory.GuestMemoryError, memory.GuestMemory, guest.pid,
                                  [guest.pages * PAGE + PAGE])
        self.assertIn("0 found", str(error))

    def test_two_blocks_of_one_size_want_two_mappings(self):
        guest = self.useFixture(Guest())
        size = guest.pages * PAGE
        error = self.assertRaises(memory.GuestMemoryError, memory.find_ram, guest.pid,
                                  [size, size])
        self.assertIn(f"2 mapping(s) of {size} bytes wanted, 1 found", str(error))


class TestQemuPid(base.BaseTestCase):

    def test_finds_the_process_of_the_domain(self):
        guest = self.useFixture(Guest())
        self.assertEqual(guest.pid, memory.qemu_pid(guest.pid_file, guest.id))

    def test_another_domain_behind_the_file_is_refused(self):
        guest = self.useFixture(Guest())
        self.assertRaises(memory.GuestMemoryError, memory.qemu_pid, guest.pid_file,
                          "00000000-0000-0000-0000-000000000000")

    def test_a_stale_file_is_refused(self):
        path = os.path.join(self.useFixture(fixtures.TempDir()).path, "stale.pid")
        self.assertRaises(memory.GuestMemoryError, memory.qemu_pid, path, "x")
        pathlib.Path(path).write_text("not a number", encoding="ascii")
        self.assertRaises(memory.GuestMemoryError, memory.qemu_pid, path, "x")


class TestPace(base.BaseTestCase):

    def test_bytes_take_their_time_before_the_next_ones(self):
        naps, clock = [], [100.0]
        self.useFixture(fixtures.MonkeyPatch("time.monotonic", lambda: clock[0]))
        self.useFixture(fixtures.MonkeyPatch("time.sleep", naps.append))
        pace = memory.Pace(1000)
        pace.spend(500)
        pace.spend(2000)
        clock[0] += 3.0
        pace.spend(1)
        self.assertEqual([0.5], naps)
