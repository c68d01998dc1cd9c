"""Base class of the lab tests that drain a host of the real cloud: its guests, words for them.

All guests that it finds are deleted first. The same guests go to and fro between the hosts for all
tests of a class, because booting and settling takes its time. Each test begins with all guests on
one host, every compute service enabled, no batch.
"""
import collections
import json
import pathlib
import sys

from oslotest import base

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "lab"))

from nbmlab import check, drain, guests, host, layout, network, services, shell  # noqa: E402
from nbmlab.cloud import Cloud  # noqa: E402

BATCH_SECONDS = 150


class LabTestCase(base.BaseTestCase):
    """A subclass says which guests, on which link, and whether it needs relays."""

    MEMBERS: tuple[guests.Wanted, ...] = ()
    #: Slow enough for a stream to be caught in the middle, fast enough for many.
    LINK_MIB_PER_SECOND = 12.0
    RELAYS = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        options = layout.load_options()
        cls.link = options.link_mib_per_second
        if cls.RELAYS and not options.relays:
            raise shell.LabError("the lab is up without relays; run: lab/up --relays")
        network.cap(options.host_list, cls.LINK_MIB_PER_SECOND)
        drain.initial_state()
        booted = guests.boot(cls.MEMBERS)
        drain.settle(booted)
        cls.ids = {guest.name: guest.id for guest in booted}

    @classmethod
    def tearDownClass(cls):
        drain.initial_state()
        network.cap(layout.load_options().host_list, cls.link)
        super().tearDownClass()

    def setUp(self):
        super().setUp()
        if self.RELAYS:
            self.addCleanup(self.restore)
        self.admin = Cloud()
        for service in drain.compute_services():
            self.admin.call("nova-api", "PUT", f"/os-services/{service['id']}",
                            {"status": "enabled"})
        here = guests.listed()
        self.source, _ = collections.Counter(guest.host for guest in here).most_common(1)[0]
        for guest in here:
            if guest.host != self.source:
                guests.migrate(guest, self.source)
        self.destination = next(each.name for each in layout.load_options().host_list
                                if each.name != self.source)
        self.migrations_before = {server_id: self.migrations(server_id)
                                  for server_id in self.ids.values()}
        self.ticks = check.snapshot(sorted(self.ids.values()))

    @classmethod
    def restore(cls):
        """Start again what a test has killed."""
        services.up(layout.load_options())
        network.cap(layout.load_options().host_list, cls.LINK_MIB_PER_SECOND)

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

    def wait_for_stream(self, batch_id: str) -> dict:
        """Return the first server whose bytes are seen to move."""
        def moving():
            return next((server for server in drain.batch(batch_id)["servers"]
                         if server["status"] == "migrating" and server["raw_bytes"]), None)
        shell.wait_for("bytes of a first migration", BATCH_SECONDS, moving, every_seconds=0.3)
        server = moving()
        self.assertIsNotNone(server, "its stream was too short to be caught")
        return server

    def ended(self, batch_id: str, status: str = "completed",
              seconds: float = BATCH_SECONDS) -> dict:
        """Wait for the batch's end, which must be ``status``; return it."""
        batch = drain.wait_for_batch(batch_id, drain.FINAL, seconds)
        self.assertEqual(status, batch["status"], (batch, drain.events(batch_id)))
        return batch

    def all_moved(self, batch_id: str) -> dict[str, dict]:
        """Return the batch's servers by name once all have moved, with their guests whole."""
        batch = self.ended(batch_id)
        self.assert_all_at(self.destination)
        return {server["name"]: server for server in batch["servers"]}

    def assert_all_at(self, name: str) -> None:
        """Every guest is ACTIVE at that host, runs there and nowhere else, and is whole."""
        self.assertEqual(dict.fromkeys(self.ids.values(), name), self.hosts())
        for server_id in self.ids.values():
            self.assertEqual([name], self.running_at(server_id))
        self.assert_guests_whole()

    def assert_guests_whole(self):
        verdicts = check.verify(self.ticks)
        for server_id, verdict in verdicts.items():
            self.assertTrue(verdict.alive and verdict.memory_intact, (server_id, verdict))

    def hosts(self) -> dict[str, str]:
        """Return where Nova has each guest; each must be ACTIVE."""
        for guest in guests.listed():
            self.assertEqual("ACTIVE", guest.status, guest)
        return {guest.id: guest.host for guest in guests.listed()}

    def service(self) -> dict:
        """Return the compute service of the source."""
        service, = [service for service in drain.compute_services()
                    if service["host"] == self.source]
        return service

    @staticmethod
    def running_at(server_id: str) -> list[str]:
        """Return the hosts whose libvirt runs the guest."""
        return [each.name for each in layout.load_options().host_list
                if "running" in shell.run(*host.inside(each), "virsh", "domstate", server_id,
                                          check=False)]
