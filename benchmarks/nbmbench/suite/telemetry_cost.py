"""What measuring costs: a busy guest's own progress, the agent's memory, the time a batch waits.

A guest of the rig writes as fast as it can and counts what it wrote. Pairs of windows alternate: in
one of them the agent measures it and its neighbours, the whole pass at the rate of production, in
the other it does not; which of both comes first is drawn. A synthetic host of 100 guests of 4 GiB
tells the memory of the scan and how long migrations wait for it on a link of 1 Gbit/s.
"""
import dataclasses
import json
import os
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time

import numpy
from nbmlab.families import Load

from nbmbench import contract, synthetic_host
from nbmbench.rig import Guest, GuestSpec, Rig
from nova_batch_migrate import conf as configuration
from nova_batch_migrate import privsep
from nova_batch_migrate.agent import measurement, scan

NEEDS = "lab"
GOALS = {"slowdown": contract.Goal("<=", 0.01),
         "idle_share": contract.Goal("<=", 0.05),
         "agent_bytes": contract.Goal("<=", 200 << 20)}
MIB = 1 << 20
#: More than any of these machines can write: the guest's processor is never idle.
SATURATING = Load(working_set_mib=64, pages_per_second=800_000, bytes_per_write=4096)
STILL = Load(working_set_mib=700, pages_per_second=0, compressible=True)
SETTLE_SECONDS = 20
#: The least share of raw bytes that a relay was seen to send: the shortest batch, the hardest case.
WIRE_SHARE = 0.16
GOODPUT_BYTES_PER_SECOND = 117.5e6
#: As few as the slowdown's goal takes.
PAIRS = 30
HOST = {"guests": 100, "memory_bytes": 4 << 30}


def run(settings: contract.Settings) -> list[dict]:
    """Measure; options: "host" or "pairs" for one part, pairs=N, from=FILE to go on from."""
    words = dict(word.partition("=")[::2] for word in settings.options)
    cases = json.loads(pathlib.Path(words["from"]).read_text())["cases"] if "from" in words else []
    both = not {"host", "pairs"} & words.keys()
    if both or "host" in words:
        cases.append(_host())
    if both or "pairs" in words:
        count = int(words.get("pairs") or (2 if settings.quick else PAIRS))
        chance = settings.held_out(f"order {len(cases)}")
        cases += _pairs(settings, count, chance, cases)
    return cases


def measured(cases: list[dict]) -> dict:
    """Return the mean slowdown over the pairs, and the synthetic host's figures."""
    slowdowns, hosts = _slowdowns(cases), [case for case in cases if case["case"] == "host"]
    found = {"pairs": len(slowdowns)}
    if slowdowns:
        found["slowdown"] = float(numpy.mean(slowdowns))
    if hosts:
        batch = min(case["batch_seconds"] for case in hosts)
        found["idle_share"] = max(case["seconds"] for case in hosts) / batch
        found["agent_bytes"] = max(case["scan_peak_bytes"] + case["agent_peak_bytes"]
                                   for case in hosts)
    return found


def missing(cases: list[dict]) -> list[str]:
    """Return the pairs that are left of those that the goal asks for."""
    left = PAIRS - len(_slowdowns(cases))
    return [f"{left} pairs"] if left > 0 else []


def intervals(cases: list[dict]) -> dict:
    """Return the 95 % interval of the mean slowdown."""
    slowdowns = _slowdowns(cases)
    return {"slowdown": contract.bootstrap(slowdowns, numpy.mean)} if len(slowdowns) > 1 else {}


def _slowdowns(cases: list[dict]) -> list[float]:
    return [1 - case["measured_pages_per_second"] / case["unmeasured_pages_per_second"]
            for case in cases if case["case"] == "pair"]


