"""What measuring costs: a busy guest's own progress, the agent's memory, the time a batch waits.

A guest of the rig writes as fast as it can. The agent passes over it and its neighbours, again and
again, whole passes at the rate of production; at the edges of short windows it is held where it is,
and goes on a window later as if no time had passed. So windows in which it measures and windows in
which it does not alternate, in pairs whose order is drawn, close enough that a machine whose own
speed drifts is the same one in both; and the measured windows together are whole passes, with each
phase as long as it is. The guest's progress is read from its memory. A synthetic host of 100 guests
of 4 GiB tells the memory of the scan and how long migrations wait for it on a link of 1 Gbit/s.
"""
import dataclasses
import json
import math
import os
import pathlib
import random
import resource
import subprocess
import sys
import time

import numpy
from nbmlab.families import Load

from nbmbench import contract, passes, synthetic_host
from nbmbench.rig import Guest, GuestSpec, Rig, progress
from nova_batch_migrate import conf as configuration
from nova_batch_migrate.agent import measurement, scan

NEEDS = "lab"
GOALS = {"slowdown": contract.Goal("<=", 0.01),
         "idle_share": contract.Goal("<=", 0.05),
         "agent_bytes": contract.Goal("<=", 200 << 20)}
MIB = 1 << 20
#: More than any of these machines can write: the guest's processor is never idle.
SATURATING = Load(working_set_mib=64, pages_per_second=32_000_000, bytes_per_write=4096)
STILL = Load(working_set_mib=700, pages_per_second=0, compressible=True)
SETTLE_SECONDS = 20
#: The least share of raw bytes that a relay was seen to send: the shortest batch, the hardest case.
WIRE_SHARE = 0.16
GOODPUT_BYTES_PER_SECOND = 117.5e6
#: As few as the slowdown's goal takes.
PAIRS = 30
#: A piece of a pass between two holds, and of each window's begin what is dropped. A machine whose
#: processors others share halves a guest's speed for some seconds at any moment: the shorter the
#: windows, the fewer pairs such a moment lies within.
WINDOW_SECONDS = 0.05
EDGE_SECONDS = 0.005
PAIRS_SECONDS, QUICK_SECONDS = 690, 10
#: A window in which the agent's processor is busy for so much of the time is one of reading.
AT_WORK_SHARE = 0.5
HOST = {"guests": 100, "memory_bytes": 4 << 30}


def run(settings: contract.Settings) -> list[dict]:
    """Measure; options: "host" or "pairs" for one part, pairs=SECONDS, from=FILE to go on from."""
    words = dict(word.partition("=")[::2] for word in settings.options)
    cases = json.loads(pathlib.Path(words["from"]).read_text())["cases"] if "from" in words else []
    both = not {"host", "pairs"} & words.keys()
    if both or "host" in words:
        cases.append(_host())
    if both or "pairs" in words:
        seconds = float(words.get("pairs") or (QUICK_SECONDS if settings.quick else PAIRS_SECONDS))
        chance = settings.held_out(f"order {len(cases)}")
        cases += _pairs(settings, seconds, chance, cases)
    return cases


def measured(cases: list[dict]) -> dict:
    """Return the slowdown over whole passes, of the kind that slows more, and the host's figures.

    Told beside: each kind's, and that of the windows in which the agent was busy.
    """
    chosen, hosts = _chosen(cases), [case for case in cases if case["case"] == "host"]
    found = {"pairs": sum(len(chosen[kind]) for kind in passes.KINDS)}
    for name, pairs in chosen.items():
        if pairs:
            found |= {f"pairs_{name}": len(pairs), f"slowdown_{name}": _slowdown(pairs),
                      f"agent_cpu_share_{name}": float(numpy.mean(
                          [_cpu_share(pair) for pair in pairs])),
                      f"read_bytes_per_second_{name}":
                          sum(pair["measured"]["read_bytes"] for pair in pairs)
                          / sum(pair["measured"]["seconds"] for pair in pairs)}
    if all(chosen[kind] for kind in passes.KINDS):
        found["slowdown"] = max(found[f"slowdown_{kind}"] for kind in passes.KINDS)
    if hosts:
        batch = min(case["batch_seconds"] for case in hosts)
        found["idle_share"] = max(case["seconds"] for case in hosts) / batch
        found["agent_bytes"] = max(case["scan_peak_bytes"] + case["agent_peak_bytes"]
                                   for case in hosts)
    return found


def missing(cases: list[dict]) -> list[str]:
    """Return the pairs that are left of those that the goal asks for."""
    chosen = _chosen(cases)
    return [f"{PAIRS - len(chosen[kind])} pairs of windows in whole passes: {kind}"
            for kind in passes.KINDS if len(chosen[kind]) < PAIRS]


def intervals(cases: list[dict]) -> dict:
    """Return the 95 % intervals; drawn are whole passes, whose windows are not independent."""
    found = {}
    for name, pairs in _chosen(cases).items():
        by_pass: dict[tuple, list[float]] = {}
        for pair in pairs:
            by_pass.setdefault((pair["run"], pair["pass"]), []).append(_log_ratio(pair))
        if len(by_pass) > 1:
            sums = numpy.array([(sum(values), len(values)) for values in by_pass.values()])
            found[f"slowdown_{name}"] = contract.bootstrap(
                range(len(sums)),
                lambda drawn, sums=sums: 1 - math.exp(-numpy.divide(
                    *sums[drawn.astype(int)].sum(axis=0))))
    kinds = [found.get(f"slowdown_{kind}") for kind in passes.KINDS]
    if all(kinds):
        found["slowdown"] = tuple(max(ends) for ends in zip(*kinds, strict=True))
    return found


