"""Raw bytes per CPU-second of the relays, TLS on: dedup, dedup with zstd, splice; and their rivals.

Streams of frozen alike guests are replayed through two real relay processes; what comes out is
compared by a sum. The rivals are a splice loop in C, to which the same redirect leads as to the
relay, and `zstd -1 --long=30 -T1`. What the redirect itself costs the kernel is told by the same
loop without one.

What else a machine does may halve its speed for seconds. So whoever is compared takes turns: the
relay and zstd stream by stream, the relay and the loop every half second; and beside the relay's
own figure stands how fast the same seconds were at copying and hashing memory. A pair of relays
serves several groups, as on a host that is drained; the first finds the dictionaries' memory.
"""
import collections
import dataclasses
import pathlib
import subprocess
import time
import uuid

import numpy as np
import xxhash
from nbmlab import shell

from nbmbench import codecs, contract, fleets, machine
from nbmbench.contract import Goal, Settings
from nbmbench.relays import Relays
from nbmbench.rig import Rig
from nbmbench.rig.link import ADDRESSES, DESTINATION, SOURCE
from nova_batch_migrate.relay import nftables, redirect

NEEDS = "lab"
GOALS = {"dedup_bytes_per_second": Goal(">=", 1e9), "splice_vs_forwarder": Goal(">=", 0.95),
         "dedup_zstd_vs_rival": Goal(">=", 2.5)}
NATIVE = pathlib.Path(__file__).resolve().parents[1] / "native"
FORWARD_PORT = 49400
FORWARD_MARK = 0x666F72
FORWARD_TABLE = "nbm_forwarder"
#: The fewest that a whole benchmark has of each.
REPETITIONS = 5
#: In each of two halves, of splice and the loop in turns: a tenth of a second of processor time
#: each, of which the machine's own business is a large part.
SPLICES = 12
REFERENCE_BYTES = 32 << 20
FLEETS = ("alike", "held-out")
LINK_BYTES_PER_SECOND = 300e6 / 8
#: (mode, zstd level, profile, repetitions in either half): speed first for 10 Gbit/s, bytes first
#: for 300 Mbit/s; between them the level that the relay begins with at 1 Gbit/s
MODES = (("dedup", 0, "10 Gbit/s", (5, 5)), ("dedup-zstd", -1, "10 Gbit/s", (4, 4)),
         ("dedup-zstd", 1, "1 Gbit/s", (5, 0)), ("dedup-zstd", 6, "300 Mbit/s", (5, 0)))
#: Where the rival takes turns: not where bytes come first.
FAST = ("10 Gbit/s", "1 Gbit/s")


@dataclasses.dataclass
class _Bench:
    """What all modes share."""

    rig: Rig
    scratch: pathlib.Path
    streams: list[pathlib.Path]
    fleet: str
    cases: list[dict]
    port: int = 49160

    def replay(self, address: str, port: int, files: list[pathlib.Path], server: str,
               taking_port: int) -> None:
        """Send files over one connection and check that they came out as they went in."""
        taker = self.rig.run(DESTINATION, self.scratch / "qemu-system-x86_64", "-uuid", server,
                             ADDRESSES[DESTINATION], taking_port, stdout=subprocess.PIPE,
                             text=True)
        taker.stdout.readline()
        sender = self.rig.run(SOURCE, self.scratch / "replay", address, port, *files,
                              stdout=subprocess.PIPE, text=True)
        sent, arrived = sender.communicate()[0], taker.communicate()[0]
        if not sent or sent != arrived:
            raise RuntimeError(f"sent {sent!r}, arrived {arrived!r}")

    def next_port(self) -> int:
        self.port = 49160 + (self.port - 49159) % 50
        return self.port


def run(settings: Settings) -> list[dict]:
    """Replay the fleets through every mode, in turns, several times."""
    cases: list[dict] = []
    for name in ("replay", "forward", "take"):
        target = "qemu-system-x86_64" if name == "take" else name
        shell.run("gcc", "-O2", "-Wall", "-o", settings.scratch / target, NATIVE / f"{name}.c")
    with Rig(settings.scratch / "rig") as rig:
        wanted = [each for each in FLEETS if each in settings.options] or FLEETS
        for fleet in wanted[:1] if settings.quick else wanted:
            directory = settings.scratch / fleet
            directory.mkdir()
            generator = settings.held_out("relay_throughput")
            kinds = fleets.kinds_of(fleet, generator)[:2 if settings.quick else None]
            loads = [fleets.drawn_load(generator) if fleet == "held-out" else fleets.IDLE
                     for _ in kinds]
            frozen = fleets.freeze(rig, directory, list(zip(kinds, loads, strict=True)), "t")
            bench = _Bench(rig, settings.scratch, [each.stream for each in frozen], fleet, cases)
            halves = 1 if settings.quick or fleet != "alike" else 2
            for half in range(halves):
                _all_modes(bench, half, settings)
    return cases


