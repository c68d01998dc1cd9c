"""The operator's cap through real relays, by what the kernel counts of the bytes that leave."""

import json
import random
import subprocess
import time

from nova_batch_migrate.relay import channel, pacing
from tests.unit.relay import builders, hosts, namespace

GROUP = "batch:0:cmpb"
CAP, LOWER = 8 << 20, 2 << 20
#: Of what does not compress, 16 MiB: more than the two stretches below.
PAGES, STRETCHES = 4096, (8 << 20, 4 << 20)
#: A cap is one of the relays' frames: TLS's records and heads of TCP and IP come on top.
AROUND = 1.01
#: What a relay may have taken of its cap before a stretch and not yet sent: one piece, and what it
#: lets lie in the kernel, where an end that gets no processor leaves it.
PIECE_BYTES = 64 << 10
LEFT_BYTES = PIECE_BYTES + max(channel._UNSENT_BYTES, int(pacing.AHEAD_SECONDS * CAP))


class _Sent:
    """The bytes of IP packets that this host has sent to a relay of another."""

    def __init__(self):
        subprocess.run(["nft", (
            "add table inet seen; add counter inet seen sent; add chain inet seen output "
            "{ type filter hook output priority 0; }; add rule inet seen output "
            f"tcp dport {hosts.RELAY_PORT} counter name sent")], check=True)

    def look(self) -> tuple[float, int, float]:
        """Return the bytes between the times before and behind the look."""
        before = time.monotonic()
        told = subprocess.run(["nft", "-j", "list", "counter", "inet", "seen", "sent"], check=True,
                              capture_output=True).stdout
        sent = next(each["counter"]["bytes"] for each in json.loads(told)["nftables"]
                    if "counter" in each)
        return before, sent, time.monotonic()

    def watch(self, wanted_bytes: int, cap: float) -> dict:
        """Look until so many bytes more have left; tell how many that was, and how long it took.

        And how many more than the cap in the worst of all stretches between two looks.
        """
        looks = [self.look()]
        hosts.wait_for(lambda: looks.append(self.look())
                       or looks[-1][1] - looks[0][1] >= wanted_bytes)
        over = max(later[1] - first[1] - AROUND * cap * (later[2] - first[0])
                   for at, first in enumerate(looks) for later in looks[at + 1:])
        return {"bytes": looks[-1][1] - looks[0][1], "seconds": looks[-1][2] - looks[0][0],
                "over": over}


def _capped():
    generator = random.Random(1)
    data = builders.guest([generator.randbytes(builders.PAGE) for _ in range(PAGES)])
    with hosts.two() as relays:
        hosts.open_group(relays, wire_bytes_per_second=CAP)
        sent = _Sent()
        migration = hosts.Migration(relays, hosts.FIRST, 49152)
        sending = migration.started(data)
        seen = []
        for cap, size in zip((CAP, LOWER), STRETCHES, strict=True):
            relays.source.limit(GROUP, cap)
            seen.append(sent.watch(size, cap))
        relays.source.limit(GROUP, None)
        sending.join(hosts.SECONDS)
        return {"stretches": seen, "whole": migration.arrived() == data}


class Cap(namespace.NamespaceTestCase):
    def test_no_more_than_the_cap_leaves_nor_than_another_that_is_set_meanwhile(self):
        seen = namespace.run(_capped)
        self.assertTrue(seen["whole"])
        for cap, size, told in zip((CAP, LOWER), STRETCHES, seen["stretches"], strict=True):
            # it was long enough to tell a cap from what may leave at once
            self.assertGreaterEqual(told["bytes"], size)
            at_once = (pacing.BURST_SECONDS + pacing.AHEAD_SECONDS) * cap + LEFT_BYTES
            self.assertLess(at_once, size / 4)
            self.assertLess(told["over"], at_once, seen)
