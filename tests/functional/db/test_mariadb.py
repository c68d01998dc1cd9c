"""The promises of db.api and the migrations on a real MariaDB, started for this module alone.

The server listens on a socket in a temporary directory and dies with the tests. Where it dies by
itself, as MariaDB 10.11 was seen to do, the test that it left is run once more on a new server,
which is said; a second death fails whatever needs it.
"""

import contextlib
import getpass
import io
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import fixtures
import sqlalchemy as sa
import testtools
from oslotest import base

from tests.unit.db import cases, fixture, test_migration

START_SECONDS = 180
#: From the break of its connections to its end it writes down where it was.
DEATH_SECONDS = 30
MOST_DEATHS = 1


class Server:
    """A private mariadbd."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="nbm-mariadb-"))
        self.deaths = 0
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

    def revived(self) -> bool:
        """Start it anew, empty, if it has died by itself, but for too often; tell whether so."""
        try:
            self.execute("SELECT 1")
            return False
        except sa.exc.OperationalError:
            pass
        try:
            status = self._process.wait(DEATH_SECONDS)
        except subprocess.TimeoutExpired:
            # it lives, and does not answer
            return False
        self.deaths += 1
        told = (self.directory / "log").read_text(errors="replace").splitlines()
        for line in (f"mariadbd died by itself (status {status}, death {self.deaths}); it said:",
                     *told[-20:]):
            # run_tests.py shows such lines
            print(f"NOTE: {line}", file=sys.stderr, flush=True)
        if self.deaths > MOST_DEATHS:
            return False
        shutil.rmtree(self.directory)
        self.directory.mkdir(mode=0o700)
        self.start()
        return True

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
        try:
            SERVER.start()
        except (AssertionError, subprocess.CalledProcessError) as error:
            print(f"NOTE: mariadbd did not come up, and is tried once more: {error}",
                  file=sys.stderr, flush=True)
            SERVER = Server()
            SERVER.deaths = 1
            SERVER.start()


def tearDownModule():
    if SERVER is not None:
        SERVER.stop()


class OnceMore(testtools.RunTest):
    """Runs a test again whose server has died beneath it."""

    def _run_core(self) -> None:
        super()._run_core()
        if self._exceptions and SERVER is not None and self._run_user(SERVER.revived) is True:
            self._exceptions.clear()
            self.case._reset()
            super()._run_core()


class MariadbTest(base.BaseTestCase):

    run_tests_with = OnceMore

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


class _Dies(MariadbTest):
    """The server dies in the middle of a test, as often as told."""

    times = 0

    def setUp(self):
        super().setUp()
        self.use_database("shared", tables=True)

    def check(self):
        if self.times:
            self.times -= 1
            SERVER._process.kill()
        SERVER.execute("SELECT * FROM shared.batches")


class _Dead(Server):
    """A server that has died already."""

    def __init__(self):
        super().__init__()
        (self.directory / "log").write_text("got signal 11")
        self._process = subprocess.Popen(["false"])

    def start(self) -> None:
        raise AssertionError("it was started once more")


class ServerThatDiesTest(MariadbTest):
    def setUp(self):
        super().setUp()
        # what happens here does not count
        self.useFixture(fixtures.MonkeyPatch(f"{__name__}.SERVER.deaths", 0))

    def run_it(self, times: int) -> tuple[bool, str]:
        """Return whether the test passed, and what was said."""
        case, result, said = _Dies("check"), testtools.TestResult(), io.StringIO()
        case.times = times
        with contextlib.redirect_stderr(said):
            case.run(result)
        self.assertEqual(1, result.testsRun)
        return result.wasSuccessful(), said.getvalue()

    def test_one_death_fails_nothing_and_is_told(self):
        self.assertEqual((True, ""), self.run_it(times=0))
        passed, said = self.run_it(times=1)
        self.assertTrue(passed)
        self.assertIn("NOTE: mariadbd died by itself (status -9, death 1)", said)

    def test_the_second_fails(self):
        dead = _Dead()
        dead.deaths = 1
        self.addCleanup(shutil.rmtree, dead.directory)
        with fixtures.MonkeyPatch(f"{__name__}.SERVER", dead):
            passed, said = self.run_it(times=0)
        self.assertFalse(passed)
        self.assertIn("NOTE: got signal 11", said)
