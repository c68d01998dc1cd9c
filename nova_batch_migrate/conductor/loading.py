"""Database rows to the values a decision sees, and survey results to rows; pure.

Called by the reconciler and the manager.
"""

import datetime

from nova_batch_migrate.conductor import state


def batch_state(batch: dict, rows: list[dict], truths: dict, options,
                now: datetime.datetime) -> state.BatchState:
    """Return what ``decide`` sees; ``options`` is the [conductor] group, ``now`` naive UTC."""
    request, control, kept = batch["request"], batch["control"], batch["state"]
    seen = tuple(_row(row) for row in rows)
    return state.BatchState(
        status=batch["status"],
        rows=seen,
        now=now,
        settings=state.Settings(
            max_parallel=request["max_parallel"] or options.max_parallel,
            max_attempts=options.max_attempts,
            retry_backoff_seconds=options.retry_backoff_seconds,
            start_timeout_seconds=options.start_timeout_seconds),
        of_hosts=bool(request["hosts"]),
        not_before=_time(request["not_before"]),
        started=control["started"] or not request["plan_only"],
        planned="plan_groups" in kept,
        paused=control["paused"],
        abort=control["abort"],
        replan=control["replan"],
        surveyed=kept.get("surveyed", False),
        sources_disabled=kept.get("sources_disabled", False),
        measure=_measure(kept.get("measure"), now),
        boundary=_boundary(seen, kept.get("plan_groups", {})),
        parallel_limits=kept.get("limits", {}),
        truths=truths,
    )


def group_key(source: str, group_index: int) -> str:
    """Return the key under which the batch's state keeps when a group was started."""
    return f"{source}/{group_index}"


def new_row(server) -> dict:
    """Return the row of a server (clients.nova.ServerInfo) that is to move."""
    return {"server_id": server.id, "name": server.name, "project_id": server.project_id,
            "source": server.host, "status": "pending", "memory_bytes": server.memory_bytes}


def staying_row(why) -> dict:
    """Return the row of a server that stays (planning.request.Staying)."""
    return {"server_id": why.server_id, "name": why.name, "source": why.source,
            "status": "skipped", "reason": why.reason, "certainty": why.certainty,
            "command": why.command}


def _row(row: dict) -> state.Row:
    progress = row["progress"] or {}
    return state.Row(
        server_id=row["server_id"], name=row["name"], source=row["source"],
        destination=row["destination"], status=row["status"], group_index=row["group_index"],
        order_index=row["order_index"], known_migrations=tuple(row["known_migrations"]),
        migration_id=row["migration_id"], attempts=row["attempts"],
        next_attempt_at=row["next_attempt_at"], issued_at=row["issued_at"],
        broken_since=_time(progress.get("broken_since")))


def _measure(kept: dict | None, now: datetime.datetime) -> state.Measure | None:
    if not kept:
        return None
    age = (now - _time(kept["started_at"])).total_seconds()
    return state.Measure(kept["purpose"], kept["state"], age, kept["error"])


def _boundary(rows: tuple[state.Row, ...], planned: dict[str, int]) -> bool:
    """Tell whether a group of the present plan is done and none of the next has begun."""
    return any(
        group > planned.get(source, group)
        and all(row.status == "pending" for row in rows
                if row.source == source and row.group_index == group and row.open)
        for source, group in state.current_groups(rows).items())


def _time(text: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(text) if text else None
