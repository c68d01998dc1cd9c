"""QEMU at the source learns that its connection is over, also where it only waits for a word.

A redirected connection is known to QEMU under the destination's address: what ends it has to pass
the redirect, which goes with the relay.
"""

import os
import signal
import subprocess
import time

from tests.unit.relay import hosts, namespace, test_privileges
from tests.unit.relay.test_service import two_alike

GROUP = "batch:0:cmpb"


def _silent(relays, client) -> list[hosts.Migration]:
    """Return migrations of which the sources have sent something, and wait."""
    migrations = []
    for at, server in enumerate((hosts.FIRST, hosts.SECOND)):
        migrations.append(hosts.Migration(relays, server, 49152 + at))
        migrations[-1].send(two_alike(pages=50)[at][:100_000])
    hosts.wait_for(lambda: len(client.statistics()["groups"][0]["servers"]) == 2)
    time.sleep(0.5)
    return migrations


def _heard(migrations) -> list[str]:
    """Return how each source's wait for the other side ends."""
    heard = []
    for migration in migrations:
        migration.connection.settimeout(hosts.SECONDS)
        try:
            while migration.connection.recv(1 << 16):
                continue
            heard.append("the end")
        except TimeoutError:
            heard.append("nothing")
        except OSError:
            heard.append("the end")
        migration.end()
    return heard


def _closed():
    with hosts.two() as relays:
        hosts.open_group(relays)
        migrations = _silent(relays, relays.source)
        relays.source.close_group(GROUP)
        return _heard(migrations)


def _tables() -> str:
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True,
                          check=True).stdout


def _passes_by():
    """A stranger's migration is half across when the only group is closed."""
    data = two_alike(pages=300)[0]
    with hosts.two() as relays:
        hosts.open_group(relays)
        stranger = hosts.Migration(relays, hosts.STRANGER, 49152)
        stranger.send(data[:len(data) // 2])
        hosts.wait_for(lambda: stranger.output.exists() and stranger.output.stat().st_size > 0)
        for each in (relays.source, relays.destination):
            each.close_group(GROUP)
        closed = hosts.wait_for(lambda: "redirect to" not in subprocess.run(
            ["nft", "list", "ruleset"], capture_output=True, text=True).stdout)
        stranger.send(data[len(data) // 2:])
        stranger.finish()
        hosts.wait_for(lambda: not _tables())
        return {"whole": stranger.arrived() == data, "closed": closed,
                "left": _tables()}


def _killed():
    with test_privileges.pair(*test_privileges.CAPABILITIES) as (relays, processes, clients):
        test_privileges.open_group(clients)
        migrations = _silent(relays, clients[1])
        os.kill(processes[1].pid, signal.SIGKILL)
        processes[1].wait(hosts.SECONDS)
        return _heard(migrations)


class Ends(namespace.NamespaceTestCase):
    def test_of_a_group_that_is_closed(self):
        self.assertEqual(["the end"] * 2, namespace.run(_closed))

    def test_a_migration_that_passes_by_outlives_the_group(self):
        self.assertEqual({"whole": True, "closed": True, "left": ""},
                         namespace.run(_passes_by))

    def test_of_a_relay_that_is_killed(self):
        self.assertEqual(["the end"] * 2, namespace.run(_killed))
