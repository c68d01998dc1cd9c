"""Downtime of a busy guest with and without the relay, and the skew of a synchronized set.

`alone` goes through Nova on the lab, on a link capped by tc: a busy guest migrates by itself
without a relay, and by turns in a batch of four equal ones, which go one after the other; those
behind the first count, so that dedup is at its highest rate. The figures are those of `virsh
domjobinfo --completed` at the destination. `gang`: sets of four such guests, the moments those of
libvirt's *Resumed* events; beside each set one of its members moves through a relay alone, and
comes back without. What moves without a set is not measured first. Sets go by turns while the
hosts' own threads go first (hosts_first.py), to which the goals of sets are held, and `crowded`:
while they wait for a processor as guests and Nova's services do. Words for --only: these three,
and `seconds=N`: with the guests booted, begin nothing new after so long (what is left out then
makes the next part, for --merge).
"""
import contextlib
import functools
import math
import time
from collections.abc import Sequence

import numpy as np
from nbmlab import check, shell
from nbmlab.families import FAMILIES, Family, Load
from nbmlab.guests import Guest

from nbmbench import cloud, contract, hosts_first, sets
from nbmbench.contract import Goal, Settings

NEEDS = "lab"
GOALS = {
    "added_seconds_median": Goal("<=", 0.010), "added_seconds_worst": Goal("<=", 0.050),
    "gang_skew_seconds": Goal("<=", 0.050), "gang_added_pause_seconds": Goal("<=", 0.100),
}
LINK_BYTES_PER_SECOND = 300e6 / 8
BUSY = Load(32, 1500)
FAMILY = Family("busy", "6.1", "small", 256, BUSY)
PAIRS, GANGS = 20, 5
#: The same guests for all parts. Of a batch of `alone` all but the first are runs.
SIZE = 4
#: Between two migrations of a guest.
LIVES_SECONDS = 1.0


def run(settings: Settings) -> list[dict]:
    """Migrate the same busy guest by turns with and without relays, then sets of four."""
    cases: list[dict] = []
    limits = [float(word.removeprefix("seconds=")) for word in settings.options
              if word.startswith("seconds=")]
    seconds = limits[0] if limits else math.inf
    parts = {"alone": _alone, "gang": functools.partial(_sets, first=(True, False)),
             "crowded": functools.partial(_sets, first=(False,))}
    for name in [name for name in parts if name in settings.options] or ("alone", "gang"):
        parts[name](settings, seconds, cases)
    return cases


# ---- a guest alone, through Nova ---------------------------------------------------------------

def _alone(settings: Settings, seconds: float, cases: list[dict]) -> None:
    """Migrate so many times without a relay, as many times with one, and so on."""
    at_once = SIZE - 1
    with _guests() as batch, _checked(batch, cases):
        end = time.monotonic() + seconds
        done = 0
        for first in range(0, at_once if settings.quick else PAIRS, at_once):
            if time.monotonic() > end:
                return
            # it leaves the others, and comes back: an even number, with those beside sets at
            # least as many as relayed
            wanted = 2 * math.ceil((first + at_once) * (1 - GANGS / PAIRS) / 2)
            for index in range(done, wanted):
                _case(cases, "plain", index, batch[0], _plain(batch[0]))
            done = wanted
            _relayed(batch, first, cases)
            settings.keep(cases)


@contextlib.contextmanager
def _guests():
    """Bring the lab up, and the guests on one host of it."""
    FAMILIES[FAMILY.name] = FAMILY
    with cloud.lab(link_mib_per_second=LINK_BYTES_PER_SECOND / (1 << 20),
                   max_live_migrations=SIZE):
        yield cloud.boot([(FAMILY.name, f"downtime-{index}") for index in range(SIZE)])


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
    cloud.migrate(guest, destination)
    return destination


def _relayed(batch: list[Guest], first: int, cases: list[dict]) -> None:
    """Move a batch one by one; a case of each that the relay carried behind another."""
    cloud.enable()
    told = cloud.batch(batch, max_parallel=1, urgent=True)
    _, *behind = sorted(told["servers"], key=lambda each: each["order"])
    for index, server in enumerate(behind, first):
        guest = next(each for each in batch if each.id == server["id"])
        _case(cases, "relay", index, guest, server["destination"], relay=_carried(server),
              raw_bytes=server["raw_bytes"], wire_bytes=server["wire_bytes"],
              attempts=server["attempts"])


def _carried(server: dict) -> dict:
    """Return what the relay saved on a server; LabError where none carried it."""
    if not server["relay"]:
        raise shell.LabError(f"no relay carried {server['name']}")
    return server["relay"]


def _case(cases: list[dict], way: str, index: int, guest: Guest, host: str, **facts) -> None:
    job = cloud.completed_job(guest, host)
    cases.append({"kind": "alone", "way": way, "run": index, "through": "nova",
                  "link_bytes_per_second": LINK_BYTES_PER_SECOND, "guest": guest.name,
                  "status": "completed", "downtime_seconds": job["downtime"] / 1000,
                  "total_seconds": job["time_elapsed"] / 1000, "job": job, **facts})
    shell.say(f"{way} {index}: {job['time_elapsed'] / 1000} s, downtime {job['downtime']} ms")
    time.sleep(LIVES_SECONDS)


# ---- sets of four, through Nova ----------------------------------------------------------------

