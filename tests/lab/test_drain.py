"""Emptying a host of the real cloud: by one command, with its conductor killed, and broken off.

Run by tools/test lab on a lab that is up; all guests that it finds are deleted first.
"""
import json
import os
import signal

from tests.lab import base

from nbmlab import daemon, drain, guests, layout, services, shell  # noqa: E402, isort: skip

CONDUCTOR = "batch-conductor"


class DrainTestCase(base.LabTestCase):

    MEMBERS = (guests.Wanted("quick-web", "lab-web1"),
               guests.Wanted("quick-writer-slow", "lab-slow"),
               guests.Wanted("quick-writer-mid", "lab-mid"))
    LINK_MIB_PER_SECOND = 20.0
    #: On this one a first stream lasts: of any guest more than 8 MiB are random.
    SLOW_LINK_MIB_PER_SECOND = 0.4

    def test_one_command_empties_a_host_but_for_what_must_stay(self):
        locked = sorted(self.ids.values())[0]
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
        batch_id = self.request()
        self.wait_for_stream(batch_id)
        os.kill(daemon.record(CONDUCTOR).pid, signal.SIGKILL)
        shell.wait_for("the end of the conductor", 60, lambda: daemon.record(CONDUCTOR) is None)
        services.revive(layout.load_options())
        self.ended(batch_id)
        self.assertNotIn(self.source, self.hosts().values())
        for server_id, before in self.migrations_before.items():
            self.assertEqual(1, len(self.migrations(server_id) - before), server_id)
        self.assert_guests_whole()

    def test_abort_in_the_middle_leaves_everybody_well(self):
        # through relays all of a group would be on their way
        batch_id = self.planned(max_parallel=1)
        # so that the stream is not over before the client is up; no plan knows of it
        self.link_at(self.SLOW_LINK_MIB_PER_SECOND)
        self.start(batch_id)
        caught = self.wait_for_stream(batch_id)["id"]
        self.openstack("server", "batch", "migration", "abort", batch_id, "--running", "abort")
        batch = self.ended(batch_id, "aborted")
        self.assertEqual({"the batch was aborted before its turn"}, {
            server["reason"] for server in batch["servers"] if server["id"] != caught})
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
