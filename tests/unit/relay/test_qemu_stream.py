import struct

import ddt
from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate.relay import qemu_stream, runs
from nova_batch_migrate.relay.layout import SIZES, Run
from tests.unit.relay import builders as b


def parse(data, chunk=None):
    """Parse in chunks; return the parser, and (kind, length or count) of what it found."""
    parser, table, at = qemu_stream.QemuStream(), runs.Runs(), 0
    ends = range(chunk, len(data) + chunk, chunk) if chunk else [len(data)]
    for end in ends:
        end = min(end, len(data))
        while (following := parser.parse(memoryview(data), at, end, table)) > at:
            at = following
    return parser, table.table.tolist(), at


def covered(table):
    """Return the offset behind the last run, having checked that the runs leave no gap."""
    at = 0
    for kind, offset, count, _header, _block in table:
        assert offset == at, f"a gap at {at}"
        at += count * SIZES[kind]
    return at


@ddt.ddt
class TestQemuStream(base.BaseTestCase):

    def test_runs_of_pages_and_zeros(self):
        data = b.guest([b.page(1), b.page(2), b.page(3), None, None, b.page(4)])
        parser, table, at = parse(data)
        self.assertEqual(len(data), at)
        self.assertEqual(len(data), covered(table))
        found = [(kind, count) for kind, _, count, _, _ in table if kind != Run.VERBATIM]
        # the first record bears the block's name, so its page stands alone
        self.assertEqual([(Run.BARE, 1), (Run.PAGES, 2), (Run.ZERO, 2), (Run.PAGES, 1)], found)
        self.assertEqual(3, sum(parser.channel.hits[what] for what in ("section 02", "section 03",
                                                                      "section 08")))

    def test_position_through_the_rounds(self):
        half = [b.page(i) for i in range(128)]
        head = b.HEAD + b.start() + b.part(*b.pages(half))
        parser, _, _ = parse(head)
        self.assertEqual("round0", parser.position.phase)
        self.assertEqual((1 << 20) + (1 << 18), parser.position.ram_bytes)
        self.assertEqual(128 * 4096, parser.position.round0_bytes)
        self.assertAlmostEqual(0.4, parser.position.round0_share)
        self.assertFalse(parser.position.ram_end)
        ahead = (1 << 20) + (1 << 18) - 128 * 4096
        self.assertEqual(ahead, parser.position.ahead_bytes)
        # also where the guest stands still, and nothing remains that a speed could change
        stopped, _, _ = parse(head + b.part(last=True))
        self.assertEqual((True, ahead, 0), (stopped.position.ram_end, stopped.position.ahead_bytes,
                                            stopped.position.remaining_bytes))
        # what follows the memory waits for nothing, nor does what is beside its own connections
        behind, _, _ = parse(head + b.part(last=True) + b.DEVICE_STATE)
        beside, _, _ = parse(b.HEAD + b.start() + b.part(*b.pages([None] * 9)) + b.part(last=True))
        for each in (behind, beside):
            self.assertEqual((True, 0), (each.position.ram_end, each.position.ahead_bytes))

        again = head + b.part(*b.pages([b.page(7), None], first_address=4096))
        parser, _, _ = parse(again)
        self.assertEqual(("later", 1, 1), (parser.position.phase, parser.position.round,
                                           parser.position.changed_pages))
        self.assertEqual((1.0, 0), (parser.position.round0_share, parser.position.ahead_bytes))

        parser, _, _ = parse(again + b.part(last=True))
        self.assertEqual("ram-end", parser.position.phase)
        self.assertEqual(len(again), parser.position.ram_end_offset)

    def test_stops_in_front_of_the_ram_end(self):
        before = b.HEAD + b.start() + b.part(*b.pages([b.page(1)])) + b.SWITCHOVER_START
        data = before + b.part(last=True) + b.DEVICE_STATE
        parser, table = qemu_stream.QemuStream(), runs.Runs()
        at = parser.parse(memoryview(data), 0, len(data), table)
        self.assertEqual(len(before), at)
        self.assertFalse(parser.position.ram_end)
        self.assertEqual(len(data), parser.parse(memoryview(data), at, len(data), table))
        self.assertTrue(parser.position.ram_end)

    def test_tells_when_what_is_left_is_a_part_of_something(self):
        data = memoryview(b.HEAD + b.start() + b.part(*b.pages([b.page(1), b.page(2), b.page(3)])))
        parser, table = qemu_stream.QemuStream(), runs.Runs()
        at = parser.parse(data, 0, len(data) - 3000, table)
        self.assertTrue(parser.starved)
        self.assertEqual(at, parser.parse(data, at, len(data) - 2000, table))
        self.assertTrue(parser.starved)
        self.assertEqual(len(data), parser.parse(data, at, len(data), table))
        self.assertFalse(parser.starved)

    def test_second_block_has_its_own_key(self):
        data = b.stream(b.part(*b.pages([b.page(1)]), *b.pages([b.page(2)], block=b"pc.bios")))
        _, table, _ = parse(data)
        keys = {block for kind, _, _, _, block in table if kind == Run.BARE}
        self.assertEqual(2, len(keys))

    @ddt.data(
        ("tls", b"\x16\x03\x01\x02\x00" * 100),
        ("other version", b"QEVM" + struct.pack(">I", 2) + bytes(500)),
        ("post-copy", b.HEAD + b.start() + b"\x08" + struct.pack(">HH", 4, 0) + b.page(1)),
        ("block migration", b.HEAD + b"\x01" + struct.pack(">I", 1) + b"\x05block" + bytes(900)),
        ("hook", b.HEAD + b.start() + b"\x02" + struct.pack(">IQ", 2, 0x80) + bytes(100)),
        ("device state first", b.HEAD + b.DEVICE_STATE),
    )
    @ddt.unpack
    def test_the_unknown_is_verbatim_to_the_end(self, _name, data):
        data = data + b.part(*b.pages([b.page(1)]))
        parser, table, at = parse(data)
        self.assertEqual(len(data), at)
        self.assertEqual([Run.VERBATIM], [kind for kind, *_ in table])
        self.assertFalse(parser.position.understood)
        self.assertEqual("verbatim", parser.position.phase)

    def test_device_state_behind_the_ram_is_understood(self):
        parser, _, _ = parse(b.guest([b.page(1)]))
        self.assertTrue(parser.position.understood)
        self.assertEqual("ram-end", parser.position.phase)

    def test_records_of_other_kinds_are_stepped_over(self):
        xbzrle = struct.pack(">Q", 0x60) + b"\x01" + struct.pack(">H", 30) + b"x" * 30
        compressed = struct.pack(">QI", 4096 | 0x120, 40) + b"c" * 40
        flush = struct.pack(">Q", 0x200)
        odd = struct.pack(">Q", 8192 | 0x22) + b"\x07"
        data = b.stream(b.part(*b.pages([b.page(1)]), xbzrle, compressed, flush, odd,
                               b.record(16384, b.page(2))))
        parser, table, _ = parse(data)
        self.assertTrue(parser.channel.hits["xbzrle"] and parser.channel.hits["compressed"])
        self.assertEqual(2, sum(count for kind, _, count, _, _ in table if kind >= Run.PAGES))
        self.assertEqual(len(data), covered(table))

    def test_configuration_subsections(self):
        def subsection(name, content):
            return b"\x05" + bytes([len(name)]) + name + struct.pack(">I", 1) + content

        head = (b.HEAD + subsection(b"configuration/target-page-bits", struct.pack(">I", 12))
                + subsection(b"configuration/capabilities", struct.pack(">I", 1) + b"\x03abc")
                + subsection(b"configuration/uuid", bytes(16)))
        parser, _, _ = parse(head + b.start() + b.part(*b.pages([b.page(1)])))
        self.assertTrue(parser.position.understood)
        self.assertEqual("round0", parser.position.phase)

    @settings(max_examples=60, deadline=None)
    @given(strategies.integers(1, 9000), strategies.lists(
        strategies.sampled_from([None, 1, 2]), min_size=1, max_size=12))
    def test_chunking_changes_nothing(self, chunk, contents):
        data = b.guest([content and b.page(content) for content in contents])
        whole, _, _ = parse(data)
        parser, table, at = parse(data, chunk)
        self.assertEqual(len(data), at)
        self.assertEqual(len(data), covered(table))
        self.assertEqual(whole.position, parser.position)
        self.assertEqual(whole.channel.hits, parser.channel.hits)


