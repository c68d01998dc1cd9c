"""The tables of the first version."""

import sqlalchemy as sa
from alembic import op

from nova_batch_migrate.db.types import MYSQL_OPTIONS, JsonText, UtcDateTime

revision = "0001"
down_revision = None


def _batch_id(**kwargs) -> sa.Column:
    return sa.Column("batch_id", sa.String(36), sa.ForeignKey("batches.id", ondelete="CASCADE"),
                     nullable=False, **kwargs)


def upgrade():
    op.create_table(
        "batches",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("request", JsonText, nullable=False),
        sa.Column("user_id", sa.String(255)),
        sa.Column("project_id", sa.String(255)),
        sa.Column("request_id", sa.String(64)),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.Column("started_at", UtcDateTime),
        sa.Column("finished_at", UtcDateTime),
        sa.Column("plan", JsonText),
        sa.Column("first_plan", JsonText),
        sa.Column("telemetry", JsonText),
        sa.Column("error", sa.Text),
        sa.Column("disabled_hosts", JsonText, nullable=False),
        sa.Column("control", JsonText, nullable=False),
        sa.Column("state", JsonText, nullable=False),
        sa.Column("lease_owner", sa.String(255)),
        sa.Column("lease_expires_at", UtcDateTime),
        sa.Column("version", sa.Integer, nullable=False),
        **MYSQL_OPTIONS,
    )
    op.create_index("batches_status_idx", "batches", ["status"])
    op.create_index("batches_created_idx", "batches", ["created_at", "id"])

    op.create_table(
        "batch_hosts",
        _batch_id(primary_key=True),
        sa.Column("host", sa.String(255), primary_key=True),
        **MYSQL_OPTIONS,
    )
    op.create_index("batch_hosts_host_idx", "batch_hosts", ["host"])

    op.create_table(
        "batch_servers",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        _batch_id(),
        sa.Column("server_id", sa.String(36), nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("project_id", sa.String(255)),
        sa.Column("source", sa.String(255)),
        sa.Column("destination", sa.String(255)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("certainty", sa.String(16)),
        sa.Column("command", sa.Text),
        sa.Column("group_index", sa.Integer),
        sa.Column("order_index", sa.Integer),
        sa.Column("memory_bytes", sa.BigInteger),
        sa.Column("known_migrations", JsonText, nullable=False),
        sa.Column("migration_id", sa.Integer),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", UtcDateTime),
        sa.Column("issued_at", UtcDateTime),
        sa.Column("finished_at", UtcDateTime),
        sa.Column("projection", JsonText),
        sa.Column("current_projection", JsonText),
        sa.Column("actual", JsonText),
        sa.Column("progress", JsonText),
        sa.Column("healed", sa.Boolean, nullable=False),
        sa.UniqueConstraint("batch_id", "server_id", name="batch_servers_batch_server_uniq"),
        **MYSQL_OPTIONS,
    )
    op.create_index("batch_servers_status_finished_idx", "batch_servers",
                    ["status", "finished_at"])

    op.create_table(
        "batch_events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        _batch_id(),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("server_id", sa.String(36)),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("request_id", sa.String(64)),
        **MYSQL_OPTIONS,
    )
    op.create_index("batch_events_batch_idx", "batch_events", ["batch_id", "id"])

    op.create_table(
        "claims",
        sa.Column("resource_type", sa.String(16), primary_key=True),
        sa.Column("resource_id", sa.String(255), primary_key=True),
        _batch_id(),
        **MYSQL_OPTIONS,
    )
    op.create_index("claims_batch_idx", "claims", ["batch_id"])
