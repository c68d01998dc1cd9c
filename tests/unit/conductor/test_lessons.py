import datetime
from types import SimpleNamespace
from unittest import mock

from oslo_config import fixture
from oslotest import base

from nova_batch_migrate import conf
from nova_batch_migrate.conductor import lessons
from nova_batch_migrate.planning.request import RelayHost
from nova_batch_migrate.planning.telemetry import MigrationOptions

NOW = datetime.datetime(2026, 11, 23, 8, 0, 0)
HOST = SimpleNamespace(host="cmpa", servers=("a", "b", "c"),
                       options=MigrationOptions(max_concurrent=2))
TIMES = {"stream_seconds": 10.0, "downtime_seconds": 0.1}
RELAYS = (RelayHost("cmpa", 1e9, 4e9), RelayHost("cmpb", 5e8, 2e9))
PLAIN = TIMES | {"wire_bytes": 400, "relay": None}


def row(batch="b", projection=TIMES | {"wire_bytes": 100}, actual=PLAIN, attempts=1, minutes=60):
    finished = NOW - datetime.timedelta(minutes=minutes)
    return {"batch_id": batch, "source": "cmpa", "destination": "cmpb", "attempts": attempts,
            "issued_at": finished - datetime.timedelta(seconds=18), "finished_at": finished,
            "projection": projection, "actual": actual | {"nova_seconds": 8.0}}


class LessonsTest(base.BaseTestCase):
    TO_CARRY = TIMES | {"wire_bytes": 100, "relay": True}
    CARRIED = TIMES | {"wire_bytes": 80, "relay": {"literal_bytes": 70}}

    def lessons(self, *rows, relays=()):
        with mock.patch.object(lessons.db, "recent_migrations", return_value=list(rows)) as asked:
            found = lessons.lessons(conf.CONF, NOW, [HOST], 3, relays, 1000)
        asked.assert_called_once_with(100, NOW - datetime.timedelta(days=30))
        return found

    def batches(self, count, **fields):
        return [row(str(number), minutes=60 * (number + 1), **fields) for number in range(count)]

    def test_nothing_happened_yet(self):
        self.assertEqual(lessons.Lessons(None, 0.783, None, None, None), self.lessons())

    def test_what_an_operator_has_told_is_surer_than_the_default(self):
        guessed = self.lessons(*self.batches(5))
        self.useFixture(fixture.Config(conf.CONF)).config(group="conductor", nova_sharing=0.0)
        told = self.lessons(*self.batches(5))
        self.assertLess(told.nova_deviation, guessed.nova_deviation)
        self.assertTrue(4.0 < told.nova.seconds < guessed.nova.seconds < 8.0)

    def test_novas_seconds_come_from_the_latest_migrations(self):
        self.assertTrue(4.3 < self.lessons(*self.batches(5)).nova.seconds < 8.0)

    def test_neither_second_attempts_nor_migrations_that_lost_their_relay_count(self):
        again = self.batches(9, attempts=2)
        lost = self.batches(9, projection=self.TO_CARRY)
        found = self.lessons(*again, *lost, relays=RELAYS)
        self.assertIsNone(found.nova)
        self.assertIsNone(found.learned_relayed)

    def test_wire_bytes_teach_where_a_relay_carried_what_it_was_to_carry(self):
        found = self.lessons(*[row(projection=self.TO_CARRY, actual=self.CARRIED)] * 3,
                             row(projection=self.TO_CARRY),
                             row(actual=self.CARRIED)).learned_relayed
        self.assertEqual(3, found.migrations)
        self.assertTrue(0.8 < found.wire_factor < 0.9, found)

    def taken(self, seconds, projected=0.0, batch="b"):
        """Of 1 GB, 0.6 s of which the link needs; half of it was there already."""
        first_pass = {"seconds": seconds, "raw_bytes": 10 ** 9, "link_seconds": 0.6}
        carried = {"self_duplicate_bytes": 10 ** 8, "cross_server_bytes": 4 * 10 ** 8,
                   "first_pass": first_pass}
        return row(batch, self.TO_CARRY | {"relay_seconds_per_byte": projected},
                   self.CARRIED | {"relay": carried})

    def test_what_streams_take_beside_their_link_and_the_slower_relay_by_itself(self):
        # 0.5 GB of new content at 0.5 GB/s, 0.5 GB at 2 GB/s: 1.25 s
        rows = [self.taken(2.25)] * 3
        self.assertAlmostEqual(1e-9, self.lessons(*rows, relays=RELAYS).relay.seconds_per_byte)
        # nobody knows what relays can do: the link then is the slowest
        self.assertAlmostEqual(1.65e-9, self.lessons(*rows).relay.seconds_per_byte)
        self.assertIsNone(self.lessons(*[row(projection=self.TO_CARRY, actual=self.CARRIED)] * 3,
                                       relays=RELAYS).relay)

    def test_streams_teach_of_projections_that_reckoned_as_the_next_ones_will(self):
        without = [self.taken(2.25)] * 3
        found = self.lessons(*without, relays=RELAYS)
        self.assertIsNotNone(found.relay)
        self.assertIsNone(found.learned_relayed)
        reckoned = [self.taken(2.25, 1e-9, "c")] * 4
        self.assertEqual(4, self.lessons(*without, *reckoned, relays=RELAYS)
                         .learned_relayed.migrations)
        # relays that hold nothing up are reckoned with as before
        self.assertEqual(3, self.lessons(*[self.taken(0.7)] * 3, relays=RELAYS)
                         .learned_relayed.migrations)
