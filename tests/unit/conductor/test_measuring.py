from types import SimpleNamespace
from unittest import mock

from oslotest import base

from nova_batch_migrate.conductor import measuring

GIB = 1 << 30
WINDOWS = (8.0, 0.1, 2.0, 0.5)


class TestWindows(base.BaseTestCase):
    def test_the_longest_go_where_there_is_no_time_for_them(self):
        for seconds, expected in ((0.0, [0.1, 0.5, 2.0, 8.0]), (20.0, [0.1, 0.5, 2.0, 8.0]),
                                  (7.0, [0.1, 0.5, 2.0]), (3.0, [0.1, 0.5]), (0.1, [0.1, 0.5])):
            self.assertEqual(expected, measuring.windows(WINDOWS, seconds), seconds)


class TestSeconds(base.BaseTestCase):
    def seconds(self, gib_each: float, servers: int = 8, plan_only: bool = False,
                started: bool = False) -> float:
        rows = [{"server_id": f"s{at}", "memory_bytes": int(gib_each * GIB)} for at in range(100)]
        measurer = measuring.Measurer(
            SimpleNamespace(conductor=SimpleNamespace(measure_seconds=20.0)), None)
        batch = {"id": "b", "request": {"plan_only": plan_only}, "control": {"started": started}}
        with mock.patch.object(measuring.db, "servers_of", return_value=rows):
            return measurer._seconds(batch, [f"s{at}" for at in range(servers)])

    def test_by_the_memory_that_is_to_be_read(self):
        self.assertAlmostEqual(3.0 + 4 * GIB / 1e9, self.seconds(0.5))
        self.assertAlmostEqual(3.0 + 0.5 * GIB / 1e9, self.seconds(0.5, servers=1))
        self.assertEqual(20.0, self.seconds(4.0, servers=100))

    def test_a_plan_alone_waits_for_all_of_it(self):
        self.assertEqual(0.0, self.seconds(4.0, plan_only=True))
        self.assertEqual(20.0, self.seconds(4.0, plan_only=True, started=True))


class TestReadable(base.BaseTestCase):
    def test_what_is_a_figure_is_left_as_it_is(self):
        server = {"id": "a", "present_pages": 5, "changed": {"rate_pages_per_second": 3.0,
                                                             "working_set_pages": 9.0}}
        self.assertIs(server, measuring._readable(server, "cmpa", "web"))

    def test_what_is_none_is_no_figure_of_that_server(self):
        for wrong, words in (({"present_pages": -5}, "present_pages must be a whole number"),
                             ({"memory_bytes": float("nan")}, "memory_bytes"),
                             ({"compress_changed": float("inf")}, "compress_changed"),
                             ({"windows": [{"seconds": 2.0}]}, "changed_pages is missing")):
            found = measuring._readable({"id": "a"} | wrong, "cmpa", "web")
            self.assertEqual(("a", "web", "cmpa"), (found["id"], found["name"], found["host"]))
            self.assertIn("its figures cannot be true", found["error"])
            self.assertIn(words, found["error"])
