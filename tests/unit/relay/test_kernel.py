import contextlib
import itertools
import os
import socket
import struct
import threading
import time

import ddt
import numpy as np
import xxhash
from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate.relay import block, dictionary, kernel, reference
from nova_batch_migrate.relay.layout import LATE, RUN_COLUMNS, SIZES, Op, Run, Stop
from tests.unit.relay import builders as b

LOOPS = {"compiled": kernel, "python": reference}


def scan(loops, data, rows=64):
    runs = np.full((rows, RUN_COLUMNS), -7, np.int64)
    at, count, stop = loops.scan_records(data, 0, len(data), 5, runs, 0, rows)
    return at, stop, runs[:count].tolist()


@ddt.ddt
class TestScan(base.BaseTestCase):

    @ddt.data(*LOOPS)
    def test_why_it_stops(self, which):
        loops = LOOPS[which]
        data = b.record(0, b.page(1)) + b.record(4096, b.page(2)) + b.record(8192, None)
        self.assertEqual((len(data), Stop.MORE, [[Run.PAGES, 0, 2, 0x28, 5],
                                                 [Run.ZERO, 8208, 1, 8192 | 0x22, 5]]),
                         scan(loops, data))
        self.assertEqual((8208, Stop.MORE), scan(loops, data[:-1])[:2])
        self.assertEqual((len(data), Stop.OTHER), scan(loops, data + b.EOS)[:2])
        self.assertEqual((8208, Stop.FULL), scan(loops, data, rows=1)[:2])
        # a zero page that is filled with something else is not one
        self.assertEqual((8208, Stop.OTHER), scan(loops, data[:-1] + b"\1")[:2])

    @settings(max_examples=100, deadline=None)
    @given(strategies.lists(strategies.one_of(
        strategies.binary(max_size=12),
        strategies.builds(lambda page, flags: struct.pack(">Q", page << 12 | flags) + b"\0",
                          strategies.integers(0, 4), strategies.sampled_from([0x22, 0x28, 0x2])),
        strategies.builds(lambda page: b.record(page << 12, bytes(4096)),
                          strategies.integers(0, 4)))))
    def test_both_find_the_same(self, pieces):
        data = b"".join(pieces)
        self.assertEqual(scan(reference, data), scan(kernel, data))

    @ddt.data(*LOOPS)
    def test_places_outside_of_the_data(self, which):
        runs = np.empty((4, RUN_COLUMNS), np.int64)
        for start, end, rows in ((-1, 4, 4), (5, 4, 4), (0, 9, 4), (0, 8, 5)):
            self.assertRaises(ValueError, LOOPS[which].scan_records, bytes(8), start, end, 0,
                              runs, 0, rows)


def runs_of(*rows):
    return np.array(rows, np.int64).reshape(-1, RUN_COLUMNS)


#: What a run can hold, and what it can't: (kind, offset, count, header, block).
RUNS = strategies.lists(strategies.tuples(
    strategies.integers(-1, 4), strategies.integers(-9, 9000), strategies.integers(-1, 5),
    strategies.one_of(strategies.integers(0, 9).map(lambda page: page << 12 | 0x28),
                      strategies.integers(-(1 << 63), (1 << 63) - 1)),
    strategies.integers(0, 1 << 40)), max_size=6)


def outcome(call, *arguments):
    """Return what a call gives, or that it refuses."""
    try:
        return call(*arguments)
    except ValueError:
        return "refused"


