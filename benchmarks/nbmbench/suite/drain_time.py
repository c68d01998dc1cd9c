"""Seconds in which a host of eight guests is emptied: Nova in four ways, plain QEMU, this project.

Through Nova on the lab, the link capped by tc; multifd with zstd, which Nova can't ask for, on
plain QEMUs beside. The lab is taken from whatever it does: all its guests are deleted.
"""
import concurrent.futures
import dataclasses
import time
from collections.abc import Sequence

from nbmlab import check, cloud, drain, guests, layout, owner, services, shell, teardown
from nbmlab.guests import Guest, Wanted

from nbmbench.contract import Goal, Settings
from nbmbench.rig import GuestSpec, Move, QemuOptions, Rig

NEEDS = "lab"
#: `*_vs_multifd_zstd` is against plain QEMU, without Nova's fixed seconds.
GOALS = {"alike_vs_best": Goal("<=", 0.30), "mixed_vs_best": Goal("<=", 0.60),
         "alike_vs_multifd_zstd": Goal("<=", 1.00)}
FLEETS = {"alike": ("web",) * 8, "mixed": ("web", "cache", "writer-mid", "redis") * 2}
LINKS = (100, 300, 1000)               # Mbit/s
GOAL_LINK = 300
#: Migrations under way at once: nova host-evacuate-live's loop, Watcher's two, KubeVirt's five.
AT_ONCE = {"nova-serial": 1, "nova-two": 2, "nova-five": 5, "nova-all": 8}
PROJECT = "project"
LIMIT_SECONDS = 1200
HOSTS = ("cmpa", "cmpb")


def run(settings: Settings) -> list[dict]:
    """Empty a host by every contender on every link; one case each."""
    links = [link for link in LINKS if str(link) in settings.options] or \
        ([GOAL_LINK] if settings.quick else list(LINKS))
    fleets = [fleet for fleet in FLEETS if fleet in settings.options] or \
        (["alike"] if settings.quick else list(FLEETS))
    cases: list[dict] = []
    owner.claim()
    services.up(dataclasses.replace(layout.load_options(), hosts=2, max_live_migrations=8,
                                    link_mib_per_second=_mib(links[0]), relays=True))
    try:
        for fleet in fleets:
            _on_lab(fleet, links, settings.quick, cases)
        drain.initial_state()
    finally:
        teardown.down(layout.STATE)
    with Rig(settings.scratch / "rig") as rig:
        for fleet in fleets:
            _on_qemu(settings, rig, fleet, links, cases)
    return cases


def _mib(link_mbit: int) -> float:
    return link_mbit * 1e6 / 8 / (1 << 20)


def _on_lab(fleet: str, links: Sequence[int], quick: bool, cases: list[dict]) -> None:
    drain.initial_state()
    booted = guests.boot([Wanted(family, f"{fleet}-{index}-{family}", HOSTS[0])
                          for index, family in enumerate(FLEETS[fleet])])
    drain.settle(booted)
    before = check.snapshot([guest.id for guest in booted])
    ways = ["nova-all", PROJECT] if quick else [*AT_ONCE, PROJECT]
    for link in links:
        services.up(dataclasses.replace(layout.load_options(),
                                        link_mib_per_second=_mib(link)))
        for way in ways:
            source = guests.listed()[0].host
            destination = next(host for host in HOSTS if host != source)
            began = time.monotonic()
            facts = _by_project(source) if way == PROJECT else \
                _by_nova(booted, destination, AT_ONCE[way])
            seconds = time.monotonic() - began
            moved = sum(guest.host == destination for guest in guests.listed())
            shell.say(f"{fleet} {link} Mbit/s {way}: {seconds:.1f} s, {moved} of {len(booted)}")
            cases.append({
                "fleet": fleet, "link_mbit": link, "way": way, "seconds": seconds, "moved": moved,
                "guests": len(booted), **facts})
            _enable()
    # all moves of all ways are behind them: what one of them lost shows here
    verdicts = check.verify(before)
    for case in cases:
        if case["fleet"] == fleet and "intact" not in case:
            case["intact"] = sum(each.alive and each.memory_intact for each in verdicts.values())


