"""Which destination each planned server gets, by capacity of the planned moves (design 3).

Called by planning.plan once groups exist. Sources, busy and disabled hosts are left out by the
caller; never asks Placement, whose numbers come in the request.
"""

import bisect
import collections
import dataclasses
from collections.abc import Collection, Iterable, Iterator, Sequence

from nova_batch_migrate.planning.request import Destination, Movable

GIB = 1024 ** 3


@dataclasses.dataclass(frozen=True)
class Place:
    """A destination and why it was chosen."""

    host: str
    reason: str


@dataclasses.dataclass
class _Host:
    """What is left on a destination."""

    name: str
    memory_bytes: int
    vcpus: float
    disk_gb: float
    servers: int
    #: Members by server group: those that run there and those planned to.
    members: collections.Counter
    #: Sources whose relay dictionary is counted already.
    dictionaries: set[str]

    @property
    def rank(self) -> tuple[int, int, str]:
        """What is compared: most free memory, then fewest servers, then the first name."""
        return -self.memory_bytes, self.servers, self.name


class Room:
    """The room at all destinations, less every move planned so far.

    Hosts are kept in the order of preference, so that a server looks at the first few only; one
    on which nobody fits any more leaves the order.
    """

    def __init__(self, destinations: Iterable[Destination], movable: Iterable[Movable],
                 dictionary_bytes: int = 0, relays: Collection[str] | None = None):
        """Start with the room of ``destinations``; ``movable`` are all that will be placed.

        ``dictionary_bytes`` of memory are taken for each pair of source and destination between
        which a relay carries streams; 0 without a relay. ``relays`` are the hosts that have one
        (None: all); a source of None is one whose streams none carries.
        """
        self._dictionary_bytes = dictionary_bytes
        self._relays = relays
        self._hosts = {d.host: _Host(
            d.host, d.free_memory_bytes, d.free_vcpus, d.free_disk_gb, d.running_servers,
            collections.Counter(d.server_groups), set()) for d in destinations}
        self._order = sorted(host.rank for host in self._hosts.values())
        self._together: dict[str, list[Movable]] = {}
        #: Hosts with members of a soft affinity group.
        self._near: dict[str, set[str]] = {}
        for host in self._hosts.values():
            for group in host.members:
                self._near.setdefault(group, set()).add(host.name)
        smallest = []
        for server in movable:
            smallest.append((server.vcpus, server.disk_gb))
            if server.affinity_group:
                self._together.setdefault(server.affinity_group, []).append(server)
        self._least_vcpus = min((vcpus for vcpus, _ in smallest), default=0)
        self._least_disk_gb = min((disk for _, disk in smallest), default=0)
        #: Host of each affinity group; its capacity is taken for all members at once.
        self._pinned: dict[str, str] = {}
        self._allowed: dict[tuple[str, ...], frozenset[str]] = {}
        self._allowed_by_id: dict[str, frozenset[str]] = {}

    def place(self, server: Movable, mates: Collection[str] = (), source: str | None = ""
              ) -> Place | None:
        """Choose a destination and take its room; None if no allowed one has any.

        Soft policies of its server groups come first. `mates` are hosts that already get members
        of the same group: one of them is preferred, because a relay's dictionary is kept per
        destination. Else the host with most free memory, then fewest servers, then the first
        name.
        """
        group = server.affinity_group
        if group in self._pinned:
            return Place(self._pinned[group], f"affinity group {group} moves together")
        members = self._together[group] if group else [server]
        host = self._choose(server, members, mates, source)
        if host is None:
            return None
        reason = self._reason(server, host, mates)
        self._take(host, members, source)
        if group:
            self._pinned[group] = host.name
        return Place(host.name, reason)

    def fit_together(self, servers: Sequence[Movable], source: str | None = "") -> bool:
        """Return whether one destination could take all of these now."""
        return next(self._fitting(servers, source), None) is not None

    def why_not(self, server: Movable) -> str:
        """Say in words why `place` found nothing."""
        allowed = self._allowed_of(server) & self._hosts.keys()
        if not allowed:
            return "no destination is allowed for it"
        best = min((self._hosts[name] for name in allowed), key=lambda host: host.rank)
        need = (f"{server.memory_bytes / GIB:.1f} GiB, {server.vcpus} VCPUs and "
                f"{server.disk_gb:g} GB of disk")
        if self._dictionary_bytes:
            need += f" beside a relay's dictionary of {self._dictionary_bytes / GIB:.1f} GiB"
        return (f"none of {len(allowed)} allowed destinations has room beside the moves planned "
                f"already{self._group_words(server)}: it takes {need}; the most free memory is "
                f"on {best.name}: {best.memory_bytes / GIB:.1f} GiB, {best.vcpus:g} VCPUs, "
                f"{best.disk_gb:g} GB")

    @staticmethod
    def _group_words(server: Movable) -> str:
        if server.affinity_group:
            return f" for all of affinity group {server.affinity_group}"
        if server.anti_affinity_group:
            return f" without a member of anti-affinity group {server.anti_affinity_group}"
        return ""

    def _choose(self, server: Movable, members: Sequence[Movable], mates: Collection[str],
                source: str | None) -> _Host | None:
        """Return the best host: few looks at preferred ones, then the first in order that fits."""
        apart, near = server.soft_anti_affinity_group, server.soft_affinity_group
        near_hosts = self._near.get(near, set()) if near else set()
        preferred = sorted({*mates, *near_hosts})

        def cost(host: _Host):
            return (host.members[apart] if apart else 0, host.name not in near_hosts,
                    host.name not in mates, host.rank)

        candidates = [self._hosts[name] for name in preferred if name in self._hosts
                      and self._fits(self._hosts[name], members, source)]
        if candidates and not apart and not near:
            return min(candidates, key=cost)
        for host in self._fitting(members, source):
            if host.name in preferred:
                continue
            candidates.append(host)
            if not apart or not host.members[apart]:
                break
        return min(candidates, key=cost, default=None)

    def _reason(self, server: Movable, host: _Host, mates: Collection[str]) -> str:
        if server.soft_affinity_group and host.members[server.soft_affinity_group]:
            return f"soft affinity group {server.soft_affinity_group} has members there"
        if host.name in mates:
            return "destination of its group"
        return f"most free memory of those that fit ({host.memory_bytes / GIB:.1f} GiB)"

    def _fitting(self, servers: Sequence[Movable], source: str | None) -> Iterator[_Host]:
        """Yield the hosts that can take all of these, best first."""
        memory_bytes = sum(s.memory_bytes for s in servers)
        for rank in self._order:
            if -rank[0] < memory_bytes:
                return
            host = self._hosts[rank[2]]
            if self._fits(host, servers, source):
                yield host

    def _allowed_of(self, server: Movable) -> frozenset[str]:
        if server.id not in self._allowed_by_id:
            # Hashing a long tuple of names takes its time: once a server.
            names = server.destinations
            allowed = self._allowed.get(names)
            if allowed is None:
                allowed = self._allowed[names] = frozenset(names)
            self._allowed_by_id[server.id] = allowed
        return self._allowed_by_id[server.id]

    def _dictionary(self, host: _Host, source: str | None) -> int:
        """Return the bytes of a dictionary that a stream from there to here would add."""
        relayed = source is not None and (self._relays is None or host.name in self._relays)
        return self._dictionary_bytes if relayed and source not in host.dictionaries else 0

    def _fits(self, host: _Host, servers: Sequence[Movable], source: str | None) -> bool:
        dictionary = self._dictionary(host, source)
        return (host.memory_bytes >= dictionary + sum(s.memory_bytes for s in servers)
                and host.vcpus >= sum(s.vcpus for s in servers)
                and host.disk_gb >= sum(s.disk_gb for s in servers)
                and all(host.name in self._allowed_of(s) for s in servers)
                and _apart(host, servers))

    def _take(self, host: _Host, servers: Sequence[Movable], source: str | None) -> None:
        at = bisect.bisect_left(self._order, host.rank)
        del self._order[at]
        dictionary = self._dictionary(host, source)
        if dictionary:
            host.dictionaries.add(source)
            host.memory_bytes -= dictionary
        for server in servers:
            host.memory_bytes -= server.memory_bytes
            host.vcpus -= server.vcpus
            host.disk_gb -= server.disk_gb
            host.servers += 1
            for group in (server.anti_affinity_group, server.soft_anti_affinity_group,
                          server.soft_affinity_group):
                if group:
                    host.members[group] += 1
                    self._near.setdefault(group, set()).add(host.name)
        if host.vcpus >= self._least_vcpus and host.disk_gb >= self._least_disk_gb:
            bisect.insort(self._order, host.rank)


