"""db.api on SQLite, the default; tests/functional/db has the same cases on MariaDB."""

import threading

import sqlalchemy as sa
from oslotest import base

from nova_batch_migrate.db import api, engine, models
from tests.unit.db import cases, fixture


class ApiOnSqliteTest(cases.ApiCases, base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixture.Database())

    def test_a_reader_is_not_held_up_by_a_writer(self):
        batch = self.create()
        written, read = threading.Event(), threading.Event()

        def delete_and_wait():
            with engine.writer() as session:
                session.execute(sa.delete(models.Batch.__table__))
                written.set()
                read.wait(60)

        writer = threading.Thread(target=delete_and_wait)
        writer.start()
        self.assertTrue(written.wait(60))
        seen = api.get_batch(batch["id"])
        read.set()
        writer.join()

        self.assertEqual(batch["id"], seen["id"])
        self.assertEqual([], api.list_batches())

    def test_writers_that_read_first_wait_for_each_other(self):
        # without a write lock from the beginning SQLite refuses the slower one at once
        batch = self.create()

        results = cases.together(*[
            lambda number=number: [
                api.add_servers(batch["id"], [cases.server(f"{number}-{index}")])
                for index in range(10)]
            for number in range(4)])

        self.assertEqual([[None] * 10] * 4, results)
        self.assertEqual(40, len(api.servers_of(batch["id"])))
