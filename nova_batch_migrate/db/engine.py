"""The one engine facade of this process, configured from our own options, never oslo's global ones.

db.api and db.migration come here. SQLite gets what threads of several processes need: WAL, a busy
timeout, and writers that take the write lock when they begin instead of failing half-way.
"""

import contextlib
import pathlib
import sqlite3
import threading

import sqlalchemy as sa
from oslo_db.sqlalchemy import enginefacade

from nova_batch_migrate import conf

SQLITE_BUSY_SECONDS = 30
_WRITES = "nova_batch_writes"
# What oslo.db's facade understands of its own options; the others steer its legacy API.
_FACADE_OPTIONS = (
    "connection", "slave_connection", "synchronous_reader", "mysql_sql_mode",
    "mysql_wsrep_sync_wait", "connection_recycle_time", "connection_debug", "connection_trace",
    "connection_parameters", "max_pool_size", "max_overflow", "pool_timeout", "max_retries",
    "retry_interval", "sqlite_synchronous",
)

_lock = threading.Lock()
_manager = None


@enginefacade.transaction_context_provider
class _Caller:
    """What enginefacade hangs one transaction on; made anew for each."""


def reset() -> None:
    """Forget the facade and close its connections, so that the next use reads the options anew."""
    global _manager
    with _lock:
        if _manager is not None:
            _manager.dispose_pool()
        _manager = None


def get_engine() -> sa.Engine:
    """Return the engine that writes; makes the SQLite file's directory where it is missing."""
    return _get_manager().writer.get_engine()


@contextlib.contextmanager
def reader():
    """Yield a session for SELECTs only."""
    with _get_manager().reader.using(_Caller()) as session:
        yield session


@contextlib.contextmanager
def writer():
    """Yield a session whose changes are committed together, or not at all after an exception."""
    with _get_manager().writer.using(_Caller()) as session:
        session.connection(execution_options={_WRITES: True})
        yield session


def _get_manager():
    global _manager
    with _lock:
        if _manager is None:
            options = conf.CONF.database
            url = sa.make_url(options.connection)
            _make_directory(url)
            manager = enginefacade.transaction_context()
            manager.configure(sqlite_fk=True, **{name: options[name] for name in _FACADE_OPTIONS})
            manager.configure(connection=_with_charset(url))
            manager.append_on_engine_create(_prepare_sqlite)
            _manager = manager
        return _manager


def _with_charset(url: sa.URL) -> str:
    """Ask MariaDB for four-byte UTF-8: server names hold any character, oslo.db's default not."""
    if url.get_backend_name() in ("mysql", "mariadb") and "charset" not in url.query:
        url = url.update_query_dict({"charset": "utf8mb4"})
    return url.render_as_string(hide_password=False)


def _make_directory(url: sa.URL) -> None:
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        pathlib.Path(url.database).parent.mkdir(mode=0o750, parents=True, exist_ok=True)


def _prepare_sqlite(engine: sa.Engine) -> None:
    if engine.dialect.name != "sqlite":
        return

    @sa.event.listens_for(engine, "connect")
    def set_pragmas(connection: sqlite3.Connection, _record) -> None:
        connection.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_SECONDS * 1000}")
        connection.execute("PRAGMA journal_mode = WAL")

    # oslo.db begins every transaction as a reader, unless the connection is marked as having begun.
    # A reader that wants to write after somebody else did is refused at once, busy timeout or not.
    @sa.event.listens_for(engine, "set_connection_execution_options")
    def mark_as_begun(connection: sa.Connection, options) -> None:
        if options.get(_WRITES):
            connection.info["in_transaction"] = True

    @sa.event.listens_for(engine, "begin")
    def begin_as_writer(connection: sa.Connection) -> None:
        if connection.get_execution_options().get(_WRITES):
            connection.exec_driver_sql("BEGIN IMMEDIATE")
