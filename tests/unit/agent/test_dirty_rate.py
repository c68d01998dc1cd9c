import itertools

import ddt
import fixtures
from oslotest import base

from nova_batch_migrate import conf, exception
from nova_batch_migrate.agent import dirty_rate, domain_xml, domains
from nova_batch_migrate.planning.telemetry import DirtyModel, DirtyWindow

PAGES = 65536
WRITER = DirtyModel(5000, 16000)


def windows(model, *seconds, source="content-diff"):
    return [DirtyWindow(length, model.pages(length), source) for length in seconds]


class TestChoose(base.BaseTestCase):

    def test_content_diff_of_all_memory_wins(self):
        sampled = windows(WRITER, 1, 3, source="page-sampling")
        model, note = dirty_rate.choose(PAGES, windows(WRITER, 0.5, 2, 8), 1.0, sampled)
        self.assertEqual("content-diff", model.source)
        self.assertAlmostEqual(WRITER.rate_pages_per_second, model.rate_pages_per_second, delta=5)
        self.assertIn("content-diff (5000 pages/s", note)
        self.assertIn("not page-sampling", note)

    def test_an_idle_server_is_idle_though_sampling_knows_it_no_better(self):
        idle = DirtyModel()
        model, _ = dirty_rate.choose(PAGES, windows(idle, 0.5, 2), 1.0,
                                     windows(idle, 1, 3, source="page-sampling"))
        self.assertEqual(DirtyModel(0.0, 0.0, 0.0, "content-diff"), model)

    def test_sampling_wins_over_a_sliver_of_compared_memory(self):
        model, _ = dirty_rate.choose(PAGES * 64, windows(WRITER, 0.5, 2), 0.001,
                                     windows(DirtyModel(1e6, 3e6), 1, 3, source="page-sampling"))
        self.assertEqual("page-sampling", model.source)

    def test_sampling_that_hit_nothing_knows_nothing(self):
        model, _ = dirty_rate.choose(PAGES, [], 0.0,
                                     windows(DirtyModel(), 1, 3, source="page-sampling"))
        self.assertEqual(1.0, model.relative_error)

    def test_few_hits_are_a_wide_error(self):
        # 512 samples in 1 GiB; 16 of them changed
        sampled = [DirtyWindow(1.0, 16 / 512 * 262144, "page-sampling")]
        model, _ = dirty_rate.choose(262144, [], 0.0, sampled)
        self.assertEqual(0.5, model.relative_error)  # one length
        sampled.append(DirtyWindow(3.0, 20 / 512 * 262144, "page-sampling"))
        model, _ = dirty_rate.choose(262144, [], 0.0, sampled)
        self.assertAlmostEqual(1 / 6, model.relative_error)

    def test_nothing_measured_is_said(self):
        self.assertEqual((DirtyModel(), "no dirty rate could be measured"),
                         dirty_rate.choose(PAGES, [], 0.0, []))


RUNNING = domains.Presence("running", False, False)
LEAVING = domains.Presence("running", True, False)


def domain(name, virt_type="kvm"):
    definition = domain_xml.Definition(virt_type, name, "p", 1 << 28, (1 << 28,), (),
                                       "/usr/bin/qemu")
    return domains.Domain(name, name, 1, definition, RUNNING, f"{name}.pid")


class Qemu:
    """A hypervisor whose QEMUs answer what they are told after so many questions."""

    def __init__(self, mib_s, questions=2, refuses=(), version="10.0.2"):
        self.mib_s, self.questions, self.refuses = mib_s, questions, refuses
        self.version = version
        self.asked = {}
        self.started = []
        #: server -> answers of presence still to come, the last of which stays
        self.presences = {}

    def versions(self):
        return "9.0.0", self.version

    def presence(self, server):
        coming = self.presences.get(server, [RUNNING])
        return coming.pop(0) if len(coming) > 1 else coming[0]

    def start_dirty_rate(self, server, seconds, mode, samples_per_gib):
        if server in self.refuses:
            raise exception.AgentRefused(reason="no")
        self.asked[server] = 0
        self.started.append((server, seconds, mode, samples_per_gib))

    def dirty_rate_mib_s(self, server):
        self.asked[server] += 1
        return self.mib_s[server] if self.asked[server] >= self.questions else None


class AskingCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.now = 0.0
        self.useFixture(fixtures.MonkeyPatch("time.monotonic", lambda: self.now))
        self.useFixture(fixtures.MonkeyPatch("time.sleep", self.sleep))
        self.conf = conf.new()
        conf.parse(self.conf, [], [])
        #: Whether guests run the program that is installed.
        self.installed = True
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.agent.emulator.runs_installed",
            lambda pid_file, server, path: self.installed))

    def sleep(self, seconds):
        self.now += seconds

    def ask(self, qemu, *asked, seconds=0.0):
        return dirty_rate.ask_qemu(qemu, [one if isinstance(one, domains.Domain) else domain(one)
                                          for one in asked], self.conf.agent, seconds)


class TestPageSampling(AskingCase):

    def test_all_servers_are_sampled_at_the_same_time(self):
        found, touched = self.ask(Qemu({"a": 4, "b": 0}), "a", "b")
        self.assertEqual([DirtyWindow(seconds, 1024.0 * seconds, "page-sampling")
                          for seconds in (1.0, 2.0, 4.0)], found["a"])
        self.assertEqual([0.0] * 3, [window.changed_pages for window in found["b"]])
        self.assertLess(self.now, 1 + 2 + 4 + 1)
        self.assertEqual({}, touched)

    def test_who_refuses_or_never_ends_has_no_windows(self):
        qemu = Qemu({"slow": None, "fast": 1}, questions=1, refuses=["refuses"])
        found, _ = self.ask(qemu, "slow", "refuses", "fast")
        self.assertEqual((0, 0, 3), tuple(len(found[name])
                                          for name in ("slow", "refuses", "fast")))

    def test_windows_fit_into_the_time_allowed_and_are_two_at_least(self):
        for seconds, lengths in ((0.0, (1, 2, 4)), (20.0, (1, 2, 4)), (7.0, (1, 2)),
                                 (1.0, (1, 2))):
            qemu = Qemu({"a": 4})
            self.ask(qemu, "a", seconds=seconds)
            self.assertEqual(lengths, tuple(length for _, length, *_ in qemu.started))

    def test_off_is_off(self):
        self.conf.set_override("page_sampling", False, "agent")
        qemu = Qemu({"a": 1})
        self.assertEqual(({"a": []}, {}), self.ask(qemu, "a"))
        self.assertEqual([], qemu.started)

    def test_more_samples_are_the_operators_word_and_make_the_error_smaller(self):
        self.conf.set_override("page_sampling_per_gib", 8192, "agent")
        qemu = Qemu({"a": 20})
        found, _ = self.ask(qemu, "a")
        self.assertEqual({8192}, {samples for *_, samples in qemu.started})
        few, _ = dirty_rate.choose(PAGES, [], 0.0, found["a"])
        many, _ = dirty_rate.choose(PAGES, [], 0.0, found["a"], 8192)
        # 70 hits among 128 samples, 1120 among 2,048
        self.assertAlmostEqual(0.12, few.relative_error, delta=0.01)
        self.assertLess(many.relative_error, 0.06)

    def test_a_guest_that_migrates_is_never_sampled(self):
        qemu = Qemu({"a": 1, "b": 1})
        qemu.presences["a"] = [LEAVING]
        found, _ = self.ask(qemu, "a", "b")
        self.assertEqual([], found["a"])
        self.assertEqual({"b"}, {server for server, *_ in qemu.started})

    def test_a_window_in_which_a_migration_began_is_thrown_away(self):
        qemu = Qemu({"a": 1})
        # running at the first start and result and at the second start, then it leaves
        qemu.presences["a"] = [RUNNING, RUNNING, RUNNING, LEAVING]
        found, _ = self.ask(qemu, "a")
        self.assertEqual([1.0], [window.seconds for window in found["a"]])
        self.assertEqual([1, 2], [seconds for _, seconds, *_ in qemu.started])

    def test_who_left_is_not_sampled(self):
        qemu = Qemu({"a": 1})
        qemu.presences["a"] = [None]
        self.assertEqual([], self.ask(qemu, "a")[0]["a"])
        self.assertEqual([], qemu.started)


