import fixtures
from oslotest import base

from nova_batch_migrate import conf, exception
from nova_batch_migrate.agent import domain_xml, domains, history, sampler

RUNNING = domains.Presence("running", False, False)
LEAVING = domains.Presence("running", True, False)


def domain(name, presence=RUNNING):
    definition = domain_xml.Definition("kvm", name, "p", 1 << 28, (1 << 28,), ())
    return domains.Domain(name, name, 1, definition, presence, f"{name}.pid")


class Host:

    def __init__(self, *names):
        self.here = {name: domain(name) for name in names}
        #: Who turns out to migrate after a glance.
        self.leaving = set()

    def domains(self):
        return list(self.here.values())

    def presence(self, server):
        if server not in self.here:
            return None
        return LEAVING if server in self.leaving else self.here[server].presence


class SamplerCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.conf = conf.new()
        conf.parse(self.conf, [], [])
        self.now = 1000.0
        for name in ("time.monotonic", "time.time"):
            self.useFixture(fixtures.MonkeyPatch(name, lambda: self.now))
        self.useFixture(fixtures.MonkeyPatch("time.sleep", self.sleep))
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.agent.glances.glance", self.glance))
        self.glanced = []
        self.errors = {}

    def sleep(self, seconds):
        self.now += seconds

    def glance(self, series, servers, pages, lags, read_bytes_per_second):
        """The stand-in of the privileged process: 100 pages/s change."""
        ids = [server["id"] for server in servers]
        self.glanced.append((self.now, series, ids, pages))
        seen = [[at for at, what, names, _ in self.glanced[:-1] if what == series and i in names]
                for i in ids]
        return [{"id": i, "error": self.errors[i]} if i in self.errors else
                {"id": i, "at": self.now, "windows": [
                    [lag, self.now - past[-lag], 100 * (self.now - past[-lag])]
                    for lag in lags if lag <= len(past)]}
                for i, past in zip(ids, seen, strict=True)]

    def sampler(self, host):
        return sampler.Sampler(self.conf, host, history.Histories(None, lambda: self.now))

    def run_for(self, made, seconds):
        end = self.now + seconds
        while self.now < end:
            made.tick(self.now)
            self.now += 1.0


class TestTick(SamplerCase):

    def test_a_sample_a_minute_and_not_all_at_once(self):
        host = Host(*(f"s{index}" for index in range(30)))
        made = self.sampler(host)
        self.run_for(made, 600)
        for server in host.here:
            self.assertAlmostEqual(10, len(made.histories.samples(server)), delta=2)
        together = [len(ids) for _, _, ids, _ in self.glanced]
        self.assertLess(max(together), 10)
        # at random moments: even ones could not tell a period from its alias
        gaps = {round(late.at_seconds - early.at_seconds) for early, late in zip(
            made.histories.samples("s0"), made.histories.samples("s0")[1:], strict=False)}
        self.assertGreater(len(gaps), 3)

    def test_a_sample_has_a_short_window_and_the_one_since_the_last_minute(self):
        made = self.sampler(Host("a"))
        self.run_for(made, 300)
        latest = made.histories.samples("a")[-1]
        (short, pages), (long, _) = sorted(latest.windows)
        self.assertEqual((2.0, 200.0), (short, pages))
        self.assertTrue(2 < long < 120)
        self.assertEqual(100.0, latest.pages_per_second)

    def test_who_migrates_is_not_looked_at(self):
        host = Host("a")
        host.here["a"] = domain("a", LEAVING)
        self.run_for(self.sampler(host), 180)
        self.assertEqual([], self.glanced)

    def test_who_began_to_migrate_meanwhile_has_no_sample(self):
        host = Host("a")
        host.leaving.add("a")
        made = self.sampler(host)
        self.run_for(made, 180)
        self.assertEqual([], made.histories.samples("a"))
        self.assertNotEqual([], self.glanced)

    def test_who_left_is_forgotten(self):
        host = Host("a", "b")
        made = self.sampler(host)
        self.run_for(made, 130)
        del host.here["a"]
        self.run_for(made, 130)
        self.assertEqual([], made.histories.samples("a"))
        self.assertNotEqual([], made.histories.samples("b"))

    def test_who_can_not_be_read_has_no_sample(self):
        self.errors["a"] = "hugepages"
        made = self.sampler(Host("a", "b"))
        self.run_for(made, 130)
        self.assertEqual([], made.histories.samples("a"))
        self.assertNotEqual([], made.histories.samples("b"))


