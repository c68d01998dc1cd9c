import dataclasses

import ddt
from hypothesis import HealthCheck, given, settings, strategies
from oslotest import base

from nova_batch_migrate.planning import learning
from nova_batch_migrate.planning.learning import Finished, Learned


def finished(*actual, projected=10.0, **fields):
    return [Finished(projected, seconds, **fields) for seconds in actual]


@ddt.ddt
class TestLearn(base.BaseTestCase):

    def test_two_teach_nothing(self):
        self.assertIsNone(learning.learn(finished(11.0, 12.0)))
        self.assertIsNone(learning.learn(finished(11.0, 12.0, 13.0, projected=0.0)))

    def test_the_median_counts_not_the_outlier(self):
        found = learning.learn(finished(11.0, 11.0, 10.0, 12.0, 300.0))
        self.assertEqual((5, 1.1), (found.migrations, found.stream_factor))
        # Distances 0, 0, 0.1, 0.1 and a huge one: the median is 0.1.
        self.assertAlmostEqual(0.14826, found.stream_factor_spread)

    def test_only_the_latest_count(self):
        old, new = finished(*[20.0] * 40), finished(*[10.0] * learning.MOST_MIGRATIONS)
        self.assertEqual(Learned(30, 1.0, 0.0), learning.learn(old + new))

    @ddt.data((100.0, 2.0), (1.0, 0.5))
    @ddt.unpack
    def test_it_never_goes_far(self, actual, factor):
        self.assertEqual(factor, learning.learn(finished(*[actual] * 3)).stream_factor)

    def test_downtime(self):
        found = learning.learn(finished(
            10.0, 10.0, 10.0, projected_downtime_seconds=0.1, actual_downtime_seconds=0.3))
        self.assertAlmostEqual(0.2, found.downtime_seconds)

    def test_wire_bytes_of_all_that_relays_carried_together(self):
        # who came first brought what the others referred to: not as projected, but the sum is
        relayed = [Finished(10.0, 10.0, projected_wire_bytes=p, actual_wire_bytes=a)
                   for p, a in ((100.0, 20.0), (20.0, 70.0), (40.0, 38.0))]
        self.assertEqual(0.8, learning.learn(relayed).wire_factor)
        past = [Finished(10.0, 10.0, projected_wire_bytes=100.0), *finished(10.0)]
        self.assertEqual(0.8, learning.learn(past + relayed).wire_factor)
        self.assertIsNone(learning.learn(past + relayed[1:]).wire_factor)
        self.assertEqual(0.5, learning.learn([dataclasses.replace(
            f, actual_wire_bytes=1.0) for f in relayed]).wire_factor)

    def test_json(self):
        found = Learned(3, 1.0, 0.1, -0.05, 0.8)
        self.assertEqual(found, Learned.from_dict(found.to_dict()))


class TestCorrected(base.BaseTestCase):

    def test_nothing_learned(self):
        self.assertEqual((None, None), learning.corrected(None, 10.0, 5.0, 4.0, (18.0, 20.0)))

    def test_streams_stretch_and_novas_seconds_do_not(self):
        # 4 s of Nova, 15 s of streams: 4 + 15 x 1.2 = 22.
        found = learning.corrected(Learned(5, 1.2, 0.0), 10.0, 5.0, 4.0, (18.0, 21.0))
        self.assertEqual((22.0, (21.0, 24.0)), found)

    def test_no_upper_end_stays_none(self):
        self.assertIsNone(
            learning.corrected(Learned(5, 1.2, 0.1), 10.0, 5.0, 4.0, (18.0, None))[1][1])

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(strategies.floats(0.5, 2), strategies.floats(0, 1), strategies.floats(0.1, 1e4),
           strategies.floats(0, 1e4), strategies.floats(0, 100))
    def test_scatter_only_widens(self, factor, spread, stream, queue, nova):
        total = stream + queue + nova
        interval = (0.9 * total, 1.1 * total)
        sure, narrow = learning.corrected(Learned(9, factor, 0.0), stream, queue, nova, interval)
        seconds, wide = learning.corrected(Learned(9, factor, spread), stream, queue, nova,
                                           interval)
        self.assertEqual(sure, seconds)
        self.assertLessEqual(wide[0], narrow[0] + 1e-6)
        self.assertGreaterEqual(wide[1], narrow[1] - 1e-6)


class TestLearnNova(base.BaseTestCase):

    @staticmethod
    def stays(sharing, starts, before=2.0, behind=1.0, stream=10.0):
        """Play migrations whose stretches before the stream all lie within the others'."""
        ends = []
        for start in starts:
            beside = sum(other == start for other in starts) - 1
            slow = 1 + sharing * beside
            ends.append(learning.NovaStay(start, start + slow * (before + behind) + stream,
                                          slow * (before + behind), slow * before))
        return ends

    def test_two_teach_nothing(self):
        self.assertIsNone(learning.learn_nova(self.stays(0.5, [0.0, 100.0]), 0.5))

    def test_what_others_cost_is_told_from_what_one_alone_takes(self):
        found = learning.learn_nova(self.stays(0.5, [0.0, 0.0, 0.0, 0.0, 100.0, 200.0, 300.0]), 0.5)
        self.assertEqual((3.0, 0.667, 0.5), (found.seconds, found.before_share, found.sharing))

    def test_those_that_never_meet_are_not_slowed_by_each_other(self):
        found = learning.learn_nova(self.stays(0.5, [0.0, 100.0, 200.0]), 0.5)
        self.assertEqual((3.0, 0.0), (found.seconds, found.sharing))

    def test_where_always_as_many_meet_it_is_all_one_work(self):
        found = learning.learn_nova(self.stays(0.5, [0.0, 0.0, 100.0, 100.0]), 0.5)
        self.assertEqual((4.5, 0.0), (found.seconds, found.sharing))

    def test_without_a_look_at_the_stream_the_usual_share_counts(self):
        stays = [learning.NovaStay(at, at + 14.0, 4.0) for at in (0.0, 100.0, 200.0)]
        self.assertEqual(learning.NovaPace(4.0, 0.25, 0.0), learning.learn_nova(stays, 0.25))
