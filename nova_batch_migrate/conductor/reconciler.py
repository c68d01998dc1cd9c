"""One pass over one batch: read the database and Nova's truth, decide, carry out, return.

Called by the service in a loop while it holds the batch's lease. Keeps nothing in memory between
passes, so a conductor may be killed at any point and another goes on (design section 4).
"""

import collections
import datetime

from oslo_log import log
from oslo_utils import timeutils

from nova_batch_migrate import context, exception
from nova_batch_migrate.conductor import decide, gangs, loading, relays, state, survey
from nova_batch_migrate.db import api as db
from nova_batch_migrate.planning import telemetry

LOG = log.getLogger(__name__)
BUSY_PATIENCE_SECONDS = 300
SURVEY_PAUSE_SECONDS = 3
RELAY_LOOK_SECONDS = 2.0
#: While a migration is in flight its server is looked at so often: Nova asks Neutron each time.
SERVER_LOOK_SECONDS = 60.0
#: Of a source's migrations, those that may be younger than ours: servers that others move.
FOREIGN_MIGRATIONS = 20
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
        truths = self._truths(migrating)
        seen = loading.batch_state(
            batch, list(rows.values()), truths, self._conf.conductor, timeutils.utcnow(),
            db.arriving(except_batch=batch_id) if self._conf.conductor.max_inbound else None)
        self._look_at_relays(ctxt, batch)
        actions = decide.decide(seen)
        self._allocate(ctxt, batch, rows, actions)
        self._look_at_next(rows, actions)
        self._look_at_jobs(ctxt, rows, actions)
        done = state.Pass.FOLLOWED
        for action in actions:
            LOG.debug("batch %s: %s", batch_id, action)
            if not self._apply(ctxt, batch, rows, seen, action):
                break
            if isinstance(action, STEPS) or self._measured(batch, action):
                done = state.Pass.STEPPED
        return done

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
                                 lambda **changes: self._save(batch, **changes))

    def _look_at_relays(self, ctxt, batch) -> None:
        """Keep what the relays have counted so far, for those who watch; not in every pass."""
        kept, now = batch["state"].get("relay_figures") or {}, timeutils.utcnow_ts(True)
        if any((batch["state"].get("relay_groups") or {}).values()) and \
                now - kept.get("at", 0.0) >= RELAY_LOOK_SECONDS:
            self._save(batch, relay_figures={"at": now, "groups": kept.get("groups", {})
                                             | self._relays.look(ctxt, batch)})

    def _look_at_next(self, rows: dict, actions: list) -> None:
        """Look at servers that are about to be asked for, in one call where they are several."""
        next_of: dict[str, list[str]] = {}
        for action in actions:
            if isinstance(action, state.Issue):
                next_of.setdefault(rows[action.server_id]["source"], []).append(action.server_id)
        for source, wanted in next_of.items():
            if len(wanted) > 1:
                shown = {server.id: server for server in self._nova.servers_on(source)}
                for server_id in wanted:
                    rows[server_id]["shown"] = shown.get(server_id)

    def _look_at_jobs(self, ctxt, rows: dict, actions: list) -> None:
        """See how far the streams are that run: one call serves all of a source."""
        running: dict[str, list[dict]] = {}
        for action in actions:
            if isinstance(action, state.Follow) and action.migration.status.startswith("running"):
                row = rows[action.server_id]
                running.setdefault(row["source"], []).append(row)
        for source, streams in running.items():
            self._executor.watch(ctxt, source, streams)

    def _truths(self, migrating: list[dict]) -> dict[str, state.Truth]:
        """Return what Nova says of servers that migrate, by id; one list serves all of a source."""
        sources = collections.Counter(row["source"] for row in migrating)
        listed: dict[str, list] = {}
        for source, number in sources.items():
            if number > 1:
                for migration in self._nova.migrations_from(source, number + FOREIGN_MIGRATIONS):
                    listed.setdefault(migration.server_id, []).append(migration)
        return {row["server_id"]: self._truth(row, tuple(listed.get(row["server_id"], ())))
                for row in migrating}

    def _truth(self, row: dict, migrations: tuple) -> state.Truth:
        """``migrations`` are what is known already of the server's; ours may not be among them."""
        def ours_of(found: tuple):
            return decide.new_migrations(row["known_migrations"], row["destination"], found)[1]

        # the migrations first: one that completes in between shows as running once more
        ours = ours_of(migrations)
        if ours is None:
            migrations = tuple(self._nova.migrations(row["server_id"]))
            ours = ours_of(migrations)
        progress, now = row["progress"] or {}, timeutils.utcnow_ts(True)
        if ours is not None and ours.status in state.IN_FLIGHT \
                and now - progress.get("server_seen", 0.0) < SERVER_LOOK_SECONDS:
            return state.Truth(None, migrations, asked=False)
        row["progress"] = progress | {"server_seen": now}
        return state.Truth(self._nova.server(row["server_id"]), migrations)

    def _apply(self, ctxt, batch, rows, seen, action) -> bool:
        """Carry one action out; False ends the pass because the state has changed under it."""
        match action:
            case state.Issue(server_id=server_id):
                self._issue(ctxt, batch, rows, rows[server_id])
            case state.AwaitMoment(server_id=server_id):
                # the wait is time of its group
                self._group_started(ctxt, batch, rows, rows[server_id])
                self._executor.carry_out(ctxt, batch, rows[server_id], action)
            case state.TellLost(server_id=server_id):
                self._gangs.lost(ctxt, batch, rows[server_id])
                return False
            case state.ServerAction(server_id=server_id):
                self._executor.carry_out(ctxt, batch, rows[server_id], action)
            case state.BeginAnew(source=source, index=index):
                self._gangs.again(ctxt, batch, self._members(rows, source, index)[0])
                return False
            case state.EndGroup(source=source, index=index):
                self._end_group(ctxt, batch, rows, source, index)
            case state.TakeSurvey():
                return self._survey(ctxt, batch, rows)
            case state.DisableSources():
                self._disable_sources(ctxt, batch)
            case state.MakePlan():
                self._make_plan(ctxt, batch)
            case state.SetStatus(status=status):
                self._set_status(ctxt, batch, status)
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
                self._save(batch, measure=self._measurer.start(by_host, purpose))
            case state.PollMeasure():
                self._save(batch, measure=self._measurer.poll(ctxt, batch,
                                                              batch["state"]["measure"]))
            case state.DropMeasure(reason=reason):
                db.add_event(batch["id"], "warning", f"the old figures stay in use: {reason}")
                self._save(batch, measure=None, plan_groups=state.current_groups(seen.rows),
                           **self._go_on(batch))
            case state.HoldUp():
                self._save(batch, held_up_since=timeutils.utcnow().isoformat())
            case state.GoOn():
                self._save(batch, plan_groups=state.current_groups(seen.rows),
                           **self._go_on(batch))

    @staticmethod
    def _go_on(batch: dict) -> dict:
        """Return the changes of state with which measuring holds nothing up any more."""
        now, measure = timeutils.utcnow(), batch["state"].get("measure")
        held = loading.held_up_seconds(batch, now)
        if measure and measure["purpose"] == "initial" and not batch["request"]["plan_only"]:
            # nothing migrated while everything was measured for the first time
            begun = datetime.datetime.fromisoformat(measure["started_at"])
            held += (now - begun).total_seconds()
        return {"held_up_seconds": round(held, 3), "held_up_since": None}

    def _save(self, batch: dict, **changes) -> None:
        """Change keys of the batch's free-form state; only the holder of the lease does."""
        batch["state"] = batch["state"] | changes
        db.update_batch(batch["id"], {"state": batch["state"]})

    # ---- steps ---------------------------------------------------------------------------------

    def _issue(self, ctxt, batch: dict, rows: dict, row: dict) -> None:
        started = self._group_started(ctxt, batch, rows, row)
        if gangs.moves_together(batch, row):
            known = gangs.kept(batch, row)
            if not known.get("open") and known.get("off") is None:
                # left unopened by a conductor that was killed
                self._open_set(ctxt, batch, rows, row)
                known = gangs.kept(batch, row)
            if known.get("off") is not None or row["server_id"] in known["left_out"]:
                return
        self._executor.issue(ctxt, batch, row, started)

    @staticmethod
    def _members(rows: dict, source: str, index: int) -> list[dict]:
        return [row for row in rows.values()
                if (row["source"], row["group_index"]) == (source, index)]

    def _open_set(self, ctxt, batch: dict, rows: dict, row: dict) -> None:
        self._gangs.open(ctxt, batch, [
            each for each in self._members(rows, row["source"], row["group_index"])
            if each["status"] in state.SERVER_OPEN])

    def _group_started(self, ctxt, batch: dict, rows: dict, row: dict) -> str:
        """Return when the group of a server began: now, if it is the first of it."""
        started = dict(batch["state"].get("groups_started", {}))
        key = loading.group_key(row["source"], row["group_index"])
        if key not in started:
            started[key] = timeutils.utcnow().isoformat()
            self._save(batch, groups_started=started)
            db.add_event(batch["id"], "group-started",
                         f"group {row['group_index'] + 1} of {row['source']} begins",
                         request_id=ctxt.request_id)
            self._open_relays(ctxt, batch, rows, key, row)
        return started[key]

    def _open_relays(self, ctxt, batch: dict, rows: dict, key: str, first: dict) -> None:
        """Let the relays carry a group that begins, where the plan counts on them."""
        if gangs.moves_together(batch, first):
            return self._open_set(ctxt, batch, rows, first)
        members = [row for row in self._members(rows, first["source"], first["group_index"])
                   if row["status"] in state.SERVER_OPEN and relays.planned(row)]
        if not members:
            return
        before = batch["state"].get("relay_groups") or {}
        # the intent first: what is open is closed at the end, whoever opened it
        self._save(batch, relay_groups=before | {
            key: sorted({row["destination"] for row in members})})
        opened, _ = self._relays.begin(ctxt, batch, first["source"], first["group_index"], members)
        self._save(batch, relay_groups=before | {key: opened})

    def _close_relays(self, ctxt, batch: dict, source: str, index: int) -> None:
        opened = dict(batch["state"].get("relay_groups") or {})
        destinations = opened.pop(loading.group_key(source, index), [])
        if destinations:
            last = self._relays.end(ctxt, batch, source, index, destinations)
            # each server's are with its actual figures
            kept = batch["state"].get("relay_figures") or {"at": 0.0, "groups": {}}
            groups = kept["groups"] | {i: relays.shown(told) | {"servers": {}}
                                       for i, told in last.items()}
            self._save(batch, relay_groups=opened, relay_figures=kept | {"groups": groups})

    def _end_group(self, ctxt, batch: dict, rows: dict, source: str, index: int) -> None:
        """Note that a group is over, however its members ended."""
        members = self._members(rows, source, index)
        moved = sum(row["status"] == "completed" for row in members)
        key = loading.group_key(source, index)
        begun = datetime.datetime.fromisoformat(batch["state"]["groups_started"][key])
        took = (timeutils.utcnow() - begun).total_seconds()
        self._close_relays(ctxt, batch, source, index)
        self._save(batch, groups_ended=[*batch["state"].get("groups_ended", ()), key])
        db.add_event(batch["id"], "group-ended",
                     f"group {index + 1} of {source} is over after {took:.1f} s: {moved} of "
                     f"{len(members)} moved", request_id=ctxt.request_id)

    def _disable_sources(self, ctxt, batch: dict) -> None:
        """Keep new servers off the sources; remember which services were ours to disable."""
        services = {service["host"]: service for service in self._nova.compute_services()}
        for host in batch["request"]["hosts"]:
            service = services.get(host)
            if service is None or service["status"] == "disabled":
                continue
            # the intent first: a conductor that dies in between enables it again all the same
            batch["disabled_hosts"] = [*batch["disabled_hosts"], host]
            db.update_batch(batch["id"], {"disabled_hosts": batch["disabled_hosts"]})
            self._nova.disable_service(service["id"], f"batch migration {batch['id']}")
            db.add_event(batch["id"], "service-disabled",
                         f"compute service of {host} disabled: no new servers there",
                         request_id=ctxt.request_id)
        self._save(batch, sources_disabled=True)

    def _survey(self, ctxt, batch: dict, rows: dict) -> bool:
        """List the sources' servers again; returns whether the pass may go on."""
        last = batch["state"].get("surveyed_at")
        busy_since = batch["state"].get("busy_since")
        if busy_since and last and timeutils.utcnow().timestamp() < last + SURVEY_PAUSE_SECONDS:
            return False
        servers = self._servers(batch)
        looked = survey.survey(servers, self._nova.server_groups(),
                               batch["request"]["include_locked"])
        holders = self._held_by_others(rows, looked)
        looked = survey.leave_to_others(looked, holders)
        now = timeutils.utcnow()
        since = (busy_since or now.timestamp()) if looked.busy else None
        waiting = since is not None and now.timestamp() - since < BUSY_PATIENCE_SECONDS
        if not waiting:
            looked = survey.give_up_on_busy(looked, holders)
        arrived = self._join(ctxt, batch, rows, looked)
        for why in looked.staying:
            row = rows.get(why.server_id)
            if row is not None and row["status"] == "pending":
                self._executor.close(ctxt, batch, row, "skipped", why.reason, why.certainty,
                                     why.command)
        self._close_gone(ctxt, batch, rows, {server.id for server in servers})
        self._save(batch, surveyed=not arrived and not waiting, measure=None,
                   surveyed_at=now.timestamp(), busy_since=since if waiting else None)
        if arrived and batch["status"] in ("running", "paused"):
            self._set_status(ctxt, batch, "measuring")
        return True

    @staticmethod
    def _held_by_others(rows: dict, looked: survey.Survey) -> dict[str, str]:
        """Return which batch has each server that is not ours: {server id: batch id}."""
        new = [(db.SERVER, server.id) for server in looked.movable if server.id not in rows]
        return {server_id: holder for (_, server_id), holder in db.claims_of(new).items()}

    def _servers(self, batch: dict) -> list:
        request = batch["request"]
        if request["hosts"]:
            self._refuse_blindness(request["hosts"])
            return [server for host in request["hosts"] for server in self._nova.servers_on(host)]
        found = [self._nova.server(server_id) for server_id in batch["state"]["server_ids"]]
        sources = set(batch["state"]["sources"])
        return [server for server in found if server is not None and server.host in sources]

    def _refuse_blindness(self, hosts: list[str]) -> None:
        """A host whose cell doesn't answer shows no servers; that is not an empty host."""
        states = {service["host"]: service["state"] for service in self._nova.compute_services()}
        for host in hosts:
            if states.get(host, "unknown") == "unknown":
                raise exception.NovaTransientError(
                    operation=f"list the servers of {host}", reason="its cell does not answer")

    def _join(self, ctxt, batch: dict, rows: dict, looked: survey.Survey) -> bool:
        """Add servers that came to the sources since; True when one of them is to move."""
        new = [s for s in looked.movable if s.id not in rows]
        staying = [why for why in looked.staying if why.server_id not in rows]
        if not new and not staying:
            return False
        db.add_servers(
            batch["id"],
            [loading.new_row(server) for server in new]
            + [loading.staying_row(why) for why in staying],
            [(db.SERVER, server.id) for server in new])
        for server in new:
            db.add_event(batch["id"], "arrived", f"found on {server.host}", server.id,
                         ctxt.request_id)
        rows.update({row["server_id"]: row for row in db.servers_of(batch["id"])})
        return bool(new)

    def _close_gone(self, ctxt, batch: dict, rows: dict, here: set[str]) -> None:
        """Servers that left or were deleted before their turn are nobody's work any more.

        ``here``: those that were seen on a source just now.
        """
        for row in rows.values():
            if row["status"] != "pending" or row["server_id"] in here:
                continue
            server = self._nova.server(row["server_id"])
            if server is None:
                self._executor.close(ctxt, batch, row, "skipped", "the server was deleted")
            elif server.host != row["source"]:
                self._executor.complete(ctxt, batch, row, server.host, None)

    def _make_plan(self, ctxt, batch: dict) -> None:
        fresh = db.get_batch(batch["id"])
        current = db.servers_of(batch["id"])
        first_group = max((row["group_index"] for row in current
                           if row["group_index"] is not None), default=-1) + 1
        plan = self._planner.make(fresh, current, first_group)
        kind = "planned" if fresh["first_plan"] is None else "replanned"
        db.add_event(
            batch["id"], kind,
            f"{sum(len(group.members) for group in plan.groups)} servers in {len(plan.groups)} "
            f"groups, {plan.projected_seconds:.0f} s, {len(plan.staying)} stay",
            request_id=ctxt.request_id)
        if batch["control"]["replan"]:
            batch["control"] = batch["control"] | {"replan": False}
            db.update_batch(batch["id"], {"control": batch["control"]})
        self._save(batch, **self._go_on(batch))
        # a set of an earlier plan may still be on its way
        still = {row["group_index"] for row in current if row["status"] in ("waiting", "migrating")}
        self._save(batch, measure=None, surveyed=False,
                   told=loading.told(plan, fresh["first_plan"]),
                   projected_seconds=loading.spent_seconds(batch, timeutils.utcnow())
                   + plan.projected_seconds,
                   relayed=sorted({*batch["state"].get("relayed", ()), *(
                       group.index for group in plan.groups
                       if any(member.projection.relay for member in group.members))}),
                   together=[*(index for index in batch["state"].get("together", ())
                               if index in still),
                             *(group.index for group in plan.groups if group.synchronized)],
                   dirty={server.id: round(server.round_model.rate_pages_per_second
                                           * telemetry.PAGE_BYTES)
                          for host in plan.request.hosts for server in host.servers},
                   limits={host.host: host.options.max_concurrent for host in plan.request.hosts},
                   plan_groups={group.source: min(g.index for g in plan.groups
                                                  if g.source == group.source)
                                for group in plan.groups})

    def _set_status(self, ctxt, batch: dict, status: str) -> None:
        values = {"status": status}
        if status == "running" and batch["started_at"] is None:
            values["started_at"] = timeutils.utcnow()
            db.add_event(batch["id"], "started", "the migrations begin",
                         request_id=ctxt.request_id)
        batch.update(values)
        db.update_batch(batch["id"], values)

    def _finish(self, ctxt, batch: dict, status: str, error: str | None) -> None:
        """End a batch: enable again what is to be enabled, give the claims back, say so."""
        ended_well = status in ("completed", "partial")
        if not (ended_well and batch["request"]["leave_disabled"]):
            self._enable_sources(ctxt, batch)
        rows = {row["server_id"]: row for row in db.servers_of(batch["id"])}
        for row in rows.values():
            if row["status"] in state.SERVER_OPEN:
                db.update_server(batch["id"], row["server_id"], {
                    "status": "aborted", "reason": error or "the batch ended before its turn"})
        self._allocator.release(ctxt, batch, rows,
                                lambda **changes: self._save(batch, **changes))
        for source, index in loading.open_groups(batch):
            self._end_group(ctxt, batch, rows, source, index)
        fatal = batch["state"].get("fatal")
        db.finish_batch(batch["id"], "failed" if fatal else status, fatal or error,
                        ctxt.request_id)

    def _enable_sources(self, ctxt, batch: dict) -> None:
        services = {service["host"]: service for service in self._nova.compute_services()}
        for host in batch["disabled_hosts"]:
            service = services.get(host)
            ours = service and batch["id"] in (service["disabled_reason"] or "")
            if not ours:
                continue
            self._nova.enable_service(service["id"])
            db.add_event(batch["id"], "service-enabled", f"compute service of {host} enabled",
                         request_id=ctxt.request_id)

    def fail(self, batch_id: str, error: exception.BatchMigrateError) -> None:
        """End a batch that can't go on, with the error for the operator; guests stay.

        What migrates now is followed to its end first, unless that is what can't go on.
        """
        batch = db.get_batch(batch_id, heavy=False)
        moving = [row for row in db.servers_of(batch_id) if row["status"] == "migrating"]
        if moving and not batch["state"].get("fatal"):
            self._save(batch, fatal=error.text)
            db.update_batch(batch_id, {"control": batch["control"] | {"abort": "finish"}})
            db.add_event(batch_id, "warning", f"{error.text} The {len(moving)} migrations under "
                         "way are followed to their end, then the batch ends as failed.")
            return
        self._finish(context.service_context(batch["request_id"]), batch, "failed", error.text)