@ddt.ddt
class TestRuns(base.BaseTestCase):

    def listed(self, loops, rows, room=12):
        offsets, keys = np.full(room, -7, np.int64), np.full(room, 7, np.uint64)
        told = outcome(loops.list_pages, runs_of(*rows), (1 << 64) - 5, offsets, keys)
        if told == "refused":
            return told
        return told, offsets[:told[0]].tolist(), keys[:told[0]].tolist()

    @ddt.data(*LOOPS)
    def test_pages_of_runs(self, which):
        rows = [(0, 0, 7, 0, 0), (1, 7, 2, 0x22, 1), (2, 25, 2, 3 << 12 | 0x28, 1),
                (3, 9000, 1, 8 << 12, 2)]
        self.assertEqual(
            ((3, 2, 7), [33, 33 + 4104, 9000],
             [(4 << 12) - 5, (5 << 12) - 5, (10 << 12) - 5]), self.listed(LOOPS[which], rows))
        self.assertEqual("refused", self.listed(LOOPS[which], rows, room=2))
        for row in ((4, 0, 1, 0, 0), (-1, 0, 1, 0, 0), (2, 0, -1, 0, 0)):
            self.assertEqual("refused", self.listed(LOOPS[which], [row]))
        self.assertRaises(ValueError, LOOPS[which].list_pages, runs_of(*rows), 0,
                          np.empty(3, np.int64), np.empty(2, np.uint64))

    @settings(max_examples=200, deadline=None)
    @given(RUNS)
    def test_both_list_the_same(self, rows):
        self.assertEqual(self.listed(reference, rows), self.listed(kernel, rows))

    @ddt.data(*LOOPS)
    def test_where_guest_memory_has_got_to(self, which):
        note = LOOPS[which].note_runs
        up = runs_of((2, 0, 3, 0x28, 0), (1, 0, 1, 0x3022, 0))
        self.assertEqual((0, 0x104000, 0x104000, 0, 3, 1), note(up, 0x100000, 0, 0))
        # from the beginning again: that is the next round
        self.assertEqual((1, 0x104000, -1, 3, 3, 1), note(up, 0x100000, 0x104000, 0))
        self.assertEqual((0, 9, -1, 0, 0, 0), note(runs_of(), 0, 9, 0))

    @settings(max_examples=200, deadline=None)
    @given(RUNS, strategies.integers(0, 1 << 62), strategies.integers(-(1 << 63), (1 << 63) - 1),
           strategies.integers(0, 2))
    def test_both_note_the_same(self, rows, start, end, turn):
        rows = runs_of(*rows)
        self.assertEqual(reference.note_runs(rows, start, end, turn),
                         kernel.note_runs(rows, start, end, turn))


@ddt.ddt
class TestRecurring(base.BaseTestCase):
    """What recurs is told by the lower halves of hashes that the agent has made."""

    SEED = 0xfedcba9876543210

    def setUp(self):
        super().setUp()
        self.pages = [b.noise(i) for i in range(40)] + [bytes(b.PAGE), b"\xff" * b.PAGE]
        self.data = b"h" * 8 + b"".join(self.pages)
        self.offsets = np.arange(len(self.pages), dtype=np.int64) * b.PAGE + 8

    def hashes(self, pages):
        return np.unique(np.array([xxhash.xxh3_64_intdigest(page, self.SEED) & 0xffffffff
                                   for page in pages], np.uint32))

    def listed(self, loops, hashes, offsets=None):
        out = np.full(len(self.pages), 7, np.uint8)
        loops.list_recurring(self.data, self.offsets if offsets is None else offsets, hashes,
                             self.SEED, out)
        return out.tolist()

    @ddt.data(*LOOPS)
    def test_what_is_listed(self, which):
        for count in (0, 1, 2, 3, 20, 39, 42):
            self.assertEqual([1] * count + [0] * (42 - count),
                             self.listed(LOOPS[which], self.hashes(self.pages[:count])), count)
            self.assertEqual([0] * (42 - count) + [1] * count, self.listed(
                LOOPS[which], self.hashes(self.pages[42 - count:])), count)
        for offset in (-1, len(self.data) - b.PAGE + 1):
            self.assertRaises(ValueError, self.listed, LOOPS[which], self.hashes([]),
                              np.array([offset], np.int64))
        self.assertRaises(ValueError, LOOPS[which].list_recurring, self.data, self.offsets,
                          self.hashes([]), 0, np.empty(3, np.uint8))

    @ddt.data(*itertools.product(LOOPS, (False, True)))
    @ddt.unpack
    def test_who_is_let_in(self, which, lends):
        made = dictionary.Dictionary(4 << 20, loops=LOOPS[which])
        hashes = self.hashes(self.pages[1:12:2])
        # two of them are there already, one listed and one not: they are not judged
        there = self.offsets[:2]
        made.begin_block(1)
        keys = np.arange(len(self.pages), dtype=np.uint64) * np.uint64(b.PAGE)
        made.match(self.data, there, keys[:2] + np.uint64(1 << 30), owner=1, predicted=-1,
                   most_words=0)
        made.begin_block(2)
        found = made.match(self.data, self.offsets, keys, owner=2, predicted=-1, most_words=0,
                           admit=(hashes, self.SEED, lends))
        listed = {3, 5, 7, 9, 11}
        kept = {i for i, kind in enumerate(found.kinds.tolist())
                if kind in (Op.LITERAL, Op.RAW)}
        self.assertEqual(set(range(2, 42)) if lends else listed, kept)
        self.assertEqual(35 if lends else 0, found.lent)
        self.assertEqual(2, found.cross_server)


