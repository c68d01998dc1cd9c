"""This project's services beside Nova in one process: configuration, database, conductor, agents.

Fixtures of the base class. Everything here is the project's real code on the in-process bus; only
what the agents read from libvirt and from guest memory is played (:mod:`tests.functional.agents`).
"""

import pathlib

import fixtures
from oslo_config import fixture as config_fixture
from oslo_messaging import conffixture

from nova_batch_migrate import conf, rpc
from nova_batch_migrate.conductor import manager as conductor_manager
from nova_batch_migrate.db import engine, migration

CONF = conf.CONF


class Configuration(fixtures.Fixture):
    """Point every option at the in-process cloud: bus, database, Nova and Placement."""

    def __init__(self, nova_url: str, placement_url: str):
        self._endpoints = {"nova": f"{nova_url}/v2.1", "placement": placement_url}

    def _setUp(self):
        CONF([], default_config_files=[])
        self._config = self.useFixture(config_fixture.Config(CONF))
        self.useFixture(conffixture.ConfFixture(CONF, transport_url="fake:/"))
        state = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.set(host="controller", state_path=str(state))
        for group, url in self._endpoints.items():
            self.set(group, auth_type="none", endpoint_override=url)
        self.set("api", conductor_timeout_seconds=5)
        self.set("conductor", reconcile_interval_seconds=0.1, retry_backoff_seconds=0.2,
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


class Conductor(fixtures.Fixture):
    """A running nova-batch-conductor; ``kill`` and ``start`` as an operator's machine might do."""

    def _setUp(self):
        self.start()
        self.addCleanup(self.stop)

    def start(self) -> None:
        self._service = conductor_manager.ConductorService(CONF)
        self._service.start()

    def stop(self) -> None:
        if self._service is not None:
            self._service.stop()
            self._service = None


class Agent(fixtures.Fixture):
    """The RPC server of one host's agent around ``endpoint``."""

    def __init__(self, host: str, endpoint):
        self._host, self._endpoint = host, endpoint

    def _setUp(self):
        server = rpc.get_server(rpc.get_agent_transport(CONF), rpc.agent_target(self._host),
                                [self._endpoint])
        server.start()
        self.addCleanup(server.wait)
        self.addCleanup(server.stop)
