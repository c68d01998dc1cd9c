"""The facade: made from our own options, and what SQLite needs under threads."""

import pathlib

import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import exception as db_exc
from oslotest import base

from nova_batch_migrate import conf
from nova_batch_migrate.db import engine, models
from tests.unit.db import fixture


class EngineTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.database = self.useFixture(fixture.Database())

    def test_sqlite_is_set_up_for_threads_on_every_connection(self):
        for _ in range(2):
            with engine.get_engine().connect() as connection:
                pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                           for name in ("journal_mode", "busy_timeout", "foreign_keys")}
            self.assertEqual({"journal_mode": "wal", "foreign_keys": 1,
                              "busy_timeout": engine.SQLITE_BUSY_SECONDS * 1000}, pragmas)

    def test_the_files_directory_is_made_and_closed_to_others(self):
        directory = pathlib.Path(self.database.path).parent

        self.assertTrue(pathlib.Path(self.database.path).is_file())
        self.assertEqual(0, directory.stat().st_mode & 0o007)

    def test_what_fails_leaves_nothing(self):
        def fail_half_way():
            with engine.writer() as session:
                session.execute(sa.insert(models.Claim.__table__), {
                    "resource_type": "host", "resource_id": "cmpa", "batch_id": "no such batch"})

        self.assertRaises(db_exc.DBReferenceError, fail_half_way)
        with engine.reader() as session:
            self.assertEqual(0, session.scalar(sa.func.count(models.Claim.resource_id)))

    def test_a_writer_that_failed_does_not_block_the_next(self):
        def fail():
            with engine.writer():
                raise RuntimeError

        self.assertRaises(RuntimeError, fail)
        with engine.writer() as session:
            session.execute(sa.delete(models.Claim.__table__))

    def test_oslos_global_configuration_is_not_asked(self):
        self.assertNotEqual(self.database.url,
                            getattr(cfg.CONF, "database", {}).get("connection"))
        self.assertEqual(self.database.path, engine.get_engine().url.database)

    def test_another_database_after_a_reset(self):
        other = f"{self.database.path}.other"
        conf.CONF.set_override("connection", f"sqlite:///{other}", "database")
        self.assertNotEqual(other, engine.get_engine().url.database)

        engine.reset()

        self.assertEqual(other, engine.get_engine().url.database)


class CharsetTest(base.BaseTestCase):
    def test_mariadb_is_asked_for_four_byte_characters_unless_the_operator_chose(self):
        cases = {
            "mysql+pymysql://u:p%40@db/n": "mysql+pymysql://u:p%40@db/n?charset=utf8mb4",
            "mysql+pymysql://db/n?charset=latin1": "mysql+pymysql://db/n?charset=latin1",
            "postgresql+psycopg2://u:p@db/n": "postgresql+psycopg2://u:p@db/n",
            "sqlite:////x/y.sqlite": "sqlite:////x/y.sqlite",
        }
        for given, expected in cases.items():
            self.assertEqual(expected, engine._with_charset(sa.make_url(given)))