def _enable() -> None:
    for service in drain.compute_services():
        if service["status"] != "enabled":
            cloud.Cloud().call("nova-api", "PUT", f"/os-services/{service['id']}",
                               {"status": "enabled"})


def _by_nova(booted: Sequence[Guest], destination: str, at_once: int) -> dict:
    """Migrate as a loop of an operator does: so many under way until all have moved."""
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return {"server_seconds": list(pool.map(
            lambda guest: guests.migrate(guest, destination), booted))}


def _by_project(source: str) -> dict:
    """Run this project's one command to its end."""
    done = drain.openstack("server", "batch-migrate", "--host", source, "--wait")
    batch = drain.newest_batch(source)
    servers = batch.get("servers", ())
    if done.returncode not in (0, 1) or not servers:
        raise RuntimeError(f"the batch ended as {batch['status']}: {done.stderr[-2000:]}")
    return {"status": batch["status"], "raw_bytes": sum(each["raw_bytes"] or 0
                                                        for each in servers),
            "wire_bytes": sum(each["wire_bytes"] or 0 for each in servers),
            "server_seconds": [each["actual_seconds"] for each in servers]}


def _on_qemu(settings: Settings, rig: Rig, fleet: str, links: Sequence[int],
             cases: list[dict]) -> None:
    """Migrate the same kinds by plain QEMU with multifd and zstd, one by one and all at once."""
    specs = [GuestSpec.of(f"{fleet}-{index}", family)
             for index, family in enumerate(FLEETS[fleet])]
    frozen = [guest.freeze(settings.scratch / f"{guest.spec.name}.stream")
              for guest in rig.boot_all(specs, ticks=4)]
    qemu = QemuOptions(multifd_channels=2, multifd_compression="zstd", zstd_level=1)
    for link in links:
        rig.link.cap(link * 1e6 / 8)
        for way, at_once in (("qemu-serial", 1), ("qemu-all", len(frozen))):
            running = [rig.restore(state) for state in frozen]
            time.sleep(1)
            seconds, completed, sent = 0.0, 0, rig.link.sent_bytes()
            for first in range(0, len(running), at_once):
                migrations = rig.migrate(*[Move(guest, qemu=qemu, limit_seconds=LIMIT_SECONDS)
                                           for guest in running[first:first + at_once]])
                # without the start of the waiting QEMUs: Nova's contenders do that in parallel
                seconds += max(each.total_seconds for each in migrations)
                completed += sum(each.status == "completed" for each in migrations)
                for each in migrations:
                    each.guest.end()
            cases.append({"fleet": fleet, "link_mbit": link, "way": way, "seconds": seconds,
                          "moved": completed, "guests": len(frozen), "intact": None,
                          "wire_bytes": rig.link.sent_bytes() - sent})


def measured(cases) -> dict:
    """Return ratios on the link of the goals, and the seconds of all."""
    figures: dict[str, float] = {}
    for case in cases:
        if case["moved"] == case["guests"]:
            figures[f"{case['fleet']}_{case['link_mbit']}_{case['way']}_seconds".replace(
                "-", "_")] = case["seconds"]
    for fleet in FLEETS:
        def least(*ways: str, fleet=fleet) -> float | None:
            return min((case["seconds"] for case in cases
                        if case["fleet"] == fleet and case["link_mbit"] == GOAL_LINK
                        and case["way"] in ways and case["moved"] == case["guests"]),
                       default=None)
        mine, nova, plain = least(PROJECT), least(*AT_ONCE), least("qemu-serial", "qemu-all")
        if mine and nova:
            figures[f"{fleet}_vs_best"] = mine / nova
        if mine and plain:
            figures[f"{fleet}_vs_multifd_zstd"] = mine / plain
    return figures
