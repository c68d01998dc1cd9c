import json

import ddt
import fixtures
from oslotest import base

from nova_batch_migrate import conf
from nova_batch_migrate.agent import bandwidth, nova_options

HTB = """\
class htb 1:1 root rate 1Gbit ceil 1Gbit burst 1375b cburst 1375b
class htb 1:20 parent 1:1 prio 0 rate 10Mbit ceil 100Mbit burst 1600b cburst 1600b
class htb 1:30 parent 1:1 prio 3 rate 40Mbit ceil 400Mbit burst 1600b cburst 1600b
"""
FLAT_HTB = ("class htb 1:10 root leaf 10: prio 0 rate 100663Kbit ceil 100663Kbit "
            "burst 73710b cburst 73710b \n")
TBF = "qdisc tbf 8006: root refcnt 3 rate 12Mbit burst 10Kb lat 50ms \n"
ADDRESSES = [
    {"ifname": "lo", "addr_info": [{"local": "127.0.0.1"}]},
    {"ifname": "eth0", "addr_info": [{"local": "10.0.0.5"}]},
    {"ifname": "eth1", "addr_info": [{"local": "10.1.0.5"}, {"local": "fd00::5"}]}]


@ddt.ddt
class TestPure(base.BaseTestCase):

    @ddt.data(("", "", None), ("qdisc noqueue 0: root refcnt 2 \n", "", None),
              ("", HTB, 12_500_000), ("", FLAT_HTB, 12_582_875), (TBF, "", 1_500_000),
              (TBF, FLAT_HTB, 1_500_000))
    @ddt.unpack
    def test_tightest_cap_is_that_of_the_leaves(self, qdiscs, classes, cap):
        self.assertEqual(cap, bandwidth.tightest_cap(qdiscs, classes))

    @ddt.data(("tc", 1500, 4, 1448 / 1514), ("option", 9000, 4, 8948 / 9014),
              ("ethtool", 1500, 4, 1448 / 1538), ("tc", 1500, 6, 1428 / 1514),
              ("ethtool", 9000, 6, 8928 / 9038))
    @ddt.unpack
    def test_goodput_is_the_payload_of_the_frames(self, source, mtu, version, share):
        self.assertAlmostEqual(share * 1e6, bandwidth.goodput(1e6, source, mtu, version))

    @ddt.data(("fd00::5", "10.0.0.5", 6), ("10.1.0.5", "fd00::5", 4), ("a.host", "fd00::5", 6),
              (None, "10.0.0.5", 4), (nova_options.UNKNOWN, nova_options.UNKNOWN, 4))
    @ddt.unpack
    def test_the_ip_version_is_that_of_the_migration_address(self, inbound, own, version):
        self.assertEqual(version, bandwidth.ip_version(
            {"live_migration_inbound_addr": inbound, "my_ip": own}))


class Tools(fixtures.Fixture):
    """Plays iproute2: what each command shows."""

    def __init__(self, **shows):
        self.shows = {"tc qdisc": "", "tc class": "", "ip route": '[{"dev": "eth9"}]',
                      "ip addr": json.dumps(ADDRESSES)} | shows
        self.sent_bytes = 0

    def _setUp(self):
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.agent.bandwidth._output", self.show))

    def show(self, *command):
        name = " ".join(word for word in command if not word.startswith("-"))
        if name.startswith("ip link"):
            self.sent_bytes += 5_000_000
            return json.dumps([{"mtu": 1500, "stats64": {"tx": {"bytes": self.sent_bytes}}}])
        return next(text for key, text in self.shows.items() if name.startswith(key))


class TestFindInterface(base.BaseTestCase):

    def find(self, **options):
        self.useFixture(Tools())
        return bandwidth.find_interface({"live_migration_inbound_addr": None, "my_ip": None}
                                        | options)

    def test_the_migration_address_comes_before_my_ip(self):
        self.assertEqual("eth1", self.find(live_migration_inbound_addr="10.1.0.5",
                                           my_ip="10.0.0.5"))
        self.assertEqual("eth1", self.find(live_migration_inbound_addr="fd00::5"))
        self.assertEqual("eth1", self.find(live_migration_inbound_addr="FD00:0:0::0005"))

    def test_my_ip_comes_before_the_default_route(self):
        self.assertEqual("eth0", self.find(my_ip="10.0.0.5"))
        self.assertEqual("eth9", self.find(my_ip=nova_options.UNKNOWN))


class Migrating:
    """A hypervisor with one migration that sends 3 MB between two looks."""

    def __init__(self):
        self.sent = 0

    def migrated_bytes(self):
        self.sent += 3_000_000
        return {"server": self.sent}


