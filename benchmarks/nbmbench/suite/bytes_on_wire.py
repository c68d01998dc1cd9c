"""Bytes that a fleet's migration puts on the wire: stock, zstd in four forms, the relay's means.

Every contender sends the same frozen guests. An idle fleet's guests stand still; a busy fleet's
run, and their streams are taken as fast as the contender's bytes leave a link of 300 Mbit/s; what
stock QEMU sent then is sent again by all that compress files. What busy guests hold, and why, is
told in nbmbench.fleets. A goal that the floor misses can't be met: `*_floor_vs_zstd` are the
floor's own figures. `alike-random`, whose memory is filled with random bytes, is held to the rival,
to the floor and to never more than multifd with zstd, not to the headline's 0.40.

`--only` takes fleets, idle or busy, contenders, and steps: `guests` boots and freezes, `live`
migrates guests, `files` compresses streams and needs no guests. With `--only kept=DIR` guests and
streams stay in that directory, where a later step finds them. Of those that take files, `relay`,
`relay-small`, `relay-small-scanned` and `relay-static` choose their level by seconds of a core; the
others give the same bytes wherever they run.
"""
import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Sequence

from nbmlab import images, shell

from nbmbench import codecs, fleets
from nbmbench.contract import Goal, Settings
from nbmbench.fleets import Fleet
from nbmbench.rig import ONE_WAY, Move, QemuOptions, Rig
from nova_batch_migrate.relay.base_images import different_pages
from nova_batch_migrate.relay.settings import LogSettings
from nova_batch_migrate.relay.source import zstd_level

NEEDS = "lab"
GOALS = {
    "alike_vs_zstd": Goal("<=", 0.40), "alike_vs_rival": Goal("<=", 1.00),
    "alike_vs_floor": Goal("<=", 1.05), "unlike_vs_zstd": Goal("<=", 0.97),
    "worst_vs_zstd": Goal("<=", 1.00), "marginal_guest": Goal("<=", 0.05),
}
LINK_BYTES_PER_SECOND = 300e6 / 8
#: 300 Mbit/s: bytes first, the level as high as a core allows.
BYTES_FIRST = {"level": zstd_level(None, LINK_BYTES_PER_SECOND),
               "adapts_to": LINK_BYTES_PER_SECOND}
STATIC_PAGES = 16_384
#: What the usual 512 MiB and 128 MiB are to guests of four times the memory.
SMALL = {"dictionary_bytes": 96 << 20, "window_log": 25}
MULTIFD = QemuOptions(multifd_channels=2, multifd_compression="zstd", zstd_level=1,
                      return_path=False)
STOCK, RELAY, RIVAL, FLOOR, MULTIFD_NAME = "stock", "relay", "rival", "floor", "multifd-zstd"
ZSTD_EACH = "zstd-1"
#: The relay's means, each added to those before it; RELAY has all but the static dictionary.
MEANS = ("relay-identical", "relay-delta", "relay-zstd")
STATIC, SMALL_NAME, SCANNED = "relay-static", "relay-small", "relay-small-scanned"
FROM_FILES = (STOCK, ZSTD_EACH, RIVAL, FLOOR, *MEANS, RELAY, SMALL_NAME, SCANNED, STATIC)
SCOPES = ("project", "host")
ALIKE, ALIKE_RANDOM, HELD_OUT = ("alike", "alike-redis"), "alike-random", "held-out"
FLEETS = {"idle": (*ALIKE, "mixed", "unlike"),
          "busy": (*ALIKE, "mixed", "unlike", ALIKE_RANDOM)}
STEPS = ("guests", "live", "files")
QUICK_SIZE = 3


