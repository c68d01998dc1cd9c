"""Database rows to the values a decision sees, and survey results to rows; pure.

Called by the reconciler and the manager.
"""

import datetime
import math

from nova_batch_migrate.conductor import state
from nova_batch_migrate.planning import allocation
from nova_batch_migrate.planning.result import Wait

#: Of the whole batch: how long nothing may migrate because of measuring.
IDLE_SHARE = 0.05
MOST_PATIENCE_SECONDS = 20.0

#: A relay puts the streams of a group in order itself; Nova's own limit holds all the same.
ALL_AT_ONCE = 1000


def batch_state(batch: dict, rows: list[dict], truths: dict, options,
                now: datetime.datetime, inbound: dict[str, int] | None = None
                ) -> state.BatchState:
    """Return what ``decide`` sees; ``options`` is the [conductor] group, ``now`` naive UTC.

    ``inbound``: migrations of other batches by destination.
    """
    request, control, kept = batch["request"], batch["control"], batch["state"]
    most = _most_at_once(request)
    waits = _waits(batch)
    seen = tuple(_row(row, waits) for row in rows)
    return state.BatchState(
        status=batch["status"],
        rows=seen,
        now=now,
        settings=state.Settings(
            max_parallel=int(min(request["max_parallel"] or options.max_parallel or 1, most)),
            relayed_parallel=request["max_parallel"] or ALL_AT_ONCE,
            max_preparing=options.max_preparing or None,
            max_attempts=options.max_attempts,
            retry_backoff_seconds=options.retry_backoff_seconds,
            start_timeout_seconds=options.start_timeout_seconds,
            max_inbound=options.max_inbound or None),
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
        patience_seconds=_patience(batch, now),
        held_up=bool(kept.get("held_up_since")),
        open_groups=open_groups(batch),
        together=frozenset(kept.get("together", ())),
        relayed=relayed_groups(kept),
        at_once={int(index): number for index, number in kept.get("at_once", {}).items()},
        called_off=_called_off(kept.get("gangs", {})),
        lost=_lost(rows, kept),
        max_wait_seconds=request.get("max_wait_seconds") or 0.0,
        parallel_limits=kept.get("limits", {}),
        inbound=inbound or {},
        truths=truths,
    )


def _called_off(gangs: dict) -> dict[tuple[str, int], state.CalledOff]:
    found = {}
    for key, gang in gangs.items():
        if gang.get("off") is not None:
            source, _, index = key.rpartition("/")
            found[source, int(index)] = state.CalledOff(gang["off"], gang.get("final", False))
    return found


def _lost(rows: list[dict], kept: dict) -> tuple[str, ...]:
    """Return members that are out of the batch while the others of their set may still move."""
    def untold(row: dict) -> bool:
        gang = kept.get("gangs", {}).get(group_key(row["source"], row["group_index"]))
        return gang is not None and not gang.get("released") and gang.get("off") is None \
            and row["server_id"] not in gang.get("left_out", ())
    return tuple(row["server_id"] for row in rows
                 if row["group_index"] in kept.get("together", ())
                 and row["status"] in state.SERVER_OUT and untold(row))


def group_key(source: str, group_index: int) -> str:
    """Return the key under which the batch's state keeps when a group was started."""
    return f"{source}/{group_index}"


