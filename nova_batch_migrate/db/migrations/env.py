"""Run by Alembic for every command; db.migration hands the connection in."""

from alembic import context

from nova_batch_migrate.db import models

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=models.Base.metadata,
    # SQLite changes a column only by copying its table
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
