"""Downtime of a busy guest with and without the relay, and the skew of a synchronized set.

`alone` goes through Nova on the lab, on a link capped by tc: a busy guest migrates by itself
without a relay, and by turns as the second of a batch of two equal ones, so that dedup is at its
highest rate; the figures are those of `virsh domjobinfo --completed` at its destination. `gang`:
sets of four such guests, the moments those of libvirt's *Resumed* events; beside each set one of
its members moves through a relay alone. These are the words for --only.
"""
import contextlib
import time

import numpy as np
from nbmlab import check, guests, shell
from nbmlab.families import FAMILIES, Family, Load
from nbmlab.guests import Guest

from nbmbench import cloud, contract, sets
from nbmbench.contract import Goal, Settings

NEEDS = "lab"
GOALS = {
    "added_seconds_median": Goal("<=", 0.010), "added_seconds_worst": Goal("<=", 0.050),
    "gang_skew_seconds": Goal("<=", 0.050), "gang_added_pause_seconds": Goal("<=", 0.100),
}
LINK_BYTES_PER_SECOND = 300e6 / 8
BUSY = Load(32, 1500)
FAMILY = Family("busy", "6.1", "small", 256, BUSY)
PAIRS, GANGS, GANG_SIZE = 20, 5, 4
#: Between two migrations of a guest.
LIVES_SECONDS = 1.0


def run(settings: Settings) -> list[dict]:
    """Migrate the same busy guest by turns with and without relays, then sets of four."""
    cases: list[dict] = []
    if not settings.options or "alone" in settings.options:
        _alone(settings, cases)
    if not settings.options or "gang" in settings.options:
        _sets(settings, cases)
    return cases


# ---- a guest alone, through Nova ---------------------------------------------------------------

def _alone(settings: Settings, cases: list[dict]) -> None:
    """Migrate there and back without a relay, then there and back with one, and so on."""
    FAMILIES[FAMILY.name] = FAMILY
    with cloud.lab(link_mib_per_second=LINK_BYTES_PER_SECOND / (1 << 20)):
        both = cloud.boot([(FAMILY.name, f"downtime-{index}") for index in range(2)])
        with _checked(both, cases):
            for index in range(0, 2 if settings.quick else PAIRS, 2):
                for at in (index, index + 1):
                    _case(cases, "plain", at, both[0], _plain(both[0]))
                for at in (index, index + 1):
                    _relayed(both, at, cases)
                settings.keep(cases)


@contextlib.contextmanager
def _checked(members: list[Guest], cases: list[dict]):
    """Say of the cases added meanwhile whether all guests are whole behind them."""
    before = check.snapshot([guest.id for guest in members])
    began = len(cases)
    try:
        yield
    finally:
        whole, not_whole = cloud.whole(before)
        for case in cases[began:]:
            case.update(whole=whole == len(members), not_whole=not_whole)


def _plain(guest: Guest) -> str:
    destination = cloud.other(cloud.place(guest))
    guests.migrate(guest, destination)
    return destination


def _relayed(both: list[Guest], index: int, cases: list[dict]) -> None:
    """Move both as one batch; the case is of the one that the relay carried behind the other."""
    told = cloud.batch(both)
    if told["status"] != "completed":
        raise shell.LabError(f"batch migration {told['id']} ended as {told['status']}")
    last = max(told["servers"], key=lambda each: each["order"])
    guest = next(each for each in both if each.id == last["id"])
    _case(cases, "relay", index, guest, last["destination"], relay=last["relay"],
          wire_bytes=last["wire_bytes"])


def _case(cases: list[dict], way: str, index: int, guest: Guest, host: str, **facts) -> None:
    job = cloud.completed_job(guest, host)
    cases.append({"kind": "alone", "way": way, "run": index, "through": "nova",
                  "link_bytes_per_second": LINK_BYTES_PER_SECOND, "guest": guest.name,
                  "status": "completed", "downtime_seconds": job["downtime"] / 1000,
                  "total_seconds": job["time_elapsed"] / 1000, "job": job, **facts})
    shell.say(f"{way} {index}: {job['time_elapsed'] / 1000} s, downtime {job['downtime']} ms")
    time.sleep(LIVES_SECONDS)


# ---- sets of four, through Nova ----------------------------------------------------------------

