"""The lab as benchmarks use it: up with their options, left as it was; guests that go to and fro.

Called by the benchmarks that run through Nova. All other guests of the lab are deleted.
"""
import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator, Sequence

import pymysql
from nbmlab import (
    check,
    cloud,
    daemon,
    drain,
    guests,
    host,
    layout,
    owner,
    services,
    shell,
    teardown,
)
from nbmlab.guests import Guest, Wanted

HOSTS = ("cmpa", "cmpb")
MIGRATION_SECONDS = 300
#: Between two looks at the database; and at a batch, through the API, before its servers are there.
LOOK_SECONDS, BATCH_LOOK_SECONDS = 0.2, 10.0
BOOT_AT_ONCE = 3


def mib(mbit: float) -> float:
    """Return Mbit/s as MiB/s."""
    return mbit * 1e6 / 8 / (1 << 20)


@contextlib.contextmanager
def lab(**options) -> Iterator[None]:
    """Bring the lab up with these options; afterwards it is up or down as it was before.

    In a lab that was up the guests stay, for the next part of a benchmark.
    """
    was_up = layout.OWNER.exists() and bool(daemon.marked(layout.STATE))
    owner.claim()
    before = layout.load_options()
    try:
        services.up(dataclasses.replace(before, hosts=2, relays=True, **options))
        yield
        if not was_up:
            drain.initial_state()
    finally:
        if was_up:
            services.up(before)
        else:
            teardown.down(layout.STATE)
            before.save()


def boot(wanted: Sequence[tuple[str, str]], ready: bytes = b"") -> list[Guest]:
    """Return guests (family, name) on one host, their loads steady; booted if they are not there.

    Behind a `lab/down` Nova takes its guests for active, until it has looked: they do not count.
    `ready`: what each tells on its console before it counts as booted.
    """
    here = {guest.name: guest for guest in guests.listed() if guest.status == "ACTIVE"}
    found = [here[name] for _, name in wanted if name in here]
    enable()
    places = {guest.host for guest in found}
    if len(found) == len(wanted) == len(here) and len(places) == 1 \
            and {guest.id for guest in found} <= host.running(layout.host_named(*places)):
        return found
    drain.initial_state()
    booted: list[Guest] = []
    # eight at once starve each other's kernels until their self-tests give up
    for first in range(0, len(wanted), BOOT_AT_ONCE):
        booted += guests.boot([Wanted(family, name, HOSTS[0])
                               for family, name in wanted[first:first + BOOT_AT_ONCE]])
        shell.wait_for("the files of all guests", guests.BOOT_SECONDS,
                       lambda booted=tuple(booted): all(ready in _console(guest)
                                                        for guest in booted))
    drain.settle(booted)
    return booted


def _console(guest: Guest) -> bytes:
    try:
        return (layout.INSTANCES_BACKING / guest.id / "console.log").read_bytes()
    except FileNotFoundError:
        return b""


class Places:
    """Where Nova has its servers, as its database says.

    Asking the API once a second keeps a fifth of a processor busy with Neutron and nova-api, which
    whoever is measured would then be without.
    """

    def __init__(self):
        self._database = pymysql.connect(unix_socket=str(layout.MYSQL_SOCKET), user="root",
                                         database="nova", autocommit=True)

    def look(self) -> dict[str, tuple[str, str, str | None]]:
        """Return host, vm_state and task_state of every server, by its id."""
        with self._database.cursor() as cursor:
            cursor.execute("SELECT uuid, host, vm_state, task_state FROM instances "
                           "WHERE deleted = 0")
            return {row[0]: tuple(row[1:]) for row in cursor.fetchall()}

    def arrived(self, servers: Sequence[Guest], host_name: str) -> bool:
        """Tell whether Nova has done with moving servers to a host."""
        seen = self.look()
        if not all(seen[each.id][::2] == (host_name, None) for each in servers):
            return False
        with self._database.cursor() as cursor:
            # the source cleans up behind the arrival
            cursor.execute("SELECT COUNT(*) FROM migrations WHERE deleted = 0 AND instance_uuid "
                           "IN %s AND status NOT IN ('completed', 'error', 'failed', 'cancelled')",
                           [tuple(each.id for each in servers)])
            return cursor.fetchone()[0] == 0

    def close(self) -> None:
        """End the connection."""
        self._database.close()


def place(guest: Guest) -> str:
    """Return the host that a guest is on."""
    return cloud.Cloud().get("nova-api", f"/servers/{guest.id}")["server"][
        "OS-EXT-SRV-ATTR:host"]


def other(name: str) -> str:
    """Return the host that is not this one."""
    return next(each for each in HOSTS if each != name)


def enable() -> None:
    """Enable every compute service again."""
    for service in drain.compute_services():
        if service["status"] != "enabled":
            cloud.Cloud().call("nova-api", "PUT", f"/os-services/{service['id']}",
                               {"status": "enabled"})


def migrate(guest: Guest, destination: str) -> None:
    """Live-migrate one guest through Nova, as anybody would; LabError where it does not arrive.

    Only the database is looked at meanwhile.
    """
    cloud.Cloud().post("nova-api", f"/servers/{guest.id}/action", {
        "os-migrateLive": {"host": destination, "block_migration": "auto"}})
    with contextlib.closing(Places()) as places:
        # until the call is taken up the server is where it was, without a task
        shell.wait_for(f"the migration of {guest.name} to {destination}", MIGRATION_SECONDS,
                       lambda: places.arrived([guest], destination), LOOK_SECONDS)


def completed_job(guest: Guest, host_name: str) -> dict[str, int]:
    """Return libvirt's figures of a guest's completed migration, as its destination has them.

    Names and units (ms, bytes) are those of `virsh domjobinfo --completed --rawstats`.
    """
    told = shell.run(*host.inside(layout.host_named(host_name)), "virsh", "domjobinfo",
                     "--completed", "--keep-completed", "--rawstats", guest.id)
    return {name: int(value) for name, value in re.findall(r"^(\w+): (\d+)$", told, re.MULTILINE)}


def whole(before: dict, seconds: float = check.VERIFY_SECONDS) -> tuple[int, list[str]]:
    """Return how many guests of a snapshot live with their memory whole, and why others do not."""
    verdicts = check.verify(before, seconds).values()
    bad = [each.detail for each in verdicts if not (each.alive and each.memory_intact)]
    return len(verdicts) - len(bad), bad


def batch(servers: Sequence[Guest], **fields) -> dict:
    """Move servers by this project, as a batch of their own; return it as the API shows it.

    `fields` of the request beside them. LabError where they have not all arrived. While they are
    on their way only the database is looked at.
    """
    admin, destination = cloud.Cloud(), other(place(servers[0]))
    asked = admin.post("nova-api", drain.BATCHES, {"batch_migration": {
        "servers": [guest.id for guest in servers], **fields}})["batch_migration"]
    end = time.monotonic() + MIGRATION_SECONDS
    with contextlib.closing(Places()) as places:
        while (told := drain.batch(asked["id"]))["status"] not in drain.FINAL:
            if time.monotonic() > end:
                raise shell.LabError(f"batch migration {asked['id']} is {told['status']} after "
                                     f"{MIGRATION_SECONDS} s")
            again = time.monotonic() + BATCH_LOOK_SECONDS
            time.sleep(0.5)
            while time.monotonic() < again and not places.arrived(servers, destination):
                time.sleep(LOOK_SECONDS)
    if told["status"] != "completed":
        raise shell.LabError(f"batch migration {told['id']} ended as {told['status']}: "
                             f"{drain.events(told['id'])}")
    return told
