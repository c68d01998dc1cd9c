"""Downtime of a busy guest with and without the relay, and the skew of a synchronized set.

Real QEMUs and relays on a link capped by tc, with Nova's downtime steps, but without Nova and
libvirt: the figures are QEMU's own, the skew is of its RESUME events. Before each run with the
relay an equal guest has gone through the same dictionary, so that dedup is at its highest rate.
"""
import dataclasses
import time
import uuid

import numpy as np
from nbmlab import shell
from nbmlab.families import Load

from nbmbench import contract
from nbmbench.contract import Goal, Settings
from nbmbench.relays import Relays
from nbmbench.rig import Frozen, GuestSpec, Move, Nova, Rig
from nova_batch_migrate.planning.telemetry import MigrationOptions

NEEDS = "lab"
GOALS = {
    "added_seconds_median": Goal("<=", 0.010), "added_seconds_worst": Goal("<=", 0.050),
    "gang_skew_seconds": Goal("<=", 0.050), "gang_added_pause_seconds": Goal("<=", 0.100),
}
LINK_BYTES_PER_SECOND = 300e6 / 8
BUSY = Load(32, 1500)
PAIRS, GANGS, GANG_SIZE = 20, 5, 4
LIVES_SECONDS = 1.0


def run(settings: Settings) -> list[dict]:
    """Migrate the same busy guest by turns with and without relays, then sets of four."""
    pairs, gangs = (2, 1) if settings.quick else (PAIRS, GANGS)
    cases: list[dict] = []
    with Rig(settings.scratch / "rig") as rig:
        size = 1 if settings.options == ("alone",) else GANG_SIZE
        guests = rig.boot_all([GuestSpec.writer(f"d{index}", BUSY) for index in range(size)],
                              ticks=4)
        frozen = [guest.freeze(settings.scratch / f"{guest.spec.name}.stream")
                  for guest in guests]
        rig.link.cap(LINK_BYTES_PER_SECOND)
        relays = Relays(rig, settings.scratch / "relays")
        if not settings.options or "alone" in settings.options:
            for index in range(pairs):
                _pair(rig, relays, frozen[0], index, cases)
                settings.keep(cases)
        if not settings.options or "gang" in settings.options:
            for number in range(gangs):
                _gang(rig, relays, frozen, number, cases)
                settings.keep(cases)
        relays.stop()
    return cases


def _named(frozen: Frozen, name: str) -> Frozen:
    """Return the state under another name: another server, of the same content."""
    return dataclasses.replace(frozen, spec=dataclasses.replace(frozen.spec, name=name))


def _group(relays: Relays, states: list[Frozen], **changes) -> str:
    return relays.open([(state.spec.uuid, "host") for state in states],
                       link_bytes_per_second=LINK_BYTES_PER_SECOND, **changes)


def _move(rig: Rig, states: list[Frozen]) -> list[dict]:
    """Restore guests, let them live, migrate them at once; return the facts of each."""
    guests = [rig.restore(state) for state in states]
    time.sleep(LIVES_SECONDS)
    migrations = rig.migrate(*[Move(guest, nova=Nova(MigrationOptions())) for guest in guests])
    facts = []
    for migration in migrations:
        resumed = migration.guest.qmp.event("RESUME")
        facts.append(migration.facts() | {"resumed_at": resumed,
                                          "running": migration.guest.running()})
    for migration in migrations:
        migration.guest.end()
    return facts


def _pair(rig: Rig, relays: Relays, frozen: Frozen, index: int, cases: list[dict]) -> None:
    tag = uuid.uuid4().hex[:6]
    # without an open group no migration sees a relay
    cases.append(_alone_case("plain", index, _move(rig, [_named(frozen, f"plain-{tag}")])))
    states = [_named(frozen, f"{name}-{tag}") for name in ("teacher", "relayed")]
    group = _group(relays, states)
    # the first teaches the dictionary what the other holds, and does not count
    _move(rig, states[:1])
    cases.append(_alone_case("relay", index, _move(rig, states[1:])))
    statistics = relays.close(group)
    cases[-1]["relay"] = statistics["servers"][states[1].spec.uuid]


def _alone_case(way: str, index: int, facts: list[dict]) -> dict:
    shell.say(f"{way} {index}: {facts[0]['status']} {facts[0]['total_seconds']} s, "
              f"downtime {facts[0]['downtime_seconds']} s")
    return {"kind": "alone", "way": way, "run": index, "through": "qemu",
            "link_bytes_per_second": LINK_BYTES_PER_SECOND, **facts[0]}


def _gang(rig: Rig, relays: Relays, frozen: list[Frozen], number: int, cases: list[dict]) -> None:
    tag = uuid.uuid4().hex[:6]
    for kind in ("gang", "crowd"):
        states = [_named(state, f"{kind}-{tag}-{index}") for index, state in enumerate(frozen)]
        ids = [state.spec.uuid for state in states]
        group = _group(relays, states, synchronized=[ids] if kind == "gang" else [])
        facts = _move(rig, states)
        relays.close(group)
        cases.append({"kind": kind, "run": number, "through": "qemu", "members": facts})
        shell.say(f"{kind} {number}: " + ", ".join(
            f"{each['status']} {each['downtime_seconds']} s" for each in facts))


def _alone(cases, way: str) -> np.ndarray:
    return np.array([case["downtime_seconds"] for case in cases
                     if case["kind"] == "alone" and case["way"] == way
                     and case["status"] == "completed"])


def _gangs(cases) -> list[list[dict]]:
    return [case["members"] for case in cases if case["kind"] == "gang"
            and all(each["status"] == "completed" for each in case["members"])]


def measured(cases) -> dict:
    """Return what the relay adds; a run that did not complete leaves its figure unmeasured."""
    figures = {}
    plain, relay = _alone(cases, "plain"), _alone(cases, "relay")
    runs = sum(case["kind"] == "alone" for case in cases)
    if runs and len(plain) + len(relay) == runs:
        figures = {"added_seconds_median": float(np.median(relay) - np.median(plain)),
                   "added_seconds_worst": float(relay.max() - plain.max()),
                   "plain_median": float(np.median(plain)), "plain_worst": float(plain.max()),
                   "relay_median": float(np.median(relay)), "relay_worst": float(relay.max())}
    gangs = _gangs(cases)
    if gangs and len(gangs) == sum(case["kind"] == "gang" for case in cases):
        figures["gang_skew_seconds"] = float(np.median([_skew(each) for each in gangs]))
        crowd = [each["downtime_seconds"] for case in cases if case["kind"] == "crowd"
                 for each in case["members"] if each["status"] == "completed"]
        alone = float(np.median(relay if len(relay) else crowd)) if len(relay) or crowd else None
        if alone is not None:
            figures["gang_added_pause_seconds"] = max(
                member["downtime_seconds"] for each in gangs for member in each) - alone
    return figures


def _skew(members: list[dict]) -> float:
    moments = [each["resumed_at"] for each in members]
    return max(moments) - min(moments)


def intervals(cases) -> dict:
    """Return 95 % intervals of the median difference and of the median skew."""
    told = {}
    plain, relay = _alone(cases, "plain"), _alone(cases, "relay")
    if len(plain) > 1 and len(plain) == len(relay):
        # runs were made by turns: what disturbs one disturbs its neighbour
        told["added_seconds_median"] = contract.bootstrap(relay - plain)
    if len(gangs := _gangs(cases)) > 1:
        told["gang_skew_seconds"] = contract.bootstrap([_skew(each) for each in gangs])
    return told
