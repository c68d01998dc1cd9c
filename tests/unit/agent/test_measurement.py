import dataclasses

import ddt
import fixtures
from oslotest import base

from nova_batch_migrate import conf, exception, privsep
from nova_batch_migrate.agent import (
    domain_xml,
    domains,
    feedback,
    history,
    keys,
    measurement,
    remembered,
    sampler,
)
from nova_batch_migrate.planning.telemetry import PageClasses, ServerTelemetry
from tests.unit.agent.processes import PAGE, Guest

RUNNING = domains.Presence("running", False, False)


class Host:
    """A hypervisor whose domains are the given processes."""

    def __init__(self, mib_s=None):
        self.mib_s = mib_s
        self.here = {}
        #: What a domain's presence is at the second question.
        self.later = {}

    def add(self, guest, presence=RUNNING, pid_file=None):
        size = guest.pages * PAGE
        definition = domain_xml.Definition("qemu", f"name of {guest.kind}", "p1", size, (size,),
                                           (domain_xml.DiskSource("vda", "network", ""),))
        self.here[guest.id] = domains.Domain(guest.id, "instance-1", 1, definition, presence,
                                             pid_file or guest.pid_file)

    def domain(self, server):
        if server not in self.here:
            raise exception.AgentRefused(reason=f"Server {server} is not a domain of host cmpa.")
        return self.here[server]

    def presence(self, server):
        return self.later.get(server, RUNNING)

    def disk_use(self, server, device):
        return domains.DiskUse(1 << 20, 0)

    def start_dirty_rate(self, server, seconds, mode, samples_per_gib):
        if self.mib_s is None:
            raise exception.AgentRefused(reason="no sampling here")

    def dirty_rate_mib_s(self, server):
        return self.mib_s


class HostTestCase(base.BaseTestCase):
    """The agent of a host: its options, its servers, memory read in this very process."""

    def setUp(self):
        super().setUp()
        privsep.memory_pctxt.set_client_mode(False)
        self.addCleanup(privsep.memory_pctxt.set_client_mode, True)
        self.conf = conf.new()
        conf.parse(self.conf, [], [])
        self.conf.set_override("host", "cmpa")
        self.host = Host()