def _pairs(settings: contract.Settings, count: int, chance: random.Random,
           before: list[dict]) -> list[dict]:
    privsep.memory_pctxt.set_client_mode(False)
    with Rig(settings.scratch / "rig") as rig:
        guests = rig.boot_all([
            GuestSpec.writer("busy", SATURATING),
            GuestSpec.writer("still1", STILL, memory_mib=1024),
            GuestSpec.writer("still2", STILL, memory_mib=1024, kernel="6.12")])
        time.sleep(SETTLE_SECONDS)
        cases = []
        for number in range(count):
            first_measured = chance.random() < 0.5
            case = {"case": "pair", "pair": number, "measured_first": first_measured}
            for is_measured in (first_measured, not first_measured):
                case |= _window(guests, is_measured, case.get("seconds"))
            cases.append(case)
            settings.keep([*before, *cases])
        return cases


def _window(guests: list[Guest], is_measured: bool, seconds: float | None) -> dict:
    """Watch the busy guest for one pass, or as long without one; return its progress."""
    busy, begun = guests[0], time.monotonic()
    before = busy.last_tick().tick
    found = {}
    if is_measured:
        found["scan"] = _pass(guests)
    else:
        time.sleep(seconds or _usual_seconds())
    took = time.monotonic() - begun
    # whole ticks inside of the window only
    inside = [tick for tick in busy.ticks() if tick.tick > before]
    done = inside[-1].wrote_pages - inside[0].wrote_pages
    rate = done / (inside[-1].up_seconds - inside[0].up_seconds)
    if rate > 0.9 * SATURATING.pages_per_second:
        raise RuntimeError(f"the guest wrote all it was asked to, {rate:.0f} pages/s: a slowdown "
                           "could not be seen; ask for more")
    name = "measured" if is_measured else "unmeasured"
    return found | {"seconds": took, f"{name}_ticks": len(inside),
                    f"{name}_pages_per_second": rate}


def _usual_seconds() -> float:
    return max(_configuration().conductor.measure_windows_seconds) + 3.0


def _pass(guests: list[Guest]) -> dict:
    """Measure as the agent does for a conductor, but for libvirt and the process's border."""
    conf = _configuration()
    servers = []
    with tempfile.TemporaryDirectory() as directory:
        for guest in guests:
            pid_file = pathlib.Path(directory) / f"{guest.spec.name}.pid"
            pid_file.write_text(str(guest.pid))
            servers.append({"id": guest.spec.uuid, "pid_file": str(pid_file),
                            "blocks_bytes": [guest.spec.memory_bytes]})
        before = os.times()
        found = scan.measure("benchmark", servers, list(conf.conductor.measure_windows_seconds),
                             _settings(conf))
        after = os.times()
    for server in found["servers"]:
        if "error" in server:
            raise RuntimeError(f"{server['id']} was not measured: {server['error']}")
    return {"cpu_seconds": after.user + after.system - before.user - before.system,
            "present_bytes": 4096 * sum(server["present_pages"] for server in found["servers"]),
            "tracked_share": min(server["tracked_share"] for server in found["servers"])}


def _host() -> dict:
    """Scan the synthetic host, in a process of its own, with the defaults of production."""
    conf = _configuration()
    asked = HOST | {"windows_seconds": list(conf.conductor.measure_windows_seconds),
                    "settings": {**_settings(conf), "seconds": conf.conductor.measure_seconds}}
    for own in ("seed", "sketch_key"):
        asked["settings"].pop(own)
    told = subprocess.run([sys.executable, "-m", synthetic_host.__name__, json.dumps(asked)],
                          stdout=subprocess.PIPE, check=True, text=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}).stdout
    found = json.loads(told.splitlines()[-1])
    wire = HOST["guests"] * HOST["memory_bytes"] * WIRE_SHARE
    return {"case": "host", **HOST, **found, "scan_peak_bytes": found["peak_bytes"],
            "agent_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "wire_share": WIRE_SHARE, "batch_seconds": wire / GOODPUT_BYTES_PER_SECOND}


def _settings(conf) -> dict:
    return dataclasses.asdict(scan.Settings(
        seed=7, page_budget=conf.agent.page_budget,
        read_bytes_per_second=conf.agent.read_mib_s * measurement.MIB))


def _configuration():
    conf = configuration.new()
    conf([], project="nova-batch-migrate", default_config_files=[])
    return conf
