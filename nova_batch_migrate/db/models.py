"""The tables. Only db.api and the Alembic environment use them; no live object leaves db.api."""

import sqlalchemy as sa
from oslo_db.sqlalchemy import models
from sqlalchemy import orm

from nova_batch_migrate.db.types import MYSQL_OPTIONS, JsonText, UtcDateTime


class Base(models.ModelBase, orm.DeclarativeBase):
    """Declarative base of all tables."""

    __allow_unmapped__ = True
    __table_args__ = MYSQL_OPTIONS


class Batch(Base):
    """One batch migration: what was asked for, the plan, where the reconciler stands."""

    __tablename__ = "batches"
    __table_args__ = (
        sa.Index("batches_status_idx", "status"),
        sa.Index("batches_created_idx", "created_at", "id"),
        MYSQL_OPTIONS,
    )

    id = sa.Column(sa.String(36), primary_key=True)
    status = sa.Column(sa.String(16), nullable=False)
    request = sa.Column(JsonText, nullable=False)
    user_id = sa.Column(sa.String(255))
    project_id = sa.Column(sa.String(255))
    request_id = sa.Column(sa.String(64))
    created_at = sa.Column(UtcDateTime, nullable=False)
    updated_at = sa.Column(UtcDateTime, nullable=False)
    started_at = sa.Column(UtcDateTime)
    finished_at = sa.Column(UtcDateTime)
    plan = sa.Column(JsonText)
    first_plan = sa.Column(JsonText)
    telemetry = sa.Column(JsonText)
    error = sa.Column(sa.Text)
    disabled_hosts = sa.Column(JsonText, nullable=False)
    control = sa.Column(JsonText, nullable=False)
    state = sa.Column(JsonText, nullable=False)
    lease_owner = sa.Column(sa.String(255))
    lease_expires_at = sa.Column(UtcDateTime)
    version = sa.Column(sa.Integer, nullable=False)


class BatchHost(Base):
    """A source host of a batch; kept when the claim is gone, so that lists can be filtered."""

    __tablename__ = "batch_hosts"
    __table_args__ = (sa.Index("batch_hosts_host_idx", "host"), MYSQL_OPTIONS)

    batch_id = sa.Column(sa.ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True)
    host = sa.Column(sa.String(255), primary_key=True)


class BatchServer(Base):
    """One server of a batch: its place in the plan, its migration, what was projected and seen."""

    __tablename__ = "batch_servers"
    __table_args__ = (
        sa.UniqueConstraint("batch_id", "server_id", name="batch_servers_batch_server_uniq"),
        sa.Index("batch_servers_status_finished_idx", "status", "finished_at"),
        MYSQL_OPTIONS,
    )

    id = sa.Column(sa.Integer, primary_key=True, autoincrement=True)
    batch_id = sa.Column(sa.ForeignKey("batches.id", ondelete="CASCADE"), nullable=False)
    server_id = sa.Column(sa.String(36), nullable=False)
    name = sa.Column(sa.Text)
    project_id = sa.Column(sa.String(255))
    source = sa.Column(sa.String(255))
    destination = sa.Column(sa.String(255))
    status = sa.Column(sa.String(16), nullable=False)
    reason = sa.Column(sa.Text)
    certainty = sa.Column(sa.String(16))
    command = sa.Column(sa.Text)
    group_index = sa.Column(sa.Integer)
    order_index = sa.Column(sa.Integer)
    memory_bytes = sa.Column(sa.BigInteger)
    known_migrations = sa.Column(JsonText, nullable=False)
    migration_id = sa.Column(sa.Integer)
    attempts = sa.Column(sa.Integer, nullable=False)
    next_attempt_at = sa.Column(UtcDateTime)
    issued_at = sa.Column(UtcDateTime)
    finished_at = sa.Column(UtcDateTime)
    projection = sa.Column(JsonText)
    current_projection = sa.Column(JsonText)
    actual = sa.Column(JsonText)
    progress = sa.Column(JsonText)
    healed = sa.Column(sa.Boolean, nullable=False)


class BatchEvent(Base):
    """Something that happened to a batch, in the words an operator reads."""

    __tablename__ = "batch_events"
    __table_args__ = (sa.Index("batch_events_batch_idx", "batch_id", "id"), MYSQL_OPTIONS)

    id = sa.Column(sa.Integer, primary_key=True, autoincrement=True)
    batch_id = sa.Column(sa.ForeignKey("batches.id", ondelete="CASCADE"), nullable=False)
    created_at = sa.Column(UtcDateTime, nullable=False)
    kind = sa.Column(sa.String(32), nullable=False)
    server_id = sa.Column(sa.String(36))
    message = sa.Column(sa.Text, nullable=False)
    request_id = sa.Column(sa.String(64))


class Claim(Base):
    """A host or server taken by one active batch; the primary key is what forbids a second."""

    __tablename__ = "claims"
    __table_args__ = (sa.Index("claims_batch_idx", "batch_id"), MYSQL_OPTIONS)

    resource_type = sa.Column(sa.String(16), primary_key=True)
    resource_id = sa.Column(sa.String(255), primary_key=True)
    batch_id = sa.Column(sa.ForeignKey("batches.id", ondelete="CASCADE"), nullable=False)
