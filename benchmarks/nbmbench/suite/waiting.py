"""A guest with a duty cycle: its period as the agent sees it, and what waiting for its quiet gains.

The lab's guest writer-duty (30 s, half of them writing) on a capped link, without Nova. It is
followed by the agent's own code, planned with `max_wait_seconds`, then migrated by turns when
the plan says and at once, the latter at moments spread evenly over the period.
"""
import time

import numpy as np
from nbmlab import shell
from nbmlab.families import FAMILIES

from nbmbench import contract, telemetry
from nbmbench.contract import Goal, Settings
from nbmbench.rig import GuestSpec, Move, Nova, Rig
from nova_batch_migrate.planning import plan, request, timing
from nova_batch_migrate.planning.telemetry import HostTelemetry, MigrationOptions

NEEDS = "lab"
GOALS = {"period_error": Goal("<=", 0.05), "confidence": Goal(">=", 0.9),
         "saved_seconds_share": Goal(">=", 0.05), "saved_bytes_share": Goal(">=", 0.05)}
FAMILY = "writer-duty"
LINK_BYTES_PER_SECOND = 10 << 20
MAX_WAIT_SECONDS = 60
ROUNDS = 4


def run(settings: Settings) -> list[dict]:
    """Measure once, then migrate there and back, in turn waiting and not."""
    rounds = 1 if settings.quick else ROUNDS
    options = MigrationOptions()
    with Rig(settings.scratch / "rig") as rig:
        guest, = rig.boot_all([GuestSpec.of("duty", FAMILY)], ticks=4)
        rig.link.cap(LINK_BYTES_PER_SECOND)
        server, = telemetry.measure([guest], MAX_WAIT_SECONDS)
        member = _planned(rig, guest, server, options)
        cases = [_found(server, member)]
        settings.keep(cases)
        shell.say(f"found: {cases[0]}")
        if member is None or member.wait is None:
            return cases
        for index in range(rounds):
            for way, seconds in (("waiting", timing.seconds_until(member.wait, time.time())),
                                 ("at once", None)):
                if seconds is None:
                    # evenly over the period, from the moment that the plan would have chosen
                    seconds = (timing.seconds_until(member.wait, time.time())
                               + (index + 0.5) / rounds * member.wait.period_seconds)
                time.sleep(seconds)
                since = (time.time() - member.wait.opens_seconds) % member.wait.period_seconds
                migration, = rig.migrate(Move(guest, nova=Nova(options)))
                guest = migration.guest
                cases.append({"kind": "migration", "way": way, "run": index,
                              "phase": since / member.wait.period_seconds,
                              "projected_seconds": member.projection.stream_seconds
                              if way == "waiting" else None,
                              "projected_bytes": member.projection.raw_bytes
                              if way == "waiting" else None, **migration.facts()})
                settings.keep(cases)
                shell.say(f"{way}: {cases[-1]}")
    return cases


def _planned(rig: Rig, guest, server, options):
    """Return the guest as a member of the plan that is made now; None where it stays."""
    host = HostTelemetry("source", telemetry.link(rig, guest.side), options, (server,))
    made = plan.make_plan(request.PlanRequest(
        hosts=(host,),
        movable=(request.Movable(server.id, ("destination",), server.memory_bytes, 1, 1),),
        destinations=(request.Destination("destination", 1 << 40, 64, 1000),),
        # no Nova: what is asked for begins at once
        nova_seconds=0.0, max_wait_seconds=MAX_WAIT_SECONDS, now_seconds=time.time()))
    return made.groups[0].members[0] if made.groups else None


def _found(server, member) -> dict:
    history = server.history
    found = history.periodicity if history else None
    return {"kind": "period", "true_period_seconds": FAMILIES[FAMILY].load.period_seconds,
            "samples": len(history.at_seconds) if history else 0,
            "periodicity": found.to_dict() if found else None,
            "wait": member.wait.to_dict() if member and member.wait else None}


def measured(cases) -> dict:
    """Return the period's relative error and confidence, and the mean shares that waiting saves."""
    figures = {}
    period, = [case for case in cases if case["kind"] == "period"]
    if period["periodicity"]:
        true = period["true_period_seconds"]
        figures["period_error"] = abs(period["periodicity"]["period_seconds"] - true) / true
        figures["confidence"] = period["periodicity"]["confidence"]
    for name, field in (("saved_seconds_share", "total_seconds"),
                        ("saved_bytes_share", "transferred_bytes")):
        waiting, at_once = _pairs(cases, field)
        if len(waiting):
            figures[name] = float(1 - waiting.mean() / at_once.mean())
    waiting = [case for case in cases if case["kind"] == "migration" and case["way"] == "waiting"
               and case["status"] == "completed"]
    if waiting:
        figures["projected_seconds_error_mean"] = float(np.mean(
            [abs(case["projected_seconds"] / case["total_seconds"] - 1) for case in waiting]))
    return figures


def missing(cases) -> list[str]:
    """Return the rounds that are left of a whole benchmark."""
    left = ROUNDS - len(_pairs(cases, "total_seconds")[0])
    return [f"{left} rounds"] if left > 0 else []


def intervals(cases) -> dict:
    """Return the 95 % intervals of the shares, from drawing pairs anew."""
    found = {}
    for name, field in (("saved_seconds_share", "total_seconds"),
                        ("saved_bytes_share", "transferred_bytes")):
        waiting, at_once = _pairs(cases, field)
        if len(waiting) > 1:
            found[name] = contract.bootstrap(1 - waiting / at_once, np.mean)
    return found


def _pairs(cases, field: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a figure of the migrations that waited and those that did not, pair by pair."""
    by_way: dict[str, dict[int, float]] = {"waiting": {}, "at once": {}}
    for case in cases:
        if case["kind"] == "migration" and case["status"] == "completed":
            by_way[case["way"]][case["run"]] = case[field]
    both = sorted(by_way["waiting"].keys() & by_way["at once"].keys())
    return (np.array([by_way["waiting"][run] for run in both], dtype=float),
            np.array([by_way["at once"][run] for run in both], dtype=float))
