import ssl

from nova_batch_migrate.relay import throughput
from tests.unit.relay import test_channel


class ThroughputTest(test_channel.ChannelTestCase):
    def test_known_content_costs_less_than_new(self):
        speed = throughput.measure(self.context("cmpa", True), self.context("cmpa", False), "cmpa")
        self.assertGreater(speed.known_bytes_per_second, speed.new_bytes_per_second)
        # on any machine that could carry a migration at all
        self.assertGreater(speed.new_bytes_per_second, 10e6)
        self.assertEqual({"new_bytes_per_second", "known_bytes_per_second"}, set(speed.as_dict()))

    def test_certificates_that_do_not_fit_are_an_error_and_no_figure(self):
        self.assertRaises(ssl.SSLError, throughput.measure, self.context("cmpa", True, "foreign"),
                          self.context("cmpa", False), "cmpa")
