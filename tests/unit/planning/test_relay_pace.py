import dataclasses
import math

from oslotest import base

from nova_batch_migrate.planning import relay_pace
from nova_batch_migrate.planning.relay_pace import FirstPass, RelayPace

DAY = 86400.0


def batch(name, *seconds, link_seconds=2.0, **fields):
    """Streams of 1 GB, the link taking so long for what crosses of each."""
    return [FirstPass(each, 1e9, link_seconds, batch=name, source="cmpa", **fields)
            for each in seconds]


class LearnTest(base.BaseTestCase):

    def pace(self, *batches):
        found = relay_pace.learn([each for members in batches for each in members],
                                 frozenset(["cmpa"]))
        return found and found.seconds_per_byte * 1e9

    def test_few_tell_nothing(self):
        self.assertIsNone(self.pace())
        self.assertIsNone(self.pace(batch("a", 4.0, 4.0)))
        self.assertIsNone(self.pace([dataclasses.replace(each, raw_bytes=0)
                                     for each in batch("a", 4.0, 4.0, 4.0)]))

    def test_all_of_a_batch_together_beyond_the_slowest_part(self):
        self.assertAlmostEqual(2.0, self.pace(batch("a", 3.0, 4.0, 5.0)))
        # the relays alone would need 3 s, so 3 and 4 s are 0 and 1 beside that
        self.assertAlmostEqual(0.5, self.pace(batch("a", 3.0, 4.0, 3.0, 4.0, relay_seconds=3.0)))
        # larger streams count as they are large
        one, *others = batch("a", 4.0, 4.0, 4.0)
        self.assertAlmostEqual(1.0, self.pace(
            [dataclasses.replace(one, raw_bytes=4e9), *others]))

    def test_what_the_link_held_up_took_nothing_beside_it(self):
        self.assertEqual(0.0, self.pace(batch("a", 2.0, 1.9, 1.8)))
        self.assertAlmostEqual(1.0, self.pace(batch("a", 2.0, 1.9, 1.8), batch("b", *[4.0] * 3)),
                               delta=0.04)

    def test_batches_count_less_when_small_or_old_or_of_another_host(self):
        # of 1 GB a half counts, of 9 GB nine tenths
        self.assertAlmostEqual((0.5 * 1.0 + 0.9 * 3.0) / 1.4,
                               self.pace(batch("a", 3.0), batch("b", *[5.0] * 9)), places=2)
        week = dict(age_seconds=7 * DAY)
        self.assertAlmostEqual((1.0 + 3.0 / 2) / 1.5, self.pace(
            batch("a", 3.0, 3.0), batch("b", 5.0, 5.0, **week)), places=2)
        other = [dataclasses.replace(each, source="cmpc") for each in batch("b", 5.0, 5.0)]
        self.assertAlmostEqual((1.0 + 3.0 / 1.5) / (1 + 1 / 1.5),
                               self.pace(batch("a", 3.0, 3.0), other), places=2)

    def test_what_was_held_up_by_something_else_is_bounded(self):
        self.assertAlmostEqual(50.0, self.pace(batch("a", 900.0, 900.0, 900.0)))

    def test_the_next_batch_is_less_sure_than_the_mean(self):
        one, many = (relay_pace.learn([each for name in range(count)
                                       for each in batch(str(name), 4.0, 4.0, 4.0)],
                                      frozenset(["cmpa"])) for count in (1, 20))
        self.assertEqual((3, 60), (one.streams, many.streams))
        self.assertGreater(one.deviation, many.deviation)
        self.assertGreater(many.deviation, relay_pace.BATCH_DEVIATION)
        self.assertEqual(one, RelayPace.from_dict(one.to_dict()))
        self.assertAlmostEqual(one.seconds_per_byte * math.exp(2 * one.deviation), one.off(2))
