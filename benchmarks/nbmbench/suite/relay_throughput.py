"""Raw bytes per CPU-second of the relays, TLS on: dedup, dedup with zstd, splice; and their rivals.

Streams of frozen alike guests are replayed through two real relay processes; what comes out is
compared by a sum. The rivals are a splice loop in C, to which the same redirect leads as to the
relay, and `zstd -1 --long=30 -T1`. What the redirect itself costs the kernel is told by the same
loop without one.
"""
import collections
import dataclasses
import pathlib
import subprocess
import time
import uuid

import numpy as np
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
REPETITIONS = 5
#: Of splice and the forwarder in turns, in each repetition: a tenth of a second of processor time
#: each, of which the machine's own business is a large part.
SPLICE_PAIRS = 3
FLEETS = ("alike", "held-out")
LINK_BYTES_PER_SECOND = 300e6 / 8
#: (mode, zstd level, profile): speed first for 10 Gbit/s, bytes first for 300 Mbit/s; between them
#: the level that the relay begins with at 1 Gbit/s
MODES = (("dedup", 0, "10 Gbit/s"), ("dedup-zstd", -1, "10 Gbit/s"),
         ("dedup-zstd", 1, "1 Gbit/s"), ("dedup-zstd", 6, "300 Mbit/s"))


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
            repetitions = 1 if settings.quick else REPETITIONS if fleet == "alike" else 2
            for repetition in range(repetitions):
                _all_modes(bench, repetition)
                settings.keep(cases)
    return cases


def _all_modes(bench: _Bench, repetition: int) -> None:
    for mode, level, profile in MODES:
        _dedup(bench, mode, level, profile, repetition)
    for pair in range(SPLICE_PAIRS):
        _splice(bench, repetition, pair)
        _forward(bench, repetition)
        _forward(bench, repetition, redirected=False)
    size, cpu = codecs.zstd(bench.streams, "-1", "--long=30")
    _add(bench, "rival", repetition, None, cpu, size)


def _add(bench: _Bench, mode: str, repetition: int, wall_seconds: float | None,
         source_cpu_seconds: float, wire_bytes: int | None, **facts) -> None:
    case = {"fleet": bench.fleet, "mode": mode, "repetition": repetition,
            "raw_bytes": sum(path.stat().st_size for path in bench.streams),
            "wall_seconds": wall_seconds, "source_cpu_seconds": source_cpu_seconds,
            "wire_bytes": wire_bytes, **facts}
    if bench.fleet == "held-out":
        case["held_out"] = True
    bench.cases.append(case)


def _dedup(bench: _Bench, mode: str, level: int, profile: str, repetition: int) -> None:
    relays = Relays(bench.rig, bench.scratch / f"relays-{bench.fleet}-{repetition}-{mode}-{level}",
                    zstd_level=level)
    servers = [str(uuid.uuid4()) for _ in bench.streams]
    link = LINK_BYTES_PER_SECOND if profile == "300 Mbit/s" else None
    group = relays.open([(server, "host") for server in servers], link_bytes_per_second=link)
    before = {side: relays.cpu_seconds(side) for side in (SOURCE, DESTINATION)}
    sent = bench.rig.link.sent_bytes()
    began = time.monotonic()
    for server, stream in zip(servers, bench.streams, strict=True):
        port = bench.next_port()
        bench.replay(ADDRESSES[DESTINATION], port, [stream], server, port)
    wall = time.monotonic() - began
    used = {side: relays.cpu_seconds(side) - before[side] for side in before}
    frames = bench.rig.link.sent_bytes() - sent
    statistics = relays.close(group)
    relays.stop()
    if not statistics or not statistics.get("cross_server_bytes"):
        raise RuntimeError(f"the relays carried nothing:\n{relays.log(SOURCE)}")
    _add(bench, mode, repetition, wall, used[SOURCE], statistics["wire_bytes"], level=level,
         profile=profile, destination_cpu_seconds=used[DESTINATION], frame_bytes=frames,
         statistics={key: value for key, value in statistics.items() if key != "servers"})


def _splice(bench: _Bench, repetition: int, pair: int) -> None:
    relays = Relays(bench.rig, bench.scratch / f"relays-{bench.fleet}-{repetition}-splice-{pair}")
    server, port = str(uuid.uuid4()), bench.next_port()
    group = relays.open([(server, None)])
    before, began = relays.cpu_seconds(SOURCE), time.monotonic()
    bench.replay(ADDRESSES[DESTINATION], port, bench.streams, server, port)
    wall = time.monotonic() - began
    used = relays.cpu_seconds(SOURCE) - before
    relays.close(group)
    relays.stop()
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
        rules.run(redirect.Redirect(FORWARD_MARK, port, port).commands(
            {ADDRESSES[DESTINATION]: FORWARD_PORT}))
    began = time.monotonic()
    bench.replay(*near, bench.streams, str(uuid.uuid4()), port)
    wall = time.monotonic() - began
    used = machine.cpu_seconds(forwarder.pid)
    rules.close()
    forwarder.kill()
    forwarder.wait()
    _add(bench, "forwarder" if redirected else "forwarder-direct", repetition, wall, used, None)


def _speeds(cases, mode: str, profile: str | None = None) -> list[float]:
    """Return raw bytes per CPU-second of the slower relay process, by repetition."""
    return [case["raw_bytes"] / max(case["source_cpu_seconds"],
                                    case.get("destination_cpu_seconds", 0), 0.01)
            for case in cases
            if case["mode"] == mode and profile in (None, case.get("profile"))]


def _ratios(cases, mode: str, rival: str, profile: str | None = None) -> list[float]:
    return [one / other for one, other in zip(_speeds(cases, mode, profile),
                                              _speeds(cases, rival), strict=False)]


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
    return figures


def intervals(cases) -> dict:
    """Return 95 % intervals of the medians over the repetitions."""
    return {name: contract.bootstrap(values) for name, values in _series(cases).items()
            if len(values) > 1}


def missing(cases) -> list[str]:
    """Return the modes with fewer repetitions on alike guests than a whole benchmark has."""
    found = collections.Counter(
        (case["mode"], case.get("profile")) for case in cases if case["fleet"] == "alike")
    wanted = [(mode, profile) for mode, _, profile in MODES]
    wanted += [(mode, None) for mode in ("splice", "forwarder", "forwarder-direct", "rival")]
    return [f"{REPETITIONS - found[each]} of {each[0]} {each[1] or ''}".strip()
            for each in wanted if found[each] < REPETITIONS]


def _series(cases) -> dict[str, list[float]]:
    return {"dedup_bytes_per_second": _speeds(cases, "dedup"),
            "splice_vs_forwarder": _ratios(cases, "splice", "forwarder"),
            "splice_vs_forwarder_direct": _ratios(cases, "splice", "forwarder-direct"),
            "dedup_zstd_vs_rival": _ratios(cases, "dedup-zstd", "rival", "10 Gbit/s"),
            "dedup_zstd_1_vs_rival": _ratios(cases, "dedup-zstd", "rival", "1 Gbit/s")}
