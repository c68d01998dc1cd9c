"""This project's services on the controller: configuration, database, API process, conductor.

Fixtures of the base class; all they start is the project's real code on the in-process bus. The
agents are in :mod:`tests.functional.agents`.
"""

import pathlib
import threading

import fixtures
from oslo_config import fixture as config_fixture
from oslo_messaging import conffixture

from nova_batch_migrate import conf
from nova_batch_migrate.clients import nova
from nova_batch_migrate.conductor import service as conductor_service
from nova_batch_migrate.db import engine, migration

CONF = conf.CONF


class Configuration(fixtures.Fixture):
    """Point every option at the in-process cloud; ``endpoints`` are URLs by option group."""

    def __init__(self, endpoints: dict[str, str]):
        self._endpoints = endpoints

    def _setUp(self):
        CONF([], default_config_files=[])
        self._config = self.useFixture(config_fixture.Config(CONF))
        self.useFixture(conffixture.ConfFixture(CONF, transport_url="fake:/"))
        state = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.set(host="controller", state_path=str(state))
        for group, url in self._endpoints.items():
            self.set(group, auth_type="none", endpoint_override=url)
        self.set("api", conductor_timeout_seconds=60)
        self.set("conductor", reconcile_interval_seconds=0.3, retry_backoff_seconds=0.2,
                 measure_windows_seconds=[0.1, 0.2], lease_seconds=5)

    def set(self, group: str | None = None, **values) -> None:
        """Override options for the rest of the test."""
        self._config.config(group=group, **values)


class Database(fixtures.Fixture):
    """An empty database with the schema of the newest migration."""

    def _setUp(self):
        engine.reset()
        self.addCleanup(engine.reset)
        migration.upgrade()


class ApiProcess(fixtures.Fixture):
    """Let nova-api's filter begin as in a process of its own; in use before the API starts."""

    def _setUp(self):
        self.useFixture(fixtures.MonkeyPatch("nova_batch_migrate.api.services._of_process", {}))


class Killed(BaseException):
    """Ends a pass of a conductor where it stands, as SIGKILL does: no handler may see it."""


class Conductor(fixtures.Fixture):
    """A running nova-batch-conductor that a test may stop, kill and start again."""

    def _setUp(self):
        self._service = None
        self.start()
        self.addCleanup(self.stop)

    def start(self) -> None:
        self._service = conductor_service.ConductorService(CONF)
        self._service.start()

    def stop(self) -> None:
        """Stop as SIGTERM does; harmless when nothing runs."""
        if self._service is not None:
            self._service.stop()
            self._service = None

    def kill(self) -> None:
        """End it without a word: leases are not given back, nothing is written down."""
        service, self._service = self._service, None
        service._ended.set()
        service._server.stop()
        service._server.wait()
        service._loop.join()
        service._pool.shutdown(wait=True)

    def dies_at_the_call(self, arrived: bool) -> threading.Event:
        """Kill it when it asks Nova for the next live migration; return the event of its death.

        ``arrived``: whether Nova still hears the call. :meth:`kill` and :meth:`start` follow.
        """
        died = threading.Event()
        live_migrate = nova.NovaClient.live_migrate

        def last_call(client, *args, **kwargs):
            if died.is_set():
                return live_migrate(client, *args, **kwargs)
            if arrived:
                live_migrate(client, *args, **kwargs)
            self._service._ended.set()
            died.set()
            raise Killed()

        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.clients.nova.NovaClient.live_migrate", last_call))
        return died
