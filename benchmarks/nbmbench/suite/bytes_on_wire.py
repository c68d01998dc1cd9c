"""Bytes that a fleet's migration puts on the wire: stock, zstd in four forms, the relay's means.

Every contender sends the same frozen guests. An idle fleet's guests stand still; a busy fleet's
run, and their streams are taken as fast as the contender's bytes leave a link of 300 Mbit/s.
`--only streams=DIR` keeps a busy fleet's stock streams there; those that are there are sent again
by all that compress files, without guests.
"""
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
from nova_batch_migrate.relay.source import BY_LINK, zstd_level

NEEDS = "lab"
GOALS = {
    "alike_vs_zstd": Goal("<=", 0.40), "alike_vs_rival": Goal("<=", 1.00),
    "alike_vs_floor": Goal("<=", 1.05), "unlike_vs_zstd": Goal("<=", 0.97),
    "worst_vs_zstd": Goal("<=", 1.00), "marginal_guest": Goal("<=", 0.05),
}
LINK_BYTES_PER_SECOND = 300e6 / 8
LEVELS = (3, 6)                    # beside 1
STATIC_PAGES = 16_384
#: What the usual 512 MiB and 128 MiB are to guests of four times the memory.
SMALL = {"dictionary_bytes": 96 << 20, "window_log": 25}
MULTIFD = QemuOptions(multifd_channels=2, multifd_compression="zstd", zstd_level=1,
                      return_path=False)
RELAY, RIVAL, FLOOR, MULTIFD_NAME = "relay", "rival", "floor", "multifd-zstd"
SCOPES = ("project", "host")
ALIKE = ("alike", "alike-redis")


def run(settings: Settings) -> list[dict]:
    """Freeze the fleets, send each by every contender, return one case a contender and scope."""
    cases: list[dict] = []
    if again := _kept(settings):
        for fleet, streams in again:
            _from_files(_Bench(settings, fleet, "stream", cases), streams)
        return cases
    with Rig(settings.scratch / "rig") as rig:
        for activity in ("idle", "busy"):
            if settings.quick and activity == "busy":
                continue
            for fleet in _fleets(settings, rig, activity):
                began, before = time.monotonic(), len(cases)
                _send(settings, rig, fleet, cases)
                shell.say(f"{fleet.name} {activity}: {len(cases) - before} cases in "
                          f"{time.monotonic() - began:.0f} s")
    return cases


def _directory(settings: Settings) -> pathlib.Path | None:
    """Return where the streams of busy fleets are kept."""
    return next((pathlib.Path(word.removeprefix("streams=")) for word in settings.options
                 if word.startswith("streams=")), None)


def _kept(settings: Settings) -> list[tuple[Fleet, list[pathlib.Path]]]:
    """Return the busy fleets whose streams are kept."""
    directory, found = _directory(settings), []
    for name in (*ALIKE, "mixed", "unlike") if directory else ():
        streams = sorted(directory.glob(f"{name}-live-?"))
        if len(streams) == fleets.SIZE:
            found.append((Fleet(name, "busy", fleets.gone(fleets.kinds_of(name), fleets.BUSY)),
                          streams))
    return found


def _fleets(settings: Settings, rig: Rig, activity: str):
    """Yield frozen fleets; guests of one kind serve in several fleets, never twice in one."""
    load = fleets.IDLE if activity == "idle" else fleets.BUSY
    wanted = ["alike", "alike-redis", "mixed", "unlike", "held-out"]
    if chosen := [word for word in settings.options if word in wanted]:
        wanted = chosen
    if activity not in settings.options and {"idle", "busy"} & set(settings.options):
        return
    if settings.quick:
        wanted = ["alike"]
    pool: dict[str, list] = {}
    for name in wanted:
        generator = settings.held_out(f"bytes_on_wire {activity}")
        kinds = fleets.kinds_of(name, generator)[:3 if settings.quick else None]
        directory = settings.scratch / f"{name}-{activity}"
        directory.mkdir()
        if name == "held-out":
            states = fleets.freeze(rig, directory, [(kind, fleets.drawn_load(generator))
                                                    for kind in kinds], "x")
        else:
            for kind in dict.fromkeys(kinds):
                missing = kinds.count(kind) - len(pool.setdefault(kind, []))
                pool[kind] += fleets.freeze(rig, directory, [(kind, load)] * missing,
                                            f"{activity[0]}{len(pool[kind])}")
            states = [pool[kind][kinds[:index].count(kind)] for index, kind in enumerate(kinds)]
        shell.say(f"{name} {activity}: {len(states)} guests are frozen")
        yield Fleet(name, activity, fleets.members(states, kinds))


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
        if fleet.name == "held-out":
            case["held_out"] = True
        self.cases.append(case)
        self.settings.keep(self.cases)


