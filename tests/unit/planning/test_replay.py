import dataclasses
from unittest import mock

import numpy
from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate.planning import replay
from nova_batch_migrate.planning.replay import Hits, Replay
from nova_batch_migrate.planning.telemetry import PAGE_BYTES, Confirmation, PageSequence
from tests.unit.planning import builders

MANY = 10 ** 12


def server(name, *contents, theta=1.0, **fields):
    """A server whose counts are what its sample says."""
    sequence = PageSequence(theta, contents)
    pages = sum(1 if c >= 0 else -c for c in contents)
    repeats = len([c for c in contents if c >= 0]) - len({c for c in contents if c >= 0})
    counts = dict(present_pages=round(pages / theta), distinct_pages=(pages - repeats) / theta,
                  self_duplicate_pages=repeats / theta)
    return builders.server(name, sequence=sequence, **(counts | fields))


def hits(servers, dictionary_pages=MANY, scope="host", destinations=None, **host):
    host = dataclasses.replace(builders.host(servers), **host)
    found = Replay(host, scope, dictionary_pages * PAGE_BYTES).hits(
        [s.id for s in servers], destinations)
    return [(round(h.self_share, 4), round(h.cross_share, 4)) for h in found]


class TestReplay(base.BaseTestCase):

    def test_within_and_across(self):
        # a: 1 and 2 are new, the second 1 is its own; 4 pages are unlike any other.
        # b: 1 and 2 are known from a; the second 2 came in b itself before.
        self.assertEqual([(0.1429, 0), (0.25, 0.5)],
                         hits([server("a", 1, 2, 1, -4), server("b", 1, 2, 2, -1)]))

    def test_the_first_brings_the_others_refer(self):
        a, b = server("a", 1, 2, 3), server("b", 1, 2, 3)
        self.assertEqual([(0, 0), (0, 1)], hits([a, b]))
        self.assertEqual([(0, 0), (0, 1)], hits([b, a]))

    def test_no_server_pushes_out_its_own(self):
        # 1 and 2 are let in, the ring holds two: 3 would take their place.
        self.assertEqual([(0, 0), (0, 0.6667)],
                         hits([server("a", 1, 2, 3), server("b", 1, 2, 3)], 2))
        self.assertEqual([(0, 0), (0, 0.6667)],
                         hits([server("a", 1, 2, 3), server("b", 3, 2, 1)], 2))

    def test_what_finds_no_room_is_found_by_compression_if_it_is_not_far_back(self):
        pages = 1 << 10
        kin = [server(name, *range(3 * pages), -own) for name, own in (("a", 1), ("b", 1))]
        host = builders.host(kin)
        found = Replay(host, "host", 2 * pages * PAGE_BYTES).hits(["id-a", "id-b"])[1]
        held = 2 * pages * 7 // 8 / (3 * pages + 1)
        self.assertAlmostEqual(held, found.cross_share, delta=0.001)
        # all of what a sent in full since then fits the window, which is as large as the dictionary
        self.assertAlmostEqual(1.0 - held, found.far_share, delta=0.001)
        # of a heap in between nothing is left beyond it
        kin = [server("a", *range(3 * pages)), server("b", -3 * pages),
               server("c", *range(3 * pages))]
        found = Replay(builders.host(kin), "host", 2 * pages * PAGE_BYTES).hits(
            ["id-a", "id-b", "id-c"])[2]
        self.assertAlmostEqual(7 / 12, found.cross_share, delta=0.001)
        self.assertEqual(0.0, found.far_share)

    def test_who_finds_nothing_pushes_others_out(self):
        # b waits for one page whether it finds something, then 5 takes the place of 1.
        self.assertEqual(
            [(0, 0), (0, 0), (0, 0.5), (0, 0.5)],
            hits([server("a", 1, 2), server("b", 4, 5), server("c", 1, 2), server("d", 4, 5)], 2))

    def test_what_a_server_brought_stays_until_its_like_has_come(self):
        def held(page_classes):
            return hits([server("a", 1, 2, 7), server("b", 4, 5, 7), server("c", 1, 2, 7),
                         server("d", 4, 5, 7)], 2, page_classes=page_classes)
        kin = builders.classes(("a c", 2), ("b d", 2), ("a b c d", 1))
        self.assertEqual([(0, 0), (0, 0), (0, 0.6667), (0, 0)], held(kin))
        # else b pushes 1 and 2 out before c comes
        self.assertEqual([(0, 0), (0, 0), (0, 0.3333), (0, 0)], held(None))

    def test_who_finds_most_leaves_the_ring_as_it_is(self):
        self.assertEqual(
            [(0, 0), (0, 0.6667), (0, 0.6667)],
            hits([server("a", 1, 2), server("b", 1, 2, 3), server("c", 2, 1, 3)], 2))

    def test_what_comes_once_in_the_log_takes_no_room(self):
        # 7 and 8 recur on the host, but not in this group.
        self.assertEqual([(0, 0), (0, 1)], hits([server("a", 1, 7, 8, -9), server("b", 1)], 1))

    def test_scope_and_destinations_part_the_logs(self):
        a, b = server("a", 1, 1), server("b", 1, 1, project="q")
        self.assertEqual([(0.5, 0), (0.5, 0.5)], hits([a, b]))
        self.assertEqual([(0.5, 0), (0.5, 0)], hits([a, b], scope="project"))
        self.assertEqual([(0, 0), (0, 0)], hits([a, b], scope="off"))
        self.assertEqual([(0.5, 0), (0.5, 0)],
                         hits([a, b], destinations={"id-a": "x", "id-b": "y"}))

    def test_a_sample_scales_the_dictionary(self):
        # A quarter is looked at: a ring of 8 pages is one of 2 sampled contents.
        a = server("a", 1, 2, 3, theta=0.25)
        self.assertEqual([(0, 0), (0, 0.6667)],
                         hits([a, server("b", 3, 2, 1, theta=0.25)], 8))
        self.assertEqual([(0, 0), (0, 1)], hits([a, server("b", 3, 2, 1, theta=0.25)], 12))

    def test_repetitions_are_those_that_were_counted(self):
        # 16 of 20 pages are one content, which a quarter of the contents happens to leave out
        filled = dict(theta=0.25, present_pages=20, distinct_pages=4, self_duplicate_pages=16)
        self.assertEqual([(0.8, 0.0), (0.8, 0.2)],
                         hits([server("a", 1, **filled), server("b", 1, **filled)]))
        # or has in it: of the sampled pages 16 in 17 are repetitions, of all 16 in 20
        self.assertEqual([(0.8, 0.0)], hits([server("a", *[1] * 17, **filled)]))

    def test_of_the_repetitions_as_many_hit_as_in_the_sample(self):
        # a ring of one content: 2 and its repetition find no room in it
        self.assertEqual([(0.25, 0.0)], hits([server("a", 1, 1, 2, 2)], 1))

    @given(strategies.lists(strategies.integers(0, 8), max_size=30), strategies.integers(0, 8))
    @settings(deadline=None)
    def test_alone_it_gets_what_the_ring_gives(self, contents, slots):
        one = server("a", *contents, -3)
        hit, _, _ = replay.replay(numpy.array(contents, dtype=numpy.int64),
                                  numpy.zeros(len(contents), dtype=int), slots,
                                  [len(contents) + 3])
        alone = Replay(builders.host([one]), "host", slots * PAGE_BYTES).alone("id-a")
        self.assertEqual((0.0, 0.0), (alone.cross_share, alone.far_share))
        self.assertAlmostEqual(numpy.count_nonzero(hit) / (len(contents) + 3), alone.self_share)

    def test_where_repetitions_were_not_counted_the_sample_tells(self):
        unread = server("a", 1, 1, -2, distinct_pages=4, self_duplicate_pages=0,
                        contents_read=False)
        self.assertEqual([(0.25, 0.0)], hits([unread]))

    def test_what_did_not_hold_is_no_reference(self):
        self.assertEqual([(0, 0), (0, 0.5)], hits(
            [server("a", 1), server("b", 1)], confirmation=Confirmation(pairs=10, held=5)))

    def test_without_sequences_the_classes_tell(self):
        a = builders.server("a", 10, distinct_pages=2500, self_duplicate_pages=60)
        b = builders.server("b", 10, distinct_pages=2560)
        found = hits([a, b], page_classes=builders.classes(("a b", 1280)))
        self.assertEqual([(0.0234, 0), (0, 0.5)], found)

    def test_unequal_samples_are_not_mixed(self):
        a, b = server("a", 1, 2, theta=0.5), server("b", 1, 2, theta=0.25)
        self.assertEqual([(0, 0), (0, 0)], hits([a, b]))

    def test_fits(self):
        servers = [server("a", 1, 2, 9), server("b", 1, 2, 8)]
        for pages, expected in ((2, True), (1, False)):
            found = Replay(builders.host(servers), "host", pages * PAGE_BYTES)
            self.assertEqual(expected, found.fits(["id-a", "id-b"]))

    def test_saved_pages(self):
        servers = [server("a", 1, 2), server("b", 1, 2, -2)]
        found = Replay(builders.host(servers), "host", MANY)
        self.assertEqual(2.0, found.saved_pages(["id-a", "id-b"]))
        self.assertEqual(0.5, Hits(0.2, 0.3).reference_share)


