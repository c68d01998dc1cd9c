import fixtures
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.agent import dirty_rate
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


class Sampler:
    """A hypervisor that samples pages: answers what it is told after so many questions."""

    def __init__(self, mib_s, questions=2, refuses=()):
        self.mib_s, self.questions, self.refuses = mib_s, questions, refuses
        self.asked = {}

    def start_dirty_rate(self, server, seconds):
        if server in self.refuses:
            raise exception.AgentRefused(reason="no")
        self.asked[server] = 0

    def dirty_rate_mib_s(self, server):
        self.asked[server] += 1
        return self.mib_s[server] if self.asked[server] >= self.questions else None


class TestSample(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.now = 0.0
        self.useFixture(fixtures.MonkeyPatch("time.monotonic", lambda: self.now))
        self.useFixture(fixtures.MonkeyPatch("time.sleep", self.sleep))

    def sleep(self, seconds):
        self.now += seconds

    def test_all_servers_are_sampled_at_the_same_time(self):
        found = dirty_rate.sample(Sampler({"a": 4, "b": 0}), ["a", "b"])
        self.assertEqual([DirtyWindow(1.0, 1024.0, "page-sampling"),
                          DirtyWindow(3.0, 3072.0, "page-sampling")], found["a"])
        self.assertEqual([0.0, 0.0], [window.changed_pages for window in found["b"]])
        self.assertLess(self.now, 1 + 3 + 1)

    def test_who_refuses_or_never_ends_has_no_windows(self):
        hypervisor = Sampler({"slow": 1, "fast": 1}, refuses=["refuses"])
        hypervisor.questions = 1
        hypervisor.mib_s["slow"] = None
        found = dirty_rate.sample(hypervisor, ["slow", "refuses", "fast"])
        self.assertEqual((0, 0, 2), tuple(len(found[name])
                                          for name in ("slow", "refuses", "fast")))
