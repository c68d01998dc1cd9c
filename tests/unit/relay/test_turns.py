from oslotest import base

from nova_batch_migrate.relay import turns


class Turns(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.now = 100.0
        self.turns = turns.Turns(clock=lambda: self.now)

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

    def test_who_is_about_to_end_goes_first_while_it_takes_bytes(self):
        self.turns.join(1, 0)
        self.turns.join(2, 1)
        self.assertFalse(self.turns.crowded)
        self.turns.pass_on(1)
        self.assertTrue(self.turns.crowded)
        self.assertFalse(self.turns.others_are_urgent(2))
        self.turns.urge(1)
        self.assertTrue(self.turns.others_are_urgent(2))
        self.assertFalse(self.turns.others_are_urgent(1))
        self.now += 0.05
        self.assertFalse(self.turns.others_are_urgent(2))
        self.turns.urge(1)
        self.turns.leave(1)
        self.assertFalse(self.turns.others_are_urgent(2))
        self.assertFalse(self.turns.crowded)

    def test_who_does_not_end_shares_after_a_while(self):
        self.turns.urge(1)
        for _ in range(40):
            self.assertTrue(self.turns.others_are_urgent(2))
            self.now += turns.URGENT_SECONDS / 40
            self.turns.urge(1)
        self.now += 0.001
        self.turns.urge(1)
        self.assertFalse(self.turns.others_are_urgent(2))

    def test_one_that_comes_a_little_early_lets_those_before_it_come(self):
        self.turns = turns.Turns([0, 1, 2], clock=lambda: self.now)
        self.turns.join(1, 1)
        self.assertFalse(self.has(1))
        self.now += turns.GRACE_SECONDS / 2
        self.turns.join(2, 2)
        self.turns.join(0, 0)
        self.assertFalse(self.has(1))
        self.assertTrue(self.has(0))
        self.turns.leave(0)
        # nobody is missing any more
        self.assertTrue(self.has(1))

    def test_nobody_waits_long_for_one_that_does_not_come(self):
        self.turns = turns.Turns([0, 1], clock=lambda: self.now)
        self.turns.join(1, 1)
        self.now += turns.GRACE_SECONDS
        self.assertTrue(self.has(1))

    def test_where_all_is_slow_one_is_waited_for_longer_but_not_for_ever(self):
        for first_seconds, grace_seconds in ((0.1, 0.5), (6.0, 1.5), (60.0, 2.0)):
            self.turns = turns.Turns([0, 1, 2], clock=lambda: self.now)
            self.now += first_seconds
            self.turns.join(1, 0)
            self.assertTrue(self.has(1))
            self.now += 10
            self.turns.join(3, 2)
            self.turns.leave(1)
            # it has been there for as long as that of its own
            self.now += grace_seconds - 0.01
            self.assertFalse(self.has(3), first_seconds)
            self.now += 0.02
            self.assertTrue(self.has(3), first_seconds)

    def test_one_that_goes_another_way_is_not_waited_for(self):
        self.turns = turns.Turns([0, 1], clock=lambda: self.now)
        self.turns.join(1, 1)
        self.assertFalse(self.has(1))
        self.turns.forgo(0)
        self.assertTrue(self.has(1))

    def test_passing_on_by_one_that_has_left_changes_nothing(self):
        self.turns.join(1, 0)
        self.turns.leave(1)
        self.turns.pass_on(1)
        self.assertFalse(self.turns.crowded)

    def test_alone_until_another_comes_be_it_waiting(self):
        self.turns.join(1, 0)
        self.turns.pass_on(1)
        self.assertTrue(self.turns.alone)
        self.turns.join(2, 1)
        self.assertFalse(self.turns.alone)
        self.turns.leave(1)
        self.assertTrue(self.turns.alone)
