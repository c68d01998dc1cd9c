import gc
import itertools

from oslotest import base

from nova_batch_migrate.relay import dictionary

MIB = 1 << 20


def address(memory: dictionary.Memory) -> int:
    return memory.whole.ctypes.data


class Store(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.store = dictionary.Store(64 * MIB)
        # who is gone is gone when its last name is, not when the collector comes by
        gc.disable()
        self.addCleanup(gc.enable)

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
