"""The promises of db.api and the migrations on a real MariaDB, started for this module alone.

The server listens on a socket in a temporary directory and dies with the tests.
"""

import getpass
import pathlib
import shutil
import subprocess
import tempfile
import time

import sqlalchemy as sa
from oslotest import base

from tests.unit.db import cases, fixture, test_migration

START_SECONDS = 60


class Server:
    """A private mariadbd."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="nbm-mariadb-"))
        self._process = None

    @property
    def socket(self) -> pathlib.Path:
        return self.directory / "socket"

    def start(self) -> None:
        data = self.directory / "data"
        user = getpass.getuser()
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={data}", f"--user={user}",
             "--auth-root-authentication-method=normal", "--skip-test-db"],
            check=True, capture_output=True)
        self._process = subprocess.Popen(
            [shutil.which("mariadbd"), "--no-defaults", f"--datadir={data}", f"--user={user}",
             f"--socket={self.socket}", "--skip-networking", f"--pid-file={data}/pid",
             "--innodb-flush-log-at-trx-commit=0"],
            stdout=subprocess.DEVNULL, stderr=(self.directory / "log").open("w"))
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
                return
            except sa.exc.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = (self.directory / "log").read_text()
                    self.stop()
                    raise AssertionError(f"mariadbd did not start:\n{log}") from None
                time.sleep(0.1)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        shutil.rmtree(self.directory)

    def url(self, database: str = "") -> str:
        return f"mysql+pymysql://root@localhost/{database}?unix_socket={self.socket}"

    def execute(self, statement: str) -> None:
        engine = sa.create_engine(self.url())
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()


SERVER = None


def setUpModule():
    global SERVER
    if shutil.which("mariadbd") and shutil.which("mariadb-install-db"):
        SERVER = Server()
        SERVER.start()


def tearDownModule():
    if SERVER is not None:
        SERVER.stop()


class MariadbTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        if SERVER is None:
            self.skipTest("install the package mariadb-server")

    def use_database(self, name: str, tables: bool) -> None:
        # latin1 is what a server may have as default: the tables must bring their own charset
        SERVER.execute(f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET latin1")
        self.useFixture(fixture.Database(SERVER.url(name), tables=tables))


class ApiOnMariadbTest(cases.ApiCases, MariadbTest):
    def setUp(self):
        super().setUp()
        # making tables takes MariaDB a second: the tests share them and clear up
        self.use_database("shared", tables=True)
        self.addCleanup(SERVER.execute, "DELETE FROM shared.batches")


class MigrationOnMariadbTest(test_migration.MigrationCases, MariadbTest):
    def setUp(self):
        super().setUp()
        self.use_database("migration", tables=False)
        self.addCleanup(SERVER.execute, "DROP DATABASE migration")