def _sets(settings: Settings, seconds: float, cases: list[dict], first: Sequence[bool]) -> None:
    """Move four together, then one of them through a relay alone, and so on, to and fro.

    By turns with the hosts' threads `first` and not, or only so.
    """
    with _guests() as members, _checked(members, cases):
        end = time.monotonic() + seconds
        for number in range(1 if settings.quick else GANGS):
            for hosts in first:
                if time.monotonic() > end:
                    return
                with hosts_first.scheduled(hosts):
                    _set(members, number, cases, hosts_first=hosts)
                settings.keep(cases)


def _set(members: list[Guest], number: int, cases: list[dict], **how) -> None:
    facts = sets.move(members)
    cases.append({"kind": "gang", "run": number, "through": "nova",
                  "link_bytes_per_second": LINK_BYTES_PER_SECOND, "members": facts, **how})
    shell.say(f"set {number}: {_skew(facts) * 1000:.0f} ms apart, downtimes " + ", ".join(
        f"{each['downtime_seconds'] * 1000:.0f} ms" for each in facts))
    time.sleep(LIVES_SECONDS)
    alone = members[number % len(members)]
    here = cloud.place(alone)
    cloud.enable()
    server, = cloud.batch([alone], urgent=True)["servers"]
    _case(cases, "single", number, alone, server["destination"], relay=_carried(server),
          attempts=server["attempts"], **how)
    cloud.migrate(alone, here)
    _case(cases, "plain", PAIRS + number, alone, here, **how)


def _so(cases, first: bool) -> list[dict]:
    """Return the cases of which the hosts' own threads went first, or did not."""
    return [case for case in cases if case.get("hosts_first", False) is first]


def _of_way(cases, way: str) -> np.ndarray:
    """Return the downtimes of a way, those beside sets last."""
    of_way = [case for case in cases if case["kind"] == "alone" and case["way"] == way
              and case["status"] == "completed"]
    return np.array([case["downtime_seconds"] for case in sorted(of_way, key=_run)])


def _run(case: dict) -> int:
    return case["run"]


def _gangs(cases) -> list[list[dict]]:
    return [case["members"] for case in cases if case["kind"] == "gang"
            and all(each["status"] == "completed" for each in case["members"])]


def measured(cases) -> dict:
    """Return what the relay adds; a run that did not complete leaves its figure unmeasured."""
    figures, as_it_is = {}, _so(cases, False)
    plain, relay = _of_way(as_it_is, "plain"), _of_way(as_it_is, "relay")
    runs = sum(case["kind"] == "alone" and case["way"] != "single" for case in as_it_is)
    if len(plain) and len(relay) and len(plain) + len(relay) == runs:
        figures = {"added_seconds_median": float(np.median(relay) - np.median(plain)),
                   "added_seconds_worst": float(relay.max() - plain.max()),
                   "plain_median": float(np.median(plain)), "plain_worst": float(plain.max()),
                   "relay_median": float(np.median(relay)), "relay_worst": float(relay.max())}
    crowded = {f"crowded_{name}": figure for name, figure in _of_sets(as_it_is).items()}
    return figures | _of_sets(_so(cases, True)) | crowded


def _of_sets(cases) -> dict:
    """Return the figures of sets and of what moved alone beside them."""
    gangs = _gangs(cases)
    if not gangs or len(gangs) != sum(case["kind"] == "gang" for case in cases):
        return {}
    skews = [_skew(each) for each in gangs]
    pauses = [member["downtime_seconds"] for each in gangs for member in each]
    figures = {"gang_skew_seconds": float(np.median(skews)), "gang_skew_worst": max(skews),
               "gang_pause_median": float(np.median(pauses)), "gang_pause_worst": max(pauses)}
    # guests of the same kind, each by itself
    if len(single := _of_way(cases, "single")):
        figures |= {"gang_single_median": float(np.median(single)),
                    "gang_added_pause_seconds": max(pauses) - float(np.median(single))}
    return figures


def missing(cases) -> list[str]:
    """Return the runs that are left of those that the goals ask for."""
    left = {f"{way} runs through Nova": PAIRS - sum(
        case["kind"] == "alone" and case["way"] == way and case["through"] == "nova"
        and case.get("whole", False) for case in cases) for way in ("plain", "relay")}
    for words, first in (("", True), (" on crowded processors", False)):
        left[f"synchronized sets through Nova{words}"] = GANGS - len(_gangs(
            case for case in _so(cases, first)
            if case.get("through") == "nova" and case.get("whole")))
    return [f"{count} {what}" for what, count in left.items() if count > 0]


def _skew(members: list[dict]) -> float:
    moments = [each["resumed_at"] for each in members]
    return max(moments) - min(moments)


def intervals(cases) -> dict:
    """Return 95 % intervals of the median difference and of the median skew."""
    told, as_it_is = {}, _so(cases, False)
    plain, relay = _of_way(as_it_is, "plain"), _of_way(as_it_is, "relay")
    if (pairs := min(len(plain), len(relay))) > 1:
        # runs were made by turns: what disturbs one disturbs its neighbour
        told["added_seconds_median"] = contract.bootstrap(relay[:pairs] - plain[:pairs])
    for words, first in (("", True), ("crowded_", False)):
        if len(gangs := _gangs(_so(cases, first))) > 1:
            told[f"{words}gang_skew_seconds"] = contract.bootstrap(
                [_skew(each) for each in gangs])
    return told