def _apart(host: _Host, servers: Sequence[Movable]) -> bool:
    """Return whether anti-affinity permits these beside who is on the host."""
    if not any([server.anti_affinity_group for server in servers]):
        return True
    wanted = collections.Counter()
    most = {}
    for server in servers:
        if server.anti_affinity_group:
            wanted[server.anti_affinity_group] += 1
            most[server.anti_affinity_group] = server.anti_affinity_most
    return all(host.members[group] + count <= most[group] for group, count in wanted.items())


def place_groups(groups: Sequence[Sequence[Movable]], destinations: Sequence[Destination],
                 sources: Sequence[str | None] = (), dictionary_bytes: int = 0,
                 relays: Collection[str] | None = None
                 ) -> tuple[dict[str, Place], dict[str, str]]:
    """Place the members of all groups; return places by server id, and why others have none.

    `sources` names the source of each group that relays carry; with `dictionary_bytes` and `relays`
    it is for the dictionaries, as in Room. Large ones go first. Where that leaves someone without
    a place, every server is tried in order of its size alone, groups ignored, and the better of
    both is kept.
    """
    named = list(zip(groups, sources or [""] * len(groups), strict=True))
    by_size = sorted(named, key=lambda item: (-sum(s.memory_bytes for s in item[0]),
                                              item[0][0].id))
    first = _try([(sorted(group, key=_largest_first), source) for group, source in by_size],
                 destinations, dictionary_bytes, relays)
    if not first[1]:
        return first
    everyone = sorted(((server, source) for group, source in named for server in group),
                      key=lambda item: _largest_first(item[0]))
    second = _try([([server], source) for server, source in everyone], destinations,
                  dictionary_bytes, relays)
    return second if len(second[1]) < len(first[1]) else first


def _largest_first(server: Movable):
    return -server.memory_bytes, -server.vcpus, -server.disk_gb, server.id


def _try(groups, destinations, dictionary_bytes, relays
         ) -> tuple[dict[str, Place], dict[str, str]]:
    room = Room(destinations, [server for group, _ in groups for server in group],
                dictionary_bytes, relays)
    places: dict[str, Place] = {}
    homeless: dict[str, str] = {}
    for group, source in groups:
        mates: set[str] = set()
        for server in group:
            place = room.place(server, mates, source)
            if place is None:
                homeless[server.id] = room.why_not(server)
            else:
                places[server.id] = place
                mates.add(place.host)
    return places, homeless