def _send(settings: Settings, rig: Rig, fleet: Fleet, cases: list[dict]) -> None:
    """Send a fleet by all contenders; append a case for each."""
    if fleet.activity == "idle":
        bench = _Bench(settings, fleet, "stream", cases)
        streams = [member.frozen.stream for member in fleet.members]
        _from_files(bench, streams)
        _live(bench, rig, MULTIFD_NAME, [list(range(len(streams)))], lambda size: codecs.Raw(),
              MULTIFD, run=False)
        return
    bench = _Bench(settings, fleet, "live", cases)
    everybody = [list(range(len(fleet.members)))]
    directory = _directory(settings)
    copies = [(directory or settings.scratch) / f"{fleet.name}-live-{index}"
              for index in everybody[0]]
    _live(bench, rig, "stock", everybody, lambda size: codecs.Raw(copies))
    _live(bench, rig, MULTIFD_NAME, everybody, lambda size: codecs.Raw(), MULTIFD)
    same, before = _Bench(settings, fleet, "stream", cases), len(cases)
    _from_files(same, copies)
    level = next(case["level"] for case in cases[before:] if case["contender"] == RELAY)
    scope = SCOPES[0]
    groups = fleet.groups(scope)
    _live(bench, rig, RIVAL, groups, codecs.ZstdGroup, scope=scope)
    _live(bench, rig, RELAY, groups, lambda size: codecs.Relay(_settings(level=level)),
          scope=scope, level=level)
    for path in copies if directory is None else ():
        path.unlink()


def _live(bench: _Bench, rig: Rig, contender: str, groups: list[list[int]], codec_of,
          qemu: QemuOptions = ONE_WAY, run: bool = True, scope: str = "guest", **facts) -> None:
    """Migrate the fleet's guests one after the other into a sink with the contender's codec."""
    members = bench.fleet.members
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
        sent[group[0]] += getattr(codec, "overhead_bytes", 0)
    bench.add(contender, scope, sent, raw, None, migrations=migrations, **facts)


def _settings(**changes) -> LogSettings:
    return LogSettings(credit_bytes=1 << 38, **changes)


def _from_files(bench: _Bench, streams: list[pathlib.Path]) -> None:
    """Let all that compress files compress the same ones."""
    sizes = [path.stat().st_size for path in streams]
    bench.add("stock", "guest", sizes, sizes, 0.0)
    each = [codecs.zstd([path], "-1") for path in streams]
    bench.add("zstd-1", "guest", [size for size, _ in each], sizes, sum(cpu for _, cpu in each))
    for scope in SCOPES:
        groups = bench.fleet.groups(scope)
        _over_groups(bench, scope, RIVAL, streams, groups, "-1", "--long=30")
        # it takes as long as all others together, and is a goal for these alone
        if bench.fleet.name in ALIKE and not bench.settings.quick:
            _over_groups(bench, scope, FLOOR, streams, groups, "-9", "--long=31")
        _relay(bench, scope, streams, groups)


def _over_groups(bench: _Bench, scope: str, contender: str, streams, groups, *options) -> None:
    told = [codecs.zstd([streams[index] for index in group], *options) for group in groups]
    bench.add(contender, scope, [size for size, _ in told],
              [sum(streams[index].stat().st_size for index in group) for group in groups],
              sum(cpu for _, cpu in told), options=list(options))


