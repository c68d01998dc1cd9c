import gc
import itertools

import numpy as np
from oslotest import base

from nova_batch_migrate.relay import dictionary, encoder, settings

MIB = 1 << 20


def address(memory: dictionary.Memory) -> int:
    return memory.whole.ctypes.data


class StoreTestCase(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.store = dictionary.Store(64 * MIB)
        # who is gone is gone when its last name is, not when the collector comes by
        gc.disable()
        self.addCleanup(gc.enable)


class Store(StoreTestCase):
    def test_what_one_dictionary_has_left_serves_the_next(self):
        memory = self.store.memory(48 * MIB)
        memory.populate()
        held = dictionary.Dictionary(48 * MIB, memory=memory)
        held.pages.content[5] = 7
        before = address(memory)
        del memory, held
        again = dictionary.Dictionary(32 * MIB, memory=self.store.memory(32 * MIB))
        self.assertEqual(before, again.pages.content.ctypes.data)
        self.assertEqual(7, again.pages.content[5, 0])
        self.assertEqual(0, again.fill_bytes)

    def test_what_is_still_referred_to_is_left_alone(self):
        memory = self.store.memory(48 * MIB)
        last = memory.pages(10)[3:4].reshape(-1)
        before = address(memory)
        del memory
        other = self.store.memory(48 * MIB)
        self.assertNotEqual(before, address(other))
        other.whole[:] = 1
        self.assertEqual(0, last.max())

    def test_dictionaries_do_not_overlap(self):
        sizes = [5 * MIB, 4 * MIB + 4096, 30 * MIB, 20 * MIB, 8 * MIB]
        held = [self.store.memory(each) for each in sizes]
        for number, each in enumerate(held):
            each.whole[:] = number
        del held[1], held[2]
        held += [self.store.memory(4 * MIB), self.store.memory(40 * MIB)]
        ends = sorted((address(each), address(each) + each.whole.nbytes) for each in held)
        self.assertTrue(all(end <= begin for (_, end), (begin, _) in itertools.pairwise(ends)))
        self.assertEqual([0, 2, 4], [int(each.whole.min()) for each in held[:3]])

    def test_all_comes_together_again(self):
        whole = self.store.free_bytes()
        held = [self.store.memory(16 * MIB) for _ in range(4)]
        self.assertEqual(whole - 64 * MIB, self.store.free_bytes())
        for each in (2, 0, 1, 0):
            del held[each]
        self.assertEqual(whole, self.store.free_bytes())
        self.assertEqual(64 * MIB, self.store.memory(64 * MIB).whole.nbytes)

    def test_what_is_given_back_holds_nothing_any_more(self):
        kept, gone = self.store.memory(8 * MIB), self.store.memory(8 * MIB)
        kept.whole[:] = gone.whole[:] = 1
        del gone
        self.store.release()
        self.assertEqual(0, self.store.memory(8 * MIB).whole.max())
        self.assertEqual(1, kept.whole.min())


class Buffers(StoreTestCase):
    """What logs have beside their dictionaries' pages."""

    def log(self) -> encoder.Encoder:
        return encoder.Encoder(settings.LogSettings(dictionary_bytes=16 * MIB),
                               memory=self.store.memory(16 * MIB))

    def test_those_of_a_log_that_is_gone_serve_the_next(self):
        areas = self.store._areas
        before = self.log()
        before.open_stream(1, "one")
        had = {size: free.qsize() for size, free in areas._free.items()}
        del before
        left = {size: free.qsize() for size, free in areas._free.items()}
        self.assertTrue(all(left[size] > had[size] for size in left))
        again = self.log()
        again.open_stream(1, "one")
        self.assertEqual(had, {size: free.qsize() for size, free in areas._free.items()})

    def test_that_of_a_stream_that_ended_serves_another(self):
        log = self.log()
        log.open_stream(1, "one")
        with log.buffer(1) as free:
            place = np.asarray(free).ctypes.data
        log.end(1)
        log.open_stream(2, "two")
        self.assertEqual(place, np.asarray(log.buffer(2)).ctypes.data)

    def test_nobody_gets_that_of_one_that_was_given_up_while_it_is_fed(self):
        log = self.log()
        log.open_stream(1, "one")
        fed = log.buffer(1)
        log.abort(1, "why")
        log.open_stream(2, "two")
        self.assertFalse(np.shares_memory(np.asarray(fed), np.asarray(log.buffer(2))))

    def test_tables_begin_as_if_they_were_new(self):
        before = dictionary.Dictionary(16 * MIB, memory=self.store.memory(16 * MIB))
        pages = np.random.default_rng(1).integers(0, 256, (100, 4096), np.uint8)
        at = np.arange(100, dtype=np.int64) * 4096
        before.begin_block(1)

        def match(made):
            return made.match(pages.reshape(-1), at, at.astype(np.uint64), owner=1, predicted=-1,
                              most_words=0)
        self.assertEqual(0, match(before).self_duplicates)
        self.assertEqual(100, match(before).self_duplicates)
        del before
        again = dictionary.Dictionary(16 * MIB, memory=self.store.memory(16 * MIB))
        again.begin_block(1)
        self.assertEqual(0, match(again).self_duplicates)

    def test_what_nobody_uses_is_given_back(self):
        held = self.store.memory(16 * MIB).buffer(4 * MIB)
        other = self.store.memory(16 * MIB).buffer(4 * MIB)
        held[:] = other[:] = 1
        del other
        self.store.release()
        self.assertEqual(0, self.store.memory(16 * MIB).buffer(4 * MIB).max())
        self.assertEqual(1, held.min())

    def test_no_more_is_kept_than_a_few_logs_need(self):
        held = [self.store.memory(16 * MIB).buffer(64 * MIB) for _ in range(6)]
        held.clear()
        self.assertEqual([4], [free.qsize() for free in self.store._areas._free.values()])
