"""Seconds in which a host of eight guests is emptied: Nova in four ways, plain QEMU, this project.

Through Nova on the lab, the link capped by tc, the same guests going to and fro; multifd with zstd,
which Nova can't ask for, on plain QEMUs with guests of the same families; the relays alone at the
same layer. The lab is taken from whatever it does: all its guests are deleted. Where guests are is
read from Nova's database, once a second; API and Neutron are left to those who are measured. Words
for --only: a fleet, a link's Mbit/s, a way.
With --quick two guests, by this project and by `nova host-evacuate-live`, on a lab that may be up.
"""
import dataclasses
import datetime
import mmap
import pathlib
import signal
import time
from collections.abc import Callable, Sequence

import numpy as np
from nbmlab import check, drain, guests, layout, network, services, shell
from nbmlab.cloud import Cloud
from nbmlab.guests import Guest

from nbmbench import cloud, filled
from nbmbench.contract import Goal, Settings
from nbmbench.relays import Relays
from nbmbench.rig import Frozen, GuestSpec, Move, QemuOptions, Rig
from nbmbench.rig.link import DESTINATION, SOURCE

NEEDS = "lab"
#: `*_vs_multifd_zstd` is of whole drains through Nova against plain QEMU, without Nova's fixed
#: seconds; `*_relay_vs_multifd_zstd` of both on plain QEMU.
GOALS = {"alike_vs_best": Goal("<=", 0.30), "mixed_vs_best": Goal("<=", 0.60),
         "alike_vs_multifd_zstd": Goal("<=", 1.00), "mixed_vs_multifd_zstd": Goal("<=", 1.00),
         "alike_relay_vs_multifd_zstd": Goal("<=", 1.00),
         "mixed_relay_vs_multifd_zstd": Goal("<=", 1.00)}
FLEETS = {"alike": ("web",) * 8, "mixed": ("web", "cache", "redis", "database") * 2}
QUICK_FLEETS = {"pair": ("web",) * 2}
LINKS = (300, 1000, 100)               # Mbit/s, the goals' first
GOAL_LINK = 300
#: Migrations under way at once: one by one, Watcher's two, KubeVirt's five, and all, which is what
#: python-novaclient's `nova host-evacuate-live` does and is done by it here.
NOVA = {"nova-two": 2, "nova-all": 8, "nova-five": 5, "nova-serial": 1}
PROJECT = "project"
#: The same behind a plan that an operator has asked for and read; the same command, which then
#: plans by what is known instead of measuring first. No goal is by them.
PLANNED = "project-planned"
URGENT = "project-urgent"
#: The same with dictionaries as large as a guest is; no goal is by it either.
LARGE = "project-large-dictionary"
#: The same without relays: what they are worth on a link. No goal is by it.
OFF = "project-off"
OURS = {PROJECT: (), LARGE: (), PLANNED: (), URGENT: ("--urgent",),
        OFF: ("--dedup-scope", "off")}
QEMU = {"qemu-all": 8, "qemu-serial": 1}
#: The relays between the same plain QEMUs, all guests started at once as a group is.
RELAY = "qemu-relay"
PLAIN = (*QEMU, RELAY)
MULTIFD = QemuOptions(multifd_channels=2, multifd_compression="zstd", zstd_level=1)
QUICK_WAYS = ("nova-all", PROJECT)
LIMIT_SECONDS = 1200
AT_ONCE = 8                            # Nova's max_concurrent_live_migrations, for all ways
#: Of the relays, their default.
DICTIONARY_MIB = 512
POLL_SECONDS = 1.0
#: A server that Nova has back where it was so long after the call has not moved.
STARTED_SECONDS = 5.0
BETWEEN_SECONDS = 3.0
#: So long a plan is read before it is carried out.
READING_SECONDS = 45.0
MIB = 1 << 20


