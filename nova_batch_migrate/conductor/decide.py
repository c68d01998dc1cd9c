"""The next actions of a batch, from its state alone; pure, so a table can test it.

Called by the reconciler once per pass. Nothing here remembers: the same state gives the same
actions, and an action that was carried out changes the state (design section 4).
"""

import collections
import datetime
from collections.abc import Collection, Sequence
from typing import Any

from nova_batch_migrate.conductor import state as st
from nova_batch_migrate.conductor import waiting
from nova_batch_migrate.planning.conditions import BESIDE_PREPARING, FIRST_ALONE_SECONDS

#: How often a set that moves together is begun: once more when it was called off.
SET_ATTEMPTS = 2


def decide(batch: st.BatchState) -> list:
    """Return the actions of this pass, in the order in which they are to be carried out."""
    return [*_ended_groups(batch), *_PHASES[batch.status](batch)]


def _ended_groups(batch: st.BatchState) -> list:
    still_open = {(row.source, row.group_index) for row in batch.rows if row.open}
    return [st.EndGroup(*group) for group in batch.open_groups if group not in still_open]


def _accepted(batch: st.BatchState) -> list:
    if batch.abort:
        return [st.Finish("aborted")]
    if batch.not_before and batch.now < batch.not_before:
        return []
    return [*_disable(batch), st.TakeSurvey(), st.SetStatus("measuring")]


def _measuring(batch: st.BatchState) -> list:
    if batch.abort:
        return [st.Finish("aborted")]
    onward = st.SetStatus("running" if batch.started else "planned")
    if not any(row.open for row in batch.rows):
        return [st.MakePlan(), onward]
    if batch.measure is None:
        return [st.StartMeasure("arrivals" if batch.planned else "initial")]
    if batch.measure.state == "failed":
        if not batch.planned:
            return [st.Finish("failed", batch.measure.error)]
        return [st.DropMeasure(batch.measure.error),
                *(st.Close(row.server_id, "failed", batch.measure.error)
                  for row in batch.rows if row.open and row.group_index is None), onward]
    if batch.measure.state != "done":
        return [st.PollMeasure()]
    return [st.MakePlan(), onward]


def _planned(batch: st.BatchState) -> list:
    if batch.abort:
        return [st.Finish("aborted")]
    if batch.replan:
        return [st.TakeSurvey(), st.SetStatus("measuring")]
    if batch.started:
        return [*_disable(batch), st.SetStatus("running")]
    return []


def _running(batch: st.BatchState) -> list:
    actions = [st.TellLost(server_id) for server_id in batch.lost]
    actions += [action for row in batch.rows for action in decide_server(row, batch)]
    if batch.abort:
        return [*actions, st.SetStatus("aborting")]
    wanted = "paused" if batch.paused else "running"
    if wanted != batch.status:
        actions.append(st.SetStatus(wanted))
    moving = any(row.status == "migrating" for row in batch.rows)
    if not any(row.open for row in batch.rows):
        return [*actions, *_end(batch)]
    if batch.measure and batch.measure.state == "running":
        actions.append(st.PollMeasure())
    if batch.paused:
        return actions
    if batch.replan:
        again = [] if moving else [st.TakeSurvey(), st.SetStatus("measuring")]
        return [*actions, *again]
    regroup = _regroup(batch)
    if regroup is not None:
        return [*actions, *regroup]
    # who is seen to have ended makes room in this very pass
    done = frozenset(action.server_id for action in actions
                     if isinstance(action, st.Complete | st.Close))
    return [*actions, *_issues(batch, done=done)]


def _aborting(batch: st.BatchState) -> list:
    actions = [action for row in batch.rows for action in decide_server(row, batch)]
    actions += [st.Close(row.server_id, "aborted", "the batch was aborted before its turn")
                for row in batch.rows if row.status in st.SERVER_NEXT]
    if not any(row.status == "migrating" for row in batch.rows):
        actions.append(st.Finish("aborted"))
    return actions


def _disable(batch: st.BatchState) -> list:
    if batch.of_hosts and batch.started and not batch.sources_disabled:
        return [st.DisableSources()]
    return []


def _end(batch: st.BatchState) -> list:
    """All is done that was known: look for arrivals once more, then report."""
    if not batch.surveyed:
        return [st.TakeSurvey()]
    if any(row.status != "completed" for row in batch.rows):
        return [st.Finish("partial")]
    return [st.Finish("completed")]