def _all_modes(bench: _Bench, half: int, settings: Settings) -> None:
    few = settings.quick or bench.fleet != "alike"
    for mode, level, profile, repetitions in MODES:
        if not repetitions[half]:
            continue
        with _relays(bench, f"{half}-{mode}-{level}", zstd_level=level) as relays:
            for repetition in range(sum(repetitions[:half]),
                                    1 if few else sum(repetitions[:half + 1])):
                _dedup(bench, relays, mode, level, profile, repetition)
        settings.keep(bench.cases)
    with _relays(bench, f"{half}-splice") as relays:
        for repetition in range(half * SPLICES, half * SPLICES + (3 if few else SPLICES)):
            _splice(bench, relays, repetition)
            _forward(bench, repetition)
            _forward(bench, repetition, redirected=False)
    settings.keep(bench.cases)


def _relays(bench: _Bench, name: str, **options) -> Relays:
    return Relays(bench.rig, bench.scratch / f"relays-{bench.fleet}-{name}", **options)


def _add(bench: _Bench, mode: str, repetition: int, wall_seconds: float | None,
         source_cpu_seconds: float, wire_bytes: int | None, **facts) -> None:
    case = {"fleet": bench.fleet, "mode": mode, "repetition": repetition,
            "raw_bytes": sum(path.stat().st_size for path in bench.streams),
            "wall_seconds": wall_seconds, "source_cpu_seconds": source_cpu_seconds,
            "wire_bytes": wire_bytes, **facts}
    if bench.fleet == "held-out":
        case["held_out"] = True
    bench.cases.append(case)


def _dedup(bench: _Bench, relays: Relays, mode: str, level: int, profile: str,
           repetition: int) -> None:
    """Replay the fleet as one group; between its streams the rival and the reference go on."""
    servers = [str(uuid.uuid4()) for _ in bench.streams]
    link = LINK_BYTES_PER_SECOND if profile == "300 Mbit/s" else None
    rival = codecs.ZstdCommand("-1", "--long=30") if level and profile in FAST else None
    reference = _Reference()
    group = relays.open([(server, "host") for server in servers], link_bytes_per_second=link)
    before = {side: relays.cpu_seconds(side) for side in (SOURCE, DESTINATION)}
    sent, wall = bench.rig.link.sent_bytes(), 0.0
    for server, stream in zip(servers, bench.streams, strict=True):
        port, began = bench.next_port(), time.monotonic()
        bench.replay(ADDRESSES[DESTINATION], port, [stream], server, port)
        wall += time.monotonic() - began
        reference.measure()
        if rival:
            rival.feed(stream)
    used = {side: relays.cpu_seconds(side) - before[side] for side in before}
    frames = bench.rig.link.sent_bytes() - sent
    statistics = relays.close(group)
    if not statistics or not statistics.get("cross_server_bytes"):
        raise RuntimeError(f"the relays carried nothing:\n{relays.log(SOURCE)}")
    _add(bench, mode, repetition, wall, used[SOURCE], statistics["wire_bytes"], level=level,
         profile=profile, destination_cpu_seconds=used[DESTINATION], frame_bytes=frames,
         peak_memory_bytes={side: relays.peak_memory_bytes(side) for side in used},
         **reference.told(),
         statistics={key: value for key, value in statistics.items() if key != "servers"})
    if rival:
        size, cpu = rival.end()
        _add(bench, "rival", repetition, None, cpu, size, profile=profile)


class _Reference:
    """How fast the processor is at copying and hashing memory, a little at a time."""

    def __init__(self):
        self._from, self._to = (np.ones(REFERENCE_BYTES, np.uint8) for _ in range(2))
        self._seconds, self._times = [0.0, 0.0], 0

    def measure(self) -> None:
        """Copy and hash once."""
        begun = time.thread_time()
        np.copyto(self._to, self._from)
        copied = time.thread_time()
        xxhash.xxh3_64_intdigest(self._from)
        self._seconds[0] += copied - begun
        self._seconds[1] += time.thread_time() - copied
        self._times += 1

    def told(self) -> dict[str, float]:
        """Return bytes per CPU-second of both."""
        return {f"{what}_bytes_per_second": self._times * REFERENCE_BYTES / seconds
                for what, seconds in zip(("copying", "hashing"), self._seconds, strict=True)}


def _splice(bench: _Bench, relays: Relays, repetition: int) -> None:
    server, port = str(uuid.uuid4()), bench.next_port()
    group = relays.open([(server, None)])
    before, began = relays.cpu_seconds(SOURCE), time.monotonic()
    bench.replay(ADDRESSES[DESTINATION], port, bench.streams, server, port)
    wall = time.monotonic() - began
    used = relays.cpu_seconds(SOURCE) - before
    relays.close(group)
    _add(bench, "splice", repetition, wall, used, None)