def _chosen(cases: list[dict]) -> dict[str, list[dict]]:
    """Return the pairs of each kind of pass, and those of either in which the agent was at work.

    Only those of passes that came to their end: phases have their weight only there.
    """
    kinds = {(case["run"], case["pass"]): case["kind"] for case in cases if case["case"] == "pass"}
    pairs = [(kinds.get((case["run"], case["pass"])), case)
             for case in cases if case["case"] == "pair"]
    return {kind: [pair for of, pair in pairs if of == kind] for kind in passes.KINDS} | {
        "at_work": [pair for of, pair in pairs if of and _cpu_share(pair) >= AT_WORK_SHARE]}


def _log_ratio(pair: dict) -> float:
    """Return how much faster the guest is unmeasured, as a logarithm: no side of it is favoured."""
    rates = [pair[name]["pages"] / pair[name]["seconds"] for name in ("unmeasured", "measured")]
    return math.log(rates[0] / rates[1])


def _slowdown(pairs: list[dict]) -> float:
    return 1 - math.exp(-numpy.mean([_log_ratio(pair) for pair in pairs]))


def _cpu_share(pair: dict) -> float:
    return pair["measured"]["agent_cpu_seconds"] / pair["measured"]["seconds"]


def _pairs(settings: contract.Settings, seconds: float, chance: random.Random,
           before: list[dict]) -> list[dict]:
    run = 1 + max((case["run"] for case in before if case["case"] == "pair"), default=0)
    with Rig(settings.scratch / "rig") as rig:
        guests = [rig.boot(spec) for spec in (
            GuestSpec.writer("busy", SATURATING),
            GuestSpec.writer("still1", STILL, memory_mib=1024),
            GuestSpec.writer("still2", STILL, memory_mib=1024, kernel="6.12"))]
        for guest in guests[1:]:
            guest.wait_ticks()
        watch = Watch(guests[0])
        time.sleep(SETTLE_SECONDS)
        cases, told = [], 0
        with passes.over(guests, settings.scratch) as measuring:
            end = time.monotonic() + seconds
            while time.monotonic() < end or told < len(passes.KINDS):
                first_measured = chance.random() < 0.5
                case = {"case": "pair", "run": run, "pair": len(cases) - told,
                        "pass": measuring.done, "measured_first": first_measured}
                for is_measured in (first_measured, not first_measured):
                    name = "measured" if is_measured else "unmeasured"
                    case[name] = _window(watch, measuring, is_measured)
                cases.append(case)
                if measuring.done > told:
                    for each in measuring.told()[told:]:
                        cases.append({"case": "pass", "run": run, "pass": told, **each})
                        told += 1
                    settings.keep([*before, *cases])
        watch.check()
        return cases


def _window(watch: "Watch", measuring: passes.Held, is_measured: bool) -> dict:
    """Watch the busy guest for a window, but for its begin: what was before echoes there."""
    if is_measured:
        measuring.go_on()
    time.sleep(EDGE_SECONDS)
    cpu, read, begun = measuring.cpu_seconds, measuring.read_bytes, watch.look()
    time.sleep(WINDOW_SECONDS)
    ended = watch.look()
    found = {name: ended[name] - begun[name] for name in ended}
    if found["pages"] > 0.9 * SATURATING.pages_per_second * found["seconds"]:
        raise RuntimeError("the guest wrote all it was asked to: a slowdown could not be seen")
    if is_measured:
        found |= {"agent_cpu_seconds": measuring.cpu_seconds - cpu,
                  "read_bytes": measuring.read_bytes - read}
        measuring.hold()
    return found


class Watch:
    """The busy guest's progress, and what its processor and the machine's did meanwhile."""

    def __init__(self, guest: Guest):
        self._guest = guest
        self._progress = progress.Progress(guest)
        self._begun = self._progress.pages()
        # the processor is QEMU's busiest thread: only those of management have names
        self._thread = max(pathlib.Path(f"/proc/{guest.pid}/task").iterdir(),
                           key=lambda task: int((task / "schedstat").read_text().split()[0]))

    def look(self) -> dict:
        """Return counters: seconds, pages written, seconds its processor ran and waited to run,
        seconds that the machine's processors were taken from it.
        """
        ran, waited = (self._thread / "schedstat").read_text().split()[:2]
        stolen = pathlib.Path("/proc/stat").read_text().split()[8]
        return {"seconds": time.monotonic(), "pages": self._progress.pages(),
                "guest_cpu_seconds": int(ran) / 1e9, "guest_waited_seconds": int(waited) / 1e9,
                "stolen_seconds": int(stolen) / os.sysconf("SC_CLK_TCK")}

    def check(self) -> None:
        """Hold what was read against what the guest itself told last."""
        tick, now = self._guest.last_tick(), self._progress.pages()
        # none yet in a short run: it tells one each 125 s
        if tick is not None and not self._begun <= tick.wrote_pages <= now:
            raise RuntimeError(f"the guest's table of writes says {self._begun} to {now}, "
                               f"the guest {tick and tick.wrote_pages}")


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