def _regroup(batch: st.BatchState) -> list | None:
    """Group and project again after each group [0062]; None: nothing of that is due.

    The rest is measured beside the running migrations, so at the boundary the figures are fresh.
    A measurement that is late holds up no more than `patience_seconds`, and no other source.
    """
    if batch.measure is None:
        current = st.current_groups(batch.rows)
        rest = [row for row in batch.rows if row.status == "pending"
                and row.group_index != current.get(row.source)]
        if rest and not batch.boundary and any(row.status == "migrating" for row in batch.rows):
            return [st.StartMeasure("regroup"), *_issues(batch)]
        return None
    if batch.measure.state == "failed":
        return [st.DropMeasure(batch.measure.error)]
    if not batch.boundary:
        return None
    if batch.measure.state == "done":
        return [st.MakePlan()]
    if batch.patience_seconds <= 0:
        return [st.GoOn()]
    held = [] if batch.held_up else [st.HoldUp()]
    return [*held, *_issues(batch, batch.boundary)]


def _issues(batch: st.BatchState, held_up: frozenset[str] = frozenset(),
            done: frozenset[str] = frozenset()) -> list:
    """Start what the plan has next, as many at once as request, source and destination permit."""
    current = st.current_groups(batch.rows)
    moving = [row for row in batch.rows
              if row.status == "migrating" and row.server_id not in done]
    arriving = collections.Counter(batch.inbound)
    arriving.update(row.destination for row in moving)
    actions = []
    for source, group in sorted(current.items()):
        if source in held_up:
            continue
        rows = [row for row in batch.rows if row.source == source]
        if group in batch.together:
            actions += _set(batch, source, group, arriving)
            continue
        here = [row for row in moving if row.source == source]
        free = _limit(batch, source, group) - len(here)
        if group in batch.relayed and batch.settings.max_preparing is not None:
            free = min(free, batch.settings.max_preparing + BESIDE_PREPARING
                       - sum(not row.streamed for row in here),
                       _preparing_limit(batch, rows, group)
                       - sum(_prepares(row, batch) for row in here))
        ready = [row for row in rows if row.group_index == group and _ready(row, batch.now)]
        for row in sorted(ready, key=lambda row: row.order_index):
            full = batch.settings.max_inbound is not None \
                and arriving[row.destination] >= batch.settings.max_inbound
            seconds = waiting.seconds(row, batch) if free > 0 and not full else 0.0
            if seconds > 0:
                actions.append(st.AwaitMoment(row.server_id, seconds))
            elif free > 0 and not full:
                free -= 1
                arriving[row.destination] += 1
                actions.append(st.Issue(row.server_id))
    return actions


def _set(batch: st.BatchState, source: str, group: int, arriving: collections.Counter) -> list:
    """Start a set that moves together, all of it at once; let one that was called off go again."""
    whole = [row for row in batch.rows if (row.source, row.group_index) == (source, group)]
    rows = sorted((row for row in whole if row.open), key=lambda row: row.order_index)
    moving = any(row.status == "migrating" for row in rows)
    ready = [row for row in rows if _ready(row, batch.now)]
    off = batch.called_off.get((source, group))
    if off is not None:
        return [] if moving else _called_off(batch, whole, rows, ready, off)
    if moving:
        # what was busy a moment ago; the others are held meanwhile
        return [st.Issue(row.server_id) for row in ready]
    narrow = _too_narrow(batch, source, rows)
    if narrow is not None:
        reason = f"it moves together with {len(rows) - 1} others, and {narrow}"
        return [st.Close(row.server_id, "failed", reason) for row in rows]
    wanted = collections.Counter(row.destination for row in rows)
    full = batch.settings.max_inbound is not None and any(
        arriving[host] + number > batch.settings.max_inbound for host, number in wanted.items())
    if full or len(ready) < len(rows):
        return []
    arriving.update(wanted)
    return [st.Issue(row.server_id) for row in rows]


def _called_off(batch: st.BatchState, whole: list, rows: list, ready: list,
                off: st.CalledOff) -> list:
    """All are back: they go once more, all of them, or stay with the reason."""
    attempts = max((row.attempts for row in rows), default=0)
    if not off.final and len(rows) == len(whole) \
            and attempts < min(SET_ATTEMPTS, batch.settings.max_attempts):
        return [st.BeginAnew(rows[0].source, rows[0].group_index)] if ready == rows else []
    return [st.Close(row.server_id, "failed",
                     f"it moves together with {len(whole) - 1} others, or not: {off.reason}")
            for row in rows]


def _too_narrow(batch: st.BatchState, source: str, rows: list) -> str | None:
    """Return why so many can't be under way at once; None where they can."""
    most = batch.parallel_limits.get(source, 1)
    if len(rows) > most:
        return f"{source} lets {most} migrate at once"
    most = batch.settings.max_inbound
    for host, number in collections.Counter(row.destination for row in rows).items():
        if most is not None and number > most:
            return f"no more than {most} may arrive at {host} at once ([conductor] max_inbound)"
    return None


def _limit(batch: st.BatchState, source: str, group: int) -> int:
    """Return how many may migrate at once."""
    settings = batch.settings
    return min(settings.relayed_parallel if group in batch.relayed
               else batch.at_once.get(group, settings.max_parallel),
               batch.parallel_limits.get(source, 1))


