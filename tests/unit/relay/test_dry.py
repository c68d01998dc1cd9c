"""A source that pauses in the middle of a page: QEMU writes without regard to pages."""

import time

from tests.unit.relay import builders, hosts, namespace

WAIT_SECONDS = 60


def _half_a_page():
    """The rest of a page does not come for a while."""
    data = builders.guest([builders.noise(i) for i in range(8)])
    half = data.index(builders.noise(5)) + 1000
    with hosts.two() as relays:
        hosts.open_group(relays)
        migration = hosts.Migration(relays, hosts.FIRST, 49152)
        migration.send(data[:half])
        end, arrived = time.monotonic() + WAIT_SECONDS, b""
        while len(arrived) < half and time.monotonic() < end:
            time.sleep(0.05)
            # written without a buffer in between, as it comes
            arrived = migration.arrived() if migration.output.exists() else b""
        migration.send(data[half:])
        migration.finish()
        return [arrived == data[:half], migration.arrived() == data]


class Dry(namespace.NamespaceTestCase):
    def test_a_beginning_that_stays_alone_crosses_in_the_end(self):
        self.assertEqual([True, True], namespace.run(_half_a_page))
