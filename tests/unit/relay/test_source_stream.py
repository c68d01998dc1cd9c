import time
import types
from unittest import mock

import ddt
from oslotest import base

from nova_batch_migrate.relay import qemu_stream, source_stream, statistics


@ddt.ddt
class Portions(base.BaseTestCase):
    """Which portion is taken, and that blocks are made of it."""

    ROUND0, ROUND, END = (qemu_stream.Position(phase="round0"), qemu_stream.Position(round=1),
                          qemu_stream.Position(ram_end_offset=1))
    BEFORE, TO_GATE, THROUGH = (
        types.SimpleNamespace(leads=leads, through=through, held=leads)
        for leads, through in ((False, False), (True, False), (True, True)))

    @staticmethod
    def _taken(stream, position):
        late = stream._portions.near_end(position.round, position.ram_end, position.ahead_bytes)
        return stream._portion_bytes(position, late)

    @ddt.data((ROUND0, None, False, False, 1 << 20, None),
              (ROUND0, None, True, False, 3 << 20, 3 << 20),
              (ROUND0, None, False, True, 512 << 10, 512 << 10),
              (ROUND0, BEFORE, False, True, 1 << 20, None),
              (ROUND, None, False, False, 128 << 10, 128 << 10),
              (ROUND, None, True, True, 128 << 10, 128 << 10),
              (END, None, False, False, 128 << 10, None),
              (ROUND0, TO_GATE, False, False, 128 << 10, None),
              (ROUND, BEFORE, False, False, 64 << 10, None),
              (ROUND, TO_GATE, False, False, 128 << 10, 128 << 10),
              (END, THROUGH, False, False, 256 << 10, None))
    @ddt.unpack
    def test_by_where_the_stream_is(self, position, together, known, crowded, size, block):
        group = mock.Mock()
        group.sending_bytes_per_second.return_value = 37.5e6
        group.wire_bytes_per_second.return_value = 37.5e6
        group.group.link_is_slow, group.turns.crowded = True, crowded
        group.turns.others_are_urgent.return_value = False
        group.log.return_value.crossed.return_value = 40 << 20, (2 << 20 if known else 14 << 20)
        with mock.patch.object(source_stream.escort, "Escort", return_value=together):
            stream = source_stream.SourceStream(1, mock.Mock(), mock.Mock(), 49152, group,
                                                together)
        stream._is_migration = True
        # as an earlier portion had it
        stream._set_block(5 << 20)
        self.assertEqual(size, self._taken(stream, position))
        group.log.return_value.set_block_bytes.assert_called_with(1, block)

    def test_one_that_is_held_to_a_speed_is_taken_in_smaller_pieces_again(self):
        group = mock.Mock()
        group.sending_bytes_per_second.return_value, group.group.link_is_slow = 37.5e6, True
        group.turns.crowded = False
        group.log.return_value.crossed.return_value = 40 << 20, 2 << 20
        stream = source_stream.SourceStream(1, mock.Mock(), mock.Mock(), 49152, group, None)
        stream._is_migration = True
        self.assertEqual(3 << 20, self._taken(stream, self.ROUND0))
        stream._reached("slowed")
        self.assertEqual(1 << 20, self._taken(stream, self.ROUND0))


@ddt.ddt
class FirstPass(base.BaseTestCase):
    """Round 0 ends for the plan's sake when the stream slows down or the next round begins."""

    @ddt.data(qemu_stream.Position(phase="later", round=1),
              qemu_stream.Position(phase="ram-end", ram_end_offset=1),
              qemu_stream.Position(phase="round0"))
    def test_it_is_noted_once_and_without_what_others_had_of_the_wire(self, position):
        group = mock.Mock()
        group.wire_bytes_per_second.return_value, group.group.downtime_seconds = 10e6, 0.5
        counters = group.log.return_value.statistics.return_value = statistics.Statistics(
            raw_bytes=80 << 20, wire_bytes=20_000_000)
        stream = source_stream.SourceStream(1, mock.Mock(), mock.Mock(), 49152, group, None)
        stream._pace, stream._memory = mock.Mock(waited_share=0.0), mock.Mock()
        stream._memory.carriers.return_value, stream._memory.remaining_bytes.return_value = 1, 0
        stream._times["turn"] = time.monotonic() - 5.0
        stream._gave_way = 1.0
        stream._taken(qemu_stream.Position(phase="round0"), 4096)
        self.assertIsNone(stream.first_pass)
        # in round 0 it is over when the relay slows down
        stream._pace.waited_share = 0.9
        stream._taken(position, 4096)
        found = stream.first_pass
        self.assertEqual((80 << 20, 2.0), found[1:])
        self.assertTrue(3.99 <= found.seconds <= time.monotonic() - stream._times["turn"] - 0.99)
        counters.raw_bytes += 1
        stream._taken(position, 4096)
        self.assertIs(found, stream.first_pass)


class LastStep(base.BaseTestCase):
    def test_a_qemu_that_closes_at_once_finds_its_member_let_go(self):
        connection, gang = mock.Mock(), mock.Mock()
        with mock.patch.object(source_stream.escort, "Escort") as made:
            stream = source_stream.SourceStream(1, connection, mock.Mock(), 49152, mock.Mock(),
                                                gang)
        made.return_value.loaded.side_effect = lambda let_go: let_go() is None
        seen = []
        connection.sendall.side_effect = lambda message: seen.append(
            (message, "let go" in stream._times))
        stream._last_step(b"SHUT")
        self.assertEqual([(b"SHUT", True)], seen)
