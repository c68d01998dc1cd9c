"""Batches and servers as the API shows them; pure.

Called by the manager. Takes database rows, gives JSON; times end in Z, what is unknown is null.
"""

import datetime

from nova_batch_migrate.conductor import actuals, relays, state
from nova_batch_migrate.conductor.request import DEFAULTS

REQUEST_FIELDS = ("hosts", "target_hosts", "exclude_hosts", "strategy", "plan_only",
                  "max_parallel", "max_bandwidth_mib_s", "on_non_convergence", "dedup_scope",
                  "fallback", "include_locked", "leave_disabled", "max_wait_seconds", "urgent")


def batch(row: dict, servers: list[dict] | None, now: datetime.datetime) -> dict:
    """Return a batch; with ``servers`` (database rows) also its servers, progress and times.

    ``row`` may be without its heavy columns.
    """
    request = row["request"]
    shown = {
        "id": row["id"], "status": row["status"], "user_id": row["user_id"],
        "project_id": row["project_id"], "error": row["error"],
        "servers_requested": request["servers"], "not_before": _iso_text(request["not_before"]),
        "deadline": _iso_text(request.get("deadline")),
        **{name: _iso(row[name]) for name in ("created_at", "updated_at", "started_at",
                                              "finished_at")},
        **{name: request.get(name, DEFAULTS[name]) for name in REQUEST_FIELDS},
    }
    if servers is not None:
        wire = (row["state"].get("allocation") or {}).get("wire") or {}
        groups = (row["state"].get("relay_figures") or {}).get("groups", {})
        views = [server(each, row["started_at"], now, _carried(row, each, groups)) | {
            "bandwidth_bytes_per_second": _share(row["id"], each, wire)} for each in servers]
        shown |= _totals(row, servers, views, now) | {
            "relay_groups": [_relay_group(row, each, groups[each]) for each in sorted(groups)],
            "servers": views}
    return shown


def server(row: dict, batch_started: datetime.datetime | None, now: datetime.datetime,
           carried: dict | None = None) -> dict:
    """Return one server of a batch, projected beside actual in the same three parts.

    ``carried`` are the relay's counters of its stream that runs.
    """
    first, current = row["projection"] or {}, row["current_projection"] or {}
    actual, progress = row["actual"] or {}, row["progress"] or {}
    job = progress.get("job") or {}
    raw = actual.get("raw_bytes", job.get("memory_processed_bytes"))
    return {
        "id": row["server_id"], "name": row["name"], "project_id": row["project_id"],
        "source": row["source"], "destination": row["destination"], "status": row["status"],
        "reason": row["reason"], "certainty": row["certainty"], "command": row["command"],
        "group": row["group_index"], "order": row["order_index"],
        "memory_bytes": row["memory_bytes"], "migration_id": row["migration_id"],
        "attempts": row["attempts"], "healed": row["healed"],
        "progress": _percent(row, current, job),
        "bytes_per_second": job.get("bytes_per_second") if row["status"] == "migrating" else None,
        "eta_seconds": _server_eta(row, now),
        "projected_seconds": first.get("projected_seconds"),
        "projected_stream_seconds": first.get("stream_seconds"),
        "projected_queue_seconds": first.get("queue_seconds"),
        "projected_nova_seconds": first.get("nova_seconds"),
        "projected_verdict": first.get("verdict"),
        "projected_interval_seconds": first.get("interval_seconds"),
        "current_projected_seconds": current.get("projected_seconds"),
        "learned_seconds": current.get("learned_seconds"),
        "learned_interval_seconds": current.get("learned_interval_seconds"),
        "actual_seconds": actual.get("actual_seconds"),
        "actual_stream_seconds": actual.get("stream_seconds"),
        "actual_queue_seconds": actual.get("queue_seconds"),
        "actual_nova_seconds": actual.get("nova_seconds"),
        "actual_sources": actual.get("sources"),
        "projected_bytes": first.get("raw_bytes"),
        "projected_wire_bytes": first.get("wire_bytes"),
        "learned_wire_bytes": current.get("learned_wire_bytes"),
        "raw_bytes": raw,
        "wire_bytes": actual.get("wire_bytes", carried["wire_bytes"] if carried else raw),
        "relay": actual.get("relay", carried and actuals.through_relay(carried)),
        "projected_downtime_seconds": first.get("downtime_seconds"),
        "downtime_seconds": actual.get("downtime_seconds"),
    }


def event(row: dict) -> dict:
    """Return one event."""
    return {"id": row["id"], "created_at": _iso(row["created_at"]), "kind": row["kind"],
            "server_id": row["server_id"], "message": row["message"],
            "request_id": row["request_id"]}


def _totals(row: dict, rows: list[dict], views: list[dict], now: datetime.datetime) -> dict:
    plan = row["state"].get("told") or {}
    first = plan.get("first") or {}
    started, ended = row["started_at"], row["finished_at"]
    eta = _eta(rows, now) if row["status"] in state.ACTIVE_STATUSES else None
    spent = ((ended or now) - started).total_seconds() if started else None
    return {
        "progress": _progress(row, rows, views),
        "eta_seconds": eta,
        "projected_seconds": first.get("projected_seconds"),
        "current_projected_seconds": None if spent is None or eta is None
        else round(spent + eta, 1),
        "actual_seconds": round(spent, 3) if spent is not None and ended else None,
        "projected_bytes": first.get("raw_bytes"),
        "raw_bytes": sum(view["raw_bytes"] or 0 for view in views),
        "wire_bytes": sum(view["wire_bytes"] or 0 for view in views),
        "bandwidth_bytes_per_second": _shares(row, rows),
        "deadline_met": _deadline_met(row),
        "notes": plan.get("notes", []),
    }


