"""Base class of the lab tests that drain a host of the real cloud: its guests, words for them.

All guests that it finds are deleted first, but for those that the class wants and that are well:
the same guests go to and fro between the hosts for all tests, because booting takes its time. Each
test begins with all guests on one host, every compute service enabled, no batch.
"""
import collections
import contextlib
import dataclasses
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Collection

from oslotest import base

from nova_batch_migrate.relay import control

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "lab"))

from nbmlab import (  # noqa: E402
    check,
    drain,
    guests,
    host,
    layout,
    network,
    project,
    services,
    shell,
)
from nbmlab.cloud import Cloud  # noqa: E402

#: On a slow machine, too; of most it takes a fourth.
BATCH_SECONDS = 300


def present(wanted: tuple[guests.Wanted, ...]) -> list[guests.Guest]:
    """Return these guests and no others; what is missing is booted beside the rest."""
    families = {each.name: each.family for each in wanted}

    def fits(guest: guests.Guest) -> bool:
        tick = check.last_tick(guest.id)
        return families.get(guest.name) == guest.family and guest.status == "ACTIVE" \
            and not guest.locked and tick is not None and not tick.bad \
            and running_at(guest.id) == [guest.host]

    drain.initial_state(keep=fits)
    here = guests.listed()
    names = {guest.name for guest in here}
    at = here[0].host if here else drain.SOURCE
    return [*here, *guests.boot([dataclasses.replace(each, host=at) for each in wanted
                                 if each.name not in names])]


def running_at(server_id: str) -> list[str]:
    """Return the hosts whose libvirt runs the guest."""
    return [each.name for each in layout.load_options().host_list
            if "running" in shell.run(*host.inside(each), "virsh", "domstate", server_id,
                                      check=False)]


