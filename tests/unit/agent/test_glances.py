import fixtures
from oslotest import base

from nova_batch_migrate import privsep
from nova_batch_migrate.agent import glances
from tests.unit.agent.processes import Guest

FAST = 1e12


class TestGlance(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        privsep.memory_pctxt.set_client_mode(False)
        self.addCleanup(privsep.memory_pctxt.set_client_mode, True)
        self.addCleanup(glances._watched.clear)

    def glance(self, guest, pages=1 << 20, lags=(1,), series="series"):
        found, = glances.glance(series, [guest.wanted()], pages, list(lags), FAST)
        return found

    def changed(self, *arguments, **options):
        return [(lag, round(pages)) for lag, _, pages in
                self.glance(*arguments, **options)["windows"]]

    def test_all_pages_looked_at_give_the_changed_ones(self):
        guest = self.useFixture(Guest())
        guest.write({page: 1 for page in range(20)})
        self.assertEqual([], self.changed(guest, lags=(1, 2)))
        guest.write({0: 2, 1: 2})
        self.assertEqual([(1, 2)], self.changed(guest, lags=(1, 2)))
        guest.write({1: 3, 2: 3, 900: 3})
        self.assertEqual([(1, 3), (2, 4)], self.changed(guest, lags=(1, 2)))

    def test_a_sample_is_scaled_to_all_of_memory(self):
        guest = self.useFixture(Guest())
        guest.write({page: 1 for page in range(guest.pages)})
        self.glance(guest, pages=128)
        guest.write({page: 2 for page in range(guest.pages)})
        self.assertEqual([(1, guest.pages)], self.changed(guest, pages=128))

    def test_each_series_has_its_own_pages_and_past(self):
        guest = self.useFixture(Guest())
        guest.write({0: 1})
        self.glance(guest, series="one")
        guest.write({0: 2})
        self.assertEqual([], self.changed(guest, series="two"))
        self.assertEqual([(1, 1)], self.changed(guest, series="one"))

    def test_holes_of_a_memfd_stay_holes(self):
        guest = self.useFixture(Guest("memfd"))
        guest.write({0: 1, 700: 1})
        before = guest.file_bytes()
        self.glance(guest)
        self.assertEqual([(1, 0)], self.changed(guest))
        self.assertEqual(before, guest.file_bytes())

    def test_a_guest_that_is_gone_is_an_error_and_hurts_nobody(self):
        gone, here = self.useFixture(Guest()), self.useFixture(Guest())
        gone.end()
        found = glances.glance("series", [gone.wanted(), here.wanted()], 64, [1], FAST)
        self.assertEqual([gone.id, here.id], [one["id"] for one in found])
        self.assertIn("error", found[0])
        self.assertEqual([], found[1]["windows"])

    def test_what_nobody_looks_at_any_more_is_forgotten(self):
        guest = self.useFixture(Guest())
        self.glance(guest, series="old")
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.agent.glances._KEEP_SECONDS", -1.0))
        self.glance(guest, series="new")
        self.assertEqual({("new", guest.id)}, set(glances._watched))
