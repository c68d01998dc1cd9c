"""Small builders for the values that the conductor's decisions see."""

import dataclasses
import datetime

from nova_batch_migrate.clients import types
from nova_batch_migrate.conductor import state

NOW = datetime.datetime(2026, 11, 23, 2, 0, 0)

_SERVER = {
    "id": "s1", "name": "web1", "project_id": "p1", "host": "cmpa", "node": "cmpa",
    "status": "ACTIVE", "vm_state": "active", "task_state": None, "power_state": "running",
    "locked": False, "locked_reason": None, "memory_bytes": 256 << 20, "vcpus": 1, "disk_gb": 1,
    "volume_backed": False, "volumes": (), "availability_zone": "nova",
    "pinned_availability_zone": None, "created_at": None, "updated_at": None, "fault": None,
    "extra_specs": {}, "image_properties": {}, "image_properties_known": True,
    "scheduler_hints": {},
}


def server(**changes) -> types.ServerInfo:
    return types.ServerInfo(**(_SERVER | changes))


def migration(number: int = 7, status: str = "running", destination: str | None = "cmpb",
              **changes) -> types.MigrationInfo:
    values = {"id": number, "uuid": f"m{number}", "server_id": "s1", "status": status,
              "migration_type": "live-migration", "source": "cmpa", "destination": destination,
              "created_at": NOW, "updated_at": NOW}
    return types.MigrationInfo(**(values | changes))


def row(server_id: str = "s1", status: str = "pending", **changes) -> state.Row:
    values = {"server_id": server_id, "name": server_id, "source": "cmpa", "destination": "cmpb",
              "status": status, "group_index": 0, "order_index": 0}
    if status == "migrating":
        values |= {"attempts": 1, "issued_at": NOW - datetime.timedelta(seconds=3)}
    return state.Row(**(values | changes))


def batch(*rows: state.Row, status: str = "running", **changes) -> state.BatchState:
    values = {"parallel_limits": {"cmpa": 4}, "planned": True, "sources_disabled": True}
    return dataclasses.replace(
        state.BatchState(status=status, rows=rows, now=NOW, settings=state.Settings()),
        **(values | changes))


def ago(seconds: float) -> datetime.datetime:
    return NOW - datetime.timedelta(seconds=seconds)
