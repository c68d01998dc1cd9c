"""Leads migration connections of this host into the relay, while groups to their targets are open.

Called by service.py. Only new connections to the named addresses and Nova's migration ports are
touched; the relay's own carry a mark and pass. Without an open group there is no table at all, but
for what a redirected connection still needs: the kernel translates its packets only as long as
some rule asks for connections to be tracked. Else neither side would hear of the other's end.
"""

import collections
import ipaddress
import socket
import struct
import threading
from collections.abc import Collection

from nova_batch_migrate import exception
from nova_batch_migrate.relay import nftables

TABLE = "nova_batch_relay"
#: linux/netfilter_ipv4.h and ip6_tables.h; Python has no names for them.
_SO_ORIGINAL_DST = 80


class Redirect:
    """Redirects per destination address, counted: two groups may have the same destination."""

    def __init__(self, mark: int, first_port: int, last_port: int):
        self._mark = mark
        self._first_port, self._last_port = first_port, last_port
        self._ruleset: nftables.Ruleset | None = None
        #: Whether there is a table.
        self._there = False
        #: Redirected connections that have not ended.
        self._held = 0
        self._uses: collections.Counter[str] = collections.Counter()
        #: Where connections to an address are led: the first group that names it decides.
        self._ports: dict[str, int] = {}
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Open the socket that owns the table; call before any connection comes.

        A process that is killed closes first what it opened last: so its connections are reset
        while their packets still find their way.
        """
        with self._lock:
            if self._ruleset is None:
                self._ruleset = nftables.Ruleset()

    def hold(self) -> None:
        """A redirected connection has come."""
        with self._lock:
            self._held += 1

    def let_go(self) -> None:
        """A redirected connection has ended, and is closed."""
        with self._lock:
            self._held -= 1
            if not self._held and not self._ports:
                self._apply({})

    def add(self, addresses: Collection[str], port: int) -> None:
        """Redirect new migration connections to these; RelayError where nftables refuses."""
        with self._lock:
            ports = dict.fromkeys(addresses, port) | self._ports
            if ports != self._ports:
                self._apply(ports)
            self._ports = ports
            self._uses.update(addresses)

    def remove(self, addresses: Collection[str]) -> None:
        """Take one use of each address back; running connections are not touched."""
        with self._lock:
            self._uses = +(self._uses - collections.Counter(addresses))
            ports = {address: self._ports[address] for address in self._uses}
            if ports != self._ports:
                self._ports = ports
                self._apply(ports)

    def close(self) -> None:
        """Take every redirect away."""
        with self._lock:
            self._uses.clear()
            self._ports = {}
            if self._ruleset is not None:
                self._ruleset.close()
                self._ruleset, self._there = None, False

    def _apply(self, ports: dict[str, int]) -> None:
        if ports or (self._there and self._held):
            if self._ruleset is None:
                self._ruleset = nftables.Ruleset()
            self._ruleset.run(self.commands(ports))
            self._there = True
        elif self._there:
            self._ruleset.run(f"delete table inet {TABLE}")
            self._there = False

    def commands(self, ports: dict[str, int]) -> str:
        """Return nft's commands that make the table for these destinations, in one transaction.

        For none it leads nobody anywhere, and what was redirected before goes on.
        """
        rules = [
            f"    meta mark != {self._mark:#x} {_family(address)} daddr {address} "
            f"tcp dport {self._first_port}-{self._last_port} redirect to :{port}\n"
            for address, port in sorted(ports.items())]
        # a rule that asks for a connection's state is what keeps track of connections
        rules = rules or ["    ct state established accept\n"]
        return (f"add table inet {TABLE} {{ flags owner; }}\n"
                f"delete table inet {TABLE}\n"
                f"table inet {TABLE} {{\n  flags owner\n  chain output {{\n"
                "    type nat hook output priority -100; policy accept;\n"
                f"{''.join(rules)}  }}\n}}\n")


def _family(address: str) -> str:
    return "ip" if ipaddress.ip_address(address).version == 4 else "ip6"


def original_destination(connection: socket.socket) -> tuple[str, int]:
    """Return address and port that a redirected connection meant; RelayError where it was none."""
    try:
        if connection.family == socket.AF_INET6:
            raw = connection.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, 28)
            port, packed = struct.unpack("!2xH4x16s4x", raw)
            address = ipaddress.IPv6Address(packed)
            meant = (str(address.ipv4_mapped or address), port)
        else:
            raw = connection.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, 16)
            port, packed = struct.unpack("!2xH4s8x", raw)
            meant = (socket.inet_ntoa(packed), port)
    except OSError as error:
        raise exception.RelayError(
            reason="a connection came in that nobody redirected.") from error
    if meant == connection.getsockname()[:2]:
        raise exception.RelayError(reason="a connection came in that nobody redirected.")
    return meant
