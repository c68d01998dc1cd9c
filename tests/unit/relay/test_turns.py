from oslotest import base

from nova_batch_migrate.relay import turns


class Turns(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.turns = turns.Turns()

    def has(self, stream):
        return self.turns.wait(stream, 0)

    def test_one_after_the_other_as_planned_whoever_came_first(self):
        self.turns.join(7, order=2)
        self.assertTrue(self.has(7))
        self.turns.join(8, order=1)
        self.turns.join(9, order=0)
        self.assertFalse(self.has(8))
        self.assertFalse(self.has(9))
        self.turns.leave(7)
        self.assertFalse(self.has(8))
        self.assertTrue(self.has(9))
        self.turns.leave(9)
        self.assertTrue(self.has(8))

    def test_nobody_waits_for_one_that_left_before_its_turn(self):
        for stream in (1, 2, 3):
            self.turns.join(stream, stream)
        self.assertTrue(self.has(1))
        self.turns.leave(2)
        self.turns.leave(1)
        self.assertFalse(self.has(2))
        self.assertTrue(self.has(3))

    def test_passing_on_lets_the_next_begin_beside(self):
        self.turns.join(1, 1)
        self.turns.join(2, 2)
        self.assertTrue(self.has(1))
        self.turns.pass_on(1)
        self.assertTrue(self.has(2))

    def test_streams_of_one_server_share_its_turn(self):
        self.turns.join(1, 0)
        self.turns.join(2, 0)
        self.turns.join(3, 1)
        self.assertTrue(self.has(1))
        self.assertTrue(self.has(2))
        self.assertFalse(self.has(3))
        self.turns.leave(1)
        self.assertFalse(self.has(3))
        self.turns.leave(2)
        self.assertTrue(self.has(3))
