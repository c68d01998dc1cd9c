"""The steps of emptying a host of the lab: initial state, guests under load, the CLI, the batch.

Called by lab/demo and the lab tests. Judging is left to drain_report; no step moves a guest by
itself.
"""
import dataclasses
import os
import subprocess
from collections.abc import Callable, Collection, Sequence

from nbmlab import check, cloud, guests, layout, shell
from nbmlab.cloud import Cloud
from nbmlab.families import FAMILIES, QUICK
from nbmlab.guests import Guest, Wanted

SOURCE = "cmpa"
BATCHES = "/os-batch-evacuate"
FINAL = frozenset({"completed", "partial", "aborted", "failed"})
# The smallest streams (web and redis) carry some 108 MiB: twelve seconds at this rate.
LINK_MIB_PER_SECOND = 9.0
SETTLE_SECONDS = 150
# Two spans of this length must show the same load.
_SPAN_TICKS = 5
_STEADY_SHARE = 0.25


@dataclasses.dataclass(frozen=True)
class Member:
    """A guest of a drain: one of a family, perhaps locked so that it must stay."""

    family: str
    locked: bool = False

    @property
    def name(self) -> str:
        return f"demo-{self.family}"


# One of each family, most of them writing; who talks needs somebody to talk to, and tests have
# some of their own.
GUESTS = tuple(Member(name, locked=name == "cache") for name, family in FAMILIES.items()
               if not family.talks and name not in QUICK.values())


def initial_state(keep: Callable[[Guest], bool] = lambda guest: False) -> None:
    """End every batch migration, delete the lab's guests and all traces, enable every service.

    ``keep`` tells which guests may live on.
    """
    admin = Cloud()
    for each in admin.get("nova-api", f"{BATCHES}?limit=1000")["batch_migrations"]:
        if each["status"] not in FINAL:
            _end(admin, each["id"])
    everyone = [guest for guest in guests.listed(admin) if not keep(guest)]
    if everyone:
        shell.say("deleting guests: " + ", ".join(guest.name for guest in everyone))
        guests.delete(everyone)
    _forget_allocations(admin)
    for service in compute_services():
        if service["status"] != "enabled":
            admin.call("nova-api", "PUT", f"/os-services/{service['id']}", {"status": "enabled"})


def _forget_allocations(admin: Cloud) -> None:
    """Delete what Placement has allocated to nobody who is there.

    Migrations that died with their nova-compute leave that behind. Nova asks Placement for every
    allocation of a host, one by one, behind each migration from there.
    """
    here = {guest.id for guest in guests.listed(admin)}
    for provider in admin.get("placement", "/resource_providers")["resource_providers"]:
        held = admin.get("placement", f"/resource_providers/{provider['uuid']}/allocations")
        for consumer in held["allocations"].keys() - here:
            try:
                admin.call("placement", "DELETE", f"/allocations/{consumer}")
            except cloud.ApiError as error:
                # Nova has just done it itself
                if error.status != 404:
                    raise


def _end(admin: Cloud, batch_id: str) -> None:
    status = batch(batch_id)["status"]
    if status in FINAL:
        return
    try:
        if status != "planned":
            admin.post("nova-api", f"{BATCHES}/{batch_id}/action", {"abort": {"running": "abort"}})
            wait_for_batch(batch_id, FINAL, 120)
        admin.call("nova-api", "DELETE", f"{BATCHES}/{batch_id}")
    except cloud.ApiError as error:
        # It ended by itself in between.
        if error.status != 409 or batch(batch_id)["status"] not in FINAL:
            raise


def compute_services() -> list[dict]:
    """Return Nova's compute services."""
    return Cloud().get("nova-api", "/os-services?binary=nova-compute")["services"]


