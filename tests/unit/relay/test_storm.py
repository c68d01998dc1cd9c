"""Whatever breaks while streams run: nobody waits for ever, and nothing is left behind."""

import random
import socket
import subprocess
import threading
import time
from unittest import mock

from nova_batch_migrate.relay import groups, source_stream, splice
from tests.unit.relay import hosts, namespace
from tests.unit.relay.test_service import two_alike

ROUNDS, SECONDS = 16, hosts.SECONDS + 30


def _channel(relays, group, _migrations):
    line = relays.source._groups[group].log("project")._channel
    if line is not None:
        line.close()


def _source(relays, group, _migrations):
    relays.source.close_group(group)


def _destination(relays, group, _migrations):
    relays.destination.close_group(group)


def _qemu(_relays, _group, migrations):
    migrations[0].process.kill()


def _client(_relays, _group, migrations):
    source_stream.reset_on_close(migrations[0].connection)
    splice.shut(migrations[0].connection, socket.SHUT_RDWR)
    migrations[0].connection.close()


def _nothing(_relays, _group, _migrations):
    return


def _attempt(migration, data, ended):
    try:
        migration.send(data)
        migration.finish()
    except (OSError, ValueError, subprocess.TimeoutExpired):
        # broken, as it was meant to be; its QEMU may never have seen a connection
        migration.end()
    ended.append(migration)


def _storm(seed: str):
    chance, data = random.Random(int(seed)), two_alike(pages=1200)
    seen = {"hung": [], "whole": []}
    # the last of the threads gives the memory of closed groups back
    with mock.patch.object(groups, "_KEPT_SECONDS", 2), hosts.two(link_seconds=5) as relays:
        before = threading.active_count()
        for turn in range(ROUNDS):
            group = f"g{turn}"
            hosts.open_group(relays, id=group, wire_bytes_per_second=chance.choice(
                (None, 2 << 20, 16 << 20)))
            migrations = [hosts.Migration(relays, server, 49152 + at)
                          for at, server in enumerate((hosts.FIRST, hosts.SECOND))]
            ended, senders = [], []
            for migration, each in zip(migrations, data, strict=True):
                senders.append(threading.Thread(target=_attempt, args=(migration, each, ended)))
                senders[-1].start()
            time.sleep(chance.random() * 0.4)
            fault = chance.choice((_channel, _source, _destination, _qemu, _client, _nothing))
            fault(relays, group, migrations)
            begun = time.monotonic()
            for sender in senders:
                sender.join(max(0.0, begun + SECONDS - time.monotonic()))
            if len(ended) < 2:
                seen["hung"].append((turn, fault.__name__))
                break
            if fault is _nothing:
                seen["whole"] += [m.arrived() == d for m, d in zip(migrations, data, strict=True)]
            for each in (relays.source, relays.destination):
                each.close_group(group)
        end = time.monotonic() + SECONDS
        while threading.active_count() > before and time.monotonic() < end:
            time.sleep(0.1)
        seen["threads"] = threading.active_count() - before
        seen["left"] = [relays.source._memory_left(), relays.destination._memory_left()]
    return seen


class Storm(namespace.NamespaceTestCase):
    def test_nothing_hangs_and_nothing_is_left(self):
        seen = namespace.run(_storm, "7")
        self.assertEqual(([], []), (seen["hung"], [each for each in seen["whole"] if not each]))
        self.assertEqual((0, [512 << 20] * 2), (seen["threads"], seen["left"]))
