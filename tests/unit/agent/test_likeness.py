import numpy

from nova_batch_migrate.agent import fingerprint, likeness
from tests.unit.agent.processes import LIKE, Guest
from tests.unit.agent.test_scan import ScanCase


class TestLikeness(ScanCase):

    def counts(self, *guests):
        return [{name: each[f"compress_{name}"] for name in ("own", "own_behind_like", "shared")}
                for each in self.measure(*guests)["servers"]]

    def test_own_pages_cost_little_behind_a_guest_of_their_kind(self):
        one, two = self.useFixture(Guest()), self.useFixture(Guest())
        # a page that both have, three that are alike but for some bytes; elsewhere in the other
        one.write({page: page + 1 + (LIKE if page % 4 else 0) for page in range(640)})
        two.write({page + 200: page + 1 + (2 * LIKE if page % 4 else 0) for page in range(640)})
        for found in self.counts(one, two):
            self.assertGreater(found["own"], 0.95)
            self.assertLess(found["own_behind_like"], 0.3)
            self.assertGreater(found["shared"], 0.95)

    def test_own_pages_that_are_like_nothing_stay_as_large(self):
        one, two = self.useFixture(Guest()), self.useFixture(Guest())
        one.write({page: 1 + page if page % 2 else 5000 + page for page in range(640)})
        two.write({page: 1 + page if page % 2 else 9000 + page for page in range(640)})
        for found in self.counts(one, two):
            self.assertGreater(found["own_behind_like"], 0.9)

    def test_without_anything_in_common_nobody_is_of_a_kind(self):
        one, two = self.useFixture(Guest()), self.useFixture(Guest())
        one.write({page: 1 + page for page in range(300)})
        two.write({page: 5000 + page for page in range(300)})
        for found in self.counts(one, two):
            self.assertGreater(found["own"], 0.95)
            self.assertEqual((None, None), (found["own_behind_like"], found["shared"]))

    def test_a_guest_that_ends_has_none_and_spoils_no_other(self):
        one, two = self.useFixture(Guest()), self.useFixture(Guest())
        for guest in (one, two):
            guest.write({page: 1 + page for page in range(20)})
        real, ended = likeness.Gauge._starts, []

        def starts(this, sample):
            if not ended:
                ended.append(one.end())
            return real(this, sample)
        self.patch(likeness.Gauge, "_starts", starts)
        first, second = self.counts(one, two)
        self.assertEqual({None}, set(first.values()))
        self.assertGreater(second["shared"], 0.95)

    def test_counterparts_lie_behind_the_same_content(self):
        def sample(*pairs):
            pages, hashes = zip(*pairs, strict=True)
            return fingerprint.Sample(numpy.array(pages, numpy.uint32),
                                      numpy.array(hashes, numpy.uint64), 1.0)
        guest = sample((5, 70), (10, 80), (40, 90), (500, 100))
        like = sample((1010, 80), (2000, 90), (3, 60))
        width = 2 * likeness.RUN_PAGES
        self.assertEqual([(1010, 10 + width), (2000, width)],
                         likeness._counterparts(guest, like, [8, 20, 40, 400]))