def _sets(settings: Settings, cases: list[dict]) -> None:
    """Move four together, one of them back through a relay alone, the others as Nova does it."""
    FAMILIES[FAMILY.name] = FAMILY
    with cloud.lab(link_mib_per_second=LINK_BYTES_PER_SECOND / (1 << 20),
                   max_live_migrations=GANG_SIZE):
        members = cloud.boot([(FAMILY.name, f"together-{index}") for index in range(GANG_SIZE)])
        with _checked(members, cases):
            for number in range(1 if settings.quick else GANGS):
                _set(members, number, cases)
                settings.keep(cases)


def _set(members: list[Guest], number: int, cases: list[dict]) -> None:
    facts = sets.move(members)
    cases.append({"kind": "gang", "run": number, "through": "nova",
                  "link_bytes_per_second": LINK_BYTES_PER_SECOND, "members": facts})
    shell.say(f"set {number}: {_skew(facts) * 1000:.0f} ms apart, downtimes " + ", ".join(
        f"{each['downtime_seconds'] * 1000:.0f} ms" for each in facts))
    time.sleep(LIVES_SECONDS)
    alone, *others = members[number % len(members):] + members[:number % len(members)]
    cloud.enable()
    back = cloud.other(cloud.place(alone))
    told = cloud.batch([alone])
    if told["status"] != "completed":
        raise shell.LabError(f"batch migration {told['id']} ended as {told['status']}")
    _case(cases, "single", number, alone, back, relay=told["servers"][0]["relay"])
    for guest in others:
        guests.migrate(guest, back)


def _of_way(cases, way: str) -> np.ndarray:
    return np.array([case["downtime_seconds"] for case in cases
                     if case["kind"] == "alone" and case["way"] == way
                     and case["status"] == "completed"])


def _gangs(cases) -> list[list[dict]]:
    return [case["members"] for case in cases if case["kind"] == "gang"
            and all(each["status"] == "completed" for each in case["members"])]


def measured(cases) -> dict:
    """Return what the relay adds; a run that did not complete leaves its figure unmeasured."""
    figures = {}
    plain, relay = _of_way(cases, "plain"), _of_way(cases, "relay")
    runs = sum(case["kind"] == "alone" and case["way"] != "single" for case in cases)
    if runs and len(plain) + len(relay) == runs:
        figures = {"added_seconds_median": float(np.median(relay) - np.median(plain)),
                   "added_seconds_worst": float(relay.max() - plain.max()),
                   "plain_median": float(np.median(plain)), "plain_worst": float(plain.max()),
                   "relay_median": float(np.median(relay)), "relay_worst": float(relay.max())}
    gangs = _gangs(cases)
    if gangs and len(gangs) == sum(case["kind"] == "gang" for case in cases):
        figures["gang_skew_seconds"] = float(np.median([_skew(each) for each in gangs]))
        pauses = [member["downtime_seconds"] for each in gangs for member in each]
        figures |= {"gang_skew_worst": max(_skew(each) for each in gangs),
                    "gang_pause_median": float(np.median(pauses)), "gang_pause_worst": max(pauses)}
        # guests of the same kind, each by itself
        single = _of_way(cases, "single")
        alone = single if len(single) else relay
        if len(alone):
            figures["gang_added_pause_seconds"] = max(pauses) - float(np.median(alone))
    return figures


def missing(cases) -> list[str]:
    """Return the runs that are left of those that the goals ask for."""
    left = {f"{way} runs through Nova": PAIRS - sum(
        case["kind"] == "alone" and case["way"] == way and case["through"] == "nova"
        and case.get("whole", False) for case in cases) for way in ("plain", "relay")}
    left["synchronized sets through Nova"] = GANGS - len(
        _gangs(case for case in cases if case.get("through") == "nova" and case.get("whole")))
    return [f"{count} {what}" for what, count in left.items() if count > 0]


def _skew(members: list[dict]) -> float:
    moments = [each["resumed_at"] for each in members]
    return max(moments) - min(moments)


def intervals(cases) -> dict:
    """Return 95 % intervals of the median difference and of the median skew."""
    told = {}
    plain, relay = _of_way(cases, "plain"), _of_way(cases, "relay")
    if len(plain) > 1 and len(plain) == len(relay):
        # runs were made by turns: what disturbs one disturbs its neighbour
        told["added_seconds_median"] = contract.bootstrap(relay - plain)
    if len(gangs := _gangs(cases)) > 1:
        told["gang_skew_seconds"] = contract.bootstrap([_skew(each) for each in gangs])
    return told
