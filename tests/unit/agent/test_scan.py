import collections

import fixtures
from oslotest import base

from nova_batch_migrate import privsep
from nova_batch_migrate.agent import guest_scan, memory, remembered, scan
from nova_batch_migrate.planning.telemetry import PageClasses
from tests.unit.agent.processes import PAGE, Guest


class Clock:
    """Time that passes by sleeping, and by reading at a set speed."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class ScanCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        # the tests may look into their own children without the privileged process
        privsep.memory_pctxt.set_client_mode(False)
        self.addCleanup(privsep.memory_pctxt.set_client_mode, True)
        self.clock = Clock()
        for module in ("scan", "comparing", "memory", "remembered"):
            self.useFixture(fixtures.MonkeyPatch(
                f"nova_batch_migrate.agent.{module}.time", self.clock))

    def measure(self, *guests, windows=(0.5, 2.0), page_budget=100_000, speed=1e9, **settings):
        return scan.measure("job", [guest.wanted() for guest in guests], list(windows),
                            {"seed": 7} | {"page_budget": page_budget,
                             "read_bytes_per_second": speed} | settings)

    def behind_first_looks(self, looks, action):
        """Let something happen when this many slices have been read."""
        done = []
        real_look = scan.ContentReader.look

        def look(this, guest, *which):
            found = real_look(this, guest, *which)
            done.append(which)
            if len(done) == looks:
                action()
            return found

        self.useFixture(fixtures.MonkeyPatch("nova_batch_migrate.agent.scan.ContentReader.look",
                                             look))


class TestContents(ScanCase):

    def test_counts_of_one_guest(self):
        guest = self.useFixture(Guest("memfd"))
        guest.write({0: 1, 1: 1, 2: 2, 600: 0, 601: 0, 602: 3})
        counts, = self.measure(guest)["servers"]
        self.assertEqual(
            {"id": guest.id, "total_pages": guest.pages, "present_pages": 6, "zero_pages": 2,
             "distinct_pages": 3, "self_duplicate_pages": 1, "tracked_share": 1.0},
            {name: counts[name] for name in ("id", "total_pages", "present_pages", "zero_pages",
                                             "distinct_pages", "self_duplicate_pages",
                                             "tracked_share")})

    def test_what_guests_have_in_common(self):
        one, two, three = (self.useFixture(Guest(kind))
                           for kind in ("anonymous", "memfd", "anonymous"))
        one.write({0: 1, 1: 2, 2: 3, 3: 0})
        two.write({900: 1, 901: 2, 902: 0})
        three.write({5: 1, 6: 4, 7: 4})
        found = PageClasses.from_dict(self.measure(one, two, three)["page_classes"])
        self.assertEqual(
            {frozenset({one.id}): 1, frozenset({three.id}): 1, frozenset({one.id, two.id}): 1,
             frozenset({one.id, two.id, three.id}): 1},
            {frozenset(entry.servers): entry.pages for entry in found.classes})
        self.assertTrue(found.exact)

    def test_beyond_the_budget_contents_are_sampled(self):
        guest = self.useFixture(Guest(pages=4096))
        guest.write({page: page + 1 for page in range(2000)})
        found = self.measure(guest, page_budget=1000)
        counts, = found["servers"]
        self.assertEqual((0.5, False), (found["page_classes"]["theta"],
                                        found["page_classes"]["exact"]))
        self.assertEqual(2000, counts["present_pages"])
        self.assertTrue(1800 < counts["distinct_pages"] <= 2000, counts)
        self.assertEqual(1.0, counts["tracked_share"])
        self.assertTrue(900 < found["page_classes"]["classes"][0]["pages"] < 1100)

    def test_compressibility_of_what_lies_still(self):
        guest = self.useFixture(Guest())
        guest.write({page: 5 for page in range(4)} | {520: 6})
        counts, = self.measure(guest)["servers"]
        self.assertTrue(0.3 < counts["compress_unchanged"] < 0.5, counts)
        self.assertIsNone(counts["compress_changed"])


class TestTime(ScanCase):

    def setUp(self):
        super().setUp()
        self.addCleanup(remembered.forget)

    def test_what_is_not_read_in_time_is_estimated_and_read_by_the_next_scan(self):
        small, large = self.useFixture(Guest()), self.useFixture(Guest(pages=24 * 512))
        small.write({page: 1 for page in range(512)})
        large.write({page: 2 for page in range(0, 24 * 512, 4)})
        # the time is enough for the small one
        found = self.measure(small, large, windows=(), seconds=2.0, reuse_seconds=60,
                             speed=PAGE * 400)
        one, two = found["servers"]
        self.assertEqual((True, False), (one["complete"], two["complete"]))
        self.assertEqual((512, 1), (one["present_pages"], one["distinct_pages"]))
        self.assertEqual(3072, two["present_pages"])
        self.assertEqual((two["present_pages"], None),
                         (two["distinct_pages"], two.get("sequence")))
        self.assertFalse(found["page_classes"]["exact"])
        self.assertIn(([large.id], two["distinct_pages"]),
                      [(entry["servers"], entry["pages"])
                       for entry in found["page_classes"]["classes"]])
        again = self.measure(small, large, windows=(), seconds=100.0, reuse_seconds=60,
                             speed=PAGE * 400)
        self.assertEqual([True, False], [each["reused"] for each in again["servers"]])
        self.assertEqual([True, True], [each["complete"] for each in again["servers"]])
        self.assertEqual((3072, 1), (again["servers"][1]["present_pages"],
                                     again["servers"][1]["distinct_pages"]))

    def test_what_is_read_once_makes_up_for_unused_time_and_looks_do_not(self):
        """A look that took less time than the one before would make windows of other lengths."""
        written = self.useFixture(Guest())
        written.write({page: 1 for page in range(512)})
        guest = guest_scan.Guest(written.id)
        guest.open(written.pid_file, [written.pages * PAGE])
        self.addCleanup(guest.close)
        reader = scan.ContentReader(7, memory.Pace(512 * PAGE))
        guest.collect(reader.zero, 1.0, 1.0)
        part, began = guest.memory.slices()[0], []
        self.clock.now += 0.25
        for read in (reader.look, reader.look, reader.read_contents, reader.look):
            read(guest, part)
            began.append(self.clock.now - 1000.25)
        self.assertEqual([0.0, 1.0, 2.0, 2.75], began)

    def test_a_host_too_large_is_compared_in_pieces_and_its_contents_are_read_once(self):
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.agent.comparing._WHOLE_BYTES", 0))
        guest = self.useFixture(Guest(pages=8 * 512))
        guest.write({page: page + 1 for page in range(0, 8 * 512, 2)})
        counts, = self.measure(guest, seconds=20.0, speed=PAGE * 4096)["servers"]
        self.assertEqual((True, 2048, 2048, 32), (
            counts["complete"], counts["present_pages"], counts["distinct_pages"],
            counts["slice_pages"]))
        self.assertEqual(3, len(counts["windows"]))
        self.assertTrue(0 < counts["tracked_share"] <= 1, counts)


class TestChanges(ScanCase):

    def change(self, guest, seeds, **measure):
        """Measure; write pages between the first look and the second."""
        self.behind_first_looks(len(range(0, guest.pages, memory.SLICE_PAGES)),
                                lambda: guest.write(seeds))
        counts, = self.measure(guest, **measure)["servers"]
        return counts

    def test_changed_pages_are_counted_in_every_window_that_saw_them(self):
        guest = self.useFixture(Guest())
        guest.write({page: page + 1 for page in range(100)})
        counts = self.change(guest, {0: 500, 1: 501, 2: 502, 800: 503, 99: 100})
        # page 99 was written with what it held; page 800 was a hole
        self.assertEqual([(0.5, 0), (1.5, 4), (2.0, 4)],
                         [(round(window["seconds"], 2), window["changed_pages"])
                          for window in counts["windows"]])
        self.assertGreater(counts["compress_changed"], 0.9)

    def test_pages_that_changed_in_every_gap_are_counted(self):
        guest = self.useFixture(Guest(pages=2 * memory.SLICE_PAGES))
        guest.write({page: 1 for page in range(40)})
        # behind every look: pages 0 to 4 again, others once
        for looks in range(1, 3):
            self.behind_first_looks(2 * looks, lambda seed=10 * looks: guest.write(
                {page: seed for page in range(5)} | {10 + seed: 2, 30: 3}))
        counts, = self.measure(guest)["servers"]
        self.assertEqual(5, counts["always"]["pages"])
        self.assertEqual([1.5, 0.5],
                         [round(gap, 2) for gap in counts["always"]["gaps_seconds"]])

    def test_one_gap_tells_of_no_page_that_always_changes(self):
        guest = self.useFixture(Guest())
        guest.write({0: 1})
        self.assertIsNone(self.change(guest, {0: 2}, windows=(1.0,))["always"])

    def looks(self):
        """Return a list that grows with every look: (number of the slice, pages)."""
        seen, real_look = [], scan.ContentReader.look

        def look(this, guest, part, pages):
            seen.append((part.first_page // memory.SLICE_PAGES, len(range(part.pages)[pages])))
            return real_look(this, guest, part, pages)

        self.useFixture(fixtures.MonkeyPatch("nova_batch_migrate.agent.scan.ContentReader.look",
                                             look))
        return seen

    def test_of_what_lies_still_a_few_pages_are_looked_at_again(self):
        guest = self.useFixture(Guest(pages=20 * memory.SLICE_PAGES))
        guest.write({page * memory.SLICE_PAGES: 1 for page in range(20)})
        looks = self.looks()
        self.behind_first_looks(20, lambda: guest.write({7 * memory.SLICE_PAGES: 2}))
        counts, = self.measure(guest)["servers"]
        again = collections.defaultdict(list)
        for number, pages in looks:
            again[number].append(pages)
        self.assertEqual([512, 512, 512], again.pop(7))
        self.assertEqual({(512, 512, 64)}, {tuple(pages) for pages in again.values()})
        self.assertEqual([(0.5, 0), (1.5, 1), (2.0, 1)],
                         [(round(window["seconds"], 2), window["changed_pages"])
                          for window in counts["windows"]])

    def test_they_count_for_all_of_their_slice(self):
        guest = self.useFixture(Guest(pages=6 * memory.SLICE_PAGES))
        guest.write({page: 1 for page in range(0, guest.pages, 4)})
        # slices that were alike at their second look are written behind it, as by a long copy
        self.behind_first_looks(12, lambda: guest.write(
            {page: 2 for page in range(2 * memory.SLICE_PAGES, 3 * memory.SLICE_PAGES + 100)}))
        counts, = self.measure(guest)["servers"]
        half, before, whole = counts["windows"]
        self.assertEqual((0, half["changed_pages"]),
                         (before["changed_pages"], whole["changed_pages"]))
        self.assertAlmostEqual(612, half["changed_pages"], delta=8)

    def test_a_hole_that_becomes_zeros_has_not_changed(self):
        guest = self.useFixture(Guest())
        guest.write({0: 1})
        counts = self.change(guest, {1: 0, 2: 0})
        self.assertEqual([0, 0, 0], [window["changed_pages"] for window in counts["windows"]])

    def test_windows_hold_per_page_whatever_the_size(self):
        """Reading the guest once takes three times the first window."""
        guest = self.useFixture(Guest(pages=30 * memory.SLICE_PAGES))
        guest.write({page: 1 for page in range(0, guest.pages, 2)})
        begun = self.clock.now
        counts, = self.measure(guest, speed=guest.pages / 2 * PAGE / 1.5)["servers"]
        self.assertGreater(self.clock.now - begun, 1.5 * 3)
        for window, wanted in zip(counts["windows"], (0.5, 1.5, 2.0), strict=True):
            self.assertAlmostEqual(wanted, window["seconds"], delta=0.06)

    def test_pauses_between_looks_are_used_to_read_on(self):
        guest = self.useFixture(Guest(pages=60 * memory.SLICE_PAGES))
        guest.write({page: page + 1 for page in range(0, guest.pages, 2)})
        begun = self.clock.now
        counts, = self.measure(guest, windows=(0.1, 4.0), seconds=8.0,
                               speed=guest.pages / 2 * PAGE / 3)["servers"]
        # three seconds of reading hide behind the window of four seconds
        self.assertLess(self.clock.now - begun, 5.6)
        self.assertTrue(counts["complete"])
        self.assertEqual((guest.pages // 2,) * 2,
                         (counts["present_pages"], counts["distinct_pages"]))
        self.assertTrue(0 < counts["tracked_share"] < 0.9, counts)
        for window, wanted in zip(counts["windows"], (0.1, 3.9, 4.0), strict=True):
            self.assertAlmostEqual(wanted, window["seconds"], delta=0.06)

    def test_a_host_too_large_is_read_on_in_every_pause(self):
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.agent.comparing._WHOLE_BYTES", 0))
        guest = self.useFixture(Guest(pages=60 * memory.SLICE_PAGES))
        guest.write({page: page + 1 for page in range(0, guest.pages, 2)})
        begun = self.clock.now
        counts, = self.measure(guest, windows=(0.1, 0.5, 2.0), seconds=8.0,
                               speed=guest.pages / 2 * PAGE / 2.5)["servers"]
        # first looks for 2.8 s, the last ones 2 s later: behind them, 2.5 s of reading make 7.3
        self.assertLess(self.clock.now - begun, 6.2)
        self.assertTrue(counts["complete"])
        self.assertEqual((guest.pages // 2,) * 2,
                         (counts["present_pages"], counts["distinct_pages"]))

    def test_a_slow_host_compares_a_part_and_reads_the_rest_once(self):
        guest = self.useFixture(Guest(pages=30 * memory.SLICE_PAGES))
        guest.write({page: 1 for page in range(0, guest.pages, 2)})
        counts, = self.measure(guest, speed=guest.pages / 2 * PAGE / 300)["servers"]
        self.assertEqual(guest.pages / 2, counts["present_pages"])
        self.assertTrue(0 < counts["tracked_share"] < 0.9, counts)


class TestFailures(ScanCase):

    def test_a_guest_that_ends_spoils_no_other(self):
        one, two = self.useFixture(Guest()), self.useFixture(Guest())
        one.write({0: 1})
        two.write({0: 1})
        self.behind_first_looks(6, one.end)
        first, second = self.measure(one, two)["servers"]
        self.assertEqual({"id", "error"}, set(first))
        self.assertIn("ended", first["error"])
        self.assertEqual((1, 3), (second["distinct_pages"], len(second["windows"])))

    def test_a_guest_without_process_has_an_error(self):
        guest = self.useFixture(Guest())
        wanted = guest.wanted() | {"pid_file": "/nowhere.pid"}
        found = scan.measure("job", [wanted], [0.1], {"seed": 7})
        self.assertIn("/nowhere.pid", found["servers"][0]["error"])
        self.assertEqual([], found["page_classes"]["classes"])

    def test_progress_counts_looks_and_ends_with_the_job(self):
        guest = self.useFixture(Guest())
        seen = []
        self.behind_first_looks(6, lambda: seen.append(scan.progress("job")))
        self.measure(guest)
        self.assertAlmostEqual(50 * 6 / 9, seen[0])
        self.assertEqual(0.0, scan.progress("job"))