def _relay(bench: _Bench, scope: str, streams, groups) -> None:
    """Send files through the relay with its means switched on one after the other."""
    def send(contender: str, verify: bool = False, scanned: bool = False,
             adapts_to: float | None = None, **changes) -> dict:
        sent, raw, cpu, counters = [0] * len(streams), [0] * len(streams), 0.0, []
        levels: dict[str, int] = {}
        for group in groups:
            files = [streams[index] for index in group]
            codec = codecs.Relay(_settings(
                recurring=codecs.recurring(files) if scanned else None, **changes), verify,
                adapts_to)
            wire, sizes, seconds = codecs.run(codec, files)
            for index, size, total in zip(group, sizes, wire, strict=True):
                sent[index], raw[index] = total, size
            sent[group[0]] += codec.overhead_bytes
            cpu += seconds
            counters.append(codec.statistics())
            for level, size in codec.levels.items():
                levels[level] = levels.get(level, 0) + size
        total = {name: sum(each[name] for each in counters) for name in counters[0]}
        bench.add(contender, scope, sent, raw, cpu, statistics=total, verified=verify,
                  level=changes.get("level"), **({"levels": levels} if levels else {}))
        return bench.cases[-1]

    send("relay-identical", level=None, most_delta_words=0)
    send("relay-delta", level=None)
    case = send("relay-zstd", level=1, verify=True)
    # 300 Mbit/s: bytes first; the highest level at which the core keeps up with the link
    levels = [case] + [send(f"relay-zstd-{level}", level=level)
                       for level in (LEVELS[:1] if bench.settings.quick else LEVELS)]
    fitting = [each for each in levels
               if each["cpu_seconds"] <= each["wire_bytes"] / LINK_BYTES_PER_SECOND]
    chosen = min(fitting or [case], key=lambda each: each["wire_bytes"])
    bench.cases.append(dict(chosen, contender=RELAY, core_keeps_up=bool(fitting)))
    # as the daemon chooses: by the seconds of the wall, so a machine that is busy costs bytes
    send("relay-adapting", level=zstd_level(BY_LINK, LINK_BYTES_PER_SECOND),
         adapts_to=LINK_BYTES_PER_SECOND)
    # guests that the dictionary is too small for: what the scan's word is worth
    send("relay-small", level=chosen["level"], **SMALL)
    send("relay-small-scanned", level=chosen["level"], scanned=True, **SMALL)
    if any(member.kind == "redis" for member in bench.fleet.members):
        image = images.DIRECTORY / "disk-redis.raw"
        send("relay-static", level=chosen["level"], static=different_pages([image], STATIC_PAGES))


def measured(cases) -> dict:
    """Return the worst ratio of each kind of fleet, over activities, modes and scopes."""
    figures = {}
    for name, wanted, rival in (
            ("alike_vs_stock", ALIKE, "stock"), ("alike_vs_zstd", ALIKE, MULTIFD_NAME),
            ("alike_vs_rival", ALIKE, RIVAL), ("alike_vs_floor", ALIKE, FLOOR),
            ("mixed_vs_zstd", ("mixed",), MULTIFD_NAME),
            ("unlike_vs_zstd", ("unlike",), MULTIFD_NAME),
            ("worst_vs_zstd", None, MULTIFD_NAME)):
        ratios = list(_ratios(cases, wanted, rival))
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
    """Return what the relay and multifd with zstd have not sent: fleets, idle and busy, live, too.

    They are the last ones of a fleet: of one that was cut short something is missing.
    """
    have = {(case["fleet"], case["activity"], case["mode"], case["contender"]) for case in cases}
    return [f"{fleet} {activity}" for activity, wanted in (
                ("idle", (("stream", RELAY), ("stream", MULTIFD_NAME))),
                ("busy", (("stream", RELAY), ("live", RELAY), ("live", MULTIFD_NAME))))
            for fleet in (*ALIKE, "mixed", "unlike")
            if any((fleet, activity, *each) not in have for each in wanted)]


def _ratios(cases, wanted, rival):
    for case in cases:
        if case["contender"] != RELAY or (wanted and case["fleet"] not in wanted):
            continue
        for other in cases:
            if other["contender"] == rival and other["scope"] in ("guest", case["scope"]) and all(
                    other[key] == case[key] for key in ("fleet", "activity", "mode")):
                yield case["wire_bytes"] / other["wire_bytes"]
