import collections

import fixtures
import numpy
from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate.agent import fingerprint, memory
from nova_batch_migrate.planning.telemetry import PageClasses
from tests.unit.agent.processes import PAGE, Guest, content

SEED = 7

hashes = strategies.sets(strategies.integers(1, 40), max_size=40)
servers = strategies.dictionaries(strategies.sampled_from("abcdefg"), hashes, min_size=1)


def arrays(contents):
    return {server: numpy.array(sorted(held), dtype=numpy.uint64)
            for server, held in contents.items()}


def as_sets(found):
    return {frozenset(entry["servers"]): entry["pages"] for entry in found["classes"]}


def brute_force(contents):
    """Count, content by content, who holds it."""
    holders = collections.defaultdict(set)
    for server, held in contents.items():
        for item in held:
            holders[item].add(server)
    return dict(collections.Counter(frozenset(who) for who in holders.values()))


class TestHashing(base.BaseTestCase):

    def test_equal_pages_and_only_they_have_equal_hashes(self):
        pages = content(1) + content(2) + content(1) + bytes(PAGE)
        found = fingerprint.Hasher(memoryview(pages), SEED).hash(4)
        self.assertEqual(found[0], found[2])
        self.assertEqual(3, len(set(found.tolist())))
        self.assertEqual(fingerprint.zero_hash(SEED), int(found[3]))

    @settings(deadline=None)
    @given(strategies.integers(0, (1 << 64) - 1), strategies.integers(0, 1000))
    def test_the_extension_hashes_as_the_package_does(self, seed, number):
        if fingerprint._speed is None:
            self.skipTest("the extension module was not built")
        pages = content(number) + content(number + 1)
        expected = [fingerprint.hash_page(pages[:PAGE], seed),
                    fingerprint.hash_page(pages[PAGE:], seed)]
        self.assertEqual(expected, fingerprint.Hasher(memoryview(pages), seed).hash(2).tolist())
        # with registers of every width that the processor has
        for widest in (8, 32, 64):
            found = numpy.zeros(2, dtype=numpy.uint64)
            fingerprint._speed.hash_pages(pages, seed, found, widest)
            self.assertEqual(expected, found.tolist(), widest)

    def test_without_the_extension_hashes_are_the_same(self):
        pages = memoryview(content(1) + content(2) + bytes(PAGE))
        found = fingerprint.Hasher(pages, SEED).hash(3).tolist()
        self.useFixture(fixtures.MonkeyPatch("nova_batch_migrate.agent.fingerprint._speed", None))
        self.assertEqual(found, fingerprint.Hasher(pages, SEED).hash(3).tolist())

    def test_pages_of_a_process_with_the_extension_and_without(self):
        guest = self.useFixture(Guest())
        # every other page is a run of its own, then one run of more than is read in one step
        seeds = {page: page for page in [*range(0, 200, 2), *range(300, 400)]}
        guest.write(seeds)
        ram, buffer = memory.GuestMemory(guest.pid, [guest.pages * PAGE]), memory.Buffer()
        self.addCleanup(ram.close)
        part = ram.slices()[0]
        present, _ = ram.presence(part)
        expected = [fingerprint.hash_page(content(seeds[page]), SEED) if page in seeds else 5
                    for page in range(part.pages)]
        packed = b"".join(content(seeds[page]) for page in sorted(seeds))
        for _ in range(2):
            found = numpy.zeros(part.pages, dtype=numpy.uint64)
            fingerprint.Hasher(buffer.view, SEED).read(ram, part, present, buffer, 5, found)
            self.assertEqual(expected, found.tolist())
            self.assertEqual(packed, bytes(buffer.view[:len(packed)]))
            buffer.view[:len(packed)] = bytes(len(packed))
            self.useFixture(fixtures.MonkeyPatch(
                "nova_batch_migrate.agent.fingerprint._speed", None))

    def test_a_process_that_ended_has_no_pages(self):
        guest = self.useFixture(Guest())
        guest.write({0: 1})
        ram, buffer = memory.GuestMemory(guest.pid, [guest.pages * PAGE]), memory.Buffer()
        self.addCleanup(ram.close)
        part = ram.slices()[0]
        present, _ = ram.presence(part)
        guest.end()
        self.assertRaises(memory.GuestMemoryError, fingerprint.Hasher(buffer.view, SEED).read,
                          ram, part, present, buffer, 5,
                          numpy.zeros(part.pages, dtype=numpy.uint64))

    def test_another_seed_gives_other_hashes(self):
        pages = memoryview(content(1))
        self.assertNotEqual(fingerprint.Hasher(pages, 1).hash(1).tolist(),
                            fingerprint.Hasher(pages, 2).hash(1).tolist())


