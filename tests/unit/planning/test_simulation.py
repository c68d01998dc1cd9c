import array
import math
import random

from oslotest import base

from nova_batch_migrate.planning import reference, simulation
from nova_batch_migrate.planning.conditions import Link, NovaWork, Timing
from nova_batch_migrate.planning.cycle import Cycle
from nova_batch_migrate.planning.nova_schedule import NovaSchedule
from nova_batch_migrate.planning.simulation import Outcome
from nova_batch_migrate.planning.stream import Socket, StreamLoad, WireRates
from nova_batch_migrate.planning.telemetry import DirtyModel
from tests.unit.planning.builders import MIB

GROUPS = 1000


class Groups:
    """Draws loads and conditions of all kinds, most of them near the edge of converging."""

    def __init__(self, seed):
        self._draw = random.Random(seed)

    def load(self, rate):
        draw = self._draw
        total = math.exp(draw.uniform(4, 12))
        zero = draw.choice([0, 0.3, 0.9]) * total
        written = rate / 4104 * math.exp(draw.uniform(-4, 1))
        hot = draw.choice([0.0, 0.0, 300.0])
        cycle = draw.choice([None, Cycle(draw.uniform(2, 30), draw.uniform(0, 9), 1.5, 0.2, 2.0)])
        auto_converge = draw.random() < 0.2
        # neither repeats itself: without a timeout it would go on for 100,000 rounds
        timeouts = [draw.uniform(2, 60)] + ([] if cycle or auto_converge else [None])
        steps = ((0.0, 0.05), (draw.uniform(1, 9), 0.15), (draw.uniform(10, 20), 0.5))
        return StreamLoad(
            content_pages=total - zero, zero_pages=zero,
            dirty=DirtyModel(draw.choice([0.0, written, written]), total * draw.uniform(0.05, 0.6),
                             hot_rate_pages_per_second=hot * 7, hot_pages=hot),
            schedule=NovaSchedule(steps[:draw.choice([1, 3])], draw.choice(timeouts),
                                  auto_converge=auto_converge),
            disk_bytes=draw.choice([0.0, 0.0, rate * 3]),
            disk_write_bytes_per_second=draw.choice([0.0, rate * 0.3, rate * 1.1]),
            cycle=cycle,
            wire=draw.choice([None, WireRates(
                draw.uniform(0, 0.95), draw.uniform(0, 0.5), draw.uniform(0.1, 1), 0.6,
                draw.choice([math.inf, rate]), draw.choice([0.0, 0.5 / rate]),
                draw.choice([0.0, 0.75, 3.0]))]),
            socket=draw.choice([Socket(), Socket(), Socket(0.0, 0.0, 0.0, 0.0)]))

    def group(self):
        draw = self._draw
        rate = draw.choice([2, 10, 60]) * MIB
        link = Link(rate, draw.choice([math.inf, 0.5 * rate]), draw.choice([math.inf, 0.3 * rate]),
                    relay=draw.random() < 0.6)
        timing = Timing(draw.randint(1, 5), NovaWork(
            draw.choice([0.0, 4.0]), draw.uniform(0.1, 0.9), draw.choice([0.0, 0.4]),
            draw.choice([math.inf, 1, 2])), 0.2,
            draw.choice([None, 1e9 + draw.uniform(0, 50)]))
        return [self.load(rate) for _ in range(draw.randint(1, 7))], link, timing


class TestSpeed(base.BaseTestCase):
    """The extension against the same in plain Python."""

    def setUp(self):
        super().setUp()
        if simulation._speed is None:
            self.skipTest("the extension is not built here")

    def test_the_same_as_in_python_to_the_last_bit(self):
        groups = Groups(1)
        ends = set()
        for number in range(GROUPS):
            loads, link, timing = groups.group()
            for alone in (False, True) if timing.parallel == 1 else (False,):
                found = simulation._run(loads, link, timing, alone)
                expected = [Outcome(*fields)
                            for fields in reference.simulate(loads, link, timing, alone)]
                self.assertEqual(expected, found, f"group {number} of seed 1")
                ends |= {(one.completed, one.aborted_at is None, one.rounds > 20)
                         for one in found}
        # completed, given up by Nova, never to end; after few rounds and after many
        self.assertEqual({(True, True), (False, False), (False, True)}, {end[:2] for end in ends})
        self.assertEqual({True, False}, {many for completed, _, many in ends if completed})

    def test_a_downtime_of_nothing_ends(self):
        """As Nova has it for its first step where it has more steps than milliseconds."""
        for relay in (False, True):
            link, timing = Link(20 * MIB, relay=relay), Timing(1, NovaWork(0.0), 0.2)
            for written, completed in ((0.0, True), (2000.0, False)):
                load = StreamLoad(
                    5000.0, 100.0, DirtyModel(written, 900.0), NovaSchedule(((0.0, 0.0),), 30.0),
                    wire=WireRates() if relay else None)
                found, = simulation._run([load], link, timing)
                self.assertEqual((completed, None if completed else 30.0),
                                 (found.completed, found.aborted_at))
                self.assertEqual([Outcome(*fields) for fields in
                                  reference.simulate([load], link, timing)], [found])

    def test_nothing_to_simulate(self):
        _, link, timing = Groups(1).group()
        self.assertEqual([], simulation._run([], link, timing))

    def test_tables_of_another_size_are_refused(self):
        loads, link, timing = Groups(1).group()
        tables = simulation._tables(loads, link, timing, False)
        for at in (0, 2, 3):
            wrong = [*tables]
            wrong[at] = wrong[at][:-1]
            self.assertRaises(ValueError, simulation._speed.simulate, *wrong)
        # steps that are not there, and nobody at once
        self.assertRaises(ValueError, simulation._speed.simulate,
                          tables[0], array.array("d"), *tables[2:])
        tables[3][0] = 0.0
        self.assertRaises(ValueError, simulation._speed.simulate, *tables)


class TestWithoutExtension(base.BaseTestCase):

    def test_python_runs_them(self):
        loads, link, timing = Groups(2).group()
        expected = [Outcome(*fields) for fields in reference.simulate(loads, link, timing)]
        self.addCleanup(setattr, simulation, "_speed", simulation._speed)
        simulation._speed = None
        self.assertEqual(expected, simulation._run(loads, link, timing))
