import dataclasses
import json
import math
import pathlib
import statistics

from oslotest import base

from nova_batch_migrate.planning import evidence, nova_pace
from nova_batch_migrate.planning.conditions import NovaWork
from nova_batch_migrate.planning.nova_pace import Ahead, NovaPace, NovaStay

USUAL = NovaPace(4.0, 0.5, 0.0, nova_pace.GUESSED)
#: Migrations of the lab of two cores, in the order in which they ended: of lab tests, benchmarks
#: and demos, some on a busy machine. batches: servers and how many at once, of whole ones.
LAB = json.loads((pathlib.Path(__file__).parent / "lab_migrations.json").read_text())
LAB_USUAL = NovaPace(5.5, 0.5, 0.7, nova_pace.TOLD)


def ahead(servers=3, at_once=1, now=1000.0, relay=False, sources=("cmpa",)):
    return Ahead(now, frozenset(sources), relay, servers, at_once)


def batch(name, starts, works=(2.0, 1.0), sharing=0.0, stream=10.0, **fields):
    """Play a batch whose stretches before the stream all lie within the others'."""
    before, behind = works
    ends = []
    for start in starts:
        slow = 1 + sharing * (sum(other == start for other in starts) - 1)
        ends.append(NovaStay(start, start + slow * (before + behind) + stream,
                             slow * (before + behind), slow * before, name, "cmpa", **fields))
    return ends


def alone(count, works, **fields):
    """Play batches of three that go one after the other."""
    return [stay for number in range(count) for stay in batch(
        str(number), [1000 * number + 100.0 * at for at in range(3)], works, **fields)]


class LearnTest(base.BaseTestCase):

    def test_nothing_seen_teaches_nothing_and_what_is_assumed_is_not_sure(self):
        self.assertIsNone(nova_pace.learn([], USUAL, ahead()))
        guessed, told = (nova_pace.unlearned(each) for each in (
            nova_pace.GUESSED, nova_pace.TOLD))
        self.assertAlmostEqual(math.hypot(0.7, 0.35), guessed, delta=0.001)
        self.assertAlmostEqual(math.hypot(0.2, 0.35), told, delta=0.001)
        self.assertLess(nova_pace.learn(alone(40, (2.0, 2.0)), USUAL, ahead(now=0.0)).deviation,
                        told)

    def test_the_more_alike_batches_the_nearer_to_them(self):
        # All took 8 s, 4 were assumed.
        one, few, many = (nova_pace.learn(alone(count, (4.0, 4.0)), USUAL, ahead(now=0.0)).seconds
                          for count in (1, 4, 40))
        self.assertTrue(6.0 < one < 7.2 < few < 7.8 < many, (one, few, many))
        self.assertAlmostEqual(8.0, many, delta=0.6)

    def test_what_an_operator_has_told_is_believed_more_than_a_guess(self):
        guessed, told = (nova_pace.learn(alone(2, (4.0, 4.0)), NovaPace(4.0, 0.5, 0.0, each),
                                         ahead(now=0.0)).seconds
                         for each in (nova_pace.GUESSED, nova_pace.TOLD))
        self.assertTrue(4.5 < told < 6.0 < 7.0 < guessed < 8.0, (told, guessed))

    def test_before_and_behind_are_told_apart(self):
        found = nova_pace.learn(alone(40, (3.0, 1.0)), USUAL, ahead(now=0.0))
        self.assertAlmostEqual(0.74, found.before_share, delta=0.02)

    def test_a_handful_of_odd_migrations_moves_little(self):
        # four batches as assumed, one of a machine that was busy with something else
        usual = alone(4, (2.0, 2.0))
        odd = batch("odd", [9000.0, 9100.0, 9200.0], (20.0, 20.0))
        found = nova_pace.learn(usual + odd, USUAL, ahead(now=9300.0))
        self.assertLess(found.seconds, 4.5)

    def test_unlike_ones_move_less_than_alike_ones(self):
        stays = alone(6, (4.0, 4.0))
        alike = nova_pace.learn(stays, USUAL, ahead(now=0.0)).seconds
        for unlike in (ahead(now=0.0, at_once=4), ahead(now=0.0, servers=12),
                       ahead(now=0.0, relay=True), ahead(now=0.0, sources=["cmpz"]),
                       ahead(now=21 * 86400.0)):
            found = nova_pace.learn(stays, USUAL, unlike).seconds
            self.assertTrue(4.0 < found < alike, (unlike, found, alike))

    def test_who_went_another_way_than_planned_teaches_nothing(self):
        lost = [dataclasses.replace(stay, batch="lost" + stay.batch)
                for stay in alone(9, (40.0, 40.0), usual=False)]
        self.assertIsNone(nova_pace.learn(lost, USUAL, ahead(now=0.0)))
        usual = [dataclasses.replace(stay, issued_seconds=stay.issued_seconds + 1e5,
                                     finished_seconds=stay.finished_seconds + 1e5)
                 for stay in alone(1, (2.0, 2.0))]
        found = nova_pace.learn(lost + usual, USUAL, ahead(now=0.0))
        self.assertEqual(3, found.migrations)
        self.assertLess(found.seconds, 4.1)

    def test_where_always_as_many_meet_sharing_stays_what_is_assumed(self):
        for assumed in (0.0, 0.7):
            stays = [stay for number in range(20) for stay in batch(
                str(number), [100.0 * number] * 4, sharing=0.5)]
            found = nova_pace.learn(stays, NovaPace(4.0, 0.5, assumed), ahead(4, 4, 0.0))
            self.assertEqual(assumed, found.sharing)
            # four at once take 7.5 s each, however that is told
            self.assertAlmostEqual(7.5, found.seconds * (1 + 3 * found.sharing), delta=1.0)

    def test_sharing_is_seen_where_more_and_fewer_meet(self):
        stays = [stay for number in range(20) for stay in batch(
            str(number), [1000.0 * number + at for at in (0, 0, 0, 0, 200, 400, 600)],
            sharing=0.5)]
        found = nova_pace.learn(stays, USUAL, ahead(7, 4, 0.0))
        self.assertAlmostEqual(0.5, found.sharing, delta=0.15)
        self.assertAlmostEqual(3.0, found.seconds, delta=0.5)

    def test_what_is_assumed_may_be_nothing(self):
        found = nova_pace.learn(alone(40, (2.0, 2.0)), NovaPace(0.0, 0.5, 0.0), ahead(now=0.0))
        self.assertAlmostEqual(4.0, found.seconds, delta=1.5)

    def test_without_a_look_at_the_stream_the_usual_share_counts(self):
        stays = [NovaStay(at, at + 14.0, 4.0, None, str(at), "cmpa") for at in (0.0, 100.0, 200.0)]
        found = nova_pace.learn(stays, NovaPace(4.0, 0.25, 0.0), ahead(1))
        self.assertEqual((4.0, 0.25), (found.seconds, found.before_share))


