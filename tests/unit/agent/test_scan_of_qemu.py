"""Whole scans of real QEMUs whose guest is known to the page: qemus.boot_sector."""

import collections
import itertools
import os
import pathlib
import shutil
import subprocess

import fixtures
from oslotest import base

from nova_batch_migrate import privsep
from nova_batch_migrate.agent import frames, memory, remembered, scan
from nova_batch_migrate.planning import dirty_model
from nova_batch_migrate.planning.telemetry import DirtyWindow
from tests.unit.agent import machines, qemus
from tests.unit.agent.qemus import MIB, Qemu

PAGE = memory.PAGE_BYTES
SMALL = ["-machine", "pc", "-m", "96M"]
#: Firmware, BIOS and stack of a guest hold fewer pages than this.
FIRMWARE_PAGES = 400


class QemuCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        if qemus.BINARY is None:
            self.skipTest("no qemu-system-x86_64 here")
        for context in (privsep.memory_pctxt, privsep.frames_pctxt):
            context.set_client_mode(False)
            self.addCleanup(context.set_client_mode, True)
        self.addCleanup(remembered.forget)

    def boot(self, arguments, filled, sizes=(96,), stop=True, **numbers):
        """Return a QEMU whose guest has filled its pages, and its open RAM."""
        qemu = self.useFixture(Qemu(arguments, qemus.boot_sector(filled, **numbers)))
        ram = memory.GuestMemory(qemu.pid, [size * MIB for size in sizes])
        self.addCleanup(ram.close)
        qemu.run(ram, filled)
        if stop:
            qemu.execute("stop")
        return qemu, ram

    def scan(self, *qemus_, windows=(), sizes=(96,)):
        found = scan.measure("job", [each.wanted(*sizes) for each in qemus_], list(windows),
                             {"seed": 7})
        return found["servers"], found


class TestProgram(base.BaseTestCase):

    def test_it_is_its_source_assembled(self):
        if not shutil.which("as") or not shutil.which("ld"):
            self.skipTest("binutils are not installed")
        directory = self.useFixture(fixtures.TempDir()).path
        source = pathlib.Path(qemus.__file__).with_name("guest.S")
        parts, program = os.path.join(directory, "guest.o"), os.path.join(directory, "guest.bin")
        subprocess.run(["as", "--32", source, "-o", parts], check=True)
        subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary",
                        parts, "-o", program], check=True)
        self.assertEqual(pathlib.Path(program).read_bytes(), qemus.boot_sector(0))


