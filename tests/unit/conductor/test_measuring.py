from types import SimpleNamespace
from unittest import mock

from oslotest import base

from nova_batch_migrate.conductor import measuring
from nova_batch_migrate.planning.telemetry import HostTelemetry

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


class TestLooks(base.BaseTestCase):
    """How often one pass asks an agent for the end of a measurement."""

    def polled(self, running: int, purpose="initial", hosts=("cmpa",), preflight=True):
        agents, slept = mock.Mock(), []
        answers = [{"state": "running"}] * running + [
            {"state": "done", "servers": [], "next_offset": None, "host": {}}] * 9
        agents.get_measure.side_effect = answers
        job = {"job": "j", "servers": ["s1"], "done": False, "refusals": 0}
        if preflight:
            job["preflight"] = {"problems": []}
        measurer = measuring.Measurer(mock.Mock(), agents, slept.append)
        measurer._conf.measure_timeout_seconds = 600
        measure = measurer.start({}, purpose) | {"hosts": {host: dict(job) for host in hosts}}
        batch = {"id": "b", "request": {}}
        with mock.patch.object(measurer, "_store"), mock.patch.object(measuring.db, "add_event"):
            found = measurer.poll(mock.Mock(), batch, measure)
        return found["state"], slept

    def test_its_end_is_seen_within_a_tenth_of_a_second(self):
        self.assertEqual(("done", [0.1, 0.1]), self.polled(2))
        self.assertEqual(("done", []), self.polled(0))

    def test_a_pass_ends_all_the_same(self):
        self.assertEqual(("running", [0.1] * 3), self.polled(4))

    def test_beside_migrations_and_with_several_hosts_once_does(self):
        self.assertEqual(("running", []), self.polled(1, purpose="regroup"))
        self.assertEqual(("running", []), self.polled(2, hosts=("cmpa", "cmpb")))

    def test_what_a_plan_needs_beside_is_asked_first(self):
        self.assertEqual("running", self.polled(4, preflight=False)[0])


class TestWrongFigures(base.BaseTestCase):
    """An agent whose answers are no figures costs a batch what they stand for, and no more."""

    def stored(self, servers, common, link, options):
        agents = mock.Mock()
        agents.bandwidth.return_value = link
        events = []
        with mock.patch.multiple(
                measuring.db, servers_of=lambda batch: [{"server_id": "a", "name": "web"}],
                get_batch=lambda batch: {"telemetry": None}, update_batch=mock.DEFAULT,
                add_event=lambda batch, kind, words: events.append((kind, words))) as patched:
            measuring.Measurer(mock.Mock(), agents)._store(
                None, {"id": "b"}, "cmpa", servers, common,
                {"nova_options": options, "problems": ["too old"]})
            values = patched["update_batch"].call_args.args[1]
        return HostTelemetry.from_dict(values["telemetry"]["cmpa"]), events

    def test_each_is_left_out_alone_and_told(self):
        nan = float("nan")
        right = {"id": "c", "total_pages": 5, "present_pages": 5}
        host, events = self.stored(
            [{"id": "a", "present_pages": nan}, right],
            {"page_classes": {"exact": True, "theta": nan},
             "confirmation": {"pairs": 3, "held": 2}},
            {"interface": "eth0", "link_bytes_per_second": nan},
            {"live_migration_downtime": -4, "max_concurrent_live_migrations": 3})
        wrong, good = host.servers
        self.assertEqual(("a", "web", "cmpa"), (wrong.id, wrong.name, wrong.host))
        self.assertIn("its figures cannot be true", wrong.error)
        self.assertEqual((5, None), (good.present_pages, good.error))
        self.assertEqual((None, 3, "unknown"), (
            host.page_classes, host.confirmation.pairs, host.bandwidth.source))
        self.assertEqual((500, 3), (host.options.downtime_ms, host.options.max_concurrent))
        self.assertIn("live_migration_downtime", host.options.assumed)
        self.assertEqual({"warning"}, {kind for kind, _ in events})
        told = [words for _, words in events]
        self.assertEqual([*host.unreadable, "cmpa: too old"], told)
        self.assertIn("nothing is known to be in common: cmpa.page_classes.theta", told[0])
        self.assertIn("nothing is known of the migration link: cmpa.bandwidth", told[1])
