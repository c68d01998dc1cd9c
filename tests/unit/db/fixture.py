"""A database of its own for one test: SQLite in a file, as by default, or a given URL."""

import fixtures

from nova_batch_migrate import conf
from nova_batch_migrate.db import engine, migration


class Database(fixtures.Fixture):
    """Point our configuration at ``url`` (default: a new SQLite file) and create the tables."""

    def __init__(self, url: str | None = None, tables: bool = True):
        super().__init__()
        self.url = url
        self._tables = tables

    def _setUp(self):
        if self.url is None:
            self.path = f"{self.useFixture(fixtures.TempDir()).path}/state/batches.sqlite"
            self.url = f"sqlite:///{self.path}"
        conf.CONF([], default_config_files=[], default_config_dirs=[])
        conf.CONF.set_override("connection", self.url, "database")
        conf.CONF.set_override("max_retries", 1, "database")
        conf.CONF.set_override("retry_interval", 0, "database")
        engine.reset()
        self.addCleanup(conf.CONF.reset)
        self.addCleanup(engine.reset)
        for name in ("connection", "max_retries", "retry_interval"):
            self.addCleanup(conf.CONF.clear_override, name, "database")
        if self._tables:
            migration.upgrade()
