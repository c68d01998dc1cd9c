from oslotest import base

from nova_batch_migrate.planning import ordering


class TestAscending(base.BaseTestCase):

    def test_seconds_then_name_then_id_and_guesses_last(self):
        items = [(9.0, "a", "1"), (2.0, "c", "1"), (2.0, "b", "2"), (2.0, "b", "1"),
                 (1.0, "guess", "1")]
        found = ordering.ascending(items, seconds=lambda i: i[0], identity=lambda i: i[1:],
                                   last=lambda i: i[1] == "guess")
        self.assertEqual(["b1", "b2", "c1", "a1", "guess1"], [i[1] + i[2] for i in found])
