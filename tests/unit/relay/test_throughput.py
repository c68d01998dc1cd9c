import ssl

from oslotest import base

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


class RepeatedTest(base.BaseTestCase):
    def test_the_best_of_the_latest_counts(self):
        told = iter([(300e6, 2e9), (500e6, 1e9), (400e6, 1e9)] + [(100e6, 5e8)] * 5)
        found = throughput.Repeated(lambda: throughput.Speed(*next(told)))
        # nobody has asked yet
        found.again()
        self.assertEqual({"new_bytes_per_second": 300e6, "known_bytes_per_second": 2e9},
                         found.best())
        self.assertEqual(300e6, found.best()["new_bytes_per_second"])
        found.again()
        found.again()
        self.assertEqual({"new_bytes_per_second": 500e6, "known_bytes_per_second": 2e9},
                         found.best())
        for _ in range(5):
            found.again()
        self.assertEqual(100e6, found.best()["new_bytes_per_second"])

    def test_what_could_not_be_measured_may_be_later(self):
        answers = [throughput.Speed(300e6, 2e9), OSError("no certificate")]

        def measure():
            answer = answers.pop()
            if isinstance(answer, OSError):
                raise answer
            return answer

        found = throughput.Repeated(measure)
        self.assertIsNone(found.best())
        self.assertIsNone(found.best())
        found.again()
        self.assertEqual(300e6, found.best()["new_bytes_per_second"])
