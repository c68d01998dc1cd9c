from oslotest import base

from nova_batch_migrate.relay import guest_memory, qemu_stream

MIB = 1 << 20
MAIN = qemu_stream.Position(phase="round0", ram_bytes=64 * MIB)


def channel(passed_bytes, round=0):
    return qemu_stream.Position(phase="later" if round else "round0", round=round,
                                round0_bytes=passed_bytes)


class GuestMemory(base.BaseTestCase):
    def seen(self, *positions):
        memory = guest_memory.GuestMemory()
        for number, position in enumerate(positions):
            memory.note(number, position)
        return memory.remaining_bytes(), memory.carriers()

    def test_one_connection_that_carries_all(self):
        alone = qemu_stream.Position(phase="round0", ram_bytes=64 * MIB, round0_bytes=24 * MIB)
        self.assertEqual((40 * MIB, 1), self.seen(alone))
        later = qemu_stream.Position(phase="later", ram_bytes=64 * MIB, round=1)
        self.assertEqual((None, 1), self.seen(later))

    def test_what_several_carry_adds_up(self):
        self.assertEqual((64 * MIB, 1), self.seen(MAIN))
        self.assertEqual((44 * MIB, 2), self.seen(MAIN, channel(12 * MIB), channel(8 * MIB)))
        # one has begun anew: what the others still bring is no more than a rest
        self.assertEqual((None, 2), self.seen(MAIN, channel(40 * MIB), channel(24 * MIB, 1)))

    def test_nobody_has_said_how_much_there_is(self):
        self.assertEqual((None, 1), self.seen(channel(8 * MIB)))
        self.assertEqual((None, 1), self.seen())

    def test_a_connection_that_has_ended_counts_no_more(self):
        memory = guest_memory.GuestMemory()
        for number, position in enumerate((MAIN, channel(8 * MIB), channel(8 * MIB))):
            memory.note(number, position)
        memory.forget(2)
        memory.forget(2)
        self.assertEqual((56 * MIB, 1), (memory.remaining_bytes(), memory.carriers()))
