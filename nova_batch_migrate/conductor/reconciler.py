"""One pass over one batch: read the database and Nova's truth, decide, carry out, return.

Called by the service in a loop while it holds the batch's lease. Keeps nothing in memory between
passes, so a conductor may be killed at any point and another goes on (design section 4).
"""

import concurrent.futures

from oslo_log import log
from oslo_utils import timeutils

from nova_batch_migrate import context, exception
from nova_batch_migrate.conductor import (
    decide,
    gangs,
    groups,
    keeping,
    loading,
    sources,
    state,
    truths,
)
from nova_batch_migrate.db import api as db

LOG = log.getLogger(__name__)
RELAY_LOOK_SECONDS = 2.0
#: What leads straight on to the next step; behind an issued migration the rest is measured.
STEPS = (state.SetStatus, state.StartMeasure, state.MakePlan, state.Issue, state.Finish)


class Reconciler:
    """Drives batches with the parts it is given; ``pass_over`` is the only entrance."""

    def __init__(self, conf, nova, executor, measurer, planner, allocator, relays, sets):
        self._conf = conf
        self._nova = nova
        self._executor = executor
        self._measurer = measurer
        self._planner = planner
        self._allocator = allocator
        self._relays = relays
        self._gangs = sets
        self._truths = truths.Truths(nova)
        self._sources = sources.Sources(nova, executor)
        self._groups = groups.Groups(relays, sets)
        self._beside = concurrent.futures.ThreadPoolExecutor(conf.conductor.workers)

    def pass_over(self, batch_id: str) -> state.Pass:
        """Take the next steps of a batch; return what it did (OVER: nothing, it is not active)."""
        # plans and telemetry are megabytes: what of them a step needs it reads itself
        batch = db.get_batch(batch_id, heavy=False)
        if batch["status"] not in state.ACTIVE_STATUSES:
            return state.Pass.OVER
        if batch["request"].get("max_wait_seconds"):
            batch = db.get_batch(batch_id)
        ctxt = context.service_context(batch["request_id"])
        rows = {row["server_id"]: row for row in db.servers_of(batch_id)}
        migrating = [row for row in rows.values() if row["status"] == "migrating"]
        seen = loading.batch_state(
            batch, list(rows.values()), self._truths.of(migrating), self._conf.conductor,
            timeutils.utcnow(),
            db.arriving(except_batch=batch_id) if self._conf.conductor.max_inbound else None)
        self._look_at_relays(ctxt, batch)
        actions = decide.decide(seen)
        self._allocate(ctxt, batch, rows, actions)
        # beside what is asked of agents and relays until the first of them goes
        at_rest = self._beside.submit(self._truths.at_rest, batch, rows, actions)
        ended = self._look_at_jobs(ctxt, rows, actions)
        # who waits for the end of a stream is asked for in the next pass: that is not to wait
        done = state.Pass.STEPPED if ended and any(
            row["status"] in state.SERVER_NEXT for row in rows.values()) else state.Pass.FOLLOWED
        for action in actions:
            LOG.debug("batch %s: %s", batch_id, action)
            if isinstance(action, state.Issue):
                self._issue(ctxt, batch, rows, rows[action.server_id], at_rest)
            elif not self._apply(ctxt, batch, rows, seen, action):
                break
            if isinstance(action, STEPS) or self._measured(batch, action):
                done = state.Pass.STEPPED
        if done is state.Pass.FOLLOWED and batch["status"] == "measuring":
            done = state.Pass.MEASURED
        elif done is state.Pass.FOLLOWED and self._switching(batch):
            done = state.Pass.SWITCHING
        return done

    @staticmethod
    def _switching(batch: dict) -> bool:
        """Tell whether a set that was let go together has not switched over yet, as seen last."""
        return _has_open_relays(batch) \
            and (batch["state"].get("relay_figures") or {}).get("switching", False)

    @staticmethod
    def _measured(batch: dict, action) -> bool:
        """Tell whether a look at a measurement has found its end."""
        return isinstance(action, state.PollMeasure) \
            and batch["state"]["measure"]["state"] != "running"

    def _allocate(self, ctxt, batch, rows, actions) -> None:
        """Share the wire among the streams that run and those that are about to begin."""
        streams = [server_id for server_id, row in rows.items() if row["status"] == "migrating"]
        streams += [action.server_id for action in actions if isinstance(action, state.Issue)]
        self._allocator.allocate(ctxt, batch, rows, streams,
                                 lambda **changes: keeping.save(batch, **changes))

    def _look_at_relays(self, ctxt, batch) -> None:
        """Keep what the relays have counted so far, for those who watch; not in every pass."""
        kept, now = batch["state"].get("relay_figures") or {}, timeutils.utcnow_ts(True)
        if _has_open_relays(batch) and \
                now - kept.get("at", 0.0) >= RELAY_LOOK_SECONDS:
            found, switching = self._relays.look(ctxt, batch)
            keeping.save(batch, relay_figures={
                "at": now, "groups": kept.get("groups", {}) | found, "switching": switching})

    def _look_at_jobs(self, ctxt, rows: dict, actions: list) -> bool:
        """See how far the streams are that run: one call serves all of a source.

        Returns whether one is seen to have ended.
        """
        running: dict[str, list[dict]] = {}
        for action in actions:
            if isinstance(action, state.Follow) and action.migration.status.startswith("running"):
                row = rows[action.server_id]
                running.setdefault(row["source"], []).append(row)
        # every source is asked, whatever another has said
        return any([self._executor.watch(ctxt, source, streams)
                    for source, streams in running.items()])

    def _apply(self, ctxt, batch, rows, seen, action) -> bool:
        """Carry one action out; False ends the pass because the state has changed under it."""
        match action:
            case state.AwaitMoment(server_id=server_id):
                # the wait is time of its group
                self._groups.started(ctxt, batch, rows, rows[server_id])
                self._executor.carry_out(ctxt, batch, rows[server_id], action)
            case state.TellLost(server_id=server_id):
                self._gangs.lost(ctxt, batch, rows[server_id])
                return False
            case state.ServerAction(server_id=server_id):
                self._executor.carry_out(ctxt, batch, rows[server_id], action)
            case state.BeginAnew(source=source, index=index):
                self._gangs.again(ctxt, batch, groups.members_of(rows, source, index)[0])
                return False
            case state.EndGroup(source=source, index=index):
                self._groups.end(ctxt, batch, rows, source, index)
            case state.TakeSurvey():
                return self._sources.take_survey(ctxt, batch, rows)
            case state.DisableSources():
                self._sources.disable(ctxt, batch)
            case state.MakePlan():
                self._planner.step(ctxt, batch)
            case state.SetStatus(status=status):
                keeping.set_status(ctxt, batch, status)
            case state.Finish(status=status, error=error):
                self._finish(ctxt, batch, status, error)
            case _:
                self._measure(ctxt, batch, rows, seen, action)
        return True

    def _measure(self, ctxt, batch, rows, seen, action) -> None:
        match action:
            case state.StartMeasure(purpose=purpose):
                by_host: dict[str, list[str]] = {}
                current = state.current_groups(seen.rows) if purpose == "regroup" else {}
                for row in rows.values():
                    if row["status"] == "pending" and \
                            row["group_index"] != current.get(row["source"], -1):
                        by_host.setdefault(row["source"], []).append(row["server_id"])
                keeping.save(batch, measure=self._measurer.start(by_host, purpose))
            case state.PollMeasure():
                measure = self._measurer.poll(ctxt, batch, batch["state"]["measure"])
                keeping.save(batch, measure=measure)
                if measure["purpose"] == "initial" and measure["state"] == "running":
                    self._planner.ask_ahead(batch, measure["hosts"])
            case state.DropMeasure(reason=reason):
                db.add_event(batch["id"], "warning", f"the old figures stay in use: {reason}")
                keeping.save(batch, measure=None, plan_groups=state.current_groups(seen.rows),
                             **loading.go_on(batch, timeutils.utcnow()))
            case state.HoldUp():
                keeping.save(batch, held_up_since=timeutils.utcnow().isoformat())
            case state.GoOn():
                keeping.save(batch, plan_groups=state.current_groups(seen.rows),
                             **loading.go_on(batch, timeutils.utcnow()))

    def _issue(self, ctxt, batch: dict, rows: dict, row: dict,
               at_rest: concurrent.futures.Future) -> None:
        started = self._groups.started(ctxt, batch, rows, row)
        row["at_rest"] = row["server_id"] in at_rest.result()
        if gangs.moves_together(batch, row):
            known = gangs.kept(batch, row)
            if not known.get("open") and known.get("off") is None:
                # left unopened by a conductor that was killed
                self._groups.open_set(ctxt, batch, rows, row)
                known = gangs.kept(batch, row)
            if known.get("off") is not None or row["server_id"] in known["left_out"]:
                return
        self._executor.issue(ctxt, batch, row, started)

    def _finish(self, ctxt, batch: dict, status: str, error: str | None) -> None:
        """End a batch: enable again what is to be enabled, give the claims back, say so."""
        ended_well = status in ("completed", "partial")
        if not (ended_well and batch["request"]["leave_disabled"]):
            self._sources.enable(ctxt, batch)
        rows = {row["server_id"]: row for row in db.servers_of(batch["id"])}
        for row in rows.values():
            if row["status"] in state.SERVER_OPEN:
                db.update_server(batch["id"], row["server_id"], {
                    "status": "aborted", "reason": error or "the batch ended before its turn"})
        self._allocator.release(ctxt, batch, rows,
                                lambda **changes: keeping.save(batch, **changes))
        for source, index in loading.open_groups(batch):
            self._groups.end(ctxt, batch, rows, source, index)
        fatal = batch["state"].get("fatal")
        db.finish_batch(batch["id"], "failed" if fatal else status, fatal or error,
                        ctxt.request_id)

    def fail(self, batch_id: str, error: exception.BatchMigrateError) -> None:
        """End a batch that can't go on, with the error for the operator; guests stay.

        What migrates now is followed to its end first, unless that is what can't go on.
        """
        batch = db.get_batch(batch_id, heavy=False)
        moving = [row for row in db.servers_of(batch_id) if row["status"] == "migrating"]
        if moving and not batch["state"].get("fatal"):
            keeping.save(batch, fatal=error.text)
            db.update_batch(batch_id, {"control": batch["control"] | {"abort": "finish"}})
            db.add_event(batch_id, "warning", f"{error.text} The {len(moving)} migrations under "
                         "way are followed to their end, then the batch ends as failed.")
            return
        self._finish(context.service_context(batch["request_id"]), batch, "failed", error.text)


def _has_open_relays(batch: dict) -> bool:
    return any((batch["state"].get("relay_groups") or {}).values())