def run(settings: Settings) -> list[dict]:
    """Freeze the fleets, send each by every contender, return one case a contender and scope."""
    cases: list[dict] = []
    kept = next((pathlib.Path(word.removeprefix("kept=")) for word in settings.options
                 if word.startswith("kept=")), None)
    steps = _chosen(settings, STEPS)
    with contextlib.ExitStack() as stack:
        files_alone = kept is not None and steps == ["files"]
        rig = None if files_alone else stack.enter_context(Rig(settings.scratch / "rig"))
        directory = kept or settings.scratch
        directory.mkdir(exist_ok=True)
        pool = fleets.Pool(directory, rig)
        for activity in _chosen(settings, ("idle",) if settings.quick else tuple(FLEETS)):
            named = (*FLEETS[activity], HELD_OUT)
            for name in ["alike"] if settings.quick else _chosen(settings, named):
                began, before = time.monotonic(), len(cases)
                fleet = _fleet(settings, pool, name, activity)
                copies = [directory / f"{name}-{activity}-{index}"
                          for index, _ in enumerate(fleet.members)]
                _send(settings, rig, fleet, copies, steps, cases)
                shell.say(f"{name} {activity}: {len(cases) - before} cases in "
                          f"{time.monotonic() - began:.0f} s")
                for path in copies if kept is None else ():
                    path.unlink(missing_ok=True)
    return cases


def _chosen(settings: Settings, words: Sequence[str]) -> list[str]:
    """Return those of the words that were asked for, all of them where none was."""
    return [word for word in words if word in settings.options] or list(words)


def _fleet(settings: Settings, pool: fleets.Pool, name: str, activity: str) -> Fleet:
    """Return a fleet of frozen guests."""
    generator = settings.held_out(f"bytes_on_wire {activity}")
    kinds = fleets.kinds_of(name, generator)[:QUICK_SIZE if settings.quick else None]
    loads = fleets.loads_of(name, activity, kinds, generator)
    states = pool.take(list(zip(kinds, loads, strict=True)))
    return Fleet(name, activity, fleets.members(kinds, loads, states))


@dataclasses.dataclass
class _Bench:
    """One fleet's contenders on one set of streams."""

    settings: Settings
    fleet: Fleet
    mode: str                          # stream: the same bytes for all; live: the same guests
    cases: list[dict]                  # of all fleets so far

    def add(self, contender: str, scope: str, wire: Sequence[int], raw: Sequence[int],
            cpu_seconds: float | None, **facts) -> None:
        fleet = self.fleet
        case = {"fleet": fleet.name, "activity": fleet.activity, "mode": self.mode,
                "scope": scope, "contender": contender, "wire_bytes": sum(wire),
                "raw_bytes": sum(raw), "guest_wire_bytes": list(wire),
                "guest_raw_bytes": list(raw), "cpu_seconds": cpu_seconds,
                "random_bytes": [member.random_bytes for member in fleet.members],
                "kinds": [member.kind for member in fleet.members],
                # a busy machine has less of a core to compress with, and guests that write less
                "load_average": os.getloadavg()[0], **facts}
        if fleet.name == HELD_OUT:
            case["held_out"] = True
        self.cases.append(case)
        self.settings.keep(self.cases)


def _send(settings: Settings, rig: Rig | None, fleet: Fleet, copies: list[pathlib.Path],
          steps: Sequence[str], cases: list[dict]) -> None:
    """Send a fleet by all contenders; append a case for each.

    What stock QEMU sends of a busy fleet is written to `copies`, and taken from there.
    """
    busy = fleet.activity == "busy"
    streams = copies if busy else [member.frozen.stream for member in fleet.members]
    same = _Bench(settings, fleet, "stream", cases)
    moving = _Bench(settings, fleet, "live", cases) if busy else same
    everybody = [list(range(len(fleet.members)))]
    groups = fleet.groups(SCOPES[0])
    for contender in _chosen(settings, _live_ones(fleet.name, fleet.activity)) \
            if "live" in steps else ():
        if contender == STOCK:
            _live(moving, rig, STOCK, everybody, lambda size: codecs.Raw(copies))
        elif contender == MULTIFD_NAME:
            _live(moving, rig, MULTIFD_NAME, everybody, lambda size: codecs.Raw(), MULTIFD,
                  run=busy)
        elif contender == RIVAL:
            _live(moving, rig, RIVAL, groups, codecs.ZstdGroup, scope=SCOPES[0])
        else:
            for scope in SCOPES:
                _live(moving, rig, RELAY, fleet.groups(scope),
                      lambda size: _relay_codec(**BYTES_FIRST), scope=scope)
    if "files" in steps:
        _from_files(same, streams, _chosen(settings, FROM_FILES))


def _live_ones(fleet: str, activity: str) -> tuple[str, ...]:
    """Return who sends a fleet from QEMU itself; the rival those that have a goal against it."""
    if activity == "idle":
        return (MULTIFD_NAME,)
    return (STOCK, MULTIFD_NAME, *([RIVAL] if fleet in (*ALIKE, ALIKE_RANDOM) else []), RELAY)


