"""What `lab/up` and the demo make of their words and of what an earlier `up` was told."""
import json
import pathlib
import sys

import ddt
import fixtures
from oslotest import base

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "lab"))

from nbmlab import commands, demo, drain, layout  # noqa: E402

EXPERIMENT = layout.Options(hosts=3, link_mib_per_second=35.8, max_live_migrations=1,
                            relays=False, dictionary_mib=64)


def _unread():
    raise AssertionError("what the last `up` was told is of no interest")


@ddt.ddt
class WantedOptions(base.BaseTestCase):
    def test_a_plain_up_repeats_the_last_one(self):
        self.assertEqual(EXPERIMENT, commands.wanted_options([], lambda: EXPERIMENT))

    def test_what_is_given_goes_before_what_was(self):
        found = commands.wanted_options(["--relays", "--hosts", "2"], lambda: EXPERIMENT)
        self.assertEqual((True, 2, 35.8), (found.relays, found.hosts, found.link_mib_per_second))

    def test_with_defaults_nothing_of_an_earlier_lab_is_left(self):
        self.assertEqual(layout.Options(), commands.wanted_options(["--defaults"], _unread))

    @ddt.data(["--defaults", "--link", "12", "--no-relays"],
              ["--no-relays", "--link", "12", "--defaults"])
    def test_what_is_given_beside_defaults_counts_in_any_order(self, words):
        self.assertEqual(layout.Options(link_mib_per_second=12, relays=False),
                         commands.wanted_options(words, _unread))


class Demo(base.BaseTestCase):
    def test_it_is_the_standard_lab_but_for_its_link(self):
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).join("options.json"))
        path.write_text(json.dumps({"relays": False, "hosts": 3}))
        self.useFixture(fixtures.MonkeyPatch("nbmlab.layout.OPTIONS", path))
        self.assertFalse(layout.load_options().relays)
        self.assertEqual(layout.Options(link_mib_per_second=drain.LINK_MIB_PER_SECOND),
                         demo.options(relays=True))
        self.assertFalse(demo.options(relays=False).relays)
