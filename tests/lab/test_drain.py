"""Emptying a host of the real cloud: by one command, with its conductor killed, and broken off.

Run by tools/test lab on a lab that is up; all guests that it finds are deleted first. The same
guests go to and fro between the hosts for all tests, because booting and settling takes its time.
"""
import collections
import json
import os
import pathlib
import signal
import sys

from oslotest import base

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "lab"))

from nbmlab import (  # noqa: E402
    check,
    daemon,
    drain,
    guests,
    layout,
    network,
    services,
    shell,
)
from nbmlab.cloud import Cloud  # noqa: E402

MEMBERS = (guests.Wanted("web", "drain-web"), guests.Wanted("writer-slow", "drain-slow"),
           guests.Wanted("writer-mid", "drain-mid"))
# Streams of some seconds: long enough to be caught in the middle, short enough for many.
LINK_MIB_PER_SECOND = 20.0
CONDUCTOR = "batch-conductor"
BATCH_SECONDS = 150


class DrainTestCase(base.BaseTestCase):
    """All guests on one host, every compute service enabled, no batch: so each test begins."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.link = layout.load_options().link_mib_per_second
        network.cap(layout.load_options().host_list, LINK_MIB_PER_SECOND)
        drain.initial_state()
        booted = guests.boot(MEMBERS)
        drain.settle(booted)
        cls.ids = sorted(guest.id for guest in booted)

    @classmethod
    def tearDownClass(cls):
        drain.initial_state()
        network.cap(layout.load_options().host_list, cls.link)
        super().tearDownClass()

    def setUp(self):
        super().setUp()
        self.admin = Cloud()
        for service in drain.compute_services():
            self.admin.call("nova-api", "PUT", f"/os-services/{service['id']}",
                            {"status": "enabled"})
        here = guests.listed()
        self.source, _ = collections.Counter(guest.host for guest in here).most_common(1)[0]
        for guest in here:
            if guest.host != self.source:
                guests.migrate(guest, self.source)
        self.migrations_before = {server_id: self.migrations(server_id) for server_id in self.ids}
        self.ticks = check.snapshot(self.ids)

    # -- words ------------------------------------------------------------------------------

    def migrations(self, server_id: str) -> set[int]:
        rows = self.admin.get("nova-api", f"/os-migrations?instance_uuid={server_id}")
        return {row["id"] for row in rows["migrations"]}

    def openstack(self, *words: str):
        """Run the client; it must succeed. Return what it printed."""
        done = drain.openstack(*words)
        self.assertEqual(0, done.returncode, f"{words}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def begin(self, *words: str) -> str:
        """Ask for the source to be emptied; return the batch's id at once."""
        shown = self.openstack("server", "batch-migrate", "--host", self.source, *words,
                               "-f", "json")
        return json.loads(shown)["id"]

    def wait_for_stream(self, batch_id: str) -> dict:
        """Return the first server whose bytes are seen to move."""
        def moving():
            return next((server for server in drain.batch(batch_id)["servers"]
                         if server["status"] == "migrating" and server["raw_bytes"]), None)
        shell.wait_for("bytes of a first migration", BATCH_SECONDS, moving, every_seconds=0.3)
        server = moving()
        self.assertIsNotNone(server, "its stream was too short to be caught")
        return server

    def assert_guests_whole(self):
        verdicts = check.verify(self.ticks)
        for server_id, verdict in verdicts.items():
            self.assertTrue(verdict.alive and verdict.memory_intact, (server_id, verdict))

    def hosts(self) -> dict[str, str]:
        for guest in guests.listed():
            self.assertEqual("ACTIVE", guest.status, guest)
        return {guest.id: guest.host for guest in guests.listed()}

    def service(self) -> dict:
        service, = [service for service in drain.compute_services()
                    if service["host"] == self.source]
        return service

    # -- tests ------------------------------------------------------------------------------

    def test_one_command_empties_a_host_but_for_what_must_stay(self):
        locked = self.ids[0]
        self.admin.post("nova-api", f"/servers/{locked}/action", {"lock": None})
        self.addCleanup(self.admin.post, "nova-api", f"/servers/{locked}/action",
                        {"unlock": None})
        self.openstack("server", "batch-migrate", "--host", self.source, "--wait")
        batch = drain.newest_batch(self.source)
        self.assertEqual("partial", batch["status"], batch)
        hosts = self.hosts()
        self.assertEqual(self.source, hosts.pop(locked))
        self.assertNotIn(self.source, hosts.values())
        self.assertEqual("disabled", self.service()["status"])
        servers = {server["id"]: server for server in batch["servers"]}
        self.assertIn("locked", servers.pop(locked)["reason"])
        for server in servers.values():
            for field in ("projected_seconds", "actual_seconds", "projected_bytes", "raw_bytes",
                          "downtime_seconds"):
                self.assertGreater(server[field], 0, (field, server))
        plan = json.loads(self.openstack("server", "batch", "migration", "plan", batch["id"],
                                         "-f", "json"))
        order = [member["server_id"] for group in plan["groups"]
                 for member in sorted(group["members"], key=lambda member: member["order"])]
        begun = sorted(servers, key=lambda server_id: servers[server_id]["migration_id"])
        self.assertEqual(set(order), set(begun))
        self.assertEqual([locked], [stays["server_id"] for stays in plan["staying"]])
        self.assert_guests_whole()

    def test_a_conductor_killed_in_the_middle_goes_on_and_moves_nobody_twice(self):
        batch_id = self.begin()
        self.wait_for_stream(batch_id)
        os.kill(daemon.record(CONDUCTOR).pid, signal.SIGKILL)
        shell.wait_for("the end of the conductor", 10, lambda: daemon.record(CONDUCTOR) is None)
        services.up(layout.load_options())
        network.cap(layout.load_options().host_list, LINK_MIB_PER_SECOND)
        batch = drain.wait_for_batch(batch_id, drain.FINAL, BATCH_SECONDS)
        self.assertEqual("completed", batch["status"], batch)
        self.assertNotIn(self.source, self.hosts().values())
        for server_id, before in self.migrations_before.items():
            self.assertEqual(1, len(self.migrations(server_id) - before), server_id)
        self.assert_guests_whole()

    def test_abort_in_the_middle_leaves_everybody_well(self):
        # through relays all of a group would be on their way
        batch_id = self.begin("--max-parallel", "1")
        caught = self.wait_for_stream(batch_id)["id"]
        self.openstack("server", "batch", "migration", "abort", batch_id, "--running", "abort")
        batch = drain.wait_for_batch(batch_id, drain.FINAL, BATCH_SECONDS)
        self.assertEqual("aborted", batch["status"], batch)
        asked = [server_id for server_id, before in self.migrations_before.items()
                 if self.migrations(server_id) - before]
        self.assertEqual([caught], asked, "a migration began after the abort")
        self.assertEqual({self.source}, set(self.hosts().values()))
        self.assertEqual("enabled", self.service()["status"])
        self.assert_guests_whole()

    def test_a_user_who_is_no_administrator_is_refused(self):
        for words in (("server", "batch-migrate", "--host", self.source),
                      ("server", "batch", "migration", "list")):
            done = drain.openstack(*words, user="demo")
            self.assertNotEqual(0, done.returncode, done.stdout)
            self.assertIn("403", done.stderr)
        self.assertEqual("enabled", self.service()["status"])
