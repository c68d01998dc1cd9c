"""Column types that mean the same in SQLite, MariaDB and PostgreSQL; for models and migrations.

JSON is text, because the databases' own JSON types differ, and MEDIUMTEXT in MariaDB, because the
telemetry of a large host is megabytes. Times are naive UTC.
"""

import json

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

MYSQL_OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}
_MYSQL_DIALECTS = ("mysql", "mariadb")


class JsonText(sa.types.TypeDecorator):
    """A JSON value kept as compact text; SQL NULL is None."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect):
        if dialect.name in _MYSQL_DIALECTS:
            return dialect.type_descriptor(mysql.MEDIUMTEXT())
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value, dialect):
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value, dialect):
        return None if value is None else json.loads(value)


class UtcDateTime(sa.types.TypeDecorator):
    """A naive UTC datetime with microseconds, which MariaDB drops unless told."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect):
        if dialect.name in _MYSQL_DIALECTS:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime())