class TestCollector(base.BaseTestCase):

    def collect(self, pages, theta, sample_theta=1.0):
        zero = fingerprint.zero_hash(SEED)
        collector = fingerprint.Collector(zero, theta, sample_theta)
        for start in range(0, len(pages), 100 * PAGE):
            part = memoryview(pages[start:start + 100 * PAGE])
            count = len(part) // PAGE
            collector.add(start // PAGE, fingerprint.Hasher(part, SEED).hash(count),
                          numpy.ones(count, dtype=bool))
        return collector

    def test_counts_zero_distinct_and_repeated_pages_across_slices(self):
        pages = content(1) * 150 + content(2) * 3 + bytes(PAGE) * 60
        collector = self.collect(pages, 1.0)
        found = collector.contents()
        self.assertEqual((60, 153, 2), (collector.zero_pages, found.nonzero_pages,
                                        found.distinct_pages))

    def test_a_sample_of_the_hash_space_estimates_distinct_pages(self):
        pages = b"".join(number.to_bytes(PAGE, "little") for number in range(1, 4001))
        found = self.collect(pages, 0.25).contents()
        self.assertTrue(850 < len(found.hashes) < 1150, len(found.hashes))
        self.assertAlmostEqual(len(found.hashes) / 0.25, found.distinct_pages, delta=1)
        self.assertLess(int(found.hashes.max()), 1 << 62)

    def test_without_the_extension_it_collects_the_same(self):
        if fingerprint._speed is None:
            self.skipTest("the extension module was not built")
        random = numpy.random.default_rng(1)
        hashes = random.integers(0, 1 << 64, 1000, dtype=numpy.uint64)
        hashes[::7] = 5
        present = random.random(1000) < 0.7
        for theta, sample_theta in ((1.0, 1.0), (1.0, 0.3), (0.5, 0.5), (0.5, 0.1)):
            found = []
            for speed in (fingerprint._speed, None):
                self.useFixture(fixtures.MonkeyPatch(
                    "nova_batch_migrate.agent.fingerprint._speed", speed))
                collector = fingerprint.Collector(5, theta, sample_theta)
                collector.add(300, hashes, present)
                sample = collector.sample()
                found.append((collector.zero_pages, collector.nonzero_pages,
                              collector._hashes.values().tolist(), sample.pages.tolist(),
                              sample.hashes.tolist()))
            self.assertEqual(*found)
            self.assertTrue(all(found[0]))

    def test_the_sample_says_where_contents_lie(self):
        pages = b"".join(number.to_bytes(PAGE, "little") for number in range(1, 401))
        found = self.collect(pages, 1.0, 0.5).sample()
        whole = fingerprint.Hasher(memoryview(pages), SEED).hash(400)
        self.assertEqual(whole[found.pages].tolist(), found.hashes.tolist())
        self.assertEqual(sorted(found.pages.tolist()),
                         numpy.flatnonzero(whole < numpy.uint64(1 << 63)).tolist())
        self.assertEqual(numpy.flatnonzero(whole < numpy.uint64(1 << 62)).tolist(),
                         found.below(0.25).pages.tolist())


class TestPageClasses(base.BaseTestCase):

    @settings(deadline=None)
    @given(servers)
    def test_counts_as_brute_force_does(self, contents):
        found = fingerprint.page_classes(arrays(contents), SEED)
        self.assertEqual(brute_force(contents), as_sets(found))
        self.assertTrue(found["exact"])

    @settings(deadline=None)
    @given(servers, strategies.integers(1, 12))
    def test_folding_never_promises_less_than_a_group_holds(self, contents, limit):
        found = fingerprint.page_classes(arrays(contents), SEED, max_classes=limit)
        background = found["background"] or {"servers_min": len(contents) + 1, "pages": 0}
        for server, held in contents.items():
            counted = sum(entry["pages"] for entry in found["classes"]
                          if server in entry["servers"])
            self.assertGreaterEqual(counted + background["pages"], len(held))
        self.assertLessEqual(len(found["classes"]), max(limit, len(contents)))
        is_all = found["background"] is None and as_sets(found) == brute_force(contents)
        self.assertEqual(is_all, found["exact"])

    def test_content_of_almost_all_becomes_background_when_folding(self):
        contents = {name: {1000, index} for index, name in enumerate("abcdefghij", start=1)}
        contents["a"] |= {2000}
        contents["b"] |= {2000}
        found = fingerprint.page_classes(arrays(contents), SEED, max_classes=11)
        self.assertEqual({"servers_min": 9, "pages": 1}, found["background"])
        self.assertEqual(1, as_sets(found)[frozenset("ab")])

    def test_the_result_is_what_the_planner_reads(self):
        found = fingerprint.page_classes(arrays({"a": {1, 2}, "b": {2}}), SEED, theta=0.5)
        value = PageClasses.from_dict(found)
        self.assertEqual((False, 0.5), (value.exact, value.theta))

    def test_parts_of_the_hash_space_count_as_the_whole(self):
        random = numpy.random.default_rng(1)
        contents = {name: set(random.integers(1, 1 << 63, 3000).tolist()) for name in "abc"}
        contents["b"] |= set(list(contents["a"])[:1000])
        whole = fingerprint.page_classes(arrays(contents), SEED)
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.agent.fingerprint._PART_HASHES", 1000))
        self.assertEqual(as_sets(whole), as_sets(fingerprint.page_classes(arrays(contents), SEED)))

    def test_very_many_sets_are_folded_while_they_are_counted(self):
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.agent.fingerprint._MOST_SETS", 3))
        contents = {"a": {1, 2, 3, 10}, "b": {1, 2, 4, 10}, "c": {1, 3, 4, 10}}
        found = fingerprint.page_classes(arrays(contents), SEED)
        self.assertFalse(found["exact"])
        for server, held in contents.items():
            self.assertGreaterEqual(sum(entry["pages"] for entry in found["classes"]
                                        if server in entry["servers"]), len(held) - 1)

    def test_no_server_has_no_class(self):
        self.assertEqual([], fingerprint.page_classes({}, SEED)["classes"])
