from oslotest import base

from nova_batch_migrate.osc import text
from tests.unit.sdk import fakes


class TextTest(base.BaseTestCase):
    def test_what_could_steer_a_terminal_is_spelt_out(self):
        self.assertEqual(fakes.HOSTILE_ESCAPED, text.escape(fakes.HOSTILE))
        self.assertEqual(r"a\u2028b\ud800", text.escape("a\u2028b\ud800"))

    def test_honest_names_stay_as_they_are(self):
        for name in ("web-1", "größe", "データベース", "5 <b>&amp;"):
            self.assertEqual(name, text.escape(name))

    def test_other_values_become_text(self):
        self.assertEqual(("", "3", "0"), (text.escape(None), text.escape(3), text.escape(0)))

    def test_fit_counts_columns_not_characters(self):
        self.assertEqual("データ… ", text.fit("データベース", 8))
        self.assertEqual("web  ", text.fit("web", 5))
        self.assertEqual("we…", text.fit("web-1", 3))
        for columns in range(12):
            self.assertEqual(columns, text.width(text.fit("aデb́タcd", columns)))

    def test_units(self):
        self.assertEqual("1.5 MiB", text.size(1.5 * 2**20))
        self.assertEqual("2.0 GiB", text.size(2 * 2**30))
        self.assertEqual("0.0 MiB", text.size(0))
        self.assertEqual(("11.5 MiB/s", "", ""), (text.rate(11.5 * 2**20), text.rate(0),
                                                  text.rate(None)))
        self.assertEqual(("0:59", "1:00", "1:00:01", ""), (
            text.clock(59.4), text.clock(59.6), text.clock(3601), text.clock(None)))
        self.assertEqual("72 ms", text.milliseconds(0.0724))
        self.assertEqual(("10-23", "10+"), (text.interval((9.6, 23.4)), text.interval([10, None])))
