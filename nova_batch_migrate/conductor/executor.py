"""Carries out what was decided about single servers: issue, follow, complete, stop, heal.

Called by the reconciler. Every step writes its intent first and may be repeated; a guest is only
ever touched through Nova's API. When in doubt the guest stays running on the source.
"""

import datetime

from oslo_log import log
from oslo_utils import timeutils

from nova_batch_migrate import exception
from nova_batch_migrate.clients import errors
from nova_batch_migrate.conductor import actuals, gangs, healing, relays, state, survey
from nova_batch_migrate.db import api as db

LOG = log.getLogger(__name__)
#: A source's running migrations are looked at so often: each look asks its libvirt.
JOB_LOOK_SECONDS = 2.0
#: Between two looks at a server that Nova is busy with, when its turn has come.
BUSY_SECONDS = 2.0


class Executor:
    """Acts on one server at a time; ``nova``, ``agents`` and ``healer`` do the talking."""

    def __init__(self, conf, nova, agents, healer: healing.Healer, through: relays.Relays,
                 sets: gangs.Gangs):
        self._conf = conf.conductor
        self._nova = nova
        self._agents = agents
        self._healer = healer
        self._relays = through
        self._gangs = sets

    def carry_out(self, ctxt, batch: dict, row: dict, action: state.ServerAction) -> None:
        """Carry out what was decided for one server."""
        match action:
            case state.Follow(migration=migration):
                self._follow(ctxt, batch, row, migration)
            case state.Complete(host=host, migration=migration):
                self.complete(ctxt, batch, row, host, migration)
            case state.NoteBroken():
                self._note_broken(batch, row)
            case state.AwaitMoment(seconds=seconds):
                self._await_moment(ctxt, batch, row, seconds)
            case state.AttemptEnded(migration=migration, retry=retry, reason=reason):
                if migration is None or self._over(ctxt, batch, row, reason):
                    self._attempt_ended(ctxt, batch, row, retry, reason)
            case state.CallAgain():
                self._call_again(ctxt, batch, row)
            case state.StopMigration(migration=migration):
                self._stop(ctxt, batch, row, migration)
            case state.ForceComplete(migration=migration):
                self._force_complete(ctxt, batch, row, migration)
            case state.Close(status=status, reason=reason):
                self.close(ctxt, batch, row, status, reason)

    def issue(self, ctxt, batch: dict, row: dict, group_started: str) -> None:
        """Ask Nova to live-migrate one server, after a last look at it.

        ``row["at_rest"]``: Nova was seen in this very pass to have it as it is to be: where it was,
        active or paused, and unlocked where that counts. What else could stand against it was
        looked at when it was planned, and Nova refuses who has a task: then it is looked at alone.
        """
        before = row["progress"] or {}
        alone = before.get("in_the_way") or not row.get("at_rest")
        if alone and not self._can_go(ctxt, batch, row):
            return
        if relays.refuses(batch) and relays.lacks(batch, row):
            return self.close(
                ctxt, batch, row, "skipped",
                f"no relay could be opened towards {row['destination']}, and {relays.REFUSED}",
                survey.LIKELY, _by_hand(row))
        known = [migration.id for migration in self._nova.migrations(row["server_id"])]
        intent = {"status": "migrating", "issued_at": timeutils.utcnow(), "migration_id": None,
                  "known_migrations": known, "attempts": row["attempts"] + 1, "reason": None,
                  "progress": {"group_started_at": group_started} | _kept(row)}
        if not gangs.moves_together(batch, row):
            # that of a set is missed at once: others are held for it
            intent["progress"]["server_seen"] = timeutils.utcnow_ts(True)
        db.update_server(batch["id"], row["server_id"], intent)
        if not self._call(ctxt, batch, row | intent) and not alone:
            # nothing has begun, and what is in the way was not looked for: that was no attempt
            db.update_server(batch["id"], row["server_id"], {
                "attempts": row["attempts"], "issued_at": None,
                "progress": before | {"in_the_way": True}})
            self._wait(batch, row, BUSY_SECONDS)

    def _can_go(self, ctxt, batch: dict, row: dict) -> bool:
        """Tell whether a server is to be asked for; see to it where it is not."""
        server = self._nova.server(row["server_id"])
        if server is None:
            self.close(ctxt, batch, row, "skipped", "the server was deleted")
        elif server.host != row["source"]:
            self._complete_elsewhere(ctxt, batch, row, server.host)
        elif server.status == "ERROR" and row["attempts"]:
            # Nova was late with what it leaves behind a migration that failed
            refusal = self._healer.heal(ctxt, batch, row, server)
            if refusal is not None:
                self._not_healed(ctxt, batch, row, "its migration failed", refusal)
            else:
                self._wait(batch, row, 0.0)
        else:
            looked = survey.survey([server], [], batch["request"]["include_locked"])
            for why in looked.staying:
                self.close(ctxt, batch, row, "skipped", why.reason, why.certainty, why.command)
            if looked.busy:
                self._wait(batch, row, BUSY_SECONDS)
            return bool(looked.movable)
        return False

    def _call_again(self, ctxt, batch: dict, row: dict) -> None:
        """Repeat a call of which Nova shows no trace (the conductor or the network broke off)."""
        db.add_event(batch["id"], "retry", "Nova shows no trace of the call; asking again",
                     row["server_id"], ctxt.request_id)
        db.update_server(batch["id"], row["server_id"], {"issued_at": timeutils.utcnow()})
        self._call(ctxt, batch, row)

    def _call(self, ctxt, batch: dict, row: dict) -> bool:
        """Ask Nova; returns False where another operation on the server is in the way."""
        try:
            self._nova.live_migrate(row["server_id"], row["destination"])
        except exception.NovaTransientError as error:
            # the call may have arrived all the same: the next pass looks before it asks again
            db.add_event(batch["id"], "warning", error.text, row["server_id"], ctxt.request_id)
            return not error.conflict
        except exception.NovaPermanentError as error:
            self._end_attempt(ctxt, batch, row, retry=False, reason=error.text)
            return True
        db.add_event(batch["id"], "issued",
                     f"live migration to {row['destination']} (attempt {row['attempts']})",
                     row["server_id"], ctxt.request_id)
        return True

    def _follow(self, ctxt, batch: dict, row: dict, migration) -> None:
        """Note a running migration's id, its bytes and the time Nova lets it queue."""
        progress = dict(row["progress"] or {})
        now = timeutils.utcnow()
        if migration.status == "queued":
            since = progress.setdefault("queued_since", now.isoformat())
            progress["nova_queued_seconds"] = (
                now - datetime.datetime.fromisoformat(since)).total_seconds()
        progress["nova_status"] = migration.status
        if migration.status == "running (post-copy)":
            progress["post_copy"] = True
        row["progress"] = progress
        db.update_server(batch["id"], row["server_id"],
                         {"migration_id": migration.id, "progress": progress})

    def watch(self, ctxt, source: str, rows: list[dict]) -> bool:
        """Note the jobs of a source's running migrations in ``rows``, where they are not young.

        The last ones known stay where its agent does not say. One that had a job and has none has
        ended its stream: what is left of the migration is Nova's. Returns whether one is seen to
        have ended now.
        """
        now = timeutils.utcnow()
        at = now.replace(tzinfo=datetime.UTC).timestamp()
        due = {row["server_id"]: row for row in rows
               if at - (row["progress"] or {}).get("job_seen", 0.0) >= JOB_LOOK_SECONDS}
        if not due:
            return False
        try:
            jobs = self._agents.progress(ctxt, source, sorted(due))
        except (exception.AgentUnavailable, exception.AgentRefused) as error:
            LOG.warning("no progress of servers %s: %s", ", ".join(sorted(due)), error)
            jobs = {}
        ended = False
        for server_id, row in due.items():
            row["progress"] = (row["progress"] or {}) | {"job_seen": at}
            if server_id in jobs and jobs[server_id] is None and "job" in row["progress"]:
                ended = ended or not row["progress"].get("streamed")
                row["progress"] |= {"streamed": True}
            if (job := jobs.get(server_id)) is not None:
                began = now - datetime.timedelta(seconds=job["elapsed_seconds"])
                row["progress"] |= {"job": job, "stream_began_at": began.isoformat()}
        return ended

    def complete(self, ctxt, batch: dict, row: dict, host: str, migration) -> None:
        """The server runs at ``host``: write down what really happened."""
        if migration is None:
            return self._complete_elsewhere(ctxt, batch, row, host)
        finished = timeutils.utcnow()
        progress = row["progress"] or {}
        completed = self._completed_job(ctxt, host, row["server_id"])
        measured = actuals.actual(
            datetime.datetime.fromisoformat(progress["group_started_at"]), row["issued_at"],
            finished, progress.get("nova_queued_seconds", 0.0), completed, progress.get("job"),
            self._relays.figures(ctxt, batch, row) if relays.carries(batch, row) else None,
            progress.get("stream_began_at"))
        db.update_server(batch["id"], row["server_id"], {
            "status": "completed", "destination": host, "finished_at": finished,
            "migration_id": migration.id, "actual": measured, "reason": None})
        db.add_event(batch["id"], "completed",
                     f"runs on {host} after {measured['actual_seconds']:.1f} s",
                     row["server_id"], ctxt.request_id)

    def _completed_job(self, ctxt, host: str, server_id: str) -> dict | None:
        try:
            return self._agents.completed(ctxt, host, server_id)
        except (exception.AgentUnavailable, exception.AgentRefused) as error:
            LOG.warning("no statistics of server %s: %s", server_id, error)
            return None

    def _complete_elsewhere(self, ctxt, batch: dict, row: dict, host: str) -> None:
        db.update_server(batch["id"], row["server_id"], {
            "status": "completed", "destination": host, "finished_at": timeutils.utcnow(),
            "reason": f"somebody else moved it to {host}"})
        db.add_event(batch["id"], "left", f"somebody else moved it to {host}",
                     row["server_id"], ctxt.request_id)

    def _note_broken(self, batch: dict, row: dict) -> None:
        """Remember when a migration was first seen to have ended without moving the server."""
        progress = (row["progress"] or {}) | {"broken_since": timeutils.utcnow().isoformat()}
        db.update_server(batch["id"], row["server_id"], {"progress": progress})

    def _stop(self, ctxt, batch: dict, row: dict, migration) -> None:
        """End a running migration because the operator aborts, or its set was called off.

        A repeated call is harmless.
        """
        progress = dict(row["progress"] or {})
        if progress.get("abort_asked"):
            return
        try:
            self._nova.abort_migration(row["server_id"], migration.id)
        except exception.NovaError as error:
            # it may have ended in this moment; the next pass sees what became of it
            LOG.warning("migration %s: %s", migration.id, error)
            return
        progress["abort_asked"] = True
        db.update_server(batch["id"], row["server_id"], {"progress": progress})
        db.add_event(batch["id"], "abort-requested", f"asked Nova to abort migration "
                     f"{migration.id}", row["server_id"], ctxt.request_id)

    def _force_complete(self, ctxt, batch: dict, row: dict, migration) -> None:
        """Let Nova end a pre-copy that does not converge; refused by Nova, it is asked again."""
        try:
            self._nova.force_complete(row["server_id"], migration.id)
        except exception.NovaError as error:
            # it may have ended in this moment; the next pass sees what became of it
            LOG.warning("migration %s: %s", migration.id, error)
            return
        means = row["current_projection"]["help"]
        progress = (row["progress"] or {}) | {"forced": True}
        if means == "post-copy":
            progress["post_copy"] = True
        db.update_server(batch["id"], row["server_id"], {"progress": progress})
        db.add_event(batch["id"], "forced", f"asked Nova to complete migration {migration.id} by "
                     f"force ({means}): it would not converge", row["server_id"],
                     ctxt.request_id)

    def _over(self, ctxt, batch: dict, row: dict, reason: str) -> bool:
        """Tell whether libvirt, too, has ended a migration that failed; if not, settle again.

        Only behind that Nova shows what became of the server. One that takes too long is closed.
        """
        server = self._nova.server(row["server_id"])
        if server is None or server.status == "ERROR":
            # Nova is done with it
            return True
        progress, now = dict(row["progress"] or {}), timeutils.utcnow()
        left = self._healer.still_at_it(ctxt, row)
        if left is None and progress.get("libvirt_over", "libvirt_since" not in progress):
            return True
        progress |= {"libvirt_over": left is None, "broken_since": now.isoformat()}
        since = progress.setdefault("libvirt_since", now.isoformat())
        waited = (now - datetime.datetime.fromisoformat(since)).total_seconds()
        if left is not None and waited >= healing.PATIENCE_SECONDS:
            told = f"{reason}, but after {waited:.0f} s {left} " \
                f"({self._healer.told_states(ctxt, row)}): look there before you do anything"
            self.close(ctxt, batch, row, "failed", told, survey.CERTAIN,
                       f"virsh domjobinfo {row['server_id']}, on both hosts")
            self._gangs.closed(batch, row, told)
            return False
        db.update_server(batch["id"], row["server_id"], {"progress": progress})
        return False

    def _attempt_ended(self, ctxt, batch: dict, row: dict, retry: bool, reason: str) -> None:
        """An attempt is over and the server stays at the source: heal it, then retry or report."""
        if batch["control"]["abort"]:
            reason, retry = "its migration was aborted on request", False
        elif (row["progress"] or {}).get("abort_asked"):
            reason, retry = "its migration was aborted with those of its set", False
        else:
            told = self._nova.last_action_error(row["server_id"])
            if told:
                reason, retry = f"{reason}: {told}", retry and errors.is_transient_failure(told)
        server = self._nova.server(row["server_id"])
        if server is not None and server.vm_state in ("active", "error"):
            # whom its owner has paused Nova shows as paused
            paused = self._healer.left_paused(ctxt, row)
            if paused is not None:
                self.close(ctxt, batch, row, "failed", f"{reason}; {paused}", survey.CERTAIN,
                           f"virsh domstate --reason {row['server_id']}, on both hosts")
                return self._gangs.closed(batch, row, paused)
        if server is not None and server.status == "ERROR":
            refusal = self._healer.heal(ctxt, batch, row, server)
            if refusal is not None:
                return self._not_healed(ctxt, batch, row, reason, refusal)
        self._end_attempt(ctxt, batch, row, retry, reason)

    def _not_healed(self, ctxt, batch: dict, row: dict, reason: str, refusal: str) -> None:
        told = f"Nova left it in ERROR and it was not reset: {refusal}"
        self.close(ctxt, batch, row, "failed", f"{reason}; {told}", survey.CERTAIN,
                   f"openstack server show {row['server_id']}")
        self._gangs.closed(batch, row, told)

    def _end_attempt(self, ctxt, batch: dict, row: dict, retry: bool, reason: str) -> None:
        if batch["control"]["abort"]:
            return self.close(ctxt, batch, row, "aborted", reason)
        if gangs.moves_together(batch, row):
            return self._gangs.attempt_ended(ctxt, batch, row, retry, reason)
        carried = relays.carries(batch, row)
        if retry and carried and relays.refuses(batch):
            reason, retry = f"{reason}; {relays.REFUSED}", False
        if not retry:
            return self.close(ctxt, batch, row, "failed", reason, survey.LIKELY, _by_hand(row))
        if carried:
            self._go_plain(ctxt, batch, row)
            reason += "; it goes the plain way now"
        seconds = self._conf.retry_backoff_seconds * 2 ** (row["attempts"] - 1)
        db.add_event(batch["id"], "retry", f"{reason}; next attempt in {seconds:.0f} s",
                     row["server_id"], ctxt.request_id)
        self._wait(batch, row, seconds)

    def _go_plain(self, ctxt, batch: dict, row: dict) -> None:
        """Lead further attempts past the relays; the counters of this one are not theirs."""
        self._relays.leave(ctxt, batch, row)
        row["progress"] = (row["progress"] or {}) | {"plain": True}
        db.update_server(batch["id"], row["server_id"], {"progress": row["progress"]})

    def _await_moment(self, ctxt, batch: dict, row: dict, seconds: float) -> None:
        """Let a server wait for its quiet stretch, as the plan says; its patience begins once."""
        progress = dict(row["progress"] or {})
        now = timeutils.utcnow()
        if "wait_until" not in progress:
            patience = datetime.timedelta(seconds=batch["request"]["max_wait_seconds"])
            progress["wait_until"] = (now + patience).isoformat()
            db.add_event(batch["id"], "waiting", f"waits {seconds:.0f} s for its quiet moment",
                         row["server_id"], ctxt.request_id)
        db.update_server(batch["id"], row["server_id"], {
            "status": "waiting", "progress": progress,
            "reason": f"waits for its quiet moment, in {seconds:.0f} s from {now:%H:%M:%S} UTC",
            "next_attempt_at": now + datetime.timedelta(seconds=seconds)})

    def _wait(self, batch: dict, row: dict, seconds: float) -> None:
        db.update_server(batch["id"], row["server_id"], {
            "status": "waiting",
            "next_attempt_at": timeutils.utcnow() + datetime.timedelta(seconds=seconds)})

    def close(self, ctxt, batch: dict, row: dict, status: str, reason: str,
              certainty: str | None = None, command: str | None = None) -> None:
        """Take a server out of the batch: skipped, failed or aborted, with the reason."""
        db.update_server(batch["id"], row["server_id"], {
            "status": status, "reason": reason, "certainty": certainty, "command": command,
            "finished_at": timeutils.utcnow()})
        db.add_event(batch["id"], status, reason, row["server_id"], ctxt.request_id)


def _by_hand(row: dict) -> str:
    return f"openstack server migrate --live-migration {row['server_id']}"


def _kept(row: dict) -> dict:
    """Return what of a server's progress outlives an attempt."""
    return {"plain": True} if (row["progress"] or {}).get("plain") else {}