def by_hand(contents, owners, capacity, kept_for):
    """The ring, one access after the other."""
    counts = {c: contents.count(c) for c in contents}
    if sum(count > 1 for count in counts.values()) > capacity:
        # what is full has a place in so many for what guests write meanwhile
        capacity -= capacity // replay.LATE_SHARE
    ring, hit, crosses, seen = [], [], [], set()
    for at, (content, owner) in enumerate(zip(contents, owners, strict=True)):
        place = next((n for n, slot in enumerate(ring) if slot[0] == content), None)
        mine = [n for n in range(at) if owners[n] == owner and counts[contents[n]] > 1]
        own = [n for n in range(at) if owners[n] == owner]
        again = [n for n, c in enumerate(contents) if owners[n] == owner and counts[c] > 1]
        hit.append(place is not None)
        crosses.append(hit[-1] and (content, owner) not in seen)
        seen.add((content, owner))
        if place is None and counts[content] > 1:
            sent = len(mine) * owners.count(owner) / len(again)
            if len(ring) < capacity:
                ring.append((content, owner))
            elif (sent >= capacity / 8 and 2 * sum(hit[n] for n in own) < sent
                    and kept_for[ring[0][1]] < owner):
                ring = [*ring[1:], (content, owner)]
    return hit, crosses


