"""Brings the database to the tables this version needs; for nova-batch-manage and the checks.

Never touches the configuration of the process's own Alembic or logging.
"""

import pathlib

from alembic import command, config, script
from alembic.runtime import migration

from nova_batch_migrate.db import engine

_SCRIPTS = pathlib.Path(__file__).parent / "migrations"


def _config() -> config.Config:
    settings = config.Config()
    settings.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return settings


def upgrade(revision: str = "head") -> None:
    """Create or upgrade the tables up to ``revision``; harmless when they are there already."""
    settings = _config()
    with engine.get_engine().begin() as connection:
        settings.attributes["connection"] = connection
        command.upgrade(settings, revision)


def version() -> str | None:
    """Return the revision the database is at; None before the first upgrade."""
    with engine.get_engine().connect() as connection:
        return migration.MigrationContext.configure(connection).get_current_revision()


def head() -> str:
    """Return the revision this version of the code needs."""
    return script.ScriptDirectory.from_config(_config()).get_current_head()