@ddt.ddt
class TestAllowedModes(AskingCase):
    """A wrong mode kills guests: every way to one is the operator's word for this very QEMU."""

    ENTRIES = ["10.0.2/kvm/dirty-ring", "7.2.0/qemu/dirty-bitmap"]

    @ddt.data(*itertools.product(("7.2.0", "8.2.2", "10.0.2"), ("kvm", "qemu", "xen")))
    @ddt.unpack
    def test_without_an_entry_only_page_sampling_is_asked_for(self, version, virt_type):
        qemu = Qemu({"a": 1}, version=version)
        self.assertEqual({}, self.ask(qemu, domain("a", virt_type))[1])
        self.assertEqual({"page-sampling"}, {mode for _, _, mode, _ in qemu.started})

    @ddt.data(("10.0.2", "kvm", "dirty-ring"), ("7.2.0", "qemu", "dirty-bitmap"))
    @ddt.unpack
    def test_an_entry_allows_its_mode_and_the_note_says_unverified(self, version, virt_type,
                                                                   mode):
        self.conf.set_override("dirty_rate_modes", self.ENTRIES, "agent")
        qemu = Qemu({"a": 2}, version=version)
        _, touched = self.ask(qemu, domain("a", virt_type))
        self.assertEqual([DirtyWindow(seconds, 512.0 * seconds, mode)
                          for seconds in (1.0, 2.0, 4.0)], list(touched["a"].windows))
        self.assertIn("not verified", touched["a"].note)

    @ddt.data(*(set(itertools.product(("7.2.0", "8.2.2", "10.0.2", "10.0.20"), ("kvm", "qemu")))
                - {("10.0.2", "kvm"), ("7.2.0", "qemu")}))
    @ddt.unpack
    def test_an_entry_allows_nothing_else(self, version, virt_type):
        self.conf.set_override("dirty_rate_modes", self.ENTRIES, "agent")
        qemu = Qemu({"a": 1}, version=version)
        self.ask(qemu, domain("a", virt_type))
        self.assertEqual({"page-sampling"}, {mode for _, _, mode, _ in qemu.started})

    def test_a_guest_from_before_an_upgrade_is_not_asked(self):
        self.conf.set_override("dirty_rate_modes", self.ENTRIES, "agent")
        self.installed = False
        qemu = Qemu({"a": 1})
        self.ask(qemu, "a")
        self.assertEqual({"page-sampling"}, {mode for _, _, mode, _ in qemu.started})

    @ddt.data("kvm/dirty-ring", "10.0.2/kvm/page-sampling", "10.*/kvm/dirty-ring", "*")
    def test_an_entry_names_one_qemu_one_accelerator_and_a_mode(self, entry):
        self.assertRaises(ValueError, self.conf.set_override, "dirty_rate_modes", [entry], "agent")


class TestTouched(base.BaseTestCase):

    def test_lengths_that_differ_are_fitted(self):
        model = dirty_rate.touched_model(WRITER, windows(DirtyModel(800, 9000), 2.0, 13.0,
                                                         source="migration"), PAGES)
        self.assertEqual("migration", model.source)
        self.assertAlmostEqual(800, model.rate_pages_per_second, delta=5)
        self.assertAlmostEqual(9000, model.working_set_pages, delta=90)

    def test_a_single_round_scales_the_changed_pages(self):
        seen = [DirtyWindow(13.0, 1.5 * WRITER.pages(13.0), "migration")]
        model = dirty_rate.touched_model(WRITER, seen, PAGES)
        self.assertAlmostEqual(1.5 * WRITER.rate_pages_per_second, model.rate_pages_per_second)
        self.assertEqual(("migration", 0.1), (model.source, model.relative_error))

    def test_whatever_changed_was_touched(self):
        seen = [DirtyWindow(13.0, 0.5 * WRITER.pages(13.0), "migration")]
        model = dirty_rate.touched_model(WRITER, seen, PAGES)
        self.assertEqual(WRITER.rate_pages_per_second, model.rate_pages_per_second)

    def test_nothing_seen_is_nothing_known(self):
        self.assertIsNone(dirty_rate.touched_model(WRITER, [], PAGES))
        self.assertIsNone(dirty_rate.touched_model(
            WRITER, [DirtyWindow(13.0, 0.0, "migration")], PAGES))
