"""Guests that go to and fro between two hosts with relays: what the tests of relays share."""

import collections
import json
import pathlib
import sys

from oslotest import base

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "lab"))

from nbmlab import (  # noqa: E402
    check,
    drain,
    guests,
    host,
    layout,
    network,
    services,
    shell,
)
from nbmlab.cloud import Cloud  # noqa: E402

# Two alike that the scan shows to be so, and one that writes all the time.
MEMBERS = (guests.Wanted("web", "relay-web1"), guests.Wanted("web", "relay-web2"),
           guests.Wanted("writer-slow", "relay-slow"))
LINK_MIB_PER_SECOND = 12.0
BATCH_SECONDS = 150


class RelayTestCase(base.BaseTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        options = layout.load_options()
        cls.link = options.link_mib_per_second
        if not options.relays:
            raise shell.LabError("the lab is up without relays; run: lab/up --relays")
        network.cap(options.host_list, LINK_MIB_PER_SECOND)
        drain.initial_state()
        booted = guests.boot(MEMBERS)
        drain.settle(booted)
        cls.ids = {guest.name: guest.id for guest in booted}

    @classmethod
    def tearDownClass(cls):
        drain.initial_state()
        network.cap(layout.load_options().host_list, cls.link)
        super().tearDownClass()

    def setUp(self):
        super().setUp()
        self.addCleanup(self.restore)
        admin = Cloud()
        for service in drain.compute_services():
            admin.call("nova-api", "PUT", f"/os-services/{service['id']}", {"status": "enabled"})
        here = guests.listed()
        self.source, _ = collections.Counter(guest.host for guest in here).most_common(1)[0]
        for guest in here:
            if guest.host != self.source:
                guests.migrate(guest, self.source)
        self.destination = next(each.name for each in layout.load_options().host_list
                                if each.name != self.source)
        self.ticks = check.snapshot(sorted(self.ids.values()))

    @staticmethod
    def restore():
        """Start again what a test has killed."""
        services.up(layout.load_options())
        network.cap(layout.load_options().host_list, LINK_MIB_PER_SECOND)

    def begin(self, *servers: str) -> str:
        """Begin a batch of the whole host, or of some servers of it; return its id."""
        what = [word for name in servers for word in ("--server", self.ids[name])]
        done = drain.openstack("server", "batch-migrate", *(what or ["--host", self.source]),
                               "-f", "json")
        self.assertEqual(0, done.returncode, done.stderr)
        return json.loads(done.stdout)["id"]

    def finished(self, batch_id: str) -> dict:
        """Return the batch's servers by name once all have moved, with their guests whole."""
        batch = drain.wait_for_batch(batch_id, drain.FINAL, BATCH_SECONDS)
        self.assertEqual("completed", batch["status"], batch)
        for guest in guests.listed():
            self.assertEqual(("ACTIVE", self.destination), (guest.status, guest.host), guest)
        for server_id, verdict in check.verify(self.ticks).items():
            self.assertTrue(verdict.alive and verdict.memory_intact, (server_id, verdict))
        for server_id in self.ids.values():
            self.assertEqual([self.destination], self.running_at(server_id))
        return {server["name"]: server for server in batch["servers"]}

    @staticmethod
    def running_at(server_id: str) -> list[str]:
        """Return the hosts whose libvirt runs the guest."""
        return [each.name for each in layout.load_options().host_list
                if "running" in shell.run(*host.inside(each), "virsh", "domstate", server_id,
                                          check=False)]

    def tables(self, name: str) -> str:
        return shell.run(*host.inside(layout.host_named(name)), "nft", "list", "tables")
