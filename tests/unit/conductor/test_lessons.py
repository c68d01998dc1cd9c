import datetime
from types import SimpleNamespace
from unittest import mock

from oslo_config import fixture
from oslotest import base

from nova_batch_migrate import conf
from nova_batch_migrate.conductor import lessons
from nova_batch_migrate.planning.telemetry import MigrationOptions

NOW = datetime.datetime(2026, 11, 23, 8, 0, 0)
HOST = SimpleNamespace(host="cmpa", servers=("a", "b", "c"),
                       options=MigrationOptions(max_concurrent=2))
TIMES = {"stream_seconds": 10.0, "downtime_seconds": 0.1}
PLAIN = TIMES | {"wire_bytes": 400, "relay": None}


def row(batch="b", projection=TIMES | {"wire_bytes": 100}, actual=PLAIN, attempts=1, minutes=60):
    finished = NOW - datetime.timedelta(minutes=minutes)
    return {"batch_id": batch, "source": "cmpa", "attempts": attempts,
            "issued_at": finished - datetime.timedelta(seconds=18), "finished_at": finished,
            "projection": projection, "actual": actual | {"nova_seconds": 8.0}}


class LessonsTest(base.BaseTestCase):
    TO_CARRY = TIMES | {"wire_bytes": 100, "relay": True}
    CARRIED = TIMES | {"wire_bytes": 80, "relay": {"literal_bytes": 70}}

    def lessons(self, *rows, relay=False):
        with mock.patch.object(lessons.db, "recent_migrations", return_value=list(rows)) as asked:
            found = lessons.lessons(conf.CONF, NOW, [HOST], 3, relay, 1000)
        asked.assert_called_once_with(100, NOW - datetime.timedelta(days=30))
        return found

    def batches(self, count, **fields):
        return [row(str(number), minutes=60 * (number + 1), **fields) for number in range(count)]

    def test_nothing_happened_yet(self):
        self.assertEqual(lessons.Lessons(None, 0.783, None, None), self.lessons())

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
        found = self.lessons(*again, *lost, relay=True)
        self.assertIsNone(found.nova)
        self.assertIsNone(found.learned_relayed)

    def test_wire_bytes_teach_where_a_relay_carried_what_it_was_to_carry(self):
        found = self.lessons(*[row(projection=self.TO_CARRY, actual=self.CARRIED)] * 3,
                             row(projection=self.TO_CARRY),
                             row(actual=self.CARRIED)).learned_relayed
        self.assertEqual(3, found.migrations)
        self.assertTrue(0.8 < found.wire_factor < 0.9, found)