class TestMeasure(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.clock = [50.0, 51.0]
        self.useFixture(fixtures.MonkeyPatch("time.monotonic", lambda: self.clock.pop(0)))
        self.useFixture(fixtures.MonkeyPatch("time.sleep", lambda seconds: None))

    def measure(self, tools, **options):
        self.useFixture(tools)
        settings = conf.new()
        conf.parse(settings, [], [])
        options = {"migration_interface": "nolink0", "nova_config_files": []} | options
        for name, value in options.items():
            settings.set_override(name, value, "agent")
        self.watch = bandwidth.LinkWatch(settings, Migrating())
        return self.watch.measure()

    def test_a_cap_counts_and_running_migrations_are_no_other_traffic(self):
        found = self.measure(Tools(**{"tc class": FLAT_HTB}))
        self.assertEqual(("nolink0", 12_582_875.0, "tc", None),
                         (found.interface, found.link_bytes_per_second, found.source,
                          found.nova_cap_bytes_per_second))
        self.assertAlmostEqual(12_582_875 * 1448 / 1514, found.goodput_bytes_per_second)
        # the counter is read three times: for the MTU, before and after
        self.assertAlmostEqual(5_000_000 - 3_000_000 * 1514 / 1448,
                               found.other_bytes_per_second)

    def test_headers_are_those_of_the_version_that_migrations_go_over(self):
        path = self.useFixture(fixtures.TempDir()).join("nova.conf")
        with open(path, "w", encoding="utf-8") as opened:
            opened.write("[libvirt]\nlive_migration_inbound_addr = fd00::5\n")
        found = self.measure(Tools(**{"tc class": FLAT_HTB}), nova_config_files=[path])
        self.assertAlmostEqual(12_582_875 * 1428 / 1514, found.goodput_bytes_per_second)
        self.assertAlmostEqual(5_000_000 - 3_000_000 * 1514 / 1428,
                               found.other_bytes_per_second)

    def test_later_on_what_was_sent_since_the_last_look_counts(self):
        self.measure(Tools(**{"tc class": FLAT_HTB}))
        self.clock = [61.0]
        # the counter is read twice more, for the MTU and now: 10 MB in ten seconds
        self.assertAlmostEqual((10_000_000 - 3_000_000 * 1514 / 1448) / 10,
                               self.watch.measure().other_bytes_per_second)

    def test_a_look_taken_early_saves_the_wait(self):
        self.measure(Tools(**{"tc class": FLAT_HTB}))
        self.clock = [200.0, 210.0]
        self.watch.begin()
        # the counter is read three times: then, for the MTU, and now
        self.assertAlmostEqual((10_000_000 - 3_000_000 * 1514 / 1448) / 10,
                               self.watch.measure().other_bytes_per_second)
        self.assertEqual([], self.clock)

    def test_a_look_that_is_too_old_or_of_other_migrations_does_not_count(self):
        now = bandwidth._Look("eth0", 100.0, 0, {"a": 5})
        for before, expected in (
                (bandwidth._Look("eth0", 90.0, 0, {}), True),
                (bandwidth._Look("eth0", 30.0, 0, {}), False),
                (bandwidth._Look("eth0", 99.9, 0, {}), False),
                (bandwidth._Look("eth1", 90.0, 0, {}), False),
                (bandwidth._Look("eth0", 90.0, 0, {"b": 1}), False)):
            self.assertIs(expected, bandwidth._comparable(before, now))

    def test_what_a_relay_carries_counts_as_it_crossed(self):
        groups = [{"id": "g", "wire_bytes": 40, "servers": {
            "a": {"outcomes": ["running"]}, "b": {"outcomes": ["done"]},
            # its relay failed, the retry went the plain way
            "c": {"outcomes": ["the connection broke"]}}}]
        self.assertEqual({"group g": 40, "c": 300, "d": 400}, bandwidth.on_the_wire(
            {"a": 100, "b": 200, "c": 300, "d": 400}, groups))
        self.assertEqual({"group idle": 0}, bandwidth.on_the_wire({}, [
            {"id": "idle", "servers": {}}]))

    def test_an_option_overrules_what_is_found(self):
        found = self.measure(Tools(**{"tc class": FLAT_HTB}), link_mib_s=100, reserve_mib_s=50)
        self.assertEqual((100 * 2**20, "option", 50 * 2**20),
                         (found.link_bytes_per_second, found.source,
                          found.other_bytes_per_second))

    def test_an_unknown_speed_is_said(self):
        found = self.measure(Tools())
        self.assertEqual((125_000_000.0, "unknown"),
                         (found.link_bytes_per_second, found.source))

    def test_novas_own_cap_is_told(self):
        path = self.useFixture(fixtures.TempDir()).join("nova.conf")
        with open(path, "w", encoding="utf-8") as opened:
            opened.write("[libvirt]\nlive_migration_bandwidth = 16\n")
        found = self.measure(Tools(), nova_config_files=[path])
        self.assertEqual(16.0 * 2**20, found.nova_cap_bytes_per_second)
