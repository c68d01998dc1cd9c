"""Relays on the real cloud: identical memory crosses once, and one that dies harms no guest.

Run by tools/test lab on a lab that is up with its relays; all guests that it finds are deleted
first. The same guests go to and fro for all tests.
"""
import collections
import json
import os
import pathlib
import signal
import sys

import ddt
from oslotest import base

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "lab"))

from nbmlab import (  # noqa: E402
    check,
    daemon,
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


@ddt.ddt
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

    def begin(self) -> str:
        done = drain.openstack("server", "batch-migrate", "--host", self.source, "-f", "json")
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

    def test_identical_memory_crosses_once(self):
        batch_id = self.begin()
        shell.wait_for("the redirect", BATCH_SECONDS,
                       lambda: "nova_batch_relay" in self.tables(self.source))
        servers = self.finished(batch_id)
        self.assertNotIn("nova_batch_relay", self.tables(self.source))
        for server in servers.values():
            self.assertIsNotNone(server["relay"], server)
            self.assertLess(server["wire_bytes"], server["raw_bytes"] / 2, server)
        # whichever of the two went first, the other found its content there
        alike = [server["relay"]["cross_server_bytes"] / server["raw_bytes"]
                 for name, server in servers.items() if "web" in name]
        self.assertGreater(max(alike), 0.5, servers)
        plan = json.loads(drain.openstack("server", "batch", "migration", "plan", batch_id,
                                          "-f", "json").stdout)
        self.assertTrue(plan["relay"])

    @ddt.data("source", "destination")
    def test_a_relay_killed_in_the_middle_harms_no_guest(self, side):
        batch_id = self.begin()
        shell.wait_for("bytes of a first migration", BATCH_SECONDS, lambda: any(
            server["status"] == "migrating" and server["raw_bytes"]
            for server in drain.batch(batch_id)["servers"]), every_seconds=0.3)
        name = f"batch-relay-{getattr(self, side)}"
        os.kill(daemon.record(name).pid, signal.SIGKILL)
        shell.wait_for("the end of the relay", 10, lambda: daemon.record(name) is None)
        if side == "source":
            self.assertNotIn("nova_batch_relay", self.tables(self.source))
        servers = self.finished(batch_id)
        self.assertGreater(max(server["attempts"] for server in servers.values()), 1)
