from oslotest import base

from nova_batch_migrate.relay import figures, values
from tests.unit.relay import hosts


class GroupFigures(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.now = 100.0
        group = values.Group.from_dict(hosts.group("source", "ab" * 32))
        self.figures = figures.GroupFigures(group, lambda: self.now)

    def count(self, number, server, wire_bytes, cpu_seconds, outcome="running"):
        self.figures.count(number, server, {"raw_bytes": 4 * wire_bytes, "wire_bytes": wire_bytes},
                           outcome, cpu_seconds)

    def test_nothing_yet(self):
        told = self.figures.as_dict()
        self.assertEqual((None, {}), (told["bytes_per_second"], told["servers"]))

    def test_each_server_and_all_of_them(self):
        for number in (1, 2):
            self.figures.begin(number)
        self.now += 4
        self.count(1, hosts.FIRST, 400, 0.5)
        self.figures.begin(3)
        self.now += 4
        # of two connections, and both have ended
        self.count(2, hosts.SECOND, 100, 0.25, "done")
        self.count(3, hosts.SECOND, 300, 0.5, "done")
        self.now += 100
        self.count(1, hosts.FIRST, 400, 0.5)
        told = self.figures.as_dict()
        self.assertEqual((800, 3200, 100.0), (
            told["wire_bytes"], told["raw_bytes"], told["bytes_per_second"]))
        self.assertEqual({
            hosts.FIRST: {"raw_bytes": 1600, "wire_bytes": 400, "bytes_per_second": 100.0,
                          "cpu_seconds": 0.5, "first_pass": None, "outcomes": ["running"]},
            hosts.SECOND: {"raw_bytes": 1600, "wire_bytes": 400, "bytes_per_second": 50.0,
                           "cpu_seconds": 0.75, "first_pass": None,
                           "outcomes": ["done", "done"]}}, told["servers"])

    def test_a_servers_first_pass_is_that_of_all_its_streams(self):
        counters = {"wire_bytes": 10}
        passes = {1: figures.FirstPass(4.0, 100, 1.5), 2: figures.FirstPass(3.0, 900, 2.0)}
        for number in passes:
            self.figures.begin(number)
            self.figures.count(number, hosts.FIRST, counters, "running")
        for number, first_pass in passes.items():
            self.assertIsNone(self.figures.as_dict()["servers"][hosts.FIRST]["first_pass"])
            self.figures.count(number, hosts.FIRST, counters, "running", 0.0, first_pass)
        # they had their turn together
        self.assertEqual({"seconds": 4.0, "raw_bytes": 1000, "link_seconds": 3.5},
                         self.figures.as_dict()["servers"][hosts.FIRST]["first_pass"])