@ddt.ddt
class TestPackControl(base.BaseTestCase):

    DATA = bytes(range(256)) * 36

    def packed(self, loops, rows, ops, seqs, room=4000, deltas=2, words=5):
        out = np.full(room, 0xee, np.uint8)
        bitmaps = np.arange(deltas * 64, dtype=np.uint8).reshape(-1, 64)
        numbers = np.arange(words, dtype=np.uint64) * np.uint64(0x123456789abcdef)
        told = outcome(loops.pack_control, out, runs_of(*rows), self.DATA,
                       np.array(ops, np.uint8), np.array(seqs, np.int64), bitmaps, numbers)
        return told if told == "refused" else (told, out[:told[0]].tobytes())

    @settings(max_examples=200, deadline=None)
    @given(RUNS, strategies.lists(strategies.tuples(
        strategies.integers(0, 6), strategies.integers(-1, 4)), max_size=9))
    def test_both_write_the_same(self, rows, pages):
        ops, seqs = [op for op, _ in pages], [seq for _, seq in pages]
        self.assertEqual(self.packed(reference, rows, ops, seqs),
                         self.packed(kernel, rows, ops, seqs))

    @ddt.data(*LOOPS)
    def test_what_was_written_is_read_again(self, which):
        rows = [(0, 3, 9, 0, 0), (1, 0, 1, 0x22, 0), (2, 21, 3, 0x1028, 0), (3, 50, 1, 0, 0)]
        ops, seqs = [4, 4, 0, 5], [7, 8, -1, 3]
        (size, groups), plain = self.packed(LOOPS[which], rows, ops, seqs)
        self.assertEqual(3, groups)
        shape = block.Shape(9 + 9 + 3 * 4104 + 4096, 4, groups, 1, 0, 2, 5, 9)
        self.assertEqual(shape.plain_control_bytes, size)
        read = block.unpack(plain, shape)
        self.assertEqual(([0, 1, 2, 3], [9, 1, 3, 1], ops, seqs, self.DATA[3:12]), (
            read.run_kinds.tolist(), read.run_counts.tolist(), read.page_ops.tolist(),
            read.page_seqs.tolist(), read.verbatim.tobytes()))

    @ddt.data(*LOOPS)
    def test_what_does_not_fit(self, which):
        loops = LOOPS[which]
        (size, _), _ = self.packed(loops, [(0, 0, 9, 0, 0)], [0], [-1])
        self.assertNotEqual("refused", self.packed(loops, [(0, 0, 9, 0, 0)], [0], [-1], size))
        for rows, room in (([(0, 0, 9, 0, 0)], size - 1), ([(0, 0, 9, 0, 0)], 3),
                           ([(0, -1, 2, 0, 0)], 4000), ([(0, len(self.DATA), 1, 0, 0)], 9000),
                           ([(0, 0, -1, 0, 0)], 4000), ([(7, 0, 0, 0, 0)], 4000),
                           ([(1, 0, 1 << 32, 0, 0)], 4000)):
            self.assertEqual("refused", self.packed(loops, rows, [0], [-1], room), rows)
        self.assertRaises(ValueError, loops.pack_control, np.empty(9 << 20, np.uint8), runs_of(),
                          b"", np.zeros(1 << 16, np.uint8), np.zeros(1 << 16, np.int64),
                          np.empty((0, 64), np.uint8), np.empty(0, np.uint64))


