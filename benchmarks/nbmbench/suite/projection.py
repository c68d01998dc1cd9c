"""How long real QEMU guests take to migrate, as projected before and as measured after.

Every guest is measured by the agent's code and projected, then migrates over a link capped by tc
with Nova's downtime steps and timeout, and back again: the same migration twice. Words for --only:
`from=FILE` takes over the cases of an earlier part, `seconds=N` begins nothing new after so long
(what is left out then makes the next part), `tuned` or `held-out` runs these only, `duty` those
with duty cycles.
"""
import dataclasses
import itertools
import json
import pathlib
import time

import numpy

from nbmbench import contract, projection_cases, telemetry
from nbmbench.contract import Goal, percentile
from nbmbench.projection_cases import Case, Member
from nbmbench.rig import Guest, GuestSpec, Move, Nova, Rig
from nova_batch_migrate.planning import projection
from nova_batch_migrate.planning.telemetry import MigrationOptions

NEEDS = "lab"
GOALS = {
    "migrations": Goal(">=", 60),
    "time_error_p50": Goal("<=", 0.03),
    "time_error_p90": Goal("<=", 0.08),
    "bytes_error_p90": Goal("<=", 0.08),
    "verdict_accuracy": Goal(">=", 0.98),
}
MIB = 1 << 20
#: Guests that are booted side by side; all but those of one case then stand still.
BOOTED = 4
#: Before measuring, after a guest goes on; a service that has just started is not what it will be.
SETTLE_SECONDS, SERVICE_SECONDS = 1.5, 10.0
BETWEEN_SECONDS = 0.7
#: From the projection to the first byte: the other QEMU is started.
STARTING_SECONDS = 0.3
#: Of QEMU alone: no libvirt prepares anything here.
SETUP_SECONDS = 0.005
BOOTSTRAPS = 1000
#: The upper end of an interval over what is projected, from which on it tells of a boundary.
WIDE = 1.1


def run(settings: contract.Settings) -> list[dict]:
    """Run what is left of the cases, those that are not held out first."""
    words = dict(word.partition("=")[::2] for word in settings.options)
    cases = [*projection_cases.TUNED, *projection_cases.held_out(settings.held_out("projection"))]
    if settings.quick:
        cases = [projection_cases.TUNED[0], projection_cases.TUNED[11]]
    if "tuned" in words or "held-out" in words:
        cases = [case for case in cases if case.held_out == ("held-out" in words)]
    if "duty" in words:
        cases = [case for case in cases if any(m.period_seconds for m in case.members)]
    found = _earlier(words.get("from"), cases)
    end = time.monotonic() + float(words.get("seconds", "inf"))
    left = [case for case in cases if _key(case) not in {told["key"] for told in found}]
    with Rig(settings.scratch / "rig") as rig:
        while left and time.monotonic() < end:
            chosen = list(itertools.takewhile(_Room(), left))
            left = left[len(chosen):]
            found += _run_cases(rig, chosen)
    return found


class _Room:
    """Takes cases as long as their guests can be booted together."""

    def __init__(self):
        self._left = BOOTED

    def __call__(self, case: Case) -> bool:
        self._left -= len(case.members)
        return self._left >= 0


def _key(case: Case) -> str:
    return json.dumps(dataclasses.asdict(case), sort_keys=True)


def _earlier(path: str | None, cases: list[Case]) -> list[dict]:
    if not path or not pathlib.Path(path).exists():
        return []
    wanted = {_key(case) for case in cases}
    return [told for told in json.loads(pathlib.Path(path).read_text())["cases"]
            if told["key"] in wanted]


def _run_cases(rig: Rig, cases: list[Case]) -> list[dict]:
    """Boot the guests of all, then let one case after the other run."""
    rig.link.cap(0)
    names = itertools.count()
    specs = [[_spec(case, member, f"g{next(names)}") for member in case.members] for case in cases]
    booted = iter(rig.boot_all([spec for of_case in specs for spec in of_case]))
    guests = [[next(booted) for _ in case.members] for case in cases]
    for guest in itertools.chain(*guests):
        guest.qmp.execute("stop")
    return [_run_case(rig, case, of_case) for case, of_case in zip(cases, guests, strict=True)]


def _spec(case: Case, member: Member, name: str) -> GuestSpec:
    if member.redis:
        return GuestSpec.of(name, "redis")
    return GuestSpec.writer(name, member.load(), member.memory_mib, case.kernel)


