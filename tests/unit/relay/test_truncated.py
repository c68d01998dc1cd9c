"""Captured streams that end at each of their sections and records, and a byte around them."""

import pathlib

import ddt
from oslotest import base

from nova_batch_migrate.relay import qemu_stream, runs
from tests.fuzz import run
from tests.unit.relay import builders

SEEDS = {path.stem: path for path in sorted(pathlib.Path(run.SEEDS).glob("*.stream"))}
BEHIND = 8


def ends(data):
    """Give where the parser has something of the stream whole, a few bytes at a time.

    Of what follows the memory, which it does not know, the beginning and the end.
    """
    parser, found, at, behind = qemu_stream.QemuStream(), runs.Runs(), 0, 0
    for end in range(8, len(data) + 8, 8):
        found.clear()
        following = parser.parse(memoryview(data), at, min(end, len(data)), found)
        if following > at:
            behind += parser.position.ram_end
            if behind < BEHIND or following == len(data):
                yield following
            at = following


@ddt.ddt
class Truncated(base.BaseTestCase):
    @ddt.data(*SEEDS)
    def test_what_came_arrives_and_no_more(self, name):
        data = SEEDS[name].read_bytes()
        places = sorted({at + by for at in ends(data) for by in (-1, 0, 1)
                         if 0 < at + by <= len(data)})
        self.assertGreater(len(places), 15)
        log = builders.log()
        for number, at in enumerate(places, 1):
            self.assertEqual(data[:at], log.send(number, data[:at]), (name, at))