class TestGuests(QemuCase):

    def test_a_guest_that_writes_at_a_known_rate(self):
        """At each of its ticks it writes 64 pages; how many it has written it tells itself."""
        qemu, ram = self.boot(SMALL, filled=16384, stop=False, written=16384, per_tick=64)
        wrote = collections.defaultdict(list)
        real_look = scan.ContentReader.look

        def look(this, guest, part, pages):
            before = qemus.written(ram, 16384)
            found = real_look(this, guest, part, pages)
            wrote[part.first_page].append((before, qemus.written(ram, 16384)))
            return found

        self.useFixture(fixtures.MonkeyPatch("nova_batch_migrate.agent.scan.ContentReader.look",
                                             look))
        (counts,), _ = self.scan(qemu, windows=(0.5, 2.0, 4.0))
        # 0, 2, 2.5 and 4 s after the first look at each, each of which takes its time
        looks = {page: each for page, each in wrote.items() if len(each) == 4}

        def changed(early, late):
            """Return the least and the most pages that were written between two looks at each."""
            return [sum(self.cycled(page - qemus.FIRST_PAGE, each[early][first],
                                    each[late][last]) for page, each in looks.items())
                    for first, last in ((1, 0), (0, 1))]
        wanted = sorted(changed(*pair) for pair in itertools.combinations(range(4), 2))
        found = sorted(window["changed_pages"] for window in counts["windows"])
        self.assertEqual(len(wanted), len(found))
        for (least, most), pages in zip(wanted, found, strict=True):
            self.assertTrue(0.95 * least - 2 * 64 <= pages <= 1.05 * most + 2 * 64,
                            (wanted, found))
        model = dirty_model.fit([DirtyWindow(each["seconds"], each["changed_pages"],
                                             "content-diff") for each in counts["windows"]],
                                counts["total_pages"])
        rates = [each["changed_pages"] / each["seconds"] for each in counts["windows"]]
        # on a busy machine a guest writes in bursts, which short windows show
        self.assertTrue(0.5 * min(rates) < model.rate_pages_per_second < 2 * max(rates),
                        (model, rates))
        self.assertTrue(16384 <= counts["distinct_pages"] < 16384 + FIRMWARE_PAGES, counts)

    @staticmethod
    def cycled(page, before, after):
        """Return how many of a slice's pages, from one on, a cycle over 16,384 writes meanwhile.

        ``before`` and ``after``: how often it had written to a page.
        """
        begin, end = before % 16384, before % 16384 + min(after - before, 16384)
        low, high = max(0, page), min(16384, page + memory.SLICE_PAGES)
        return sum(max(0, min(end, high + turn) - max(begin, low + turn)) for turn in (0, 16384))

    def test_two_alike_have_all_that_the_program_filled_in_common(self):
        one, two = (self.boot(SMALL, filled=4096)[0] for _ in range(2))
        other, _ = self.boot(SMALL, filled=1000)
        _, found = self.scan(one, two, other)
        classes = {frozenset(entry["servers"]): entry["pages"]
                   for entry in found["page_classes"]["classes"]}
        # its pages hold the same numbers, from 1 to 1000
        self.assertTrue(1000 <= classes[frozenset({one.id, two.id, other.id})] < 1400, classes)
        self.assertTrue(3096 <= classes[frozenset({one.id, two.id})] < 3196, classes)
        self.assertEqual(found["confirmation"]["pairs"], found["confirmation"]["held"])

    def test_a_qemu_that_ends_while_it_is_read_spoils_no_other(self):
        one, _ = self.boot(SMALL, filled=4096)
        two, _ = self.boot(SMALL, filled=4096)
        read = []
        real_look = scan.ContentReader.look

        def look(this, guest, *which):
            read.append(guest.id)
            if read.count(one.id) == 5 and one.pid is not None:
                one.end()
                one.pid = None
            return real_look(this, guest, *which)

        self.useFixture(fixtures.MonkeyPatch("nova_batch_migrate.agent.scan.ContentReader.look",
                                             look))
        (gone, stays), _ = self.scan(one, two, windows=(0.1, 0.5))
        self.assertEqual({"id", "error"}, set(gone))
        self.assertTrue(stays["complete"])
        self.assertGreaterEqual(stays["distinct_pages"], 4096)

    def test_what_a_balloon_took_is_not_read_and_does_not_come_back(self):
        arguments = [*SMALL, "-device", "virtio-balloon-pci"]
        qemu, ram = self.boot(arguments, filled=8192, stop=False, ballooned=4096)
        given = [ram.stretch(qemus.FIRST_PAGE + page, 512) for page in range(0, 4096, 512)]
        qemus.wait_for(lambda: not any(ram.presence(part)[0].any() for part in given))
        qemu.execute("stop")
        (counts,), _ = self.scan(qemu, windows=(0.1, 0.5))
        self.assertTrue(4096 <= counts["distinct_pages"] < 4096 + FIRMWARE_PAGES, counts)
        self.assertEqual(counts["present_pages"], qemus.present_pages(ram))

    def test_huge_pages_are_read_where_they_are_and_no_other_is_taken(self):
        huge = machines.set_up(self, machines.HugePages(48))
        arguments = ["-machine", "pc,memory-backend=m", "-m", "96M", "-object",
                     "memory-backend-memfd,id=m,size=96M,share=on,hugetlb=on,hugetlbsize=2M"]
        qemu, ram = self.boot(arguments, filled=4096)
        free = huge.free()
        (counts,), _ = self.scan(qemu, windows=(0.1, 0.5))
        self.assertEqual(free, huge.free())
        self.assertEqual((0, 0), (counts["present_pages"] % 512, counts["swapped_pages"]))
        self.assertEqual(counts["present_pages"], qemus.present_pages(ram))
        self.assertTrue(4096 <= counts["distinct_pages"] < 4096 + FIRMWARE_PAGES, counts)

    def test_pages_in_swap_are_counted_and_left_there(self):
        swap = machines.set_up(self, machines.Swap())
        qemu, ram = self.boot(SMALL, filled=4096)
        block, = ram.blocks
        begin = block.address + qemus.FIRST_PAGE * PAGE
        swap.push_out(qemu.pid, begin, 2048 * PAGE)
        before = qemus.present_pages(ram)
        (counts,), found = self.scan(qemu, windows=(0.1, 0.5))
        # what was dirty under write-back a moment ago may stay
        self.assertTrue(1900 <= counts["swapped_pages"] <= 2048, counts)
        self.assertEqual(before, qemus.present_pages(ram))
        self.assertEqual(counts["present_pages"], before + counts["swapped_pages"])
        self.assertEqual([qemu.id], [server for entry in found["page_classes"]["classes"]
                                     for server in entry["servers"]])

    def test_pages_of_a_memfd_in_swap_are_counted_and_left_there(self):
        swap = machines.set_up(self, machines.Swap())
        arguments = ["-machine", "pc,memory-backend=m", "-m", "96M",
                     "-object", "memory-backend-memfd,id=m,size=96M,share=on"]
        qemu, ram = self.boot(arguments, filled=4096)
        block, = ram.blocks
        swap.push_out(qemu.pid, block.address + qemus.FIRST_PAGE * PAGE, 2048 * PAGE)
        before = qemus.present_pages(ram)
        (counts,), _ = self.scan(qemu, windows=(0.1, 0.5))
        self.assertTrue(1900 <= counts["swapped_pages"] <= 2048, counts)
        self.assertEqual(before, qemus.present_pages(ram))


class TestMergedPages(QemuCase):

    def test_frames_that_ksm_merged_are_a_lower_bound_without_zeros(self):
        ksm = machines.set_up(self, machines.MergedPages())
        # all of RAM is present: some 6,000 pages of zeros in each
        arguments = ["-machine", "pc,memory-backend=m,mem-merge=on", "-m", "96M",
                     "-object", "memory-backend-ram,id=m,size=96M,merge=on,prealloc=on"]
        one, two = (self.boot(arguments, filled=18000)[0] for _ in range(2))
        apart, _ = self.boot(["-machine", "pc,memory-backend=m,mem-merge=off", "-m", "96M",
                              "-object", "memory-backend-ram,id=m,size=96M,merge=off"],
                             filled=4096)
        ksm.merge(one.pid, two.pid)
        mapped = frames.mapped([each.wanted(96) for each in (one, two, apart)], 1 << 30,
                               1e12)
        if mapped is None:
            self.skipTest("frame numbers are hidden without CAP_SYS_ADMIN")
        _, found = self.scan(one, two, apart)
        identical = sum(entry["pages"] for entry in found["page_classes"]["classes"]
                        if {one.id, two.id} <= set(entry["servers"]))
        entry, = mapped["classes"]
        self.assertEqual({one.id, two.id}, set(entry["servers"]))
        self.assertTrue(mapped["exact"])
        self.assertTrue(0.9 * identical <= entry["pages"] <= identical, (entry, identical))
