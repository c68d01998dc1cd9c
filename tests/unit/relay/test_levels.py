import ddt
from oslotest import base

from nova_batch_migrate.relay import levels


@ddt.ddt
class TestLevelChooser(base.BaseTestCase):

    @ddt.data(
        # level, seconds of encoding and of sending in a window, the level behind it
        (1, 0.1, 0.1, 1),           # in balance: it stays
        (1, 0.2, 0.1, -1),          # the core is scarce: one down
        (-1, 0.2, 0.1, None),
        (None, 0.2, 0.1, None),     # there is nothing below
        (1, 0.1, 0.2, 1),           # 0.1 * 4.2 / 1.9 = 0.22 > 0.16
        (1, 0.1, 0.3, 3),           # 0.22 < 0.24, and 0.1 * 7.4 / 1.9 is not
        (1, 0.1, 10.0, 9),          # a slow link: as high as it goes
        (9, 0.1, 10.0, 9),
        (None, 0.1, 0.3, 1),        # 0.1 * 1.9 = 0.19 < 0.24
        (4, 0.1, 10.0, 4),          # the operator's own
    )
    @ddt.unpack
    def test_what_is_scarce_decides(self, level, encoding, sending, expected):
        chooser = levels.LevelChooser(level)
        half = encoding / 2
        self.assertEqual(level, chooser.note(half, half, sending / 2, 10 << 20))
        self.assertEqual(expected, chooser.note(half, half, sending / 2, 54 << 20))

    @ddt.data(
        # level, of encoding the share that a core was there, the level behind a window
        (9, 0.7, 6),                # others want the cores: one down, however slow the link is
        (3, 0.5, 1),
        (1, 0.5, 1),                # the least that pays
        (None, 0.5, 1),
        (3, 0.8, 9),                # hardly anybody else
    )
    @ddt.unpack
    def test_a_host_whose_cores_are_busy_compresses_no_more_than_pays(self, level, share, expected):
        chooser = levels.LevelChooser(level)
        self.assertEqual(expected, chooser.note(0.1, 0.1 * share, 10.0, 64 << 20))

    def test_a_slow_link_always_has_what_level_1_leaves(self):
        chooser = levels.LevelChooser(3)
        # nearly all is found: there is nothing to send
        self.assertEqual([1, 1, 1], [chooser.note(0.1, 0.1, 0.01, 64 << 20) for _ in range(3)])
        self.assertEqual(9, chooser.note(0.1, 0.1, 10.0, 64 << 20))

    def test_highest_level_is_a_bound(self):
        self.assertEqual(3, levels.LevelChooser(1, highest=3).note(0.1, 0.1, 10.0, 64 << 20))

    def test_each_window_stands_alone(self):
        chooser = levels.LevelChooser(1)
        chooser.note(0.1, 0.1, 10.0, 64 << 20)
        self.assertEqual(9, chooser.note(0.5, 0.5, 0.51, 64 << 20))
        self.assertEqual(6, chooser.note(0.5, 0.5, 0.4, 64 << 20))
