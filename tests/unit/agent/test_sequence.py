import numpy
from hypothesis import given, settings, strategies
from oslotest import base

from nova_batch_migrate.agent import sequence
from nova_batch_migrate.planning.telemetry import PageSequence

guests = strategies.dictionaries(strategies.sampled_from("abc"),
                                 strategies.lists(strategies.integers(1, 12), max_size=30),
                                 min_size=1)


def samples(contents):
    return {server: (numpy.arange(len(held), dtype=numpy.uint32),
                     numpy.array(held, dtype=numpy.uint64)) for server, held in contents.items()}


class TestBuild(base.BaseTestCase):

    def test_runs_of_unique_pages_are_one_entry(self):
        found = sequence.build(samples({"a": [7, 8, 9, 1, 1, 5], "b": [6, 1, 8]}), 0.5)
        self.assertEqual({"a": [-1, 1, -1, 0, 0, -1], "b": [-1, 0, 1]},
                         {server: value["contents"] for server, value in found.items()})

    def test_pages_stand_in_order_of_address_however_they_were_read(self):
        pages = numpy.array([9, 2, 5], dtype=numpy.uint32)
        hashes = numpy.array([10, 20, 30], dtype=numpy.uint64)
        found = sequence.build({"a": (pages, hashes), "b": (pages[:2], hashes[:2])}, 1.0)
        self.assertEqual(([1, -1, 0], [1, 0]), (found["a"]["contents"], found["b"]["contents"]))

    @settings(deadline=None)
    @given(guests)
    def test_equal_numbers_are_equal_contents_and_nothing_is_lost(self, contents):
        found = sequence.build(samples(contents), 1.0)
        every = [item for held in contents.values() for item in held]
        names = {}
        for server, held in contents.items():
            numbers = PageSequence.from_dict(found[server]).contents
            place = 0
            for number in numbers:
                if number < 0:
                    alone = held[place:place - number]
                    self.assertTrue(all(every.count(item) == 1 for item in alone), alone)
                    place -= number
                else:
                    self.assertEqual(held[place], names.setdefault(number, held[place]))
                    self.assertGreater(every.count(held[place]), 1)
                    place += 1
            self.assertEqual(len(held), place)
        self.assertEqual(len(names), len(set(names.values())))

    def test_no_guest_has_no_sequence(self):
        self.assertEqual({}, sequence.build({}, 1.0))
