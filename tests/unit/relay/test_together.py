import threading
import time

from tests.unit.relay import hosts, namespace, played_source

#: Pages that each guest has, of which it writes to so many.
PAGES, WORKING_SET = 12288, 8192
#: Pages that they write to each second: what the first dirties in two tenths of a second fits into
#: what the kernel takes of a QEMU at once, and it waits for the other.
WRITTEN_PER_SECOND = {hosts.FIRST: 350, hosts.SECOND: 1500}


class _Lateness(threading.Thread):
    """How much later than asked for a thread of this process went on, at the worst."""

    def __init__(self):
        super().__init__(daemon=True)
        self.worst, self._over = 0.0, threading.Event()

    def run(self):
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            self.worst = max(self.worst, time.monotonic() - due)
            due = time.monotonic() + 0.01

    def end(self) -> float:
        self._over.set()
        self.join()
        return self.worst


def _led():
    """Two members that write, the second a while later: how they come to their switchovers."""
    group = {"synchronized": [[hosts.FIRST, hosts.SECOND]], "link_bytes_per_second": 37.5e6,
             "members": [{"server_id": server, "order": order, "scope": "project",
                          "dirty_bytes_per_second": written * 4096.0}
                         for order, (server, written) in enumerate(WRITTEN_PER_SECOND.items())]}
    with hosts.two(hold_seconds=hosts.SECONDS) as relays:
        hosts.open_group(relays, **group)
        migrations, guests, lateness = [], [], _Lateness()
        lateness.start()
        for seed, (server, written) in enumerate(WRITTEN_PER_SECOND.items()):
            migrations.append(hosts.Migration(relays, server, 49152 + seed))
            guests.append(played_source.PlayedSource(
                migrations[-1].connection, PAGES, WORKING_SET, written, seed))
            time.sleep(0.5)
        for guest in guests:
            guest.thread.join(hosts.SECONDS)
        late = lateness.end()
        for migration in migrations:
            migration.finish()
        told = relays.source.statistics()["groups"][0]["synchronized"][0]
        return {"errors": [str(guest.error) for guest in guests if guest.error],
                "stopped": [guest.stopped_at for guest in guests],
                "late": late, "looks": [len(guest.looks) for guest in guests], "told": told}


class Together(namespace.NamespaceTestCase):
    def test_nobody_stops_before_the_others_are_there(self):
        seen = namespace.run(_led)
        self.assertEqual(([], "released", []),
                         (seen["errors"], seen["told"]["state"], seen["told"]["early"]))
        # through more rounds than the one that sends what round 0 left dirty
        self.assertGreater(min(seen["looks"]), 2, seen)
        # each is let go by a thread of its own, and stops in one more
        self.assertLess(max(seen["stopped"]) - min(seen["stopped"]), 0.25 + 3 * seen["late"], seen)