class TestMultifd(base.BaseTestCase):

    @staticmethod
    def packet(offsets, contents, flags=0, block=b"pc.ram", zeros=0):
        return (b"\x11\x22\x33\x44" + struct.pack(">IIIIIQI", 1, flags, 128, len(contents), 0, 0,
                                                  zeros)
                + bytes(28) + block.ljust(256, b"\0")
                + struct.pack(">128Q", *offsets, *[0] * (128 - len(offsets))) + b"".join(contents))

    HELLO = b"\x11\x22\x33\x44" + struct.pack(">I", 1) + bytes(56)

    def test_pages_of_packets_are_bare_runs(self):
        data = (self.HELLO + self.packet([0, 4096, 16384], [b.page(1), b.page(2), b.page(3)])
                + self.packet([], [], flags=1) + self.packet([20480], [b.page(4)]))
        parser, table, at = parse(data)
        self.assertEqual((len(data), len(data)), (at, covered(table)))
        self.assertEqual([(2, 0), (1, 16384), (1, 20480)],
                         [(count, header) for kind, _, count, header, _ in table
                          if kind == Run.BARE])
        self.assertEqual(4 * 4096, parser.position.round0_bytes)
        self.assertEqual(0, parser.position.round)

    def test_zero_pages_of_a_packet_have_passed_as_well(self):
        data = (self.HELLO + self.packet([0, 8192, 4096], [b.page(1), b.page(2)], zeros=1)
                + self.packet([12288, 16384], [], zeros=2))
        parser, table, at = parse(data)
        self.assertEqual((len(data), len(data)), (at, covered(table)))
        self.assertEqual((5 * 4096, 0), (parser.position.round0_bytes, parser.position.round))
        parser, _, _ = parse(self.HELLO + self.packet([0], [b.page(1)], zeros=128))
        self.assertFalse(parser.position.understood)

    def test_the_same_page_has_one_key_on_every_connection(self):
        _, main, _ = parse(b.guest([b.page(1)]))
        _, channel, _ = parse(self.HELLO + self.packet([0], [b.page(1)]))
        keys = {block for table in (main, channel) for kind, _, _, _, block in table
                if kind == Run.BARE}
        self.assertEqual(1, len(keys))

    def test_compressed_packets_are_verbatim(self):
        data = self.HELLO + self.packet([0], [b.page(1)], flags=4) + bytes(50)
        parser, table, at = parse(data)
        self.assertEqual(len(data), at)
        self.assertFalse(parser.position.understood)
        self.assertEqual({Run.VERBATIM}, {kind for kind, *_ in table})

    def test_the_last_page_of_a_packet_once_more_is_no_round(self):
        """QEMU 7.2 begins packets so, which one sees that sends two in a row."""
        packets = [self.packet([first * 4096, (first + 1) * 4096], [b.page(1), b.page(2)])
                   for first in (4, 5, 6, 9)] + [self.packet([10 * 4096], [b.page(3)])]
        parser, _, _ = parse(b"".join((self.HELLO, *packets)))
        self.assertEqual((0, 0), (parser.position.round, parser.position.changed_pages))
        parser, _, _ = parse(b"".join((self.HELLO, *packets, packets[2])))
        self.assertEqual((1, 2), (parser.position.round, parser.position.changed_pages))

    def test_a_second_pass_is_a_later_round(self):
        data = self.HELLO + self.packet([8192], [b.page(1)]) + self.packet([0], [b.page(2)])
        parser, _, _ = parse(data)
        self.assertEqual((1, 1, 4096), (parser.position.round, parser.position.changed_pages,
                                        parser.position.round0_bytes))