class LabTestCase(base.BaseTestCase):
    """A subclass says which guests, on which link, and whether it needs relays."""

    MEMBERS: tuple[guests.Wanted, ...] = ()
    #: Slow enough for a stream to be caught in the middle, fast enough for many.
    LINK_MIB_PER_SECOND = 12.0
    RELAYS = False
    #: A test of the class has failed: what it left is cleared away before the next one.
    _failed = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        options = layout.load_options()
        cls.link = options.link_mib_per_second
        if cls.RELAYS and not options.relays:
            raise shell.LabError("the lab is up without relays; run: lab/up --relays")
        cls._gather()

    @classmethod
    def _gather(cls):
        cls.ids = {guest.name: guest.id for guest in present(cls.MEMBERS)}
        cls._failed = False

    @classmethod
    def tearDownClass(cls):
        # the next class may want them
        drain.initial_state(keep=lambda guest: True)
        network.cap(layout.load_options().host_list, cls.link)
        super().tearDownClass()

    def setUp(self):
        super().setUp()
        if self.RELAYS:
            self.addCleanup(self.restore)
        if self._failed:
            self._gather()
        self.addOnException(self._note_failure)
        self.admin = Cloud()
        for service in drain.compute_services():
            self.admin.call("nova-api", "PUT", f"/os-services/{service['id']}",
                            {"status": "enabled"})
        here = guests.listed()
        self.source, _ = collections.Counter(guest.host for guest in here).most_common(1)[0]
        astray = [guest for guest in here if guest.host != self.source]
        if astray:
            self.link_at(0)
        for guest in astray:
            guests.migrate(guest, self.source)
        self.link_at(self.LINK_MIB_PER_SECOND)
        self.destination = next(each.name for each in layout.load_options().host_list
                                if each.name != self.source)
        self.migrations_before = {server_id: self.migrations(server_id)
                                  for server_id in self.ids.values()}
        self.ticks = check.snapshot(sorted(self.ids.values()))
        #: Ticks of guests whose moves were seen to be over.
        self.moved: dict[str, check.Tick] = {}

    def _note_failure(self, exc_info) -> None:
        type(self)._failed = True

    @staticmethod
    def restore():
        """Start again what a test has killed."""
        services.revive(layout.load_options())

    @staticmethod
    def link_at(mib_per_second: float) -> None:
        """Cap the link between the hosts; 0 takes the cap away. The next test has its own again."""
        network.cap(layout.load_options().host_list, mib_per_second)

    # -- words ------------------------------------------------------------------------------

    def migrations(self, server_id: str) -> set[int]:
        rows = self.admin.get("nova-api", f"/os-migrations?instance_uuid={server_id}")
        return {row["id"] for row in rows["migrations"]}

    def openstack(self, *words: str) -> str:
        """Run the client; it must succeed. Return what it printed."""
        done = drain.openstack(*words)
        self.assertEqual(0, done.returncode, f"{words}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def begin(self, *words: str) -> str:
        """Ask for the source to be emptied; return the batch's id at once."""
        return self.ask("--host", self.source, *words)

    def ask(self, *words: str) -> str:
        """Ask for a batch migration; return its id at once."""
        return json.loads(self.openstack("server", "batch-migrate", *words, "-f", "json"))["id"]

    def request(self, **fields) -> str:
        """Ask for a batch migration past the client, of the source if no servers are named.

        Returns its id at once.
        """
        what = {} if "servers" in fields else {"hosts": [self.source]}
        asked = self.admin.post("nova-api", drain.BATCHES, {"batch_migration": what | fields})
        return asked["batch_migration"]["id"]

    def planned(self, **fields) -> str:
        """Return a batch migration that waits, with its plan, for its start."""
        batch_id = self.request(plan_only=True, **fields)
        drain.wait_for_batch(batch_id, {"planned"}, BATCH_SECONDS)
        return batch_id

    def start(self, batch_id: str) -> None:
        self.admin.post("nova-api", f"{drain.BATCHES}/{batch_id}/action", {"start": None})

    def wait_for_stream(self, batch_id: str) -> dict:
        """Return the first server whose bytes are seen to move."""
        caught = []

        def moving():
            caught.extend(server for server in drain.batch(batch_id)["servers"]
                          if server["status"] == "migrating" and server["raw_bytes"])
            return caught
        shell.wait_for("bytes of a first migration", BATCH_SECONDS, moving, every_seconds=0.3)
        return caught[0]

    def ended(self, batch_id: str, status: str = "completed",
              seconds: float = BATCH_SECONDS) -> dict:
        """Wait for the batch's end, which must be ``status``; return it."""
        moved: dict[str, check.Tick | None] = {}

        def over() -> bool:
            told = drain.batch(batch_id)
            for server in told["servers"]:
                if server["status"] == "completed" and not moved.get(server["id"]):
                    moved[server["id"]] = check.last_tick(server["id"])
            return told["status"] in drain.FINAL
        shell.wait_for(f"the end of batch migration {batch_id}", seconds, over, every_seconds=1)
        self.moved |= {server_id: tick for server_id, tick in moved.items() if tick}
        batch = drain.batch(batch_id)
        self.assertEqual(status, batch["status"], (batch, drain.events(batch_id)))
        return batch

    def all_moved(self, batch_id: str) -> dict[str, dict]:
        """Return the batch's servers by name once all have moved, with their guests whole."""
        batch = self.ended(batch_id)
        self.assert_all_at(self.destination)
        return {server["name"]: server for server in batch["servers"]}

    def drained(self, *words: str) -> dict:
        """Empty the host that the guests are on; return the batch. The other one is next."""
        for service in drain.compute_services():
            self.admin.call("nova-api", "PUT", f"/os-services/{service['id']}",
                            {"status": "enabled"})
        batch_id = self.begin(*words) if words else self.request()
        self.all_moved(batch_id)
        self.source, self.destination = self.destination, self.source
        return drain.batch(batch_id)

    def assert_all_at(self, name: str, but: Collection[str] = ()) -> None:
        """Every guest is ACTIVE at that host, runs there and nowhere else, and is whole.

        ``but`` those servers: they are so at the source.
        """
        hosts = self.hosts()
        self.assertEqual({server_id: self.source if server_id in but else name
                          for server_id in self.ids.values()}, hosts)
        for server_id, at in hosts.items():
            self.assertEqual([at], running_at(server_id))
        self.assert_guests_whole()

    def assert_guests_whole(self):
        verdicts = check.verify(self.ticks, moved=self.moved)
        for server_id, verdict in verdicts.items():
            self.assertTrue(verdict.alive and verdict.memory_intact, (server_id, verdict))

    def hosts(self) -> dict[str, str]:
        """Return where Nova has each guest; each must be ACTIVE."""
        here = guests.listed()
        for guest in here:
            self.assertEqual("ACTIVE", guest.status, guest)
        return {guest.id: guest.host for guest in here}

    def service(self) -> dict:
        """Return the compute service of the source."""
        service, = [service for service in drain.compute_services()
                    if service["host"] == self.source]
        return service

    def arriving(self, server_id: str) -> int | None:
        """Return the pid of the QEMU that awaits a server at the destination."""
        for pid in host.processes(layout.host_named(self.destination)):
            with contextlib.suppress(OSError):
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"qemu-system" in words[0] and server_id.encode() in words:
                    return pid
        return None

    def sent(self, server_id: str) -> int:
        """Return the bytes that a server's migration has sent by now; 0 where there is none."""
        told = shell.run(*host.inside(layout.host_named(self.source)), "virsh", "domjobinfo",
                         "--rawstats", server_id, check=False)
        found = re.search(r"memory_processed: (\d+)", told)
        return int(found[1]) if found else 0

    def statistics(self) -> dict:
        """Return what the source's relay has counted."""
        at = project.control_socket(layout.host_named(self.source))
        return control.Client(str(at)).statistics()

    def relay_log(self) -> pathlib.Path:
        """Return where the source's relay logs."""
        return layout.LOG / f"batch-relay-{self.source}.log"

    def relay_log_bytes(self) -> int:
        return self.relay_log().stat().st_size

    def told_by_relay(self, since: int = 0) -> list[str]:
        """Return the lines that the source's relay has logged behind so many bytes."""
        return self.relay_log().read_bytes()[since:].decode().splitlines()

    @classmethod
    def start_relays_with(cls, *lines: str) -> None:
        """Start the relays anew with further lines in [relay], until the class is over."""
        options = layout.load_options()
        paths = [project.relay_conf(each) for each in options.host_list]
        before = [path.read_text() for path in paths]

        def put(*texts: str) -> None:
            for path, text in zip(paths, texts, strict=True):
                path.write_text(text)
            services.revive(options)
        cls.addClassCleanup(put, *before)
        put(*(text + "".join(f"{line}\n" for line in lines) for text in before))

    def wait_for_standstill(self, *of: str) -> None:
        """Return when a guest of the source, or that server's, stands still for its switchover.

        Told by libvirt's event: a standstill is short.
        """
        told = subprocess.Popen(
            [*host.inside(layout.host_named(self.source)), "stdbuf", "-oL", "virsh", "event",
             *(word for server_id in of for word in ("--domain", server_id)),
             "--event", "lifecycle", "--loop", "--timeout", str(BATCH_SECONDS)],
            stdout=subprocess.PIPE, text=True)
        try:
            self.assertTrue(any("Suspended" in line for line in told.stdout),
                            "no guest stood still")
        finally:
            told.kill()
            told.wait()
            told.stdout.close()
