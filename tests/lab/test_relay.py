"""Relays on the real cloud: identical memory crosses once, and one that dies harms no guest.

Run by tools/test lab on a lab that is up with its relays; all guests that it finds are deleted
first. The same guests go to and fro for all tests.
"""
import json

from nova_batch_migrate.conductor.relays import REFUSED
from tests.lab import relays

from nbmlab import drain, shell  # noqa: E402, isort: skip


class RelayTest(relays.RelayTestCase):
    def test_identical_memory_crosses_once(self):
        batch_id = self.begin()
        shell.wait_for("the redirect", relays.BATCH_SECONDS,
                       lambda: "nova_batch_relay" in self.tables(self.source))
        servers = self.finished(batch_id)
        self.wait_for_no_redirect()
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

    def wait_for_no_redirect(self) -> None:
        """It goes with the last connection; of a relay that is gone the kernel takes it away."""
        shell.wait_for("the end of the redirect", 60,
                       lambda: "nova_batch_relay" not in self.tables(self.source))

    def test_the_destinations_relay_killed_in_the_middle_harms_no_guest(self):
        batch_id = self.caught()
        self.kill_relay(self.destination)
        self.assert_broken_gone_plain(batch_id, self.finished(batch_id))

    def test_the_sources_relay_killed_in_the_middle_harms_no_guest(self):
        """Whoever may go the plain way goes it; who may not stays at the source, running."""
        self.link_at(self.SLOW_LINK_MIB_PER_SECOND)
        refusing = self.request(servers=[self.ids["lab-web1"]], fallback="refuse")
        willing = self.begin("lab-web2", "lab-slow")
        for batch_id in (refusing, willing):
            self.wait_for_stream(batch_id)
        self.kill_relay(self.source)
        self.wait_for_no_redirect()
        stays, = self.ended(refusing, "partial")["servers"]
        self.assertEqual(("failed", 1), (stays["status"], stays["attempts"]), stays)
        self.assertIn(f"; {REFUSED}", stays["reason"])
        servers = {server["name"]: server for server in self.ended(willing)["servers"]}
        self.assert_broken_gone_plain(willing, servers)
        self.assert_all_at(self.destination, but={stays["id"]})
