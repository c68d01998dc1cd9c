import urllib.request

from oslotest import base

from nova_batch_migrate.relay import metrics

TOLD = {
    "groups": [{"id": "b/cmpa/0/cmpb", "bytes_per_second": 5e6, "dictionary_bytes": 64 << 20,
                "dictionary_fill_bytes": 4096,
                "servers": {"s1": {"raw_bytes": 100, "wire_bytes": 30, "cpu_seconds": 0.25,
                                   "outcomes": ["running"]}}}],
    "total": {"raw_bytes": 900, "wire_bytes": 300, "zero_bytes": 8192},
    "spliced_bytes": 7, "cpu_seconds": 1.5}


class MetricsTest(base.BaseTestCase):
    def fetch(self, told):
        endpoint = metrics.Endpoint(0, lambda: told)
        self.addCleanup(endpoint.stop)
        with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics",
                                    timeout=60) as answer:
            return answer.read().decode().splitlines()

    def test_what_a_scrape_gets(self):
        lines = self.fetch(TOLD)
        for line in (
                'nova_batch_relay_bytes_total{kind="raw"} 900.0',
                'nova_batch_relay_bytes_total{kind="zero"} 8192.0',
                'nova_batch_relay_bytes_total{kind="delta"} 0.0',
                'nova_batch_relay_spliced_bytes_total 7.0',
                'nova_batch_relay_cpu_seconds_total 1.5',
                'nova_batch_relay_groups 1.0',
                'nova_batch_relay_server_bytes_total{group="b/cmpa/0/cmpb",kind="wire",'
                'server="s1"} 30.0',
                'nova_batch_relay_server_cpu_seconds_total{group="b/cmpa/0/cmpb",server="s1"} '
                '0.25',
                'nova_batch_relay_group_bytes_per_second{group="b/cmpa/0/cmpb"} 5e+06',
                'nova_batch_relay_group_dictionary_fill_bytes{group="b/cmpa/0/cmpb"} 4096.0'):
            self.assertIn(line, lines)

    def test_a_group_without_a_rate_yet_has_none(self):
        told = TOLD | {"groups": [TOLD["groups"][0] | {"bytes_per_second": None}]}
        self.assertEqual([], [line for line in self.fetch(told) if line.startswith(
            "nova_batch_relay_group_bytes_per_second{")])
