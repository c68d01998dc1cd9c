import random

from oslotest import base

from nova_batch_migrate.agent import compressibility


class TestGauge(base.BaseTestCase):

    def ratio(self, *blocks):
        gauge = compressibility.Gauge()
        for block in blocks:
            gauge.add(block)
        return gauge.ratio

    def test_random_pages_do_not_compress_and_text_does(self):
        noise = random.Random(1).randbytes(4096)
        self.assertEqual(1.0, self.ratio([noise]))
        self.assertLess(self.ratio([b"the same words " * 273]), 0.05)

    def test_neighbours_help_each_other(self):
        noise = random.Random(1).randbytes(4096)
        self.assertAlmostEqual(0.5, self.ratio([noise, noise]), 1)
        self.assertEqual(1.0, self.ratio([noise], [noise]))

    def test_without_a_sample_nothing_is_said(self):
        self.assertIsNone(self.ratio())
