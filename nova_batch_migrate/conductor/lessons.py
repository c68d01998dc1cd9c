"""What the cloud's finished migrations tell the next plan: read from the database, made pure.

Called by the planner. What is made of it is planning.learning and planning.nova_pace.
"""

import dataclasses
import datetime
from collections.abc import Sequence

from oslo_config import cfg

from nova_batch_migrate.db import api as db
from nova_batch_migrate.planning import learning, nova_pace, relay_pace, relaying
from nova_batch_migrate.planning import request as plan_request
from nova_batch_migrate.planning.telemetry import HostTelemetry

#: What is older tells nothing any more; of the rest the latest so many.
OLDEST_DAYS = 30
LATEST_MIGRATIONS = 100


@dataclasses.dataclass(frozen=True)
class Lessons:
    """What a plan takes from the past; each null where nothing, or too little, is known."""

    nova: nova_pace.NovaPace | None
    #: What is not known of Nova where that is null.
    nova_deviation: float
    #: Of streams past relays, and through them.
    learned: learning.Learned | None
    learned_relayed: learning.Learned | None
    #: What streams through relays take beside their link.
    relay: relay_pace.RelayPace | None


def lessons(conf, now: datetime.datetime, hosts: Sequence[HostTelemetry], servers: int,
            relays: Sequence[plan_request.RelayHost], max_parallel: int) -> Lessons:
    """Return what the latest migrations teach, however their batches ended.

    ``hosts`` are the sources with what has yet to move, ``servers`` all that the batch moves,
    ``relays`` those that are to carry its streams, ``max_parallel`` what it asks for (many: as many
    at once as Nova permits), ``conf`` all options.
    """
    rows = db.recent_migrations(LATEST_MIGRATIONS, now - datetime.timedelta(days=OLDEST_DAYS))
    usual = nova_pace.NovaPace(
        conf.conductor.nova_seconds, plan_request.PlanRequest.nova_before_share,
        conf.conductor.nova_sharing, nova_pace.TOLD if _told(conf) else nova_pace.GUESSED)
    sources = frozenset(host.host for host in hosts)
    ahead = nova_pace.Ahead(
        now.timestamp(), sources, bool(relays), servers,
        sum(min(max_parallel, host.options.max_concurrent, len(host.servers)) for host in hosts))
    pace = relay_pace.learn(_first_passes(rows, relays, now), sources)
    finished = [_finished(row, now) for row in rows if row["actual"].get("stream_seconds")
                and _reckoned_alike(row["projection"], pace)]
    return Lessons(
        nova_pace.learn([_stay(row) for row in rows
                         if row["actual"].get("nova_seconds") is not None], usual, ahead),
        nova_pace.unlearned(usual.deviation),
        *(learning.learn(finished, carried) for carried in (False, True)), relay=pace)


def _told(conf) -> bool:
    """Tell whether an operator has said how long Nova takes."""
    return any(conf.get_location(name, "conductor").location not in (
        cfg.Locations.opt_default, cfg.Locations.set_default)
        for name in ("nova_seconds", "nova_sharing"))


def _stay(row: dict) -> nova_pace.NovaStay:
    actual = row["actual"]
    carried = bool(actual.get("relay"))
    return nova_pace.NovaStay(
        issued_seconds=row["issued_at"].timestamp() + actual.get("nova_queued_seconds", 0.0),
        finished_seconds=row["finished_at"].timestamp(),
        nova_seconds=actual["nova_seconds"], before_seconds=actual.get("nova_before_seconds"),
        batch=row["batch_id"], source=row["source"], relay=carried,
        usual=row["attempts"] == 1 and carried == bool(row["projection"].get("relay")))


def _first_passes(rows: Sequence[dict], relays: Sequence[plan_request.RelayHost],
                  now: datetime.datetime) -> list[relay_pace.FirstPass]:
    """Return round 0 of the streams whose relay saw it; what they were slowed for is not in it."""
    speeds = {relay.host: relay for relay in relays}
    found = []
    for row in rows:
        carried = row["actual"].get("relay") or {}
        first = carried.get("first_pass")
        if not first or not first["raw_bytes"]:
            continue
        raw_bytes = first["raw_bytes"]
        known = carried["self_duplicate_bytes"] + carried["cross_server_bytes"]
        of_both = [speeds[host] for host in (row["source"], row["destination"]) if host in speeds]
        found.append(relay_pace.FirstPass(
            first["seconds"], raw_bytes, first["link_seconds"],
            raw_bytes / relaying.slowest(of_both, min(1.0, known / raw_bytes)),
            row["batch_id"], row["source"], (now - row["finished_at"]).total_seconds()))
    return found


def _reckoned_alike(projection: dict, pace: relay_pace.RelayPace | None) -> bool:
    """Tell whether a projection had what the next ones will have of the relays' own seconds."""
    return not projection.get("relay") or bool(projection.get("relay_seconds_per_byte")) is (
        pace is not None and pace.seconds_per_byte > 0)


def _finished(row: dict, now: datetime.datetime) -> learning.Finished:
    projection, actual = row["projection"], row["actual"]
    return learning.Finished(
        projection["stream_seconds"], actual["stream_seconds"],
        projection["downtime_seconds"], actual["downtime_seconds"],
        projection["wire_bytes"] if projection.get("relay") else 0.0,
        actual["wire_bytes"] if actual.get("relay") else None,
        row["batch_id"], (now - row["finished_at"]).total_seconds())