class TestRing(base.BaseTestCase):

    @settings(deadline=None, max_examples=300)
    @given(strategies.lists(strategies.integers(0, 12), max_size=60), strategies.integers(1, 8),
           strategies.integers(1, 4), strategies.lists(strategies.integers(0, 3), min_size=4,
                                                       max_size=4))
    def test_as_one_by_one(self, contents, capacity, servers, longer):
        owners = sorted(at % servers for at in range(len(contents)))
        kept_for = [min(servers - 1, at + longer[at]) for at in range(servers)]
        # with the extension, where it is built, and without
        for speed in (replay._speed, None):
            with mock.patch.object(replay, "_speed", speed):
                hit, crosses, far = replay.replay(
                    numpy.array(contents, dtype=numpy.int64),
                    numpy.array(owners, dtype=numpy.int64), capacity,
                    [owners.count(owner) for owner in range(servers)], 6.0,
                    lambda: kept_for)
            self.assertEqual(by_hand(contents, owners, capacity, kept_for),
                             (hit.tolist(), (hit & crosses).tolist()))
            missed = [at for at, found in enumerate(hit.tolist()) if not found]
            for at, content in enumerate(contents):
                before = [n for n in range(at) if contents[n] == content]
                near = before and sum(before[-1] < n <= at for n in missed) <= 6
                fits = len({c for c in contents if contents.count(c) > 1}) <= capacity
                self.assertEqual(bool(near) and at in missed and not fits, bool(far[at]))

    def test_what_is_no_access_is_refused(self):
        if replay._speed is None:
            self.skipTest("the extension is not built here")
        numbers = numpy.array([-1, 0], dtype=numpy.int64)
        sends, missed, kept = numpy.ones(1), numpy.empty(2, dtype=bool), numbers[1:].copy()
        for last, owners, kept_for, slots, into in (
                (numbers[::-1].copy(), numbers * 0, kept, 1, missed),
                (numbers, numbers + 1, kept, 1, missed), (numbers, numbers, kept, 1, missed),
                (numbers, numbers * 0, kept, 3, missed), (numbers, numbers * 0, numbers, 1, missed),
                (numbers, numbers * 0, kept - 1, 1, missed),
                (numbers, numbers * 0, kept + 1, 1, missed),
                (numbers, numbers * 0, kept, 1, missed[:1])):
            self.assertRaises(ValueError, replay._speed.follow_ring, last, owners, sends, kept_for,
                              slots, 0.1, into)

    @settings(deadline=None, max_examples=50)
    @given(strategies.lists(strategies.integers(0, 12), max_size=60))
    def test_where_all_fits_every_repetition_hits(self, contents):
        hit, _, _ = replay.replay(numpy.array(contents, dtype=numpy.int64),
                               numpy.zeros(len(contents), dtype=numpy.int64), 13)
        self.assertEqual(len(contents) - len(set(contents)), hit.sum())
