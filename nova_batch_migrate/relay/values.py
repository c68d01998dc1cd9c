"""What a conductor tells both relays of a group; pure values with their checks.

Made by control.py from JSON, read by source.py and destination.py.
"""

import base64
import dataclasses
import re
import socket

from nova_batch_migrate import exception

_TOKEN = re.compile(r"[0-9a-f]{64}")
SOURCE, DESTINATION = "source", "destination"
_SLOW_LINK_BYTES_PER_SECOND = 150e6


@dataclasses.dataclass(frozen=True)
class Member:
    """A server of a group, its place in the plan's order, and whose dictionary it may share."""

    server_id: str
    order: int
    #: A project's id, or one word for all of the host; None: its stream is spliced.
    scope: str | None
    #: What its guest writes, as it was measured; None: unknown.
    dirty_bytes_per_second: float | None = None
    #: The last member behind it that holds much of the same content, by its order: until that one
    #: has come its pages are kept for it. None: there is none, or nobody knows.
    kept_for: int | None = None


@dataclasses.dataclass(frozen=True)
class Group:
    """One group of one source and one destination, as both relays know it."""

    id: str
    role: str
    #: Known to the two relays and the conductor that opened the group; never logged.
    token: str = dataclasses.field(repr=False)
    #: Host names, as in the certificates.
    source: str
    destination: str
    #: Address or name to which the source's QEMU connects, and the port of the relay there.
    peer_address: str
    peer_port: int
    members: tuple[Member, ...]
    dictionary_bytes: int
    #: Cap on wire bytes of the group; None: none.
    wire_bytes_per_second: float | None = None
    #: What the plan believes the link to give; None: unknown.
    link_bytes_per_second: float | None = None
    #: The longest downtime that QEMU may be allowed.
    downtime_seconds: float = 0.5
    synchronized: tuple[frozenset[str], ...] = ()
    #: (scope, seed, hashes, theta) of admission.Recurring where a log's dictionary can't hold
    #: everything; from the agent of the source, for its own relay only.
    recurring: tuple[tuple[str, int, bytes, float], ...] = dataclasses.field(default=(), repr=False)

    @property
    def known_bytes_per_second(self) -> float | None:
        """What the wire gives the group at most; None where nobody knows."""
        rates = (self.wire_bytes_per_second, self.link_bytes_per_second)
        return min((rate for rate in rates if rate), default=None)

    @property
    def link_is_slow(self) -> bool:
        """Whether what lies in buffers of a few MiB takes long to cross."""
        rate = self.known_bytes_per_second
        return rate is not None and rate < _SLOW_LINK_BYTES_PER_SECOND

    def member(self, server_id: str) -> Member | None:
        return next((m for m in self.members if m.server_id == server_id), None)

    @classmethod
    def from_dict(cls, given: dict) -> "Group":
        """Return the group of a request; RelayError says what is wrong with it."""
        try:
            values = dict(given)
            values["members"] = tuple(Member(**member) for member in values["members"])
            values["synchronized"] = tuple(map(frozenset, values.get("synchronized") or ()))
            values["recurring"] = tuple(
                (scope, int(told["seed"]), base64.b64decode(told["hashes"], validate=True),
                 float(told.get("theta", 1.0)))
                for scope, told in sorted((values.get("recurring") or {}).items()))
            group = cls(**values)
            group._check()
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise exception.RelayError(reason=f"this is no group: {error}") from error
        return group

    def _check(self) -> None:
        if self.role not in (SOURCE, DESTINATION):
            raise ValueError(f"role {self.role!r}")
        if not _TOKEN.fullmatch(self.token):
            raise ValueError("the token is not 32 bytes in hexadecimal")
        if not self.source or not self.destination or self.source == self.destination:
            raise ValueError(f"source {self.source!r} and destination {self.destination!r}")
        if not 0 < self.peer_port < 65536 or self.dictionary_bytes < 0:
            raise ValueError("peer_port or dictionary_bytes is out of range")
        if any(len(hashes) % 4 or not 0 < theta <= 1 for _, _, hashes, theta in self.recurring):
            raise ValueError("the hashes of what recurs are not of four bytes, or of no share")
        ids = [member.server_id for member in self.members]
        if len(set(ids)) != len(ids):
            raise ValueError("a server is a member twice")

    def addresses(self) -> frozenset[str]:
        """Return the addresses of the destination; RelayError where its name has none."""
        try:
            found = socket.getaddrinfo(self.peer_address, self.peer_port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise exception.RelayError(
                reason=f"{self.peer_address} has no address: {error}") from error
        return frozenset(entry[4][0] for entry in found)
