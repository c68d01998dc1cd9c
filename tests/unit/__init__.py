"""Unit tests; like the console scripts they choose native threads before oslo.messaging does."""

import nova_batch_migrate.cmd  # noqa: F401