@ddt.ddt
class TestApplyBlock(base.BaseTestCase):
    """What came from a peer is never believed: ValueError, and nothing outside is touched."""

    SLOTS, PINNED, NEXT = 8, 1, 11
    RINGS = (PINNED, NEXT, 2, LATE + 3)

    def setUp(self):
        super().setUp()
        self.content = np.arange(self.SLOTS * 1024, dtype=np.uint32).view(np.uint8) \
            .reshape(self.SLOTS, 4096)
        # the ring has gone round: numbers 8, 9, 10, then 4 and 5 of the time before, and 6 and 7
        # have given way to the second one, which has gone round, too
        self.seqs = np.array([0, 8, 9, 10, 4, 5, LATE + 2, LATE + 1], np.int64)

    def apply(self, loops, size, runs, groups, *, bitmaps=(), words=(), verbatim=b"",
              literals=b"", raws=b"", spoil=None, late=False):
        """Return what comes out, the next number and the dictionary; or "refused"."""
        plain = block.Control(
            np.array([kind for kind, _ in runs], np.uint8), np.array([n for _, n in runs]),
            np.array([0x28] * len(runs), np.uint64), np.empty(0, np.uint8), np.empty(0, np.int64),
            np.array(bitmaps, np.uint8).reshape(-1, 64), np.array(words, np.uint64),
            np.frombuffer(verbatim, np.uint8)).pack()[0]
        # groups by hand: the packer would not write what does not fit
        ops, counts, seqs = (np.array(column, dtype) for column, dtype in zip(
            zip(*groups, strict=True) if groups else ((), (), ()), ("u1", "<u2", "<i8"),
            strict=True))
        known = ops >= Op.REFERENCE
        ends = np.where(known, seqs + counts, 0)
        steps = np.array([seq - max([0, *ends[:i][known[:i]][-1:]]) if known[i] else 0
                          for i, seq in enumerate(seqs.tolist())], np.int64)
        at = len(runs) * 13
        plain = bytearray(plain[:at] + ops.tobytes() + counts.tobytes()
                          + steps.view(np.uint8).reshape(-1, 8).T.tobytes() + plain[at:])
        counted = (len(runs), len(groups), len(bitmaps), len(words), len(verbatim))
        if spoil:
            plain, counted = spoil(plain, counted)
        out = np.full(size + 16, 0xee, np.uint8)
        content, held = self.content.copy(), self.seqs.copy()
        following = outcome(loops.apply_block, out[8:-8], plain, counted, literals, raws, content,
                            held, self.RINGS, late)
        self.assertEqual([0xee] * 16, out[:8].tolist() + out[-8:].tolist())
        if following == "refused":
            return following
        return out[8:-8].tobytes(), following, content.tobytes(), held.tolist()

    PAGES = bytes(range(256)) * 32

    @ddt.data(*LOOPS)
    def test_each_kind_of_run_and_page(self, which):
        bitmap = [0b101, *bytes(63)]
        out, following, content, seqs = self.apply(
            LOOPS[which], 3 + 3 * 4104 + 9 + 6 * 4096, [(0, 3), (2, 3), (1, 1), (3, 6)],
            [(Op.REFERENCE, 1, 10), (Op.LITERAL, 1, 0), (Op.DELTA, 1, 9), (Op.RAW, 1, 0),
             (Op.TRANSIENT, 1, 0), (Op.UPDATE, 1, 10), (Op.REFERENCE, 2, 11),
             (Op.TRANSIENT_DELTA, 1, 9)],
            bitmaps=[bitmap] * 3, words=[1, 2, 3, (1 << 64) - 1, 1, 2], verbatim=b"abc",
            literals=self.PAGES, raws=b"r" * 4096)
        page = self.content.view(np.uint64)
        delta, update = page[2].copy(), page[3].copy()
        delta[[0, 2]] += np.array([1, 2], np.uint64)
        update[[0, 2]] += np.array([3, (1 << 64) - 1], np.uint64)
        literal = self.PAGES[:4096]
        self.assertEqual(
            b"abc" + struct.pack(">Q", 0x28) + self.content[3].tobytes()
            + struct.pack(">Q", 0x1028) + literal + struct.pack(">Q", 0x2028) + delta.tobytes()
            + struct.pack(">Q", 0x28) + b"\0" + b"r" * 4096 + literal + update.tobytes()
            + literal + delta.tobytes() * 2, out)
        self.assertEqual((14, [0, 8, 9, 10, 11, 12, 13, LATE + 1]), (following, seqs))
        self.assertEqual(self.content[:3].tobytes() + update.tobytes() + literal + delta.tobytes()
                         + b"r" * 4096 + self.content[7:].tobytes(), content)

    @ddt.data(*LOOPS)
    def test_the_second_ring(self, which):
        out, following, content, seqs = self.apply(
            LOOPS[which], 5 * 4096, [(3, 5)],
            [(Op.REFERENCE, 1, LATE + 1), (Op.LITERAL, 1, 0), (Op.DELTA, 1, 10),
             (Op.REFERENCE, 1, LATE + 3), (Op.UPDATE, 1, LATE + 4)],
            bitmaps=[[1, *bytes(63)]] * 2, words=[5, 6], literals=self.PAGES[:4096], late=True)
        delta = self.content.view(np.uint64)[3].copy()
        delta[0] += np.uint64(5)
        update = delta.copy()
        update[0] += np.uint64(6)
        literal = self.PAGES[:4096]
        self.assertEqual(self.content[7].tobytes() + literal + delta.tobytes() + literal
                         + update.tobytes(), out)
        # what is before it stays
        self.assertEqual((LATE + 5, [0, 8, 9, 10, 4, 5, LATE + 4, LATE + 3]), (following, seqs))
        self.assertEqual(self.content[:6].tobytes() + update.tobytes() + literal, content)

    def cases(self):
        bitmap = [[1, *bytes(63)]]
        fit = {"literals": self.PAGES[:4096]}
        yield 4104, [(2, 1)], [(0, 1, 0)], fit
        yield 4103, [(2, 1)], [(0, 1, 0)], fit
        yield 4105, [(2, 1)], [(0, 1, 0)], fit
        yield 4104, [(2, 1)], [], fit
        yield 4104, [(2, 1)], [(0, 1, 0)], {}
        yield 4104, [(2, 1)], [(0, 1, 0)], {"literals": self.PAGES}
        yield 4104, [(2, 1)], [(0, 1, 0)], {"literals": self.PAGES[:4097]}
        yield 4104, [(2, 1)], [(0, 2, 0)], {"literals": self.PAGES}
        yield 4104, [(2, 1)], [(1, 1, 0)], fit
        yield 4104, [(2, 1)], [(8, 1, 0)], fit
        yield 4104, [(2, 1)], [(0, 1, 0), (8, 0, 0)], fit
        yield 4104, [(2, 1)], [(0, 1, 0), (7, 0, 0)], fit
        yield 4104, [(2, 1)], [(0, 1, 0), (4, 0, 0)], fit
        yield 4104, [(2, 1)], [(4, 0, 6), (0, 1, 0)], fit
        yield 4096, [(4, 1)], [(0, 1, 0)], fit
        for seq in (-1, 0, 1, 4, 6, 7, 10, 11, 1 << 62, LATE, LATE + 1, LATE + 3):
            yield 4104, [(2, 1)], [(Op.REFERENCE, 1, seq)], {}
            yield 4104, [(2, 1)], [(Op.UPDATE, 1, seq)], {"bitmaps": bitmap, "words": [5]}
            yield 4104, [(2, 1)], [(Op.DELTA, 1, seq)], {"bitmaps": bitmap, "words": [5]}
            yield 4104, [(2, 1)], [(Op.TRANSIENT_DELTA, 1, seq)], {"bitmaps": bitmap, "words": [5]}
        yield 4104, [(2, 1)], [(Op.DELTA, 1, 9)], {"bitmaps": bitmap}
        yield 4104, [(2, 1)], [(Op.DELTA, 1, 9)], {"bitmaps": bitmap, "words": [5, 6]}
        yield 4104, [(2, 1)], [(Op.DELTA, 1, 9)], {"words": [5]}
        # the page that a delta is based on is driven out by the one before it
        yield 8192, [(3, 2)], [(0, 1, 0), (Op.DELTA, 1, 4)], fit | {"bitmaps": bitmap,
                                                                   "words": [5]}
        # it is written where its base is
        yield 4096, [(3, 1)], [(Op.DELTA, 1, 4)], {"bitmaps": bitmap, "words": [5]}
        for count, late in ((7, False), (8, False), (2, True), (3, True)):
            yield 4096 * count, [(3, count)], [(0, count, 0)], {
                "literals": self.PAGES[:4096] * count, "late": late}
        yield 3, [(0, 3)], [], {"verbatim": b"ab"}
        yield 2, [(0, 2)], [], {"verbatim": b"abc"}
        yield 0, [], [], {}
        yield 9, [(1, (1 << 32) - 1)], [], {}
        for counted in ((1, 1, 0, 0, 1), (2, 1, 0, 0, 0), (1, 1, 0, -1, 8), (-1, 3, 0, 0, 0),
                        (1 << 62, 0, 0, 0, 0)):
            yield 4104, [(2, 1)], [(0, 1, 0)], fit | {
                "spoil": lambda plain, _, counted=counted: (plain, counted)}
        yield 4104, [(2, 1)], [(0, 1, 0)], fit | {
            "spoil": lambda plain, counted: (plain[:-1], counted)}

    def test_both_take_and_refuse_the_same(self):
        refused = taken = 0
        for size, runs, groups, others in self.cases():
            expected = self.apply(reference, size, runs, groups, **others)
            self.assertEqual(expected, self.apply(kernel, size, runs, groups, **others),
                             (size, runs, groups, others))
            refused += expected == "refused"
            taken += expected != "refused"
        self.assertEqual((58, 24), (refused, taken))

    @settings(max_examples=300, deadline=None)
    @given(strategies.lists(strategies.tuples(strategies.integers(0, 3),
                                              strategies.integers(0, 3)), max_size=4),
           strategies.lists(strategies.tuples(
               strategies.integers(0, 6), strategies.integers(0, 2),
               strategies.integers(3, 13) | strategies.integers(LATE, LATE + 4)), max_size=6),
           strategies.integers(0, 2), strategies.integers(0, 1), strategies.integers(0, 2),
           strategies.lists(strategies.tuples(strategies.integers(0, 200),
                                              strategies.integers(0, 255)), max_size=2),
           strategies.booleans())
    def test_both_do_the_same(self, runs, groups, literals, raws, deltas, damage, late):
        size = sum(SIZES[kind] * count for kind, count in runs)

        def spoil(plain, counted):
            for place, byte in damage:
                if place < len(plain):
                    plain[place] = byte
            return plain, counted
        told = [self.apply(loops, size, runs, groups, literals=self.PAGES[:4096 * literals],
                           raws=self.PAGES[4096:4096 * (1 + raws)],
                           bitmaps=[[3, *bytes(63)]] * deltas, words=[1, 2] * deltas,
                           verbatim=b"v" * sum(n for kind, n in runs if kind == 0), spoil=spoil,
                           late=late)
                for loops in (reference, kernel)]
        self.assertEqual(*told)

    def test_a_dictionary_whose_arrays_do_not_fit(self):
        for loops in LOOPS.values():
            for content, *rings in (
                    (self.content[:5], 1, 9, 2, LATE), (self.content, 8, 9, 0, LATE),
                    (self.content, 1, 0, 2, LATE), (self.content, -1, 9, 2, LATE),
                    (self.content, 6, 9, 3, LATE), (self.content, 1, 9, -1, LATE),
                    (self.content, 1, 9, 2, LATE - 1), (self.content, 1, LATE, 2, LATE),
                    (self.content, 1, 9, 0, LATE)):
                self.assertRaises(ValueError, loops.apply_block, bytearray(), b"",
                                  (0, 0, 0, 0, 0), b"", b"", content.copy(), self.seqs.copy(),
                                  tuple(rings), True)


