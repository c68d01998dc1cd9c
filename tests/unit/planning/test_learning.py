import dataclasses
import json
import math
import pathlib
import statistics

import ddt
from hypothesis import HealthCheck, given, settings, strategies
from oslotest import base

from nova_batch_migrate.planning import evidence, learning
from nova_batch_migrate.planning.learning import Finished, Learned


def finished(*actual, projected=10.0, **fields):
    """Return one batch for each."""
    return [Finished(projected, seconds, **({"batch": str(number)} | fields))
            for number, seconds in enumerate(actual)]


def relayed(*wire_bytes, batch="r", projected=100.0):
    return [Finished(10.0, 10.0, projected_wire_bytes=projected, actual_wire_bytes=actual,
                     batch=batch) for actual in wire_bytes]


@ddt.ddt
class TestLearn(base.BaseTestCase):

    def test_two_teach_nothing(self):
        self.assertIsNone(learning.learn(finished(11.0, 12.0)))
        self.assertIsNone(learning.learn(finished(11.0, 12.0, 13.0, projected=0.0)))

    def test_the_more_batches_say_the_same_the_nearer_it_gets(self):
        three, thirty = (learning.learn(finished(*[12.0] * count)) for count in (3, 30))
        self.assertEqual((3, 30), (three.migrations, thirty.migrations))
        self.assertTrue(1.08 < three.stream_factor < thirty.stream_factor < 1.2)
        self.assertAlmostEqual(1.19, thirty.stream_factor, delta=0.01)

    def test_one_batch_says_little_however_many_it_has(self):
        found = learning.learn(finished(*[12.0] * 30, batch="one"))
        self.assertLess(found.stream_factor, 1.14)

    def test_the_outlier_counts_little(self):
        self.assertAlmostEqual(1.1, learning.learn(finished(
            *[11.0] * 20, 300.0)).stream_factor, delta=0.02)

    def test_what_is_old_counts_less(self):
        new, old = (learning.learn(finished(*[15.0] * 4, age_seconds=days * 86400.0)).stream_factor
                    for days in (0, 28))
        self.assertLess(old - 1, 0.6 * (new - 1))

    @ddt.data((1000.0, 2.0), (0.01, 0.5))
    @ddt.unpack
    def test_it_never_goes_far(self, actual, factor):
        self.assertEqual(factor, learning.learn(finished(*[actual] * 90)).stream_factor)

    def test_scatter_is_of_batches_and_of_what_is_not_known(self):
        few, many = (learning.learn(finished(*[10.0] * count)).stream_factor_spread
                     for count in (3, 60))
        self.assertTrue(0.28 <= many < few < 0.35, (many, few))

    def test_downtime(self):
        found = learning.learn(finished(
            *[10.0] * 9, projected_downtime_seconds=0.1, actual_downtime_seconds=0.3))
        self.assertAlmostEqual(0.9 * 0.2, found.downtime_seconds)

    def test_streams_past_relays_and_through_them_are_told_apart(self):
        both = finished(*[12.0] * 9) + relayed(*[80.0] * 4)
        self.assertEqual((9, None), self.facts(learning.learn(both)))
        self.assertEqual(4, learning.learn(both, relay=True).migrations)
        self.assertEqual(1.0, learning.learn(both, relay=True).stream_factor)

    def test_who_went_another_way_than_planned_teaches_nothing(self):
        lost = [Finished(20.0, 0.7, projected_wire_bytes=100.0) for _ in range(9)]
        for relay in (False, True):
            self.assertIsNone(learning.learn(lost, relay))
        usual = relayed(*[100.0] * 3)
        self.assertEqual(learning.learn(usual, True), learning.learn(usual + lost, True))

    @staticmethod
    def facts(found):
        return found.migrations, found.wire_factor

    def test_wire_bytes_of_all_that_a_batch_s_relays_carried_together(self):
        # who came first brought what the others referred to: not as projected, but the sum is
        batch = [Finished(10.0, 10.0, projected_wire_bytes=p, actual_wire_bytes=a)
                 for p, a in ((100.0, 20.0), (20.0, 70.0), (40.0, 38.0))]
        even = [Finished(10.0, 10.0, projected_wire_bytes=p, actual_wire_bytes=0.8 * p)
                for p in (100.0, 20.0, 40.0)]
        found = learning.learn(batch, relay=True).wire_factor
        self.assertEqual(learning.learn(even, relay=True).wire_factor, found)
        self.assertTrue(0.8 < found < 0.9, found)

    def test_wire_bytes_the_more_batches_the_nearer(self):
        many = [each for number in range(30)
                for each in relayed(80.0, 80.0, batch=str(number))]
        self.assertAlmostEqual(0.8, learning.learn(many, relay=True).wire_factor, delta=0.01)
        self.assertEqual(0.5, learning.learn([dataclasses.replace(each, actual_wire_bytes=1.0)
                                              for each in many], relay=True).wire_factor)

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


class ReplayTest(base.BaseTestCase):
    """The lab's streams through relays once more: each batch told from those before it."""

    def test_what_was_learned_is_nearer_than_the_projections(self):
        streams = json.loads((pathlib.Path(__file__).parent / "lab_migrations.json").read_text())[
            "streams"]
        off = {kind: [] for kind in ("projected", "learned", "projected bytes", "learned bytes")}
        within = []
        for name in dict.fromkeys(stream[0] for stream in streams):
            begun = min(stream[1] - stream[3] for stream in streams if stream[0] == name)
            found = learning.learn([self.finished(stream, begun) for stream in streams
                                    if stream[1] < begun], relay=True)
            own = [each for each in (self.finished(stream, begun) for stream in streams
                                     if stream[0] == name) if each.relayed]
            if found is None or len(own) < 2:
                continue
            longer = [each.projected_stream_seconds / each.actual_stream_seconds for each in own]
            more = sum(each.projected_wire_bytes for each in own) / sum(
                each.actual_wire_bytes for each in own)
            for kind, share in (
                    ("projected", statistics.median(longer)), ("projected bytes", more),
                    ("learned", statistics.median(longer) * found.stream_factor),
                    ("learned bytes", more * found.wire_factor)):
                off[kind].append(abs(math.log(share)))
            within += [abs(found.stream_factor - 1 / share)
                       < evidence.NINETY_PERCENT * found.stream_factor_spread for share in longer]
        mean = {kind: statistics.fmean(values) for kind, values in off.items()}
        self.assertEqual(29, len(off["learned"]))
        # logarithms: 0.33 and 0.27, of bytes 0.31 and 0.23
        self.assertLess(mean["learned"], 0.85 * mean["projected"])
        self.assertLess(mean["learned bytes"], 0.85 * mean["projected bytes"])
        self.assertGreater(statistics.fmean(within), 0.75)

    @staticmethod
    def finished(stream, now):
        name, ended, projected, actual, projected_bytes, actual_bytes = stream
        return Finished(projected, actual, projected_wire_bytes=projected_bytes,
                        actual_wire_bytes=actual_bytes, batch=name, age_seconds=now - ended)