def _live(bench: _Bench, rig: Rig, contender: str, groups: list[list[int]], codec_of,
          qemu: QemuOptions = ONE_WAY, run: bool = True, scope: str = "guest") -> None:
    """Migrate the fleet's guests one after the other into a sink with the contender's codec."""
    members = bench.fleet.members
    levels: dict[str, int] = {}
    sent, raw, migrations = [0] * len(members), [0] * len(members), [None] * len(members)
    for group in groups:
        codec = codec_of(len(group))
        for position, index in enumerate(group):
            guest = rig.restore(members[index].frozen, run=run)
            if run:
                time.sleep(0.5)
            sink = rig.sink(
                lambda _, chunk, codec=codec, position=position:
                    codec.feed(position, chunk) if len(chunk) else 0,
                LINK_BYTES_PER_SECOND,
                lambda _, codec=codec, position=position: codec.dry(position))
            migration, = rig.migrate_into(sink, Move(guest, qemu=qemu, limit_seconds=3600))
            sink.close()
            if sink.errors or migration.status != "completed":
                raise RuntimeError(f"{contender}: {migration.facts()} {sink.errors}")
            sent[index] = sink.wire_bytes + codec.end(position)
            raw[index], migrations[index] = sink.raw_bytes, migration.facts()
        if isinstance(codec, codecs.Relay):
            sent[group[0]] += codec.overhead_bytes
            _add_up(levels, codec.levels)
    bench.add(contender, scope, sent, raw, None, migrations=migrations, **_by_level(levels))


def _add_up(levels: dict[str, int], more: dict[str, int]) -> None:
    for level, size in more.items():
        levels[level] = levels.get(level, 0) + size


def _by_level(levels: dict[str, int]) -> dict:
    return {"raw_bytes_by_level": levels} if levels else {}


def _relay_codec(verify: bool = False, adapts_to: float | None = None,
                 **changes) -> codecs.Relay:
    return codecs.Relay(LogSettings(credit_bytes=1 << 38, **changes), verify, adapts_to)


def _from_files(bench: _Bench, streams: list[pathlib.Path], chosen: Sequence[str]) -> None:
    """Let those of FROM_FILES that are chosen compress the same files."""
    sizes = [path.stat().st_size for path in streams]
    if STOCK in chosen:
        bench.add(STOCK, "guest", sizes, sizes, 0.0)
    if ZSTD_EACH in chosen:
        each = [codecs.zstd([path], "-1") for path in streams]
        bench.add(ZSTD_EACH, "guest", [size for size, _ in each], sizes,
                  sum(cpu for _, cpu in each))
    for scope in SCOPES:
        groups = bench.fleet.groups(scope)
        if RIVAL in chosen:
            _over_groups(bench, scope, RIVAL, streams, groups, "-1", "--long=30")
        # it takes as long as all others together
        if FLOOR in chosen and not bench.settings.quick:
            _over_groups(bench, scope, FLOOR, streams, groups, "-9", "--long=31")
        _relay(bench, scope, streams, groups, chosen)


def _over_groups(bench: _Bench, scope: str, contender: str, streams, groups, *options) -> None:
    told = [codecs.zstd([streams[index] for index in group], *options) for group in groups]
    bench.add(contender, scope, [size for size, _ in told],
              [sum(streams[index].stat().st_size for index in group) for group in groups],
              sum(cpu for _, cpu in told), options=list(options))


