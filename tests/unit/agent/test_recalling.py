import ddt
import fixtures
from oslotest import base

from nova_batch_migrate.agent import (
    domains,
    feedback,
    history,
    keys,
    measurement,
    recalling,
    sampler,
)
from nova_batch_migrate.planning.telemetry import DirtyModel, History, ServerTelemetry
from tests.unit.agent.processes import Guest
from tests.unit.agent.test_measurement import HostTestCase


def hour(*rates, model=None):
    return History(tuple(60.0 * at for at in range(len(rates))), rates, 2.0, "content-diff", model)


@ddt.ddt
class TestModel(base.BaseTestCase):

    @ddt.data(
        # the hour's worst is twice its mean
        ((50.0, 100.0, 300.0, 150.0), None, (150.0, 1000.0, 1.0)),
        ((100.0, 100.0), None, (100.0, 1000.0, recalling.LEAST_ERROR)),
        ((0.0, 0.0), None, (0.0, 0.0, recalling.LEAST_ERROR)),
        ((100.0, 100.0), DirtyModel(120.0, 40.0, 0.7), (120.0, 40.0, 0.7)))
    @ddt.unpack
    def test_the_hour_as_a_model(self, rates, fitted, expected):
        found = recalling.model(hour(*rates, model=fitted), 1000)
        self.assertEqual((*expected, "history"), (
            found.rate_pages_per_second, found.working_set_pages, found.relative_error,
            found.source))

    def test_without_a_history(self):
        self.assertEqual(DirtyModel(0.0, 0.0, recalling.LEAST_ERROR, "history"),
                         recalling.model(None, 1000))


class TestRecall(HostTestCase):

    def setUp(self):
        super().setUp()
        self.hour = history.Histories(None, lambda: 3600.0)
        self.parts = measurement.Parts(
            self.host, keys.KeySource("secret"),
            sampler.Sampler(self.conf, self.host, self.hour), feedback.Feedback(),
            measurement.Recent(60.0))

    def guest(self, rate=None):
        guest = self.useFixture(Guest())
        guest.write({0: 1, 1: 2, 2: 0})
        self.host.add(guest)
        if rate is not None:
            for at in (1000.0, 2000.0):
                self.hour.add(guest.id, history.Sample(at, ((2.0, 2 * rate), (60.0, 9 * rate))))
        return guest

    def recall(self, *guests):
        found = recalling.recall(self.conf, self.parts, [guest.id for guest in guests])
        return [ServerTelemetry.from_dict(server) for server in found]

    def test_from_the_hour_without_reading_anything(self):
        guest = self.guest(rate=10.0)
        found, = self.recall(guest)
        self.assertEqual((guest.pages, 3, 0, 3, False, "history", None), (
            found.total_pages, found.present_pages, found.zero_pages, found.distinct_pages,
            found.contents_read, found.changed.source, found.sequence))
        self.assertGreater(found.changed.rate_pages_per_second, 9.0)
        self.assertIn("2 looks in the last 17 min", found.source_note)

    def test_who_has_no_history_is_looked_at(self):
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.agent.recalling.LOOK_SECONDS", 1.2))
        found, = self.recall(self.guest())
        self.assertEqual(("history", 0.0), (found.changed.source,
                                            found.changed.rate_pages_per_second))
        self.assertIsNotNone(found.history)

    def test_young_figures_are_used(self):
        guest, other = self.guest(rate=10.0), self.guest(rate=20.0)
        measured, _ = measurement.measure(self.conf, self.parts, "job", [guest.id], [0.05, 0.1])
        self.assertEqual("content-diff", measured[0]["changed"]["source"])
        known, rest = self.recall(guest, other)
        self.assertEqual(("content-diff", 1, None), (known.changed.source, known.zero_pages,
                                                     known.sequence))
        self.assertEqual("history", rest.changed.source)

    def test_what_an_attempt_showed_is_recalled(self):
        guest = self.guest(rate=10.0)
        for elapsed, iteration, rate in ((0, 1, 0), (2000, 2, 100), (8000, 3, 80)):
            self.parts.feedback.note(guest.id, {
                "time_elapsed": elapsed, "memory_iteration": iteration, "memory_dirty_rate": rate})
        found, = self.recall(guest)
        self.assertEqual(("history", "migration"), (found.changed.source, found.touched.source))
        self.assertAlmostEqual(200, found.touched.pages(2.0), delta=10)

    def test_who_cannot_be_recalled(self):
        paused = self.guest()
        self.host.add(paused, domains.Presence("running", True, False))
        found = recalling.recall(self.conf, self.parts, [paused.id, "stranger"])
        self.assertEqual([(paused.id, "it is migrating"),
                          ("stranger", "Server stranger is not a domain of host cmpa.")],
                         [(server["id"], server["error"]) for server in found])

