"""Unit tests; like the console scripts they choose native threads before oslo.messaging does."""

import hypothesis

import nova_batch_migrate.cmd  # noqa: F401

# how long an example takes, and how long it takes to make one, says something of the machine only
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")