class ReplayTest(base.BaseTestCase):
    """The lab's migrations once more: each batch told from those before it, then looked at."""

    def told(self, learn):
        """Return the logarithms of how many times too long Nova's seconds were told, by batch, and
        whether they lay within the 90 % interval.
        """
        stays = [NovaStay(**each) for each in LAB["migrations"]]
        ends = [nova_pace._ends(stay, 0.5) for stay in stays]
        off, within = {}, []
        for name, (servers, at_once) in LAB["batches"].items():
            own = [at for at, stay in enumerate(stays) if stay.batch == name and stay.usual]
            begun = min(stays[at].issued_seconds for at in own)
            pace = learn([stay for stay in stays if stay.finished_seconds < begun][-100:], Ahead(
                begun, frozenset(stays[at].source for at in own), stays[own[0]].relay,
                servers, at_once))
            work = NovaWork(pace.seconds, pace.before_share, pace.sharing)
            found = [math.log(self._seconds(work, nova_pace._beside(ends, at))
                              / stays[at].nova_seconds) for at in own]
            off[name] = statistics.median(found)
            within += [abs(each) < evidence.NINETY_PERCENT * pace.deviation for each in found]
        return off, statistics.fmean(within)

    @staticmethod
    def _seconds(work, beside):
        before = work.seconds * work.before_share
        return before / work.pace(beside[0]) + (work.seconds - before) / work.pace(beside[1])

    def test_what_was_learned_is_nearer_than_what_is_assumed(self):
        # what fits this lab, the options' defaults, and what an operator has told wrongly: they are
        # off by 33, 142 and 71 %
        for usual, assumed, learned in (
                (LAB_USUAL, 0.283, 0.283), (USUAL, 0.883, 0.33),
                (NovaPace(8.0, 0.5, 0.7, nova_pace.TOLD), 0.534, 0.45)):
            self.assertAlmostEqual(assumed, self.mean(
                self.told(lambda past, ahead, usual=usual: usual)[0]), delta=0.001)
            found, within = self.told(lambda past, ahead, usual=usual: nova_pace.learn(
                past, usual, ahead))
            self.assertLess(self.mean(found), learned)
            # of nine in ten; who is told wrongly is too sure at first
            self.assertTrue(0.75 <= within <= 0.97, (usual, within))

    def test_a_demo_behind_other_work_is_not_told_by_that(self):
        # three light guests at a time made it 24 % short when the latest twelve counted alone
        found, _ = self.told(lambda past, ahead: nova_pace.learn(past, LAB_USUAL, ahead))
        self.assertLess(abs(found[LAB["short_demo"]]), 0.2)

    @staticmethod
    def mean(off):
        return statistics.fmean(abs(each) for each in off.values())
