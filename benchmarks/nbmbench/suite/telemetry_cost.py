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
WINDOW_SECONDS = 0.025
EDGE_SECONDS = 0.003
PAIRS_SECONDS, QUICK_SECONDS = 600, 1
#: A window in which the agent's processor is busy for so much of the time is one of reading.
AT_WORK_SHARE = 0.5
#: Pairs of one pass, alike in that, whose windows are told together.
TOGETHER = 10
#: The agent's own process, as it holds what the privileged one gave back.
_AGENT = """
import json, sys
from nova_batch_migrate.cmd import agent
from nbmbench import synthetic_host
held = json.load(sys.stdin)
print(synthetic_host.peak_bytes())
"""
_NAMES = {True: "measured", False: "unmeasured"}
HOST = {"guests": 100, "memory_bytes": 4 << 30}


def run(settings: contract.Settings) -> list[dict]:
    """Measure; options: "host" or "pairs" for one part, pairs=SECONDS, from=FILE to go on from."""
    words = dict(word.partition("=")[::2] for word in settings.options)
    cases = json.loads(pathlib.Path(words["from"]).read_text())["cases"] if "from" in words else []
    both = not {"host", "pairs"} & words.keys()
    if (both and not settings.quick) or "host" in words:
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
    found, hosts = {"pairs": 0}, [case for case in cases if case["case"] == "host"]
    for kind in passes.KINDS:
        if of_kind := _passes(cases, kind):
            pairs = [sum(case["pairs"]) for case in of_kind]
            found["pairs"] += sum(pairs)
            found |= {
                f"pairs_{kind}": sum(pairs), f"passes_{kind}": len(of_kind),
                f"slowdown_{kind}": _slowdown([_sums(case) for case in of_kind]),
                # by the pass's own account, and by what its windows show
                f"agent_cpu_share_{kind}": _rate(of_kind, "cpu_seconds"),
                f"agent_cpu_share_{kind}_windows": float(numpy.average(
                    [numpy.average(case["agent_cpu_share"], weights=case["pairs"])
                     for case in of_kind], weights=pairs)),
                f"read_bytes_per_second_{kind}": _rate(of_kind, "read_bytes"),
                f"read_bytes_per_second_{kind}_windows": float(numpy.average(
                    [case["windows_read_bytes_per_second"] for case in of_kind], weights=pairs))}
    if all(_passes(cases, kind) for kind in passes.KINDS):
        found["slowdown"] = max(found[f"slowdown_{kind}"] for kind in passes.KINDS)
    if at_work := _at_work(cases):
        found |= {"pairs_at_work": int(sum(count for _, count in at_work)),
                  "slowdown_at_work": _slowdown(at_work)}
    if hosts:
        batch = min(case["batch_seconds"] for case in hosts)
        found["idle_share"] = max(case["seconds"] for case in hosts) / batch
        found["agent_bytes"] = max(case["scan_peak_bytes"] + case["agent_peak_bytes"]
                                   for case in hosts)
    return found


def missing(cases: list[dict]) -> list[str]:
    """Return the pairs that are left of those that the goal asks for."""
    pairs = {kind: sum(sum(case["pairs"]) for case in _passes(cases, kind))
             for kind in passes.KINDS}
    return [f"{PAIRS - count} pairs of windows in whole passes: {kind}"
            for kind, count in pairs.items() if count < PAIRS]


def intervals(cases: list[dict]) -> dict:
    """Return the 95 % intervals; drawn are whole passes, whose windows are not independent."""
    found = {f"slowdown_{kind}": _interval([_sums(case) for case in _passes(cases, kind)])
             for kind in passes.KINDS} | {"slowdown_at_work": _interval(_at_work(cases))}
    found = {name: ends for name, ends in found.items() if ends}
    kinds = [found.get(f"slowdown_{kind}") for kind in passes.KINDS]
    if all(kinds):
        found["slowdown"] = tuple(max(ends) for ends in zip(*kinds, strict=True))
    return found


def _passes(cases: list[dict], kind: str) -> list[dict]:
    return [case for case in cases if case["case"] == "pass" and case["kind"] == kind]


def _at_work(cases: list[dict]) -> list[numpy.ndarray]:
    """Return the sums of the pairs in whose measured window the agent was busy, pass by pass."""
    found = [_sums(case, AT_WORK_SHARE) for kind in passes.KINDS for case in _passes(cases, kind)]
    return [each for each in found if each[1]]


def _rate(cases: list[dict], key: str) -> float:
    return sum(case[key] for case in cases) / sum(case["seconds"] for case in cases)