@ddt.ddt
class TestMeasure(HostTestCase):

    def setUp(self):
        super().setUp()
        self.max_wait_seconds = 0.0
        self.parts = measurement.Parts(
            self.host, keys.KeySource("secret"),
            sampler.Sampler(self.conf, self.host, history.Histories(None)), feedback.Feedback())

    def measure(self, *servers):
        found, self.common = measurement.measure(
            self.conf, self.parts, "job", list(servers), [0.05, 0.1], self.max_wait_seconds)
        return ({server["id"]: ServerTelemetry.from_dict(server) for server in found},
                PageClasses.from_dict(self.common["page_classes"]))

    def test_servers_of_this_host(self):
        one, two = self.useFixture(Guest("memfd")), self.useFixture(Guest())
        one.write({0: 1, 1: 1, 2: 0})
        two.write({0: 1, 1: 2})
        self.host.add(one)
        self.host.add(two)
        servers, classes = self.measure(one.id, two.id)
        found = servers[one.id]
        self.assertEqual(
            ("cmpa", "name of memfd", "p1", 1, "running", one.pages, 3, 1, 1, 1, None),
            (found.host, found.name, found.project_id, found.vcpus, found.state,
             found.total_pages, found.present_pages, found.zero_pages, found.distinct_pages,
             found.self_duplicate_pages, found.error))
        self.assertEqual(("content-diff", 3), (found.changed.source, len(found.windows)))
        self.assertEqual([("vda", True)], [(disk.device, disk.shared) for disk in found.disks])
        self.assertRegex(found.measured_at, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertEqual({frozenset({one.id, two.id}), frozenset({two.id})},
                         {frozenset(entry.servers) for entry in classes.classes})

    def test_what_was_just_measured_is_used_again(self):
        self.addCleanup(remembered.forget)
        self.parts = dataclasses.replace(self.parts, recent=measurement.Recent(60.0))
        one, two = self.useFixture(Guest()), self.useFixture(Guest())
        for guest in (one, two):
            guest.write({0: 1, 1: 2})
            self.host.add(guest)
        first = self.measure(one.id)[0][one.id]
        one.write({0: 9})
        servers, _ = self.measure(one.id, two.id)
        again = servers[one.id]
        self.assertEqual((first.measured_at, first.windows, 2),
                         (again.measured_at, again.windows, again.distinct_pages))
        # which of both is number 0 depends on the key of the day
        self.assertEqual(((-2,), [0, 1]), (first.sequence.contents,
                                           sorted(again.sequence.contents)))
        # the page that was written since
        self.assertEqual({"pairs": 2, "held": 1}, self.common["confirmation"])

    def test_a_server_that_was_not_read_in_time_says_so(self):
        guest = self.useFixture(Guest())
        guest.write({page: page + 1 for page in range(40)})
        self.host.add(guest)
        found, _ = measurement.measure(self.conf, self.parts, "job", [guest.id], [0.05], 0.0,
                                       seconds=1e-9)
        self.assertFalse(found[0]["error"])
        whole = ServerTelemetry.from_dict(found[0])
        self.assertTrue(whole.contents_read)
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.agent.comparing._WHOLE_BYTES", 0))
        found, _ = measurement.measure(self.conf, self.parts, "job", [guest.id], [0.05], 0.0,
                                       seconds=1e-9)
        part = ServerTelemetry.from_dict(found[0])
        self.assertEqual((False, None), (part.contents_read, part.sequence))
        self.assertIn("contents were not read in the time allowed", part.source_note)

    def test_identities_leave_only_with_a_secret_that_others_have(self):
        guest = self.useFixture(Guest())
        guest.write({0: 1})
        self.host.add(guest)
        self.measure(guest.id)
        self.assertEqual(1, len(self.common["sketch"]["identities"]))
        self.parts = dataclasses.replace(self.parts, keys=keys.KeySource(None))
        self.measure(guest.id)
        self.assertIsNone(self.common["sketch"])

    def test_frames_are_looked_at_where_that_is_wanted(self):
        asked = []
        self.useFixture(fixtures.MonkeyPatch("nova_batch_migrate.agent.frames.mapped",
                                             lambda servers, *limits: asked.append(servers)))
        guest = self.useFixture(Guest())
        guest.write({0: 1})
        self.host.add(guest)
        self.measure(guest.id)
        self.assertEqual([], asked)
        self.conf.set_override("mapped_pages", True, "agent")
        self.measure(guest.id)
        self.assertEqual([[guest.wanted()]], asked)

    def test_strangers_are_refused_one_by_one(self):
        guest = self.useFixture(Guest())
        guest.write({0: 1})
        self.host.add(guest)
        servers, _ = self.measure("stranger", guest.id)
        self.assertIn("not a domain of host cmpa", servers["stranger"].error)
        self.assertIsNone(servers[guest.id].error)

    @ddt.data((domains.Presence("running", True, False), "it is migrating"),
              (domains.Presence("running", True, True), "post-copy"),
              (domains.Presence("shutoff", False, False), "it is shutoff"))
    @ddt.unpack
    def test_who_is_not_to_be_read_is_not_read(self, presence, reason):
        guest = self.useFixture(Guest())
        # an attempt would complain about the file instead
        self.host.add(guest, presence, pid_file="/nowhere")
        servers, _ = self.measure(guest.id)
        self.assertIn(reason, servers[guest.id].error)

    def test_paused_is_fine(self):
        guest = self.useFixture(Guest())
        guest.write({0: 1})
        self.host.add(guest, domains.Presence("paused", False, False))
        servers, _ = self.measure(guest.id)
        self.assertEqual((None, 1), (servers[guest.id].error, servers[guest.id].distinct_pages))

    @ddt.data((None, "it left this host"),
              (domains.Presence("running", True, False), "began to migrate"))
    @ddt.unpack
    def test_who_moves_meanwhile_has_no_figures(self, presence, reason):
        guest = self.useFixture(Guest())
        guest.write({0: 1})
        self.host.add(guest)
        self.host.later[guest.id] = presence
        servers, _ = self.measure(guest.id)
        self.assertIn(reason, servers[guest.id].error)

    def test_who_moved_meanwhile_is_read_anew(self):
        self.addCleanup(remembered.forget)
        self.parts = dataclasses.replace(self.parts, recent=measurement.Recent(60.0))
        guest = self.useFixture(Guest())
        guest.write({0: 1})
        self.host.add(guest)
        self.host.later[guest.id] = domains.Presence("running", True, False)
        self.assertIn("began to migrate", self.measure(guest.id)[0][guest.id].error)
        self.host.later.clear()
        for page in (1, 2):
            guest.write({page: 1 + page})
            found = self.measure(guest.id)[0][guest.id]
            # the second time it is young
            self.assertEqual(2, found.distinct_pages)

    def test_unreadable_memory_leaves_page_sampling_and_full_memory(self):
        self.useFixture(fixtures.MonkeyPatch("nova_batch_migrate.agent.dirty_rate.time.sleep",
                                             lambda seconds: None))
        guest = self.useFixture(Guest())
        self.host.mib_s = 1
        self.host.add(guest, pid_file="/nowhere")
        servers, classes = self.measure(guest.id)
        found = servers[guest.id]
        self.assertEqual((None, "page-sampling", guest.pages, guest.pages, 0),
                         (found.error, found.changed.source, found.present_pages,
                          found.distinct_pages, found.zero_pages))
        self.assertIn("memory is counted as full", found.source_note)
        self.assertFalse(found.contents_read)
        self.assertEqual((), classes.classes)

    def attempt(self, server, *counters):
        for elapsed, iteration, rate in counters:
            self.parts.feedback.note(server, {
                "time_elapsed": elapsed, "memory_iteration": iteration, "memory_dirty_rate": rate})

    def test_what_an_attempt_showed_is_told_with_young_figures_too(self):
        self.addCleanup(remembered.forget)
        self.parts = dataclasses.replace(self.parts, recent=measurement.Recent(60.0))
        guest = self.useFixture(Guest())
        guest.write({0: 1})
        self.host.add(guest)
        first = self.measure(guest.id)[0][guest.id]
        self.assertIsNone(first.touched)
        for rate in (100, 30):
            self.attempt(guest.id, (0, 1, 0), (2000, 2, rate), (8000, 3, 4 * rate // 5))
            found = self.measure(guest.id)[0][guest.id]
            self.assertEqual(first.measured_at, found.measured_at)
            self.assertAlmostEqual(2 * rate, found.touched.pages(2.0), delta=0.1 * rate)
            # nothing of the attempt before it
            self.assertEqual(2, sum(window.source == "migration" for window in found.windows))

    def test_what_an_attempt_showed_is_the_model_of_touched_pages(self):
        guest = self.useFixture(Guest())
        guest.write({0: 1})
        self.host.add(guest)
        self.attempt(guest.id, (0, 1, 0), (2000, 2, 100), (8000, 3, 80))
        found = self.measure(guest.id)[0][guest.id]
        self.assertEqual("migration", found.touched.source)
        self.assertAlmostEqual(200, found.touched.pages(2.0), delta=10)
        self.assertIn("as its latest attempt to migrate showed them", found.source_note)
        self.assertIn("migration", {window.source for window in found.windows})

    def test_a_batch_that_may_wait_follows_its_servers(self):
        guest = self.useFixture(Guest())
        guest.write({page: 1 for page in range(64)})
        self.host.add(guest)
        self.conf.set_override("follow_seconds", 2.5, "agent")
        self.assertIsNone(self.measure(guest.id)[0][guest.id].history)
        self.max_wait_seconds = 60.0
        found = self.measure(guest.id)[0][guest.id].history
        self.assertEqual([0.0, 0.0], [round(rate) for rate in found.pages_per_second[:2]])
        self.assertIsNone(found.periodicity)

    def test_neither_way_is_an_error(self):
        guest = self.useFixture(Guest())
        self.host.add(guest, pid_file="/nowhere")
        servers, _ = self.measure(guest.id)
        self.assertIn("/nowhere", servers[guest.id].error)