def _preparing_limit(batch: st.BatchState, rows: list, group: int) -> int:
    """Return how many migrations of a group through relays Nova may prepare at once.

    Until a stream of the group has begun the link is idle: the first that Nova prepares has it for
    itself.
    """
    begun = [row for row in rows if row.group_index == group and row.attempts]
    streamed = any(row.status != "migrating" or not _prepares(row, batch) for row in begun)
    late = any(row.status == "migrating" and row.issued_at is not None
               and (batch.now - row.issued_at).total_seconds() >= FIRST_ALONE_SECONDS
               for row in begun)
    return batch.settings.max_preparing if streamed or late else 1


def _prepares(row: st.Row, batch: st.BatchState) -> bool:
    """Tell whether Nova is at work on a migration whose stream has not begun."""
    truth = batch.truths.get(row.server_id)
    ours = truth and new_migrations(row.known_migrations, row.destination, truth.migrations)[1]
    return ours is None or ours.status in st.PREPARING


def _ready(row: st.Row, now: datetime.datetime) -> bool:
    if row.status == "waiting":
        return row.next_attempt_at is None or now >= row.next_attempt_at
    return row.status == "pending"


def decide_server(row: st.Row, batch: st.BatchState) -> list:
    """Return the actions for one server whose migration was asked for.

    A migration is ours when it wasn't there before we asked and goes to our destination (Nova
    fills the destination in only after scheduling); never by a clock.
    """
    if row.status != "migrating" or row.server_id not in batch.truths:
        return []
    truth = batch.truths[row.server_id]
    if truth.server is None and truth.asked:
        return [st.Close(row.server_id, "skipped", "the server was deleted")]
    new, ours = new_migrations(row.known_migrations, row.destination, truth.migrations)
    if ours is None:
        return _without_migration(row, truth, new, batch)
    if ours.status in st.IN_FLIGHT:
        actions = [st.Follow(row.server_id, ours)]
        unwanted = batch.abort == "abort" or (row.source, row.group_index) in batch.called_off
        if unwanted and ours.status in st.ABORTABLE:
            actions.append(st.StopMigration(row.server_id, ours))
        elif row.help and row.crossed_once and not row.forced and ours.status == "running":
            actions.append(st.ForceComplete(row.server_id, ours))
        return actions
    if truth.server.host == row.destination and (
            ours.status not in st.BROKEN or truth.server.status != "ERROR"):
        if truth.server.task_state is not None:
            return []
        return [st.Complete(row.server_id, truth.server.host, ours)]
    return _ended(row, truth, ours, batch)


def new_migrations(known: Collection[int], destination: str, migrations: Sequence
                   ) -> tuple[list, Any]:
    """Return the migrations that were not there before we asked, and ours of them or None."""
    new = [m for m in migrations if m.id not in known]
    return new, next((m for m in new if m.destination in (None, destination)), None)


def _without_migration(row: st.Row, truth: st.Truth, new: list, batch: st.BatchState) -> list:
    server = truth.server
    if server.host != row.source:
        return [st.Complete(row.server_id, server.host)]
    waited = (batch.now - row.issued_at).total_seconds() if row.issued_at else float("inf")
    busy = server.task_state is not None or any(m.status in st.IN_FLIGHT for m in new)
    patience = batch.settings.start_timeout_seconds if busy else batch.settings.start_grace_seconds
    if waited < patience:
        return []
    if busy:
        return [st.AttemptEnded(row.server_id, None, True,
                                "another operation on the server didn't end "
                                f"(task {server.task_state})")]
    if batch.abort:
        return [st.Close(row.server_id, "aborted", "the batch was aborted before Nova began")]
    return [st.CallAgain(row.server_id)]


def _ended(row: st.Row, truth: st.Truth, ours, batch: st.BatchState) -> list:
    """The migration is over, the server isn't at the destination: settle, then heal or retry."""
    if row.broken_since is None:
        return [st.NoteBroken(row.server_id)]
    settled = (batch.now - row.broken_since).total_seconds() >= batch.settings.settle_seconds
    if not settled or truth.server.task_state is not None:
        return []
    if batch.abort:
        return [st.AttemptEnded(row.server_id, ours, False, "the batch was aborted")]
    if ours.status == "cancelled":
        return [st.AttemptEnded(row.server_id, ours, False,
                                "its migration was cancelled, by Nova's completion timeout or by "
                                "an operator")]
    more = row.attempts < batch.settings.max_attempts
    return [st.AttemptEnded(row.server_id, ours, more, f"Nova's migration ended {ours.status}")]


_PHASES = {
    "accepted": _accepted,
    "measuring": _measuring,
    "planned": _planned,
    "running": _running,
    "paused": _running,
    "aborting": _aborting,
}