def _sums(case: dict, least_share: float = 0.0) -> numpy.ndarray:
    """Return the sum over a pass's pairs of how much faster the guest is unmeasured, and their
    number. Logarithms: no side of the ratio is favoured.
    """
    unmeasured, measured, shares, pairs = (numpy.array(case[name]) for name in (
        "unmeasured_pages_per_second", "measured_pages_per_second", "agent_cpu_share", "pairs"))
    pairs = pairs * (shares >= least_share)
    return numpy.array([(pairs * numpy.log(unmeasured / measured)).sum(), pairs.sum()])


def _slowdown(sums: list[numpy.ndarray]) -> float:
    return 1 - math.exp(-numpy.divide(*numpy.sum(sums, axis=0)))


def _interval(sums: list[numpy.ndarray]) -> tuple[float, float] | None:
    if len(sums) < 2:
        return None
    return contract.bootstrap(range(len(sums)), lambda drawn: _slowdown(
        numpy.array(sums)[drawn.astype(int)]))


def _pairs(settings: contract.Settings, seconds: float, chance: random.Random,
           before: list[dict]) -> list[dict]:
    with Rig(settings.scratch / "rig") as rig:
        guests = [rig.boot(spec) for spec in (
            GuestSpec.writer("busy", SATURATING),
            GuestSpec.writer("still1", STILL, memory_mib=1024),
            GuestSpec.writer("still2", STILL, memory_mib=1024, kernel="6.12"))]
        for guest in guests[1:]:
            guest.wait_ticks()
        watch = Watch(guests[0])
        time.sleep(0 if settings.quick else SETTLE_SECONDS)
        cases, pairs = [], []
        with passes.over(guests, settings.scratch) as measuring:
            end = time.monotonic() + seconds
            # what is left of the last pass is dropped: phases have their weight in whole ones only
            while time.monotonic() < end or not cases:
                first, second = chance.sample((True, False), 2)
                pairs.append({_NAMES[is_measured]: _window(watch, measuring, is_measured)
                              for is_measured in (first, second)})
                if measuring.done > len(cases):
                    cases.append(_case(measuring.told()[len(cases)], pairs))
                    pairs = []
                    settings.keep([*before, *cases])
        watch.check()
        return cases


def _case(told: dict, pairs: list[dict]) -> dict:
    """Return a pass as a case: what it tells of itself, and its pairs, some of them together."""
    def share(name: str, key: str, of: list[dict] = pairs) -> float:
        return sum(pair[name][key] for pair in of) / sum(pair[name]["seconds"] for pair in of)

    alike = {True: [], False: []}
    for pair in pairs:
        alike[share("measured", "agent_cpu_seconds", [pair]) >= AT_WORK_SHARE].append(pair)
    together = [of[at:at + TOGETHER] for of in alike.values() for at in range(0, len(of), TOGETHER)]
    return {"case": "pass", **told, "window_seconds": WINDOW_SECONDS,
            "measured_first": sum(next(iter(pair)) == "measured" for pair in pairs),
            "windows_read_bytes_per_second": share("measured", "read_bytes"),
            **{f"{key[:-len('_seconds')]}_share": {name: share(name, key)
                                                   for name in _NAMES.values()}
               for key in ("guest_cpu_seconds", "guest_waited_seconds", "stolen_seconds")},
            "pairs": [len(of) for of in together],
            "agent_cpu_share": [round(share("measured", "agent_cpu_seconds", of), 4)
                                for of in together],
            **{f"{name}_pages_per_second": [round(share(name, "pages", of)) for of in together]
               for name in _NAMES.values()}}


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
                          stdout=subprocess.PIPE, check=True, text=True, env=_environment()).stdout
    result, found = map(json.loads, told.splitlines()[-2:])
    agent = subprocess.run([sys.executable, "-c", _AGENT], input=json.dumps(result), check=True,
                           stdout=subprocess.PIPE, text=True, env=_environment()).stdout
    wire = HOST["guests"] * HOST["memory_bytes"] * WIRE_SHARE
    return {"case": "host", **HOST, **found, "scan_peak_bytes": found["peak_bytes"],
            "agent_peak_bytes": int(agent.splitlines()[-1]),
            "wire_share": WIRE_SHARE, "batch_seconds": wire / GOODPUT_BYTES_PER_SECOND}


def _environment() -> dict:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def _settings(conf) -> dict:
    return dataclasses.asdict(scan.Settings(
        seed=7, page_budget=conf.agent.page_budget,
        read_bytes_per_second=conf.agent.read_mib_s * measurement.MIB))


def _configuration():
    conf = configuration.new()
    conf([], project="nova-batch-migrate", default_config_files=[])
    return conf
