import os
import pathlib

import ddt
import fixtures
import numpy
from oslotest import base

from nova_batch_migrate.agent import memory
from tests.unit.agent import machines, processes, qemus
from tests.unit.agent.processes import PAGE, PAGES, Guest


def read_all(ram):
    """Return {page: bytes} of all present pages."""
    buffer = memory.Buffer()
    found, first = {}, 0
    for part in ram.slices():
        present, _ = ram.presence(part)
        size = ram.read(part, present, buffer)
        for index, page in enumerate(numpy.flatnonzero(present).tolist()):
            found[first + page] = bytes(buffer.view[index * PAGE:(index + 1) * PAGE])
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

    def test_what_a_balloon_gave_back_is_a_hole(self):
        for kind in ("anonymous", "memfd"):
            guest = self.useFixture(Guest(kind))
            guest.write({3: 1, 4: 2, 5: 3})
            guest.write({4: processes.HOLE})
            self.assertEqual({3, 5}, set(read_all(self.open(guest))), kind)

    def test_what_the_file_holds_beyond_the_mapped_pages_is_known(self):
        guest = self.useFixture(Guest("memfd"))
        guest.write({0: 1, 1: 2})
        # another process (vhost-user) writes to the shared memory
        with open(f"/proc/{guest.pid}/fd/{guest.fd}", "r+b") as shared:
            shared.seek(7 * PAGE)
            shared.write(processes.content(3))
        ram = self.open(guest)
        self.assertEqual({0, 1}, set(read_all(ram)))
        self.assertEqual((3, 2), (ram.file_pages(), ram.resident_pages()))
        self.assertEqual(0, self.open(self.useFixture(Guest())).file_pages())

    def test_pages_of_hugetlbfs(self):
        machines.set_up(self, machines.HugePages(4))
        guest = self.useFixture(Guest("hugetlb", pages=4 * 512))
        guest.write({0: 1, 513: 2})
        found = read_all(self.open(guest))
        self.assertEqual(set(range(1024)), set(found))
        self.assertEqual((processes.content(1), processes.content(2)), (found[0], found[513]))
        self.assertEqual(1024 * PAGE, guest.file_bytes())

    def test_pages_in_swap_are_left_there(self):
        machines.set_up(self, machines.Swap())
        guest = self.useFixture(Guest())
        guest.write({page: page + 1 for page in range(20)})
        ram = self.open(guest)

        def are_gone():
            # what another core has not handed to the kernel's lists yet stays at first
            guest.write(dict.fromkeys(range(10), processes.SWAP))
            return not ram.presence(ram.stretch(0, 10))[0].any()
        qemus.wait_for(are_gone)
        present, swapped = ram.presence(ram.slices()[0])
        self.assertEqual((10, 10), (numpy.count_nonzero(present), numpy.count_nonzero(swapped)))
        self.assertEqual(set(range(10, 20)), set(read_all(ram)))
        self.assertEqual(10, numpy.count_nonzero(ram.presence(ram.slices()[0])[1]))

    def test_a_page_is_found_by_its_number_in_all_blocks(self):
        ram = self.open(self.useFixture(Guest()))
        ram.blocks = [memory.Block(1 << 30, 2 * PAGE), memory.Block(1 << 32, 3 * PAGE)]
        self.assertEqual([1 << 30, (1 << 30) + PAGE, 1 << 32, (1 << 32) + 2 * PAGE],
                         [ram.page_address(page) for page in (0, 1, 2, 4)])
        self.assertRaises(memory.GuestMemoryError, ram.page_address, 5)
        self.assertEqual([(1 << 30, 2, 0), (1 << 32, 2, 2), ((1 << 32) + 2 * PAGE, 1, 4)],
                         [(part.address, part.pages, part.first_page) for part in ram.slices(2)])

    @ddt.data("anonymous", "memfd")
    def test_pages_are_read_by_number_where_they_are_present(self, kind):
        guest = self.useFixture(Guest(kind))
        guest.write({3: 1, 700: 2, 4: 3})
        guest.write({4: processes.HOLE})
        before, buffer = guest.file_bytes() if kind == "memfd" else 0, memory.Buffer()
        ram = self.open(guest)
        self.assertEqual([True, False, True, False], ram.read_pages([700, 4, 3, 9], buffer))
        self.assertEqual(processes.content(2) + processes.content(1), bytes(buffer.view[:2 * PAGE]))
        self.assertEqual([False], ram.read_pages([4], buffer))
        self.assertEqual(before, guest.file_bytes() if kind == "memfd" else 0)
        guest.end()
        self.assertRaises(memory.GuestMemoryError, ram.read_pages, [3], buffer)
        self.assertRaises(memory.GuestMemoryError, ram.read_pages, [4], buffer)

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

    def test_time_that_nobody_used_is_made_up_for_where_that_is_asked_for(self):
        naps, clock = [], [100.0]

        def sleep(seconds):
            naps.append(seconds)
            clock[0] += seconds
        self.useFixture(fixtures.MonkeyPatch("time.monotonic", lambda: clock[0]))
        self.useFixture(fixtures.MonkeyPatch("time.sleep", sleep))
        pace = memory.Pace(1000)
        clock[0] += 0.25
        # others take their time, and what was left before stays
        pace.spend(125)
        pace.spend(125)
        self.assertEqual([0.125], naps)
        pace.spend(250, makes_up=True)
        self.assertEqual([0.125, 0.125], naps)
        pace.spend(250, makes_up=True)
        pace.spend(250, makes_up=True)
        self.assertEqual([0.125, 0.125, 0.25], naps)
        # half a second's worth at most, however long nothing was read
        clock[0] += 100
        for _ in range(4):
            pace.spend(250, makes_up=True)
        self.assertEqual([0.125, 0.125, 0.25, 0.25], naps)