def run(settings: Settings) -> list[dict]:
    """Empty a host by every contender on every link; one case each."""
    def chosen(known: Sequence[str]) -> list[str]:
        return [word for word in known if word in settings.options] or list(known)

    table = QUICK_FLEETS if settings.quick else FLEETS
    fleets = {fleet: table[fleet] for fleet in chosen(list(table))}
    links = [GOAL_LINK] if settings.quick else [
        int(link) for link in chosen([str(link) for link in LINKS])]
    ways = list(QUICK_WAYS) if settings.quick else chosen([*OURS, *NOVA, *PLAIN])
    cases: list[dict] = []

    def keep(case: dict) -> None:
        shell.say("{fleet} {link_mbit} Mbit/s {way}: {seconds:.1f} s, {moved} of {guests}".format(
            **case))
        cases.append(case)
        settings.keep(cases)

    filled.register()
    if through_nova := [way for way in ways if way not in PLAIN]:
        with cloud.lab(max_live_migrations=AT_ONCE, dictionary_mib=DICTIONARY_MIB,
                       link_mib_per_second=cloud.mib(links[0])):
            for fleet, kinds in fleets.items():
                _fleet_on_lab(fleet, kinds, links, through_nova, keep)
    if plain := [way for way in ways if way in PLAIN]:
        with Rig(settings.scratch / "rig") as rig:
            rig.link.use_cubic()
            for fleet, kinds in fleets.items():
                _on_qemu(settings, rig, fleet, kinds, links, plain, keep)
    return cases


# ---- through Nova ------------------------------------------------------------------------------

def _fleet_on_lab(fleet: str, kinds: Sequence[str], links: Sequence[int], ways: Sequence[str],
                  keep: Callable[[dict], None]) -> None:
    booted = boot(fleet, kinds)
    shell.say(f"{fleet}: {len(booted)} guests run and are filled")
    cases = []
    size = _size(kinds, [_resident_bytes(guest.id) for guest in booted])
    before = check.snapshot([guest.id for guest in booted])
    try:
        for link in links:
            for way in ways:
                dictionary_mib = filled.MEMORY_MIB if way == LARGE else DICTIONARY_MIB
                _set_up(link, dictionary_mib)
                cases.append(_emptied(booted, way) | {
                    "fleet": fleet, "link_mbit": link, "at_once": AT_ONCE,
                    "dictionary_mib": dictionary_mib} | size)
                cloud.enable()
                time.sleep(BETWEEN_SECONDS)
    finally:
        # an end that comes now would cost all that was measured
        ended = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # every move of all ways is behind them: what any of them lost shows here
        whole, not_whole = cloud.whole(before)
        for case in cases:
            keep(case | {"whole": whole, "not_whole": not_whole})
        signal.signal(signal.SIGTERM, ended)


def _set_up(link: int, dictionary_mib: int) -> None:
    """Let the lab have this link and such relays; what has them goes on as it is."""
    present = layout.load_options()
    wanted = dataclasses.replace(present, link_mib_per_second=cloud.mib(link),
                                 dictionary_mib=dictionary_mib)
    if wanted != present:
        services.up(wanted)