def _forward(bench: _Bench, repetition: int, redirected: bool = True) -> None:
    """Measure the loop in C: reached as the relay is, or on loopback, where nothing is tracked."""
    port = bench.next_port()
    forwarder = bench.rig.run(SOURCE, bench.scratch / "forward", FORWARD_PORT,
                              ADDRESSES[DESTINATION], port, FORWARD_MARK, stdout=subprocess.PIPE,
                              text=True)
    forwarder.stdout.readline()
    near, rules = ("127.0.0.1", FORWARD_PORT), bench.rig.link.call(SOURCE, nftables.Ruleset)
    if redirected:
        near = (ADDRESSES[DESTINATION], port)
        # the relay's own table goes a moment after its connections
        rules.run(redirect.Redirect(FORWARD_MARK, port, port).commands(
            {ADDRESSES[DESTINATION]: FORWARD_PORT}).replace(redirect.TABLE, FORWARD_TABLE))
    before, began = machine.cpu_seconds(forwarder.pid), time.monotonic()
    bench.replay(*near, bench.streams, str(uuid.uuid4()), port)
    wall = time.monotonic() - began
    used = machine.cpu_seconds(forwarder.pid) - before
    rules.close()
    forwarder.kill()
    forwarder.wait()
    _add(bench, "forwarder" if redirected else "forwarder-direct", repetition, wall, used, None)


def _speeds(cases, mode: str, profile: str | None = None) -> list[float]:
    """Return raw bytes per CPU-second of the slower relay process, by repetition."""
    return [case["raw_bytes"] / max(case["source_cpu_seconds"],
                                    case.get("destination_cpu_seconds", 0), 0.01)
            for case in cases
            if case["mode"] == mode
            and (profile is None or case.get("profile") in (None, profile))]


def _ratios(cases, mode: str, rival: str, profile: str | None = None) -> list[float]:
    """Return the ratios of speeds of those that took turns."""
    return [one / other for one, other in zip(_speeds(cases, mode, profile),
                                              _speeds(cases, rival, profile), strict=False)]


def measured(cases) -> dict:
    """Return medians; the fast profile is what the goals are for, bytes are of both."""
    figures = {}
    for name, values in _series(cases).items():
        if values:
            figures[name] = float(np.median(values))
    for mode in ("dedup", "dedup-zstd"):
        for profile in ("10 Gbit/s", "1 Gbit/s", "300 Mbit/s"):
            told = [case for case in cases if case["mode"] == mode and case["profile"] == profile]
            if told:
                short = f"{mode}_{profile.split()[0]}".replace("-", "_")
                figures[f"{short}_wire_share"] = told[0]["wire_bytes"] / told[0]["raw_bytes"]
                figures[f"{short}_wall_bytes_per_second"] = float(np.median(
                    [case["raw_bytes"] / case["wall_seconds"] for case in told]))
    for what in ("copying", "hashing"):
        told = [case[f"{what}_bytes_per_second"] for case in cases
                if f"{what}_bytes_per_second" in case and case["mode"] == "dedup"]
        if told:
            figures[f"dedup_beside_{what}_bytes_per_second"] = float(np.median(told))
    if peaks := [case["peak_memory_bytes"] for case in cases if "peak_memory_bytes" in case]:
        figures["peak_memory_bytes"] = max(max(each.values()) for each in peaks)
    return figures


def intervals(cases) -> dict:
    """Return 95 % intervals of the medians over the repetitions."""
    return {name: contract.bootstrap(values) for name, values in _series(cases).items()
            if len(values) > 1}


def missing(cases) -> list[str]:
    """Return the modes with fewer repetitions on alike guests than a whole benchmark has."""
    found = collections.Counter(
        (case["mode"], case.get("profile")) for case in cases if case["fleet"] == "alike")
    wanted = [(mode, profile) for mode, _, profile, _ in MODES]
    wanted += [(mode, None) for mode in ("splice", "forwarder", "forwarder-direct")]
    lacking = [f"{REPETITIONS - found[each]} of {each[0]} {each[1] or ''}".strip()
               for each in wanted if found[each] < REPETITIONS]
    rivals = len(_speeds([case for case in cases if case["fleet"] == "alike"], "rival", FAST[0]))
    return lacking + [f"{REPETITIONS - rivals} of rival"] * (rivals < REPETITIONS)


def _series(cases) -> dict[str, list[float]]:
    return {"dedup_bytes_per_second": _speeds(cases, "dedup"),
            "splice_vs_forwarder": _ratios(cases, "splice", "forwarder"),
            "splice_vs_forwarder_direct": _ratios(cases, "splice", "forwarder-direct"),
            "dedup_zstd_vs_rival": _ratios(cases, "dedup-zstd", "rival", "10 Gbit/s"),
            "dedup_zstd_1_vs_rival": _ratios(cases, "dedup-zstd", "rival", "1 Gbit/s")}
