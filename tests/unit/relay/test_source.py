import ddt
from oslotest import base

from nova_batch_migrate.relay import source


@ddt.ddt
class ZstdLevel(base.BaseTestCase):
    @ddt.data((-1, 37.5e6, 3), (-1, 125e6, 1), (-1, 1.25e9, None), (-1, None, 1), (0, 1e6, None),
              (9, 1.25e9, 9))
    @ddt.unpack
    def test_the_slower_the_wire_the_higher_unless_the_operator_says(self, option, rate, level):
        self.assertEqual(level, source.zstd_level(option, rate))
