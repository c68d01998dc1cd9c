"""Encoder and decoder together: what goes in comes out, whatever happens between."""
from unittest import mock

import ddt
import numpy as np
import xxhash
from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate.relay import dictionary, encoder, kernel, reference
from nova_batch_migrate.relay.admission import Recurring
from nova_batch_migrate.relay.decoder import Event
from nova_batch_migrate.relay.settings import MIN_DICTIONARY_BYTES
from nova_batch_migrate.relay.wire import CannotTruncate, CodecError, Frame, FrameReader, Kind
from tests.unit.relay import builders as b

LOOPS = {"compiled": kernel, "python": reference}
RING_PAGES = MIN_DICTIONARY_BYTES // b.PAGE
LATE_PAGES = RING_PAGES // dictionary.LATE_SHARE


def changed(content: bytes, words: int, by: int = 1) -> bytes:
    """Return a page with `words` words other than they were."""
    array = np.frombuffer(content, np.uint64).copy()
    array[:words] += np.uint64(by)
    return array.tobytes()


def static_of(*seeds: int) -> np.ndarray:
    """Return pages of a base image."""
    return np.array([np.frombuffer(b.noise(seed), np.uint8) for seed in seeds])


@ddt.ddt
class TestCodec(base.BaseTestCase):

    @ddt.data(*LOOPS)
    def test_alike_guests_cross_once(self, which):
        log = b.log(loops=LOOPS[which])
        contents = [b.noise(i) for i in range(200)]
        first, second = b.guest(contents), b.guest(contents)
        self.assertEqual(first, log.send(1, first))
        self.assertEqual(second, log.send(2, second))
        one, two = log.encoder.statistics(1), log.encoder.statistics(2)
        self.assertEqual(200 * b.PAGE, one.literal_bytes)
        self.assertEqual((0, 200 * b.PAGE, 0),
                         (two.literal_bytes, two.cross_server_bytes, two.self_duplicate_bytes))
        self.assertLess(two.wire_bytes, 3000)
        self.assertEqual(one.raw_bytes + two.raw_bytes, log.encoder.statistics().raw_bytes)
        self.assertEqual(200 * b.PAGE, log.encoder.fill_bytes)
        self.assertEqual(200 * b.PAGE, log.decoder.fill_bytes)

    @ddt.data(*LOOPS)
    def test_counters_tell_the_savings_apart(self, which):
        log = b.log(loops=LOOPS[which])
        log.send(1, b.guest([b.noise(1), b.noise(1), b.noise(2), None, None]))
        log.send(2, b.guest([b.noise(2), changed(b.noise(1), 5), b.noise(3)]))
        one, two = log.encoder.statistics(1), log.encoder.statistics(2)
        self.assertEqual((2, 1, 0, 2), tuple(
            count // b.PAGE for count in (one.literal_bytes, one.self_duplicate_bytes,
                                          one.cross_server_bytes, one.zero_bytes)))
        # page 2 is found by its hash; what follows it there is not like the changed page
        self.assertEqual((1, 2, 0), tuple(
            count // b.PAGE for count in (two.cross_server_bytes, two.literal_bytes,
                                          two.delta_bytes)))

    @ddt.data(*LOOPS)
    def test_successor_of_a_match_is_the_base_of_a_delta(self, which):
        log = b.log(loops=LOOPS[which])
        log.send(1, b.guest([b.noise(i) for i in range(10)]))
        alike = b.guest([b.noise(0), changed(b.noise(1), 20), changed(b.noise(2), 20),
                         b.noise(3)])
        self.assertEqual(alike, log.send(2, alike))
        self.assertEqual(2 * b.PAGE, log.encoder.statistics(2).delta_bytes)
        self.assertEqual(0, log.encoder.statistics(2).literal_bytes)

    @ddt.data(*LOOPS)
    def test_later_version_of_a_page_crosses_as_delta_in_place(self, which):
        log = b.log(loops=LOOPS[which])
        rounds = [b.part(*b.pages([b.noise(i) for i in range(300)]))]
        for turn in range(1, 4):
            rounds.append(b.part(*b.pages([changed(b.noise(9), 4, turn)], 9 * b.PAGE),
                                 *b.pages([changed(b.noise(40), 4, turn)], 40 * b.PAGE)))
        log.deliver(log.encoder.open_stream(1, "one"))
        data = b.HEAD + b.start()
        log.deliver(log.encoder.feed(1, data))
        for part in rounds:
            # a block for each, as a source that runs dry gives
            log.deliver(log.encoder.feed(1, part) + log.encoder.flush(1))
            data += part
        self.assertEqual(data, log.out[1])
        self.assertEqual(6 * b.PAGE, log.encoder.statistics(1).delta_bytes)
        # written over the version before: the dictionary has not grown
        self.assertEqual(300 * b.PAGE, log.encoder.fill_bytes)

    @ddt.data(*LOOPS)
    def test_a_page_of_which_the_rest_is_to_come_is_waited_for_if_so_wished(self, which):
        log = b.log(loops=LOOPS[which])
        data = b.guest([b.noise(i) for i in range(10)])
        log.send(1, data)
        half = data.index(b.noise(5)) + 1000
        for number, rest, found in ((2, False, 10), (3, True, 9)):
            log.deliver(log.encoder.open_stream(number, f"server {number}"))
            log.deliver(log.encoder.feed(number, data[:half]))
            log.deliver(log.encoder.flush(number, rest))
            # its record has a header of eight bytes
            crossed = half if rest else half - 1000 - 8
            self.assertEqual(data[:crossed], log.out[number])
            self.assertEqual(half - crossed, log.encoder.progress(number).held_bytes)
            log.deliver(log.encoder.feed(number, data[half:]) + log.encoder.end(number))
            self.assertEqual(data, log.out[number])
            self.assertEqual(found * b.PAGE, log.encoder.statistics(number).cross_server_bytes)

    def test_pages_that_look_random_are_not_compressed(self):
        log = b.log()
        data = b.guest([b.noise(1), b.page(2)])
        self.assertEqual(data, log.send(1, data))
        wire = log.encoder.statistics(1).literal_wire_bytes
        self.assertTrue(b.PAGE + 1000 < wire < 2 * b.PAGE, wire)

    @ddt.data(*LOOPS)
    def test_dictionary_smaller_than_a_guest(self, which):
        log = b.log(loops=LOOPS[which], level=None)
        many = [b.noise(i) for i in range(RING_PAGES + 300)]
        data = b.guest(many)
        self.assertEqual(data, log.send(1, data))
        # a guest does not push out its own pages: the first are there, the last are not
        again = b.guest(many[:100] + many[-100:])
        self.assertEqual(again, log.send(2, again))
        two = log.encoder.statistics(2)
        self.assertEqual((100, 100), (two.cross_server_bytes // b.PAGE,
                                      two.literal_bytes // b.PAGE))
        self.assertLessEqual(log.encoder.fill_bytes, MIN_DICTIONARY_BYTES)

    def test_content_that_the_scan_saw_once_stays_outside(self):
        once, twice = b.noise(1), b.noise(2)
        # what else recurs would fill the dictionary
        seen = np.array([xxhash.xxh3_64_intdigest(twice, 7) & 0xffffffff,
                         *range(RING_PAGES)], np.uint32)
        log = b.log(recurring=Recurring(7, np.unique(seen)))
        data = b.guest([once, twice, b.page(3)])
        self.assertEqual(data, log.send(1, data))
        self.assertEqual(b.PAGE, log.encoder.fill_bytes)
        self.assertEqual(data, log.send(2, data))
        self.assertEqual(b.PAGE, log.encoder.statistics(2).cross_server_bytes)

    @ddt.data(*LOOPS)
    def test_content_that_the_scan_did_not_look_at_is_taken_for_what_lies_around_it(self, which):
        kin, own = ([b.noise(first + i) for i in range(400)] for first in (0, 1000))
        half = Recurring(7, np.unique(np.array(
            [digest & 0xffffffff for page in kin
             if (digest := xxhash.xxh3_64_intdigest(page, 7)) < 1 << 63], np.uint32)), 0.5)
        self.assertTrue(100 < len(half.hashes) < 300)
        self.assertEqual(2 * len(half.hashes), half.pages)
        # more recurs than there is room for
        many = Recurring(7, np.unique(np.concatenate(
            [half.hashes, np.arange(RING_PAGES, dtype=np.uint32)])), 0.5)
        log = b.log(loops=LOOPS[which], level=None, recurring=many)
        data = b.guest(own[:200] + kin + own[200:])
        for number in (1, 2):
            self.assertEqual(data, log.send(number, data))
        found = log.encoder.statistics(2).cross_server_bytes // b.PAGE
        # but for the ends of the run
        self.assertTrue(380 < found < 420, found)

    @ddt.data(*LOOPS)
    def test_what_the_scan_saw_once_gets_the_room_that_the_rest_leaves(self, which):
        pages = 4 * RING_PAGES
        kin = [b.noise(i) for i in range(pages // 2)]
        seen = np.unique(np.array([xxhash.xxh3_64_intdigest(page, 7) & 0xffffffff
                                   for page in kin], np.uint32))
        log = b.log(loops=LOOPS[which], level=None, dictionary_bytes=4 * MIN_DICTIONARY_BYTES,
                    recurring=Recurring(7, seen))
        own = [b.page(10_000 + i) for i in range(pages)]
        first = b.guest([kin[0], *own, *kin[1:]])
        self.assertEqual(first, log.send(1, first))
        # much of its own came first, and all that recurs has found room behind it
        second = b.guest([kin[0], *(changed(page, 5) for page in own), *kin[1:]])
        self.assertEqual(second, log.send(2, second))
        two = log.encoder.statistics(2)
        self.assertEqual(len(kin), two.cross_server_bytes // b.PAGE)
        # all but what is left free for two blocks
        deltas = two.delta_bytes // b.PAGE
        self.assertTrue(pages // 2 - 600 < deltas < pages // 2, deltas)

    @ddt.data(*LOOPS)
    def test_guests_larger_than_the_dictionary_still_find_each_other(self, which):
        log = b.log(loops=LOOPS[which], level=None)
        kin = [b.noise(i) for i in range(RING_PAGES + 300)]
        for number in (1, 2, 3):
            data = b.guest(kin + [b.noise(10_000 * number)])
            self.assertEqual(data, log.send(number, data))
        for number in (2, 3):
            found = log.encoder.statistics(number).cross_server_bytes // b.PAGE
            self.assertGreater(found, RING_PAGES - 600)
        # who has nothing in common with them takes their place in the end
        others = b.guest([b.noise(50_000 + i) for i in range(3 * RING_PAGES)])
        for number in (4, 5):
            self.assertEqual(others, log.send(number, others))
        self.assertGreater(log.encoder.statistics(5).cross_server_bytes // b.PAGE,
                           RING_PAGES // 4)

    @ddt.data(*LOOPS)
    def test_blocks_as_long_as_a_fast_link_takes_them_cost_a_small_dictionary_nothing(self, which):
        log = b.log(loops=LOOPS[which], level=None)
        kin = [b.noise(i) for i in range(2 * RING_PAGES)]
        data = b.guest(kin)
        with mock.patch.object(encoder, "ROUND0_BLOCK_BYTES", encoder.MAX_BLOCK_BYTES):
            for number in (1, 2):
                self.assertEqual(data, log.send(number, data))
        found = log.encoder.statistics(2).cross_server_bytes // b.PAGE
        # no more than three blocks stay free
        self.assertGreaterEqual(found, RING_PAGES - 3 * (encoder.LATER_BLOCK_BYTES // b.PAGE))

    def test_what_the_dictionary_has_no_room_for_is_found_by_compression(self):
        log = b.log(window_log=23)
        kin = [b.page(i) for i in range(2 * RING_PAGES)]
        sent = []
        for number in (1, 2, 3):
            data = b.guest(kin)
            self.assertEqual(data, log.send(number, data))
            sent.append(log.encoder.statistics(number))
        first, second, third = sent
        self.assertGreater(third.literal_bytes, RING_PAGES // 2 * b.PAGE)
        self.assertLess(third.literal_wire_bytes, third.literal_bytes // 15)
        self.assertGreater(first.literal_wire_bytes, first.literal_bytes // 6)
        self.assertLess(second.literal_wire_bytes, second.literal_bytes // 10)

    @ddt.data(*LOOPS)
    def test_a_heap_in_front_does_not_push_out_what_is_found_behind_it(self, which):
        pages = 8 * RING_PAGES
        log = b.log(loops=LOOPS[which], level=None, dictionary_bytes=pages * b.PAGE)
        kin = [b.noise(i) for i in range(pages - 600)]
        log.send(1, b.guest(kin))
        heap = [b.noise(50_000 + i) for i in range(pages // 10)]
        data = b.guest(heap + kin)
        self.assertEqual(data, log.send(2, data))
        self.assertEqual(len(kin), log.encoder.statistics(2).cross_server_bytes // b.PAGE)

    def test_what_a_guest_brought_stays_for_one_like_it(self):
        found = {}
        for kept_for, forgone in (({}, 0), ({2: 3}, 0), ({1: 4, 2: 3}, 0), ({1: 4, 2: 3}, 4)):
            names = {f"server {one}": f"server {other}" for one, other in kept_for.items()}
            log = b.log(level=None, kept_for=names,
                        dictionary_bytes=4 * MIN_DICTIONARY_BYTES)
            log.encoder.forgo(f"server {forgone}")
            ring = 4 * RING_PAGES
            common = [b.noise(i) for i in range(ring // 3)]
            first = b.guest(common + [b.noise(100_000 + i) for i in range(ring)])
            # finds what all have in front, so that it is let in late; pushes that out
            kin = b.guest(common + [b.noise(200_000 + i) for i in range(ring * 3 // 2)])
            for number, data in enumerate((first, kin, kin, first), 1):
                self.assertEqual(data, log.send(number, data))
            found[len(kept_for) + forgone] = [
                log.encoder.statistics(number).cross_server_bytes / b.PAGE / ring
                for number in (2, 3, 4)]
        # without a word it pushes out what its like is about to find; what is kept longer than
        # the others come leaves those no room, unless who it is kept for does not come
        for number, least, most in ((0, 0.0, 0.1), (1, 0.8, 1.0), (2, 0.3, 0.4), (6, 0.8, 1.0)):
            self.assertTrue(least <= found[number][1] <= most, found)
        self.assertGreater(found[2][2], 0.8)

    @ddt.data(*LOOPS)
    def test_pages_that_differ_a_little_push_nothing_out(self, which):
        log = b.log(loops=LOOPS[which], level=None)
        kin = [b.noise(i) for i in range(RING_PAGES // 2)]
        for number in range(1, 7):
            data = b.guest([page if i % 4 == 0 else changed(page, 3, number)
                            for i, page in enumerate(kin)])
            self.assertEqual(data, log.send(number, data))
        last = log.encoder.statistics(6)
        self.assertEqual((len(kin) // 4, len(kin) * 3 // 4, 0), tuple(
            count // b.PAGE for count in (last.cross_server_bytes, last.delta_bytes,
                                          last.literal_bytes)))

    @ddt.data(*LOOPS)
    def test_what_later_rounds_bring_pushes_nothing_out_of_a_full_dictionary(self, which):
        log = b.log(loops=LOOPS[which], level=None)
        kin = [b.noise(i) for i in range(RING_PAGES // 2)]
        busy = b.stream(b.part(*b.pages(kin)), *(
            b.part(*b.pages([b.noise(10_000 * turn + i) for i in range(RING_PAGES)]))
            for turn in (1, 2)), b.part(last=True))
        self.assertEqual(busy, log.send(1, busy))
        alike = b.guest(kin)
        self.assertEqual(alike, log.send(2, alike))
        self.assertEqual((len(kin), 0), (
            log.encoder.statistics(2).cross_server_bytes // b.PAGE,
            log.encoder.statistics(2).literal_bytes // b.PAGE))

    @ddt.data(*LOOPS)
    def test_pages_written_again_and_again_cross_as_deltas_beside_a_full_dictionary(self, which):
        log = b.log(loops=LOOPS[which], level=None)
        # of these, round 0 leaves no room for any; the second ring has some for half of them
        hot = [b.noise(5_000 + i) for i in range(2 * LATE_PAGES)]
        turns = [b.part(*b.pages([b.noise(i) for i in range(RING_PAGES)] + hot))]
        turns += [b.part(*b.pages([changed(page, 3, turn) for page in hot], RING_PAGES * b.PAGE))
                  for turn in range(1, 10)]
        data = b.stream(*turns, b.part(last=True))
        self.assertEqual(data, log.send(1, data))
        # half of them in each later round but the first, which brings them
        self.assertGreater(log.encoder.statistics(1).delta_bytes // b.PAGE, 6 * LATE_PAGES)
        # others take their place when they are not written any more
        others = [b.noise(9_000 + i) for i in range(LATE_PAGES)]
        turns = [b.part(*b.pages([changed(page, 3, turn) for page in others],
                                 2 * RING_PAGES * b.PAGE)) for turn in range(1, 7)]
        more = b.stream(b.part(*b.pages([b.page(1)])), *turns, b.part(last=True))
        self.assertEqual(more, log.send(2, more, server="server 1"))
        self.assertGreater(log.encoder.statistics(2).delta_bytes // b.PAGE, LATE_PAGES)

    def test_level_changes_between_blocks(self):
        log = b.log()
        contents = [b.page(i) for i in range(30)]
        for number, level in enumerate((3, None, 1, -5, -5), 1):
            log.encoder.set_level(level)
            data = b.guest(contents[number:] + [b.page(100 + number)])
            self.assertEqual(data, log.send(number, data))

    def test_static_dictionary(self):
        static = static_of(1, 2, 3)
        log = b.log(static=static)
        data = b.guest([b.noise(3), b.noise(1), changed(b.noise(2), 3), b.noise(4)])
        self.assertEqual(data, log.send(1, data))
        one = log.encoder.statistics(1)
        self.assertEqual((2, 1), (one.cross_server_bytes // b.PAGE, one.delta_bytes // b.PAGE))
        # pinned: a guest larger than the ring does not drive it out
        log.send(2, b.guest([b.noise(1000 + i) for i in range(RING_PAGES)]))
        log.send(3, b.guest([b.noise(3)]))
        self.assertEqual(b.PAGE, log.encoder.statistics(3).cross_server_bytes)

    def test_flush_holds_nothing_back(self):
        log = b.log()
        data = b.guest([b.noise(i) for i in range(5)])
        log.deliver(log.encoder.open_stream(1, "one"))
        for at in range(0, len(data), 1000):
            log.deliver(log.encoder.feed(1, data[at:at + 1000]))
            log.deliver(log.encoder.flush(1))
            self.assertEqual(data[:at + 1000], log.out[1])
            self.assertEqual(0, log.encoder.progress(1).held_bytes)

    @ddt.data(None, 1)
    def test_bytes_written_to_the_buffer_are_as_good_as_fed(self, level):
        """What a call returns has not left when the next one is made, as in the daemon."""
        log = b.log(level=level)
        data = {number: b.guest([b.noise(1000 * number + i) if i % 3 else b.page(1000 * number + i)
                                 for i in range(900)]) for number in (1, 2)}
        under_way = [piece for number in data
                     for piece in log.encoder.open_stream(number, f"server {number}")]
        for at in range(0, max(map(len, data.values())), 777_777):
            for number, whole in data.items():
                rest = memoryview(whole)[at:at + 777_777]
                while rest:
                    with log.encoder.buffer(number) as free:
                        taken = min(len(free), len(rest))
                        free[:taken] = rest[:taken]
                    if frames := log.encoder.commit(number, taken):
                        log.deliver(under_way)
                        under_way = [piece for frame in frames for piece in frame]
                    rest = rest[taken:]
        log.deliver(under_way)
        for number in data:
            log.deliver(log.encoder.end(number))
        self.assertEqual(data, log.out)

    def test_streams_truncated_anywhere(self):
        data = b.stream(b.part(*b.pages([b.page(1), None, b.noise(2)])), b.SWITCHOVER_START,
                        b.part(*b.pages([b.noise(3)]), last=True))
        log = b.log()
        # every byte where there are no pages, and some within them
        places = [at for at in range(len(data)) if at % 97 == 0 or at < 150
                  or at > len(data) - 400]
        for number, at in enumerate(places, 1):
            self.assertEqual(data[:at], log.send(number, data[:at]))

    @settings(max_examples=80, deadline=None)
    @given(strategies.data())
    def test_whatever_the_chunking_and_interleaving(self, drawn):
        log = b.log(loops=LOOPS[drawn.draw(strategies.sampled_from(sorted(LOOPS)))],
                    level=drawn.draw(strategies.sampled_from([None, 1])),
                    most_delta_words=drawn.draw(strategies.sampled_from([0, 8, 512])))
        content = strategies.one_of(
            strategies.none(), strategies.integers(0, 5).map(b.page),
            strategies.builds(changed, strategies.integers(0, 3).map(b.noise),
                              strategies.integers(0, 512)))
        rounds = strategies.lists(strategies.lists(content, min_size=1, max_size=8), min_size=1,
                                  max_size=3)
        streams = {number: b.stream(*(b.part(*b.pages(contents)) for contents in
                                      drawn.draw(rounds)), b.part(last=True)) for number in (1, 2)}
        for number in streams:
            log.deliver(log.encoder.open_stream(number, f"server {number % 2}"))
        at = dict.fromkeys(streams, 0)
        while at:
            number = drawn.draw(strategies.sampled_from(sorted(at)))
            count = drawn.draw(strategies.integers(1, 30000))
            log.deliver(log.encoder.feed(number, streams[number][at[number]:at[number] + count]))
            if drawn.draw(strategies.booleans()):
                log.deliver(log.encoder.flush(number))
            at[number] += count
            if at[number] >= len(streams[number]):
                log.deliver(log.encoder.end(number))
                del at[number]
        for number, data in streams.items():
            self.assertEqual(data, log.out[number])

    def test_both_versions_write_the_same_frames(self):
        contents = [b.page(i % 7) if i % 3 else changed(b.noise(i % 5), i) for i in range(200)]
        data = b.guest(contents) + b""
        frames = []
        for loops in LOOPS.values():
            encoder = b.log(loops=loops).encoder
            found = encoder.open_stream(1, "one")
            found += encoder.feed(1, data)
            found += encoder.end(1)
            found += encoder.open_stream(2, "two")
            found += encoder.feed(2, b.guest(contents[::-1]))
            found += encoder.end(2)
            frames.append(found)
        self.assertEqual(*frames)


class TestReconnect(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.log = b.log()
        self.contents = [b.noise(i) for i in range(600)]
        self.data = b.guest(self.contents)
        self.log.deliver(self.log.encoder.open_stream(1, "one"))

    def feed(self, data):
        return self.log.encoder.feed(1, data) + self.log.encoder.flush(1)

    def test_frames_that_come_twice_are_passed_over(self):
        frames = self.feed(self.data[:100_000])
        self.log.deliver(frames)
        self.log.deliver(frames)
        self.assertEqual(self.data[:100_000], self.log.out[1])

    def test_acknowledged_frames_are_forgotten(self):
        self.log.deliver(self.feed(self.data))
        held = self.log.encoder.under_way_bytes
        self.log.credit()
        self.assertLess(self.log.encoder.under_way_bytes, held)
        self.assertEqual(0, self.log.encoder.under_way_bytes)
        self.assertRaises(CannotTruncate, self.log.encoder.truncate, 1)

    def test_truncate_brings_both_dictionaries_together(self):
        self.log.send(7, b.guest(self.contents[:50]))
        self.log.deliver(self.log.encoder.open_stream(2, "two"))
        frames = self.feed(self.data[:len(self.data) // 2])
        frames += self.feed(self.data[len(self.data) // 2:])
        self.log.deliver(frames[:-1])
        lost = self.log.encoder.truncate(self.log.decoder.sequence)
        self.assertEqual([1], lost)
        # a stream that lost nothing goes on; a new one finds only what both have
        again = b.guest(self.contents)
        self.log.reader = FrameReader()
        self.log.deliver(self.log.encoder.feed(2, again))
        self.log.deliver(self.log.encoder.end(2))
        self.assertEqual(again, self.log.out[2])
        self.assertGreater(self.log.encoder.statistics(2).cross_server_bytes, 50 * b.PAGE)
        self.assertEqual(again, self.log.send(3, again))
        self.assertEqual(0, self.log.encoder.statistics(3).literal_bytes)

    @settings(max_examples=25, deadline=None)
    @given(strategies.data())
    def test_cuts_at_any_frame(self, drawn):
        log = b.log()
        contents = [b.noise(i) for i in range(RING_PAGES // 2)]
        number = 0
        for _ in range(drawn.draw(strategies.integers(1, 4))):
            number += 1
            start = drawn.draw(strategies.integers(0, len(contents) - 1))
            turned = contents[start:] + [changed(page, 3, number) for page in contents[:start]]
            frames = log.encoder.open_stream(number, f"server {number}")
            frames += log.encoder.feed(number, b.guest(turned))
            frames += log.encoder.end(number)
            log.deliver(frames[:drawn.draw(strategies.integers(0, len(frames)))])
            if drawn.draw(strategies.booleans()):
                log.credit()
            log.reader = FrameReader()
            log.encoder.truncate(log.decoder.sequence)
        last = b.guest([changed(page, 2, 99) for page in contents[::-1]] + contents)
        self.assertEqual(last, log.send(1000, last))


class TestCredit(base.BaseTestCase):

    def test_room_shrinks_and_comes_back(self):
        log = b.log(credit_bytes=100_000)
        log.deliver(log.encoder.open_stream(1, "one"))
        log.deliver(log.encoder.open_stream(2, "two"))
        self.assertEqual(100_000, log.encoder.room(1))
        frames = log.encoder.feed(1, bytes(100_000)) + log.encoder.flush(1)
        self.assertEqual(0, log.encoder.room(1))
        # the other stream is not stalled by it
        self.assertEqual(100_000, log.encoder.room(2))
        log.deliver(frames)
        log.credit()
        self.assertEqual(100_000, log.encoder.room(1))

    def test_credit_goes_back_in_shares(self):
        log = b.log(credit_bytes=100_000)
        log.deliver(log.encoder.open_stream(1, "one"))
        log.deliver(log.encoder.feed(1, bytes(24_000)) + log.encoder.flush(1))
        self.assertEqual([], log.decoder.credits())
        log.deliver(log.encoder.feed(1, bytes(2_000)) + log.encoder.flush(1))
        self.assertEqual(1, len(log.decoder.credits()))

    def test_a_peer_that_overruns_its_credit(self):
        log = b.log(credit_bytes=100_000)
        log.deliver(log.encoder.open_stream(1, "one"))
        frames = log.encoder.feed(1, bytes(100_001)) + log.encoder.flush(1)
        decoded = [frame for packed in frames for frame in FrameReader().feed(packed)]
        self.assertRaises(CodecError, lambda: [log.decoder.feed(frame) for frame in decoded])

    def test_bytes_under_way_are_bounded_over_all_streams(self):
        log = b.log(under_way_bytes=50_000, level=None)
        log.deliver(log.encoder.open_stream(1, "one"))
        log.deliver(log.encoder.feed(1, b.guest([b.noise(i) for i in range(20)])))
        log.deliver(log.encoder.flush(1))
        self.assertEqual(0, log.encoder.room(1))
        log.credit()
        self.assertGreater(log.encoder.room(1), 0)

    def test_credit_for_what_was_never_sent(self):
        log = b.log()
        log.deliver(log.encoder.open_stream(1, "one"))
        for stream, delivered, applied in ((2, 0, 0), (1, 1, 0), (1, 0, 99)):
            frame = Frame(Kind.CREDIT, stream, 0,
                          delivered.to_bytes(8, "little") + applied.to_bytes(8, "little"))
            self.assertRaises(CodecError, log.encoder.on_frame, frame)
        self.assertRaises(CodecError, log.encoder.on_frame, Frame(Kind.RETURN, 1))


class TestBadFrames(base.BaseTestCase):

    def test_order_and_kinds(self):
        log = b.log()
        feed = log.decoder.feed
        self.assertRaises(CodecError, feed, Frame(Kind.OPEN, 1, 5))
        self.assertRaises(CodecError, feed, Frame(Kind.DATA, 1, 2, b"x" * 60))
        self.assertRaises(CodecError, feed, Frame(Kind.SETUP, 0, 2))
        self.assertRaises(CodecError, feed, Frame(Kind.CREDIT, 1, 2))
        feed(Frame(Kind.OPEN, 1, 2))
        self.assertRaises(CodecError, feed, Frame(Kind.OPEN, 1, 3))
        for payload in (b"", b"short", b"\xff" * 44):
            self.assertRaises(CodecError, feed, Frame(Kind.DATA, 1, 3, payload))
        feed(Frame(Kind.ABORT, 1, 3, b"why"))
        self.assertRaises(CodecError, feed, Frame(Kind.END, 1, 4))

    def test_behind_a_block_that_can_not_be_applied_nothing_is_taken(self):
        log = b.log()
        log.decoder.feed(Frame(Kind.OPEN, 1, 2))
        self.assertFalse(log.decoder.broken)
        # one raw byte, and nothing that it could come from
        self.assertRaises(CodecError, log.decoder.feed, Frame(Kind.DATA, 1, 3, b"\1" + bytes(43)))
        self.assertTrue(log.decoder.broken)
        self.assertRaises(CodecError, log.decoder.feed, Frame(Kind.ABORT, 1, 3, b"why"))

    def test_a_log_needs_its_settings_first(self):
        log = b.log()
        decoder = type(log.decoder)(max_dictionary_bytes=1 << 20)
        self.assertRaises(CodecError, decoder.feed, Frame(Kind.OPEN, 1, 1))
        hello = FrameReader().feed(b.log().encoder.hello()[0])[0]
        error = self.assertRaises(CodecError, decoder.feed,
                                  Frame(Kind.SETUP, 0, 1, hello.payload))
        self.assertIn("dictionary_bytes", str(error))

    def test_other_base_images_are_refused(self):
        static, other = static_of(1, 2), static_of(1, 3)
        log = b.log(static=static)
        decoder = type(log.decoder)(other)
        frame = FrameReader().feed(b.log(static=static).encoder.hello()[0])[0]
        self.assertRaises(CodecError, decoder.feed, Frame(Kind.SETUP, 0, 1, frame.payload))

    def test_abort_reaches_the_peer(self):
        log = b.log()
        log.deliver(log.encoder.open_stream(1, "one"))
        log.deliver(log.encoder.abort(1, "destination full"))
        self.assertEqual([(1, Event.OPEN), (1, Event.ABORT)], log.events)