def _carried(batch_row: dict, row: dict, groups: dict) -> dict | None:
    """Return the relay's counters of a server that migrates through one."""
    if row["status"] != "migrating" or not relays.carries(batch_row, row):
        return None
    group = relays.group_id(batch_row["id"], row["source"], row["group_index"],
                            row["destination"])
    return groups.get(group, {}).get("servers", {}).get(row["server_id"])


def _relay_group(batch_row: dict, group_id: str, told: dict) -> dict:
    """Return what a relay has counted of a group, so far or in all."""
    source, index, destination = group_id[len(batch_row["id"]) + 1:].rsplit("/", 2)
    opened = (batch_row["state"].get("relay_groups") or {}).get(f"{source}/{index}", ())
    return {"source": source, "group": int(index), "destination": destination,
            "open": destination in opened,
            **{name: told.get(name, 0) for name in ("raw_bytes", "wire_bytes",
                                                    *actuals.SAVINGS)},
            **{name: told.get(name) for name in relays.MOMENTARY}}


def _share(batch_id: str, row: dict, wire: dict) -> int | None:
    """Return a migrating server's share of the wire, or that of its group at the relay."""
    if row["status"] != "migrating":
        return None
    group = relays.group_id(batch_id, row["source"], row["group_index"], row["destination"])
    return wire.get(row["server_id"], wire.get(group))


def _shares(batch_row: dict, rows: list[dict]) -> int | None:
    """Return what all that migrates may send; null while nothing does, or where nobody knows."""
    wire = (batch_row["state"].get("allocation") or {}).get("wire") or {}
    if not any(row["status"] == "migrating" for row in rows) or None in wire.values():
        return None
    return sum(wire.values()) or None


def _deadline_met(row: dict) -> bool | None:
    """Whether the deadline was met, or before the end whether the present plan meets it."""
    deadline = row["request"].get("deadline")
    if deadline is None:
        return None
    if row["finished_at"] is not None:
        return row["finished_at"] <= datetime.datetime.fromisoformat(deadline)
    return (row["state"].get("told") or {}).get("deadline_met")


def _planned_bytes(row: dict) -> int:
    return (row["current_projection"] or {}).get("raw_bytes", 0)


def _progress(batch_row: dict, rows: list[dict], views: list[dict]) -> int:
    """Bytes done of bytes planned; a server that is done counts as all it was planned for."""
    if batch_row["status"] in ("completed", "partial"):
        return 100
    counted = [(_planned_bytes(row), view["progress"]) for row, view in zip(rows, views,
                                                                            strict=True)
               if row["status"] not in ("skipped", "failed", "aborted")]
    planned = sum(size for size, _ in counted)
    done = sum(size * percent / 100 for size, percent in counted)
    return int(100 * done / planned) if planned else 0


def _percent(row: dict, current: dict, job: dict) -> int:
    if row["status"] == "completed":
        return 100
    planned = current.get("raw_bytes")
    if row["status"] != "migrating" or not job or not planned:
        return 0
    # under 100 until Nova says that it is there, however much was sent twice
    return min(99, int(100 * job["memory_processed_bytes"] / planned))


def _server_eta(row: dict, now: datetime.datetime) -> float | None:
    """Seconds until a migrating server is done: its projection, corrected by what it has sent."""
    current, progress = row["current_projection"] or {}, row["progress"] or {}
    if row["status"] != "migrating" or not current:
        return None
    whole = current["stream_seconds"] + current["nova_seconds"]
    job = progress.get("job")
    if job and job["memory_processed_bytes"] and current["raw_bytes"]:
        share = min(1.0, job["memory_processed_bytes"] / current["raw_bytes"])
        return round(max(1.0, (1 - share) * current["stream_seconds"]
                         + current["nova_seconds"] / 2), 1)
    spent = (now - row["issued_at"]).total_seconds() if row["issued_at"] else 0.0
    return round(max(1.0, whole - spent), 1)


def _eta(rows: list[dict], now: datetime.datetime) -> float | None:
    """Seconds until the slowest source is empty: groups one after the other, members together."""
    groups: dict[tuple, list[dict]] = {}
    issued: dict[tuple, datetime.datetime] = {}
    for row in rows:
        key = row["source"], row["group_index"]
        if row["issued_at"]:
            issued[key] = min(row["issued_at"], issued.get(key, now))
        if row["status"] in state.SERVER_OPEN:
            if row["current_projection"] is None:
                return None
            groups.setdefault(key, []).append(row)
    per_source: dict[str, float] = {}
    for key, members in groups.items():
        since = (now - issued.get(key, now)).total_seconds()
        per_source[key[0]] = per_source.get(key[0], 0.0) + _group_eta(members, since, now)
    return round(max(per_source.values(), default=0.0), 1)


def _group_eta(members: list[dict], since: float, now: datetime.datetime) -> float:
    """Seconds until the last of a group's members is done.

    Who waits is issued as projected or, behind the plan, when the first that migrates makes room.
    """
    moving = [left for row in members if (left := _server_eta(row, now)) is not None]
    lasting = list(moving)
    for row in members:
        if row["status"] != "migrating":
            current = row["current_projection"]
            late = min(moving, default=0.0) if since > current["queue_seconds"] else 0.0
            lasting.append(max(current["queue_seconds"] - since, late)
                           + current["stream_seconds"] + current["nova_seconds"])
    return max(lasting)


def _iso(value: datetime.datetime | None) -> str | None:
    return None if value is None else value.isoformat(timespec="seconds") + "Z"


def _iso_text(text: str | None) -> str | None:
    return text + "Z" if text else None
