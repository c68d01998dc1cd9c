"""Relays on the real cloud whose migrations go over IPv6, as live_migration_inbound_addr says.

Run by tools/test lab on a lab that is up with its relays.
"""
import dataclasses

from tests.lab import relays

from nbmlab import host, layout, services, shell  # noqa: E402, isort: skip


class RelayOverIPv6Test(relays.RelayTestCase):
    @classmethod
    def setUpClass(cls):
        before = layout.load_options()
        services.up(dataclasses.replace(before, ipv6=True))
        cls.addClassCleanup(services.up, before)
        super().setUpClass()

    def test_identical_memory_crosses_once(self):
        destination = layout.host_named(self.destination)
        batch_id = self.begin()
        shell.wait_for("the redirect of IPv6", relays.BATCH_SECONDS,
                       lambda: destination.address6 in self.ruleset(), every_seconds=0.2)
        for server in self.finished(batch_id).values():
            self.assertEqual(1, server["attempts"], server)
            self.assertIsNotNone(server["relay"], server)
            self.assertLess(server["wire_bytes"], server["raw_bytes"] / 2, server)

    def ruleset(self) -> str:
        return shell.run(*host.inside(layout.host_named(self.source)), "nft", "list", "ruleset")