def _most_at_once(request: dict) -> float:
    """Return how many migrations at once the limit on bandwidth has room for."""
    if request["max_bandwidth_mib_s"] is None:
        return math.inf
    budget = request["max_bandwidth_mib_s"] * allocation.MIB
    return max(1.0, budget // allocation.LEAST_BYTES_PER_SECOND)


def relayed_groups(kept: dict) -> frozenset[int]:
    """Return the groups that relays carry: planned so, and not begun without one."""
    plain = {int(key.rpartition("/")[2]) for key, opened in
             (kept.get("relay_groups") or {}).items() if not opened}
    return frozenset(kept.get("relayed", ())) - plain


def open_groups(batch: dict) -> tuple[tuple[str, int], ...]:
    """Return (source, index) of the groups that have begun and whose end was not noted."""
    kept = batch["state"]
    named = (key.rpartition("/") for key in kept.get("groups_started", {})
             if key not in kept.get("groups_ended", ()))
    return tuple((source, int(index)) for source, _, index in named)


def told(plan, first: dict | None) -> dict:
    """Return what of the plans is shown at every look at a batch, which has them not at hand.

    ``plan`` is the present one (planning.result.Plan), ``first`` the promise as the database has
    it; None: this one is it.
    """
    promised = first or {"projected_seconds": plan.projected_seconds, "raw_bytes": plan.raw_bytes}
    return {"first": {name: promised[name] for name in ("projected_seconds", "raw_bytes")},
            "notes": list(plan.notes), "deadline_met": plan.deadline_met}


def spent_seconds(batch: dict, now: datetime.datetime) -> float:
    """Return how long the batch has migrated so far."""
    return (now - batch["started_at"]).total_seconds() if batch["started_at"] else 0.0


def held_up_seconds(batch: dict, now: datetime.datetime) -> float:
    """Return how long nothing has migrated so far because of measuring."""
    kept = batch["state"]
    since = _time(kept.get("held_up_since"))
    running = (now - since).total_seconds() if since else 0.0
    return kept.get("held_up_seconds", 0.0) + running


def go_on(batch: dict, now: datetime.datetime) -> dict:
    """Return the changes of state with which measuring holds nothing up any more."""
    measure = batch["state"].get("measure")
    held = held_up_seconds(batch, now)
    if measure and measure["purpose"] == "initial" and not batch["request"]["plan_only"]:
        # nothing migrated while everything was measured for the first time
        begun = datetime.datetime.fromisoformat(measure["started_at"])
        held += (now - begun).total_seconds()
    return {"held_up_seconds": round(held, 3), "held_up_since": None}


def _patience(batch: dict, now: datetime.datetime) -> float:
    """Return how long measuring may still hold the batch up: a share of all it is to take."""
    whole = max(batch["state"].get("projected_seconds", 0.0), spent_seconds(batch, now))
    since = _time(batch["state"].get("held_up_since"))
    held = (now - since).total_seconds() if since else 0.0
    return min(MOST_PATIENCE_SECONDS - held, IDLE_SHARE * whole - held_up_seconds(batch, now))


def new_row(server) -> dict:
    """Return the row of a server (clients.nova.ServerInfo) that is to move."""
    return {"server_id": server.id, "name": server.name, "project_id": server.project_id,
            "source": server.host, "status": "pending", "memory_bytes": server.memory_bytes}


def staying_row(why) -> dict:
    """Return the row of a server that stays (planning.request.Staying)."""
    return {"server_id": why.server_id, "name": why.name, "source": why.source,
            "status": "skipped", "reason": why.reason, "certainty": why.certainty,
            "command": why.command}


def _waits(batch: dict) -> dict[str, Wait]:
    """Return the quiet moments of the present plan, by server."""
    if not batch["request"].get("max_wait_seconds") or not batch.get("plan"):
        return {}
    return {member["server_id"]: Wait.from_dict(member["wait"])
            for group in batch["plan"]["groups"] for member in group["members"]
            if member.get("wait")}


def _row(row: dict, waits: dict[str, Wait]) -> state.Row:
    progress = row["progress"] or {}
    return state.Row(
        server_id=row["server_id"], name=row["name"], source=row["source"],
        destination=row["destination"], status=row["status"], group_index=row["group_index"],
        order_index=row["order_index"], known_migrations=tuple(row["known_migrations"]),
        migration_id=row["migration_id"], attempts=row["attempts"],
        next_attempt_at=row["next_attempt_at"], issued_at=row["issued_at"],
        broken_since=_time(progress.get("broken_since")), wait=waits.get(row["server_id"]),
        wait_until=_time(progress.get("wait_until")),
        help=(row["current_projection"] or {}).get("help"),
        crossed_once=_crossed_once(row["current_projection"] or {}, progress.get("job") or {}),
        forced=progress.get("forced", False), streamed=progress.get("streamed", False))


def _crossed_once(projection: dict, job: dict) -> bool:
    """Tell whether QEMU sends pages again: its dirty log was read after the first pass."""
    late = 1.5 * projection.get("stream_seconds", float("inf"))
    return job.get("iteration", 0) >= 2 or job.get("elapsed_seconds", 0.0) > late


def _measure(kept: dict | None, now: datetime.datetime) -> state.Measure | None:
    if not kept:
        return None
    age = (now - _time(kept["started_at"])).total_seconds()
    return state.Measure(kept["purpose"], kept["state"], age, kept["error"])


def _boundary(rows: tuple[state.Row, ...], planned: dict[str, int]) -> frozenset[str]:
    """Return sources where a group of the present plan is done and none of the next has begun."""
    return frozenset(
        source for source, group in state.current_groups(rows).items()
        if group > planned.get(source, group)
        and all(row.status == "pending" for row in rows
                if row.source == source and row.group_index == group and row.open))


def _time(text: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(text) if text else None
