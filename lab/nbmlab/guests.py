"""Boots, lists, checks and deletes guests of the families.

Called by lab/guests, lab/demo and the lab tests. Speaks to the cloud as admin; what a guest is
made of is in families and images.
"""
import argparse
import concurrent.futures
import dataclasses
import time
from collections.abc import Sequence

from nbmlab import check, cloud, layout, provision, shell
from nbmlab.cloud import Cloud
from nbmlab.families import FAMILIES

FAMILY_KEY = "nbm-family"              # server metadata: by which family it was booted
BOOT_SECONDS = 240


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A guest to boot."""

    family: str
    name: str
    host: str = "cmpa"
    memory_mib: int = 0                # 0: what the family says
    project: str = "admin"             # another one's guests go where the scheduler likes


@dataclasses.dataclass(frozen=True)
class Guest:
    """A guest as Nova and its console tell."""

    id: str
    name: str
    family: str
    host: str
    status: str
    locked: bool
    memory_mib: int


def boot(wanted: Sequence[Wanted]) -> list[Guest]:
    """Boot guests side by side and return them when each ticks on its console."""
    admin = Cloud()
    owners = {each.project: Cloud(each.project, each.project, each.project) for each in wanted}
    images = {image["name"]: image["id"]
              for image in admin.get("glance", "/images?limit=1000")["images"]}
    network = admin.get("neutron", f"/networks?name={provision.NETWORK}")["networks"][0]["id"]
    flavors = {flavor["name"]: flavor["id"]
               for flavor in admin.get("nova-api", "/flavors?limit=1000")["flavors"]}
    ids = []
    for each in wanted:
        if each.family not in FAMILIES:
            raise shell.LabError(f"no family {each.family}; there are: {', '.join(FAMILIES)}")
        memory_mib = each.memory_mib or FAMILIES[each.family].memory_mib
        flavor = f"nbm-{memory_mib}"
        if flavor not in flavors:
            flavors[flavor] = admin.post("nova-api", "/flavors", {"flavor": {
                "name": flavor, "ram": memory_mib, "vcpus": 1, "disk": 1}})["flavor"]["id"]
        # `host` is an administrator's request
        place = {"host": each.host} if each.project == "admin" else {}
        ids.append(owners[each.project].post("nova-api", "/servers", {"server": {
            "name": each.name, "imageRef": images[each.family], "flavorRef": flavors[flavor],
            "networks": [{"uuid": network}], "metadata": {FAMILY_KEY: each.family},
            **place}})["server"]["id"])
    _wait_for_ticks(admin, ids)
    return [guest for guest in listed(admin) if guest.id in ids]


def _wait_for_ticks(admin: Cloud, ids: list[str]) -> None:
    """Return when all guests tick; LabError as soon as one is in ERROR."""
    waiting = set(ids)
    end = time.monotonic() + BOOT_SECONDS
    while waiting:
        for server_id in sorted(waiting):
            server = admin.get("nova-api", f"/servers/{server_id}")["server"]
            if server["status"] == "ERROR":
                fault = server.get("fault", {}).get("message", "Nova tells no reason")
                raise shell.LabError(f"{server['name']} did not boot: {fault}; logs are in "
                                     f"{layout.LOG}")
            if server["status"] == "ACTIVE" and check.last_tick(server_id):
                waiting.discard(server_id)
        if time.monotonic() > end:
            raise shell.LabError(f"{len(waiting)} guests do not tick after {BOOT_SECONDS} s; their "
                                 f"consoles: {layout.INSTANCES}/{sorted(waiting)[0]}/console.log")
        time.sleep(0.5)


def listed(admin: Cloud | None = None) -> list[Guest]:
    """Return all guests of the cloud, ordered by name."""
    servers = (admin or Cloud()).get(
        "nova-api", "/servers/detail?all_tenants=true&limit=1000")["servers"]
    return sorted((Guest(
        id=server["id"], name=server["name"],
        family=server["metadata"].get(FAMILY_KEY, "unknown"),
        host=server.get("OS-EXT-SRV-ATTR:host") or "", status=server["status"],
        locked=server["locked"], memory_mib=server["flavor"]["ram"])
        for server in servers), key=lambda guest: guest.name)


def named(names: Sequence[str]) -> list[Guest]:
    """Return the guests with those names or ids; all guests when no name is given."""
    everyone = listed()
    for name in names:
        if not any(name in (guest.name, guest.id) for guest in everyone):
            raise shell.LabError(f"no guest {name}; lab/guests list shows them")
    return [guest for guest in everyone
            if not names or guest.name in names or guest.id in names]


def delete(guests: Sequence[Guest]) -> None:
    """Delete guests, locked ones too, and return when they are gone."""
    admin = Cloud()

    def forget(guest: Guest) -> None:
        try:
            admin.call("nova-api", "DELETE", f"/servers/{guest.id}")
        except cloud.ApiError as error:
            if error.status != 404:
                raise

    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(forget, guests))
    ids = {guest.id for guest in guests}
    shell.wait_for("the deletion of guests", 120,
                   lambda: not ids & {guest.id for guest in listed(admin)}, every_seconds=0.5)


def migrate(guest: Guest, host: str) -> float:
    """Live-migrate one guest through Nova and return the seconds until Nova says `completed`."""
    admin = Cloud()

    def migrations() -> dict[int, str]:
        rows = admin.get("nova-api", f"/os-migrations?instance_uuid={guest.id}")["migrations"]
        return {row["id"]: row["status"] for row in rows}

    before = migrations().keys()
    begin = time.monotonic()
    admin.post("nova-api", f"/servers/{guest.id}/action", {
        "os-migrateLive": {"host": host, "block_migration": "auto"}})

    def verdict() -> str:
        return next((status for number, status in migrations().items() if number not in before),
                    "")

    shell.wait_for(f"the migration of {guest.name}", 900, lambda: verdict() in (
        "completed", "failed", "error", "cancelled"), every_seconds=0.2)
    if verdict() != "completed":
        raise shell.LabError(f"the migration of {guest.name} ended as {verdict()}; see "
                             f"{layout.LOG}/compute-{guest.host}.log")
    return time.monotonic() - begin


def main(arguments: list[str]) -> int:
    """Carry out `lab/guests ...`; exit status 1 when a check fails."""
    parser = argparse.ArgumentParser(prog="lab/guests", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("boot", help="boot one guest")
    one.add_argument("family", choices=sorted(FAMILIES))
    one.add_argument("name")
    one.add_argument("--host", default="cmpa")
    one.add_argument("--memory", type=int, default=0, metavar="MIB")
    one.add_argument("--project", choices=("admin", "demo"), default="admin")
    several = commands.add_parser("boot-set", help="boot several guests side by side")
    several.add_argument("guest", nargs="+", metavar="FAMILY:NAME[:HOST[:MIB]]")
    for name, text in (("delete", "delete guests"), ("check", "check that guests live and "
                       "their memory is whole, from now on"), ("list", "list guests")):
        sub = commands.add_parser(name, help=text)
        sub.add_argument("name", nargs="*")
        if name == "delete":
            sub.add_argument("--all", action="store_true")
    move = commands.add_parser("migrate", help="live-migrate a guest through Nova")
    move.add_argument("name")
    move.add_argument("host")
    given = parser.parse_args(arguments)

    if given.command == "boot":
        _show(boot([Wanted(given.family, given.name, given.host, given.memory, given.project)]))
    elif given.command == "boot-set":
        _show(boot([_parse(text) for text in given.guest]))
    elif given.command == "list":
        _show(named(given.name))
    elif given.command == "delete":
        if not given.name and not given.all:
            parser.error("name the guests to delete, or say --all")
        delete(named(given.name))
    elif given.command == "migrate":
        print(f"{given.name}: {migrate(named([given.name])[0], given.host):.1f} s")
    else:
        return _check(named(given.name))
    return 0


def _parse(text: str) -> Wanted:
    fields = text.split(":")
    if not 2 <= len(fields) <= 4:
        raise shell.LabError(f"{text}: a guest is FAMILY:NAME[:HOST[:MIB]]")
    return Wanted(*fields[:3], *(int(field) for field in fields[3:]))


def _show(guests: Sequence[Guest]) -> None:
    for guest in guests:
        tick = check.last_tick(guest.id)
        print(f"{guest.id} {guest.name:16} {guest.family:12} {guest.memory_mib:4} MiB "
              f"{guest.host:5} {guest.status:8} {'locked ' if guest.locked else ''}"
              f"{f'tick {tick.tick} bad {tick.bad}' if tick else 'mute'}")


def _check(guests: Sequence[Guest]) -> int:
    before = check.snapshot([guest.id for guest in guests])
    verdicts = check.verify(before)
    for guest in guests:
        verdict = verdicts[guest.id]
        print(f"{guest.name:16} {'alive' if verdict.alive else 'NOT ALIVE'}, memory "
              f"{'intact' if verdict.memory_intact else 'NOT INTACT'}: {verdict.detail}")
    return 0 if all(each.alive and each.memory_intact for each in verdicts.values()) else 1