@ddt.ddt
class TestPump(base.BaseTestCase):

    @contextlib.contextmanager
    def pumping(self, which, chunk, rest):
        """Give both ends, and what counts; they are closed and all has gone on in the end."""
        with contextlib.ExitStack() as closing:
            ours, theirs = socket.socketpair()
            taken, given = socket.socketpair()
            for each in (ours, theirs, taken, given):
                closing.enter_context(each)
            reader, writer = os.pipe()
            closing.callback(os.close, reader)
            closing.callback(os.close, writer)
            moved = np.zeros(1, np.int64)
            thread = threading.Thread(target=LOOPS[which].pump, args=(
                theirs.fileno(), taken.fileno(), reader, writer, chunk, rest, moved), daemon=True)
            thread.start()
            yield ours, given, moved
            ours.shutdown(socket.SHUT_WR)
            thread.join(60)
            self.assertFalse(thread.is_alive())

    @ddt.data(*itertools.product(LOOPS, (0, 200)))
    @ddt.unpack
    def test_all_bytes_until_the_end(self, which, rest):
        sent = os.urandom(50_000)
        with self.pumping(which, 1 << 16, rest) as (ours, given, moved):
            ours.sendall(sent)
            self.assertEqual(sent, given.recv(len(sent), socket.MSG_WAITALL))
        self.assertEqual([len(sent)], moved.tolist())

    @ddt.data(*LOOPS)
    def test_it_rests_behind_what_flows_and_not_behind_what_is_small(self, which):
        with self.pumping(which, 1 << 16, 400_000) as (ours, given, _):
            times = []
            for size in (100, 100, 4096, 100):
                begun = time.monotonic()
                ours.sendall(bytes(size))
                given.recv(size, socket.MSG_WAITALL)
                times.append(time.monotonic() - begun)
        self.assertLess(max(times[:3]), 0.2)
        self.assertGreater(times[3], 0.2)

    @ddt.data(*LOOPS)
    def test_what_can_not_be_spliced(self, which):
        with contextlib.ExitStack() as closing:
            reader, writer = os.pipe()
            closing.callback(os.close, reader)
            closing.callback(os.close, writer)
            moved = np.zeros(1, np.int64)
            self.assertRaises(OSError, LOOPS[which].pump, -1, writer, reader, writer, 4096, 0,
                              moved)
            self.assertRaises(ValueError, LOOPS[which].pump, 0, 1, reader, writer, 0, 0, moved)
            self.assertRaises(ValueError, LOOPS[which].pump, 0, 1, reader, writer, 1, -1, moved)