def populate(members: Sequence[Member] = GUESTS) -> list[Guest]:
    """Boot the guests on the source, lock those to be locked, wait for steady loads."""
    booted = guests.boot([Wanted(member.family, member.name, SOURCE) for member in members])
    locked = {member.name for member in members if member.locked}
    admin = Cloud()
    for guest in booted:
        if guest.name in locked:
            admin.post("nova-api", f"/servers/{guest.id}/action",
                       {"lock": {"locked_reason": "must stay, to show that it does"}})
    shell.say("all guests tick; waiting until their loads are steady")
    settle(booted)
    ids = {guest.id for guest in booted}
    return [guest for guest in guests.listed(admin) if guest.id in ids]


def settle(booted: Sequence[Guest]) -> None:
    """Return when every guest has verified its whole memory once and writes at a steady pace."""
    shell.wait_for("steady loads of the guests", SETTLE_SECONDS,
                   lambda: all(_steady(guest) for guest in booted), every_seconds=1)


def _steady(guest: Guest) -> bool:
    told = check.ticks(guest.id)
    if len(told) <= 2 * _SPAN_TICKS or not told[-1].passes:
        return False
    load = FAMILIES[guest.family].load
    if not load.pages_per_second or load.period_seconds:
        return True
    now, middle, before = told[-1], told[-1 - _SPAN_TICKS], told[-1 - 2 * _SPAN_TICKS]
    late = (now.wrote_pages - middle.wrote_pages) / (now.up_seconds - middle.up_seconds)
    early = (middle.wrote_pages - before.wrote_pages) / (middle.up_seconds - before.up_seconds)
    return early > 0 and abs(late / early - 1) <= _STEADY_SHARE


def openstack(*words: str, user: str = "admin") -> subprocess.CompletedProcess:
    """Run the openstack client; return exit status, stdout and stderr as text."""
    return subprocess.run([str(layout.BIN / "openstack"), *words], env=_environment(user),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)


def show(*words: str) -> int:
    """Run the openstack client before the eyes of whoever looks on; return its exit status."""
    print(f"\n$ openstack {' '.join(words)}", flush=True)
    return subprocess.run([str(layout.BIN / "openstack"), *words],
                          env=_environment("admin")).returncode


def started(program: str, *words: str) -> subprocess.Popen:
    """Start a client (openstack, nova) as an administrator; its stdout and stderr are one text."""
    return subprocess.Popen([str(layout.BIN / program), *words], env=_environment("admin"),
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def _environment(user: str) -> dict[str, str]:
    path = layout.OPENRC if user == "admin" else layout.STATE / f"openrc-{user}"
    exports = dict(line.removeprefix("export ").split("=", 1)
                   for line in path.read_text().splitlines() if line.startswith("export OS_"))
    terminal = {"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}
    return shell.environment(**exports, **terminal)


def batch(batch_id: str) -> dict:
    """Return a batch migration as the API shows it."""
    return Cloud().get("nova-api", f"{BATCHES}/{batch_id}")["batch_migration"]


def plan(batch_id: str) -> dict:
    """Return the present plan of a batch migration, with what it was computed from."""
    return Cloud().get("nova-api", f"{BATCHES}/{batch_id}/plan")["plan"]


def events(batch_id: str) -> list[dict]:
    """Return what happened in a batch migration, the oldest first."""
    return Cloud().get("nova-api", f"{BATCHES}/{batch_id}/events?limit=1000")["events"]


def newest_batch(host: str = SOURCE) -> dict:
    """Return the newest batch migration of a host as the API shows it."""
    found = Cloud().get("nova-api", f"{BATCHES}?host={host}&limit=1")["batch_migrations"]
    if not found:
        raise shell.LabError(f"there is no batch migration of {host}; the command before did not "
                             "make one")
    return batch(found[0]["id"])


def wait_for_batch(batch_id: str, statuses: Collection[str], seconds: float) -> dict:
    """Return the batch migration once its status is one of `statuses`."""
    shell.wait_for(f"batch migration {batch_id} to be {' or '.join(sorted(statuses))}", seconds,
                   lambda: batch(batch_id)["status"] in statuses, every_seconds=1)
    return batch(batch_id)