def _run_case(rig: Rig, case: Case, guests: list[Guest]) -> dict:
    for guest in guests:
        guest.qmp.execute("cont")
    time.sleep(SERVICE_SECONDS if any(m.redis for m in case.members) else SETTLE_SECONDS)
    rig.link.cap(case.link_mib_s * MIB, fair=len(guests) > 1)
    options = MigrationOptions(downtime_delay_seconds=case.delay_seconds,
                               completion_timeout_seconds_per_gib=case.timeout_seconds)
    # A cycle is known only to who has watched it for some periods.
    servers = telemetry.measure(guests, max(m.period_seconds for m in case.members))
    members = [projection.member_load(server, server.memory_bytes, options) for server in servers]
    link = projection.usable_link(telemetry.link(rig, guests[0].side), options)
    runs, projected = [], []
    for _ in range(case.runs):
        projected.append([p.to_dict() for p in projection.project(
            members, link, len(members), 0.0, SETUP_SECONDS, time.time() + STARTING_SECONDS)])
        migrations = rig.migrate(*(Move(guest, Nova(options)) for guest in guests))
        runs.append([migration.facts() for migration in migrations])
        guests = [migration.guest for migration in migrations]
        time.sleep(BETWEEN_SECONDS)
    for guest in guests:
        guest.end()
    return {"key": _key(case), "held_out": case.held_out, "case": dataclasses.asdict(case),
            "projected": projected,
            "pages": [[server.total_pages, server.present_pages, server.zero_pages]
                      for server in servers],
            "models": [server.changed.to_dict() for server in servers],
            "periods": [_period(server) for server in servers],
            "windows": [[w.to_dict() for w in server.windows] for server in servers], "runs": runs}


def _period(server) -> dict | None:
    found = server.history and server.history.periodicity
    return found.to_dict() if found else None


@dataclasses.dataclass(frozen=True)
class _Pair:
    """One guest of one run: what was projected, what was measured."""

    projected: dict
    actual: dict

    @property
    def right(self) -> bool:
        """Tell whether it ended as projected: across, or still here at Nova's timeout."""
        return (self.projected["verdict"] == "converges") == (self.actual["status"] == "completed")

    @property
    def both(self) -> bool:
        return self.right and self.actual["status"] == "completed"

    @property
    def time_error(self) -> float:
        return abs(self.projected["stream_seconds"] / self.actual["total_seconds"] - 1)

    @property
    def bytes_error(self) -> float:
        return abs(self.projected["raw_bytes"] / self.actual["transferred_bytes"] - 1)

    @property
    def inside(self) -> bool:
        low, high = self.projected["interval_seconds"]
        return low <= self.actual["total_seconds"] <= (high or float("inf"))


def _guests(case: dict) -> list[list[_Pair]]:
    """Return the pairs of each guest of a case, one for each run."""
    return [[_Pair(projected[at], run[at])
             for projected, run in zip(case["projected"], case["runs"], strict=True)]
            for at in range(len(case["runs"][0]))]


def _at_boundary(pairs: list[_Pair]) -> bool:
    """Tell whether the same migration went differently the second time, at the boundary.

    It ended differently; or how long it takes depends on chance: a guest that dirties a little more
    would take far longer, so the projection said, and its two runs are further apart than the goal.
    """
    if len({pair.actual["status"] == "completed" for pair in pairs}) > 1:
        return True
    seconds = [pair.actual["total_seconds"] for pair in pairs]
    high = pairs[0].projected["interval_seconds"][1]
    wide = high is None or high > WIDE * pairs[0].projected["stream_seconds"]
    return wide and max(seconds) > (1 + GOALS["time_error_p90"].value) * min(seconds)


def measured(cases: list[dict]) -> dict:
    """Return the figures; guests at the boundary count in `boundary` only."""
    of_guests = [pairs for case in cases for pairs in _guests(case)]
    sure = [pairs for pairs in of_guests if not _at_boundary(pairs)]
    pairs = [pair for guest in sure for pair in guest]
    ended = [pair for pair in pairs if pair.both]
    twice = [abs(guest[0].actual["total_seconds"] / guest[1].actual["total_seconds"] - 1)
             for guest in sure if len(guest) > 1 and guest[0].actual["status"] == "completed"]
    figures = {
        "migrations": sum(len(guest) for guest in of_guests),
        "boundary": sum(len(guest) for guest in of_guests) - len(pairs),
        "time_error_p50": percentile([pair.time_error for pair in ended], 0.5),
        "time_error_p90": percentile([pair.time_error for pair in ended], 0.9),
        "bytes_error_p90": percentile([pair.bytes_error for pair in ended], 0.9),
        "verdict_accuracy": sum(pair.right for pair in pairs) / len(pairs) if pairs else None,
        "repeatability_p90": percentile(twice, 0.9),
        "inside_interval": sum(pair.inside for pair in ended) / len(ended) if ended else None,
    }
    return {name: value for name, value in figures.items() if value is not None}


def intervals(cases: list[dict]) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals: cases are drawn again, since runs of one case are alike."""
    chance = numpy.random.default_rng(1)
    draws = [measured([cases[at] for at in chance.integers(0, len(cases), len(cases))])
             for _ in range(BOOTSTRAPS)]
    names = [name for name in GOALS if name != "migrations"]
    found = {}
    for name in names:
        values = [draw[name] for draw in draws if name in draw]
        if values:
            low, high = numpy.percentile(values, (2.5, 97.5))
            found[name] = float(low), float(high)
    return found
