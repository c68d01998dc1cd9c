"""nova-batch-manage as an operator runs it, on a SQLite file."""

import datetime
import subprocess
import sys

import fixtures
from oslo_utils import timeutils
from oslotest import base

from nova_batch_migrate import conf, exception
from nova_batch_migrate.cmd import manage
from nova_batch_migrate.db import api, engine, migration
from tests.unit.db import fixture


class ManageTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.database = self.useFixture(fixture.Database(tables=False))
        self.out = self.useFixture(fixtures.StringStream("stdout")).stream
        self.err = self.useFixture(fixtures.StringStream("stderr")).stream
        self.useFixture(fixtures.MonkeyPatch("sys.stdout", self.out))
        self.useFixture(fixtures.MonkeyPatch("sys.stderr", self.err))
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.cmd.manage.log.setup", lambda *_: None))

    def said(self) -> str:
        self.out.seek(0)
        self.err.seek(0)
        return self.out.read() + self.err.read()

    def test_sync_makes_the_tables_and_may_be_repeated(self):
        for _ in range(2):
            self.assertEqual(0, manage.main(["db", "sync"]))
            self.assertEqual(migration.head(), migration.version())

    def test_version_tells_where_the_tables_are_and_where_they_should_be(self):
        manage.main(["db", "version"])
        migration.upgrade()
        manage.main(["db", "version"])

        self.assertEqual([f"none (needed: {migration.head()})",
                          f"{migration.head()} (needed: {migration.head()})"],
                         self.said().splitlines())

    def test_purge_removes_what_finished_before(self):
        migration.upgrade()
        for days in (1, 3):
            api.create_batch({
                "request": {}, "status": "completed",
                "finished_at": timeutils.utcnow() - datetime.timedelta(days=days)})
        before = (timeutils.utcnow() - datetime.timedelta(days=2)).isoformat()

        self.assertEqual(0, manage.main(["db", "purge", "--before", before]))

        self.assertEqual(1, len(api.list_batches()))
        self.assertEqual("1 batch migrations removed.\n", self.said())

    def test_a_purge_without_tables_says_what_to_do(self):
        self.assertEqual(1, manage.main(["db", "purge", "--before", "2026-11-23"]))

        self.assertIn("nova-batch-manage db sync", self.said())

    def test_a_database_that_is_not_there_is_no_traceback(self):
        conf.CONF.set_override(
            "connection", "mysql+pymysql://u:p@127.0.0.1:1/none", "database")
        engine.reset()

        self.assertEqual(1, manage.main(["db", "version"]))

        self.assertIn("[database] connection", self.said())
        self.assertNotIn("Traceback", self.said())

    def test_what_is_no_date_or_no_command_is_refused(self):
        for arguments in (["db", "purge"], ["db", "purge", "--before", "soon"], ["db"], [],
                          ["db", "downgrade"]):
            self.assertRaises(SystemExit, manage.main, arguments)
        self.assertIn("soon is no date", self.said())

    def test_times_are_utc_unless_they_name_a_zone(self):
        for text, expected in {
            "2026-11-23": datetime.datetime(2026, 11, 23),
            "2026-11-23T12:00:00": datetime.datetime(2026, 11, 23, 12),
            "2026-11-23T12:00:00Z": datetime.datetime(2026, 11, 23, 12),
            "2026-11-23T12:00:00+02:00": datetime.datetime(2026, 11, 23, 10),
        }.items():
            self.assertEqual(expected, manage.utc_time(text))


class ManageFromTheShellTest(base.BaseTestCase):
    def test_a_configuration_file_says_where_the_database_is(self):
        directory = self.useFixture(fixtures.TempDir()).path
        settings = f"{directory}/our.conf"
        with open(settings, "w") as file:
            file.write(f"[DEFAULT]\nstate_path = {directory}/state\n")

        done = subprocess.run(
            [sys.executable, "-c", "import sys; from nova_batch_migrate.cmd import manage; "
                                   "sys.exit(manage.main())",
             "--config-file", settings, "db", "sync"], capture_output=True, text=True)

        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn(f"The database is at revision {migration.head()}.", done.stdout)
        self.useFixture(fixture.Database(
            f"sqlite:///{directory}/state/nova-batch-migrate.sqlite", tables=False))
        self.assertRaises(exception.BatchNotFound, api.get_batch, "none")