def _size(kinds: Sequence[str], resident_bytes: Sequence[int]) -> dict:
    """Return what a case tells of its guests: memory, what fills it, what of their QEMUs is there.
    """
    return {"memory_mib": filled.MEMORY_MIB, "kinds": list(kinds),
            "filling": {kind: filled.filling(kind) for kind in kinds},
            "resident_mib": sorted(each // MIB for each in resident_bytes)}


def _resident_bytes(server_id: str) -> int:
    """Return the resident memory of the QEMU that a guest runs in; 0 where none is found."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if server_id.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                return int((process / "statm").read_text().split()[1]) * mmap.PAGESIZE
        except OSError:
            continue                   # it has ended
    return 0


def boot(fleet: str, kinds: Sequence[str]) -> list[Guest]:
    """Return the guests of a fleet; those of an earlier part of the benchmark serve again."""
    return cloud.boot([(filled.name(kind), f"{fleet}-{index}-{kind}")
                       for index, kind in enumerate(kinds)], filled.READ)


class _Move:
    """Guests on their way; the one look at where Nova has them serves all ways alike."""

    def __init__(self, booted: Sequence[Guest], destination: str):
        self._admin, self._places = Cloud(), cloud.Places()
        self._ids, self._destination = [guest.id for guest in booted], destination
        self._began = time.monotonic()
        self._issued: dict[str, float] = {}
        self.arrived: dict[str, float] = {}
        self.failed: set[str] = set()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def over(self) -> bool:
        return len(self.arrived) + len(self.failed) == len(self._ids) \
            or self.seconds > LIMIT_SECONDS

    def under_way(self) -> int:
        return len(self._issued.keys() - self.arrived.keys() - self.failed)

    def next(self) -> bool:
        """Ask Nova to migrate the next guest; False when there is none."""
        left = [each for each in self._ids if each not in self._issued]
        if left:
            self._issued[left[0]] = self.seconds
            self._admin.post("nova-api", f"/servers/{left[0]}/action", {
                "os-migrateLive": {"host": self._destination, "block_migration": "auto"}})
        return bool(left)

    def all_asked_for(self) -> None:
        """Note that somebody else has asked Nova to migrate them all."""
        for each in self._ids:
            self._issued.setdefault(each, self.seconds)

    def look(self) -> None:
        """See who has arrived: at the destination as Nova has it, and no longer migrating."""
        now = self.seconds
        for server_id, (host, state, task) in self._places.look().items():
            if server_id not in self._ids or server_id in self.arrived:
                continue
            at_rest = state == "active" and task is None
            if host == self._destination and at_rest:
                self.arrived[server_id] = now
            elif state == "error" or (
                    at_rest and now > self._issued.get(server_id, now) + STARTED_SECONDS):
                self.failed.add(server_id)

    def close(self) -> None:
        """End looking."""
        self._places.close()


def _emptied(booted: Sequence[Guest], way: str) -> dict:
    """Empty the host that the guests are on and return what is known of it."""
    source = next(guest.host for guest in guests.listed() if guest.id == booted[0].id)
    destination = cloud.other(source)
    if way == PLANNED:
        read = _plan(source)
    sent = network.sent_bytes(layout.host_named(source))
    began, move = time.time(), _Move(booted, destination)
    if way in OURS:
        facts = _by_command(move, "openstack", "server", "batch-migrate", "--host", source,
                            "--wait", *OURS[way]) | _told(source, began)
        if way == PLANNED:
            facts["planned_before_seconds"] = round(began - read, 1)
    elif way == "nova-all":
        facts = _by_command(move, "nova", "host-evacuate-live", "--target-host", destination,
                            source)
    else:
        facts = _by_loop(move, NOVA[way])
    move.close()
    seconds = max(move.arrived.values(), default=move.seconds)
    case = {"way": way, "seconds": round(seconds, 2), "moved": len(move.arrived),
            "guests": len(booted), "arrived_seconds": sorted(
                round(each, 2) for each in move.arrived.values()),
            "wire_bytes": network.sent_bytes(layout.host_named(source)) - sent, **facts}
    shell.say(f"{way}: {case['seconds']} s, {case['moved']} moved, "
              f"{case['wire_bytes'] / 1e6:.0f} MB")
    return case


def _plan(source: str) -> float:
    """Plan as an operator does, who then reads; return when the plan was there."""
    drain.openstack("server", "batch-migrate", "--host", source, "--plan-only")
    made = time.time()
    time.sleep(READING_SECONDS)
    return made


def _by_command(move: _Move, program: str, *words: str) -> dict:
    """Let a client's command do it; its own start and its own waiting count."""
    process, ended = drain.started(program, *words), None
    while ended is None or not move.over:
        time.sleep(POLL_SECONDS)
        over = ended is not None
        move.look()
        if over and program == "openstack":
            break                      # it waits for the end: who has not arrived stays
        if not over and process.poll() is not None:
            ended = move.seconds
            move.all_asked_for()
    told = process.communicate()[0]
    if process.returncode:
        shell.say(f"{program} ended with {process.returncode}: {told[-1500:]}")
    return {"command": " ".join((program, *words)), "command_seconds": round(ended, 2),
            "command_status": process.returncode}


def _by_loop(move: _Move, at_once: int) -> dict:
    """Migrate as a loop does: so many under way until all have moved."""
    while not move.over:
        while move.under_way() < at_once and move.next():
            pass
        time.sleep(POLL_SECONDS)
        move.look()
    return {}


def _told(source: str, began: float) -> dict:
    """Return what this project's own report says of the batch; `phases` in whole seconds."""
    batch = drain.newest_batch(source)
    phases: dict[str, float] = {}
    for event in drain.events(batch["id"]):
        at = datetime.datetime.fromisoformat(event["created_at"]).timestamp()
        phases.setdefault(event["kind"], round(at - began, 1))
    return {"status": batch["status"], "projected_seconds": batch["projected_seconds"],
            "batch_seconds": batch["actual_seconds"], "phases": phases, "notes": batch["notes"],
            "servers": [{name: each[name] for name in (
                "name", "projected_seconds", "actual_seconds", "actual_stream_seconds",
                "actual_queue_seconds", "actual_nova_seconds", "raw_bytes", "wire_bytes",
                "downtime_seconds", "attempts", "relay")} for each in batch["servers"]]}


# ---- plain QEMU --------------------------------------------------------------------------------

def _on_qemu(settings: Settings, rig: Rig, fleet: str, kinds: Sequence[str],
             links: Sequence[int], ways: Sequence[str], keep: Callable[[dict], None]) -> None:
    """Migrate guests of the same families by plain QEMU: multifd with zstd, and relays."""
    booted = rig.boot_all([GuestSpec.of(f"{fleet}-{index}", filled.name(kind))
                           for index, kind in enumerate(kinds)], ticks=10)
    for guest in booted:
        shell.wait_for(f"all files of {guest.spec.name}", guests.BOOT_SECONDS,
                       lambda guest=guest: filled.READ in guest.console)
    size = _size(kinds, [_resident_bytes(guest.spec.uuid) for guest in booted])
    frozen = [guest.freeze(settings.scratch / f"{guest.spec.name}.stream") for guest in booted]
    for link in links:
        rig.link.cap(link * 1e6 / 8)
        for way in ways:
            if way == RELAY:
                told = _by_relays(settings, rig, frozen, f"{fleet}-{link}", link * 1e6 / 8)
            else:
                told = _moved(rig, frozen, QEMU[way], MULTIFD)
            keep({"way": way, "fleet": fleet, "link_mbit": link} | told | size)
    for state in frozen:
        state.stream.unlink()


def _by_relays(settings: Settings, rig: Rig, frozen: Sequence[Frozen], name: str,
               link_bytes_per_second: float) -> dict:
    """Let two relays carry the guests as one group of one project, as large as in the lab.

    Guests of one kind are neighbours in its order, as in a plan. Opening the group counts.
    """
    with Relays(rig, settings.scratch / f"relays-{name}") as relays:
        states = sorted(frozen, key=lambda state: state.spec.family.name)
        began = time.monotonic()
        group = relays.open([(state.spec.uuid, "project") for state in states],
                            dictionary_bytes=DICTIONARY_MIB * MIB,
                            link_bytes_per_second=link_bytes_per_second)
        opening = time.monotonic() - began
        case = _moved(rig, states, len(states), QemuOptions())
        statistics = relays.close(group)
        if not statistics or not statistics["cross_server_bytes"]:
            raise RuntimeError(f"the relays carried nothing:\n{relays.log(SOURCE)}")
        return case | {
            "seconds": round(case["seconds"] + opening, 2), "opening_seconds": round(opening, 3),
            "dictionary_mib": DICTIONARY_MIB,
            "cpu_seconds": {side: relays.cpu_seconds(side) for side in (SOURCE, DESTINATION)}}


def _moved(rig: Rig, frozen: Sequence[Frozen], at_once: int, qemu: QemuOptions) -> dict:
    """Migrate guests between plain QEMUs, so many at once, and return what is known of it."""
    running = [rig.restore(state) for state in frozen]
    time.sleep(1)
    before = [guest.last_tick() or state.tick
              for guest, state in zip(running, frozen, strict=True)]
    seconds, ended, sent = 0.0, [], rig.link.sent_bytes()
    for first in range(0, len(running), at_once):
        migrations = rig.migrate(*[Move(guest, qemu=qemu, limit_seconds=LIMIT_SECONDS)
                                   for guest in running[first:first + at_once]])
        # without the start of the waiting QEMUs: Nova's contenders do that in parallel
        seconds += max(each.total_seconds for each in migrations)
        ended += migrations
    sent = rig.link.sent_bytes() - sent
    completed = [(each.guest, old, each.guest.last_tick())
                 for each, old in zip(ended, before, strict=True) if each.status == "completed"]
    told = [guest.judge(old, now) for guest, old, now in completed]
    for guest in (*running, *(guest for guest, _, _ in completed)):
        guest.end()
    return {"seconds": round(seconds, 2), "moved": len(completed),
            "guests": len(frozen), "wire_bytes": sent,
            "raw_bytes": sum(state.stream.stat().st_size for state in frozen),
            "migrations": [each.facts() for each in ended],
            "whole": sum(each.alive and each.memory_intact for each in told),
            "not_whole": [each.detail for each in told
                          if not (each.alive and each.memory_intact)]}


# ---- figures -----------------------------------------------------------------------------------

def _seconds(cases, fleet: str, link: int, way: str) -> list[float]:
    """Return the seconds of the runs in which every guest came over, whole."""
    return [case["seconds"] for case in cases
            if (case["fleet"], case["link_mbit"], case["way"]) == (fleet, link, way)
            and case["moved"] == case["whole"] == case["guests"]]


def measured(cases) -> dict:
    """Return ratios on the link of the goals, and the (median) seconds and bytes of all."""
    figures: dict[str, float] = {}
    for fleet, link, way in dict.fromkeys(
            (case["fleet"], case["link_mbit"], case["way"]) for case in cases):
        if told := _seconds(cases, fleet, link, way):
            figures[f"{fleet}_{link}_{way}_seconds".replace("-", "_")] = float(np.median(told))
    for fleet in FLEETS:
        for link in LINKS:
            def least(*ways: str, fleet=fleet, link=link) -> float | None:
                return min((float(np.median(told)) for way in ways
                            if (told := _seconds(cases, fleet, link, way))), default=None)
            nova, plain = least(*NOVA), least(*QEMU)
            mark = "" if link == GOAL_LINK else f"_{link}"
            for name, way, other in (("vs_best", PROJECT, nova),
                                     ("vs_multifd_zstd", PROJECT, plain),
                                     ("relay_vs_multifd_zstd", RELAY, plain)):
                if other and (mine := least(way)):
                    figures[f"{fleet}_{name}{mark}"] = mine / other
    return figures


def missing(cases) -> list[str]:
    """Return the ways that emptied no host, of each fleet on each link: all are to be compared.

    Goals are held on one link only; what is slower or faster elsewhere is to be told as well.
    """
    return [f"{fleet} {link} {way}" for link in LINKS for fleet in FLEETS
            for way in (*NOVA, PROJECT, *PLAIN) if not _seconds(cases, fleet, link, way)]