class TestThread(SamplerCase):

    def test_a_libvirt_that_is_gone_is_a_warning(self):
        logger = self.useFixture(fixtures.FakeLogger())
        made = self.sampler(Host())
        turns = iter([False, False, False, True])
        made._stopped.wait = lambda seconds: next(turns, True)

        def gone():
            raise exception.AgentUnavailable("libvirt is gone")
        made._hypervisor.domains = gone
        made._run()
        self.assertIn("no dirty rates for the history just now: libvirt is gone", logger.output)

    def test_off_is_off(self):
        self.conf.set_override("history", False, "agent")
        made = self.sampler(Host("a"))
        made.start()
        made.stop()
        self.assertEqual([], self.glanced)


class TestFollow(SamplerCase):

    def follow(self, host, seconds=100.0, made=None):
        made = made or self.sampler(host)
        made._stopped.wait = self.sleep
        return made.follow(host.domains(), seconds)

    def test_every_second_for_so_long(self):
        found = self.follow(Host("a"))["a"]
        self.assertEqual(99, len(found.at_seconds))
        self.assertEqual({100.0}, set(found.pages_per_second))
        self.assertEqual(1.0, found.window_seconds)
        self.assertAlmostEqual(100, found.model.rate_pages_per_second, delta=1)

    def test_many_servers_are_looked_at_less_closely(self):
        self.follow(Host(*map(str, range(256))), 10.0)
        self.assertLessEqual(sum(pages * len(ids) for _, _, ids, pages in self.glanced),
                             10.0 * 65536 + 512 * 256)

    def test_who_begins_to_migrate_is_left_alone_and_left_out(self):
        host = Host("a", "b")
        host.leaving.add("a")
        self.assertEqual({"b"}, set(self.follow(host)))
        self.assertNotIn("a", [server for _, _, ids, _ in self.glanced for server in ids])

    def test_only_who_has_little_history_and_only_if_somebody_waits(self):
        host = Host("known", "new")
        made = self.sampler(host)
        for minute in range(40):
            made.histories.add("known", history.Sample(
                self.now - 2400 + 60 * minute, ((2.0, 200.0), (60.0, 5000.0))))
        made._stopped.wait = self.sleep
        made.follow_for(host.domains(), 0.0)
        self.assertEqual([], self.glanced)
        begun = self.now
        made.follow_for(host.domains(), 60.0)
        self.assertEqual({("new",)}, {tuple(ids) for _, _, ids, _ in self.glanced})
        self.assertAlmostEqual(100.0, self.now - begun, delta=1.5)
        begun = self.now
        made.follow_for(host.domains(), 10.0)
        self.assertEqual(begun, self.now)
        self.now += 600
        made.follow_for(host.domains(), 10.0)
        self.assertAlmostEqual(650.0, self.now - begun, delta=1.5)

    def test_what_knows_more_is_told(self):
        host = Host("a")
        made = self.sampler(host)
        made._stopped.wait = self.sleep
        self.assertIsNone(made.history_of(host.here["a"]))
        made.follow_for(host.domains(), 60.0)
        self.assertEqual(99, len(made.history_of(host.here["a"]).at_seconds))
        made.histories.add("a", history.Sample(self.now - 60, ((2.0, 200.0),)))
        self.assertEqual(1, len(made.history_of(host.here["a"]).at_seconds))