def _relay(bench: _Bench, scope: str, streams, groups, chosen: Sequence[str]) -> None:
    """Send files through the relay with its means switched on one after the other."""
    def send(contender: str, verify: bool = False, scanned: bool = False, **changes) -> None:
        if contender not in chosen:
            return
        sent, raw, cpu, counters = [0] * len(streams), [0] * len(streams), 0.0, []
        levels: dict[str, int] = {}
        for group in groups:
            files = [streams[index] for index in group]
            codec = _relay_codec(
                verify, recurring=codecs.recurring(files) if scanned else None, **changes)
            wire, sizes, seconds = codecs.run(codec, files)
            for index, size, total in zip(group, sizes, wire, strict=True):
                sent[index], raw[index] = total, size
            sent[group[0]] += codec.overhead_bytes
            cpu += seconds
            counters.append(codec.statistics())
            _add_up(levels, codec.levels)
        total = {name: sum(each[name] for each in counters) for name in counters[0]}
        bench.add(contender, scope, sent, raw, cpu, statistics=total, verified=verify,
                  level=changes.get("level"), **_by_level(levels))

    identical, delta, zstd = MEANS
    send(identical, level=None, most_delta_words=0)
    send(delta, level=None)
    send(zstd, level=1, verify=True)
    send(RELAY, **BYTES_FIRST)
    if bench.fleet.name in ALIKE:
        # guests that the dictionary is too small for: what the scan's word is worth
        send(SMALL_NAME, **BYTES_FIRST, **SMALL)
        send(SCANNED, scanned=True, **BYTES_FIRST, **SMALL)
    if STATIC in chosen and any(member.kind == "redis" for member in bench.fleet.members):
        image = images.DIRECTORY / "disk-redis.raw"
        send(STATIC, static=different_pages([image], STATIC_PAGES), **BYTES_FIRST)


def measured(cases) -> dict:
    """Return the worst ratio of each kind of fleet, over activities, modes and scopes."""
    figures = {}
    random = (ALIKE_RANDOM,)
    for name, contender, wanted, other in (
            ("alike_vs_stock", RELAY, ALIKE, STOCK), ("alike_vs_zstd", RELAY, ALIKE, MULTIFD_NAME),
            ("alike_vs_rival", RELAY, ALIKE + random, RIVAL),
            ("alike_vs_floor", RELAY, ALIKE + random, FLOOR),
            ("mixed_vs_zstd", RELAY, ("mixed",), MULTIFD_NAME),
            ("unlike_vs_zstd", RELAY, ("unlike",), MULTIFD_NAME),
            ("worst_vs_zstd", RELAY, None, MULTIFD_NAME),
            ("random_vs_zstd", RELAY, random, MULTIFD_NAME),
            # of the same guests, though not of the same streams where they are busy
            ("alike_floor_vs_zstd", FLOOR, ALIKE, MULTIFD_NAME),
            ("random_floor_vs_zstd", FLOOR, random, MULTIFD_NAME)):
        same = ("fleet", "activity") if contender == FLOOR else ("fleet", "activity", "mode")
        ratios = list(_ratios(cases, contender, wanted, other, same))
        if ratios:
            figures[name] = max(ratios)
    marginal = [(case["guest_wire_bytes"][-1] - case["random_bytes"][-1])
                / (case["guest_raw_bytes"][-1] - case["random_bytes"][-1])
                for case in cases if case["contender"] == RELAY and case["scope"] == "host"
                and case["fleet"] in ALIKE and case["activity"] == "idle"]
    if marginal:
        figures["marginal_guest"] = max(marginal)
    return figures


def missing(cases) -> list[str]:
    """Return the fleets, idle and busy, of which a contender has not sent all that it has to."""
    have = {tuple(case[key] for key in ("fleet", "activity", "mode", "contender", "scope"))
            for case in cases}
    return [f"{fleet} {activity}" for activity, named in FLEETS.items() for fleet in named
            if not have.issuperset((fleet, activity, *each) for each in _needed(fleet, activity))]


def _needed(fleet: str, activity: str) -> list[tuple[str, str, str]]:
    """Return mode, contender and scope of the cases that a fleet needs."""
    live = "live" if activity == "busy" else "stream"
    scopes = {STOCK: ("guest",), MULTIFD_NAME: ("guest",), RIVAL: SCOPES[:1], RELAY: SCOPES}
    return [*(("stream", each, "guest") for each in (STOCK, ZSTD_EACH)),
            *(("stream", each, scope) for each in (RIVAL, FLOOR, *MEANS, RELAY)
              for scope in SCOPES),
            *((live, each, scope) for each in _live_ones(fleet, activity)
              for scope in scopes[each])]


def _ratios(cases, contender, wanted, rival, same):
    for case in cases:
        if case["contender"] != contender or (wanted and case["fleet"] not in wanted):
            continue
        for other in cases:
            if other["contender"] == rival and other["scope"] in ("guest", case["scope"]) and all(
                    other[key] == case[key] for key in same):
                yield case["wire_bytes"] / other["wire_bytes"]
