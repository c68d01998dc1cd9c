import ddt
from oslotest import base

from nova_batch_migrate.relay import portions, service


def of(slow=True, in_set=False, raw=0, share=1.0):
    return portions.Portions(slow, in_set, lambda: (raw, int(raw * share)))


@ddt.ddt
class Late(base.BaseTestCase):
    """Behind round 0 little lies in the relay: on a faster link that is more."""

    @ddt.data((1, 30e6, True, 64 << 10, None),
              (1, None, True, 64 << 10, None),
              (1, 37.5e6, True, 128 << 10, 128 << 10),
              (1, 1e9, True, 256 << 10, 256 << 10),
              (0, 1e9, True, 256 << 10, None),
              (1, None, False, 64 << 10, None),
              (1, 30e6, False, 64 << 10, None),
              (1, 300e6, False, 256 << 10, 256 << 10),
              (1, 3e9, False, 1 << 20, 1 << 20),
              # the encoder's own for round 0: 1 MiB
              (0, 300e6, False, 1 << 20, None))
    @ddt.unpack
    def test_what_leaves_in_some_milliseconds_is_taken_at_once(self, number, sending, slow, size,
                                                               block):
        self.assertEqual((size, block), of(slow).late(number, sending))

    def test_of_a_set_that_is_not_led_yet_little_on_any_link(self):
        self.assertEqual((64 << 10, None), of(slow=False, in_set=True).late(1, 1e9))

    @ddt.data((1, False, 1 << 30, False, False, True), (0, False, 0, False, False, False),
              (0, True, 1 << 30, False, False, False), (0, True, 15 << 20, False, False, True),
              # where bytes leave slowly, or others wait for it, at once
              (0, True, 1 << 30, True, False, True), (0, True, 1 << 30, False, True, True))
    @ddt.unpack
    def test_from_where_on_little_is_to_lie_here(self, number, stopped, ahead, slow, in_set, near):
        self.assertEqual(near, of(slow, in_set).near_end(number, stopped, ahead))

    @ddt.data((1, False, 128 << 10, 128 << 10), (1, True, 256 << 10, 256 << 10),
              (0, False, 128 << 10, None))
    @ddt.unpack
    def test_of_one_that_is_led_by_how_far_it_is(self, number, through, size, block):
        self.assertEqual((size, block), of(in_set=True).led(number, through))


@ddt.ddt
class Early(base.BaseTestCase):
    """Round 0 of a stream that is alone: as much as is gone within 25 ms, in two steps."""

    @ddt.data((None, 0.1, False, 3 << 20, 3 << 20), (200e6, 1.0, False, 3 << 20, 3 << 20),
              (300e6, 1.0, False, 6 << 20, 6 << 20), (100e6, 0.3, False, 6 << 20, 6 << 20),
              (100e6, 0.5, False, 3 << 20, 3 << 20), (None, 0.1, True, 1 << 20, None),
              (37.5e6, 0.5, True, 1 << 20, None), (37.5e6, 0.2, True, 3 << 20, 3 << 20))
    @ddt.unpack
    def test_what_leaves_soon_is_taken_at_once(self, sending, share, slow, size, block):
        self.assertEqual((size, block),
                         of(slow, raw=4 << 20, share=share).early(sending, unhindered=True))

    @ddt.data((False, False), (True, True))
    @ddt.unpack
    def test_one_that_is_held_or_of_a_set_is_taken_in_smaller_pieces(self, unhindered, in_set):
        found = of(in_set=in_set, raw=4 << 20, share=0.2).early(37.5e6, unhindered)
        self.assertEqual((1 << 20, None), found)


@ddt.ddt
class Shared(base.BaseTestCase):
    """What a stream takes while others go beside it, by what of it crosses."""

    @ddt.data((1 << 20, 10.0, 1.0, 187_500),    # too little is known: all of it may cross
              (4 << 20, 0.5, 0.5, 375_000),
              (4 << 20, 0.1, 0.1, 512 << 10),   # encoding must not take long either
              (4 << 20, 2.0, 2.0, 93_750),
              (4 << 20, 9.0, 9.0, 64 << 10))
    @ddt.unpack
    def test_of_known_content_more_is_taken_beside_others(self, raw, share, known, size):
        its = of(raw=raw, share=share)
        found = its.shared(37.5e6)
        self.assertAlmostEqual(size, found.size_bytes, delta=2)
        self.assertEqual(found.size_bytes, found.block_bytes)
        self.assertAlmostEqual(known, its.crossing_share(), places=5)

    def test_what_crossed_last_counts(self):
        crossed = [(4 << 20, 4 << 20), (5 << 20, 4 << 20), (8 << 20, 5 << 20)]
        its = portions.Portions(True, False, lambda: crossed.pop(0))
        self.assertEqual([1.0, 1.0, 0.25], [its.crossing_share() for _ in range(3)])


class Waking(base.BaseTestCase):

    def test_of_a_set_by_any_byte(self):
        for slow in (True, False):
            self.assertEqual(1, of(slow, in_set=True).bulk_least_bytes)

    def test_else_by_no_more_than_half_of_what_the_kernel_holds(self):
        for slow, held in ((True, service._SLOW_LINK_BUFFER_BYTES),
                           (False, service._FAST_LINK_BUFFER_BYTES)):
            self.assertEqual(held // 2, of(slow).bulk_least_bytes)
