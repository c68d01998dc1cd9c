"""Which destination each planned server gets, by capacity of the planned moves (design 3).

Called by planning.plan once groups exist. Sources, busy and disabled hosts are left out by the
caller; never asks Placement, whose numbers come in the request.
"""

import dataclasses
from collections.abc import Collection, Iterable, Sequence

from nova_batch_migrate.planning.request import Destination, Movable

GIB = 1024 ** 3


@dataclasses.dataclass(frozen=True)
class Place:
    """A destination and why it was chosen."""

    host: str
    reason: str


class Room:
    """The room at all destinations, less every move planned so far."""

    def __init__(self, destinations: Iterable[Destination], movable: Iterable[Movable]):
        self._free = {d.host: (d.free_memory_bytes, d.free_vcpus, d.free_disk_gb)
                      for d in destinations}
        self._servers = {d.host: d.running_servers for d in destinations}
        self._together: dict[str, list[Movable]] = {}
        for server in movable:
            if server.affinity_group:
                self._together.setdefault(server.affinity_group, []).append(server)
        #: Host of each affinity group; its capacity is taken for all members at once.
        self._pinned: dict[str, str] = {}
        self._apart: set[tuple[str, str]] = set()

    def place(self, server: Movable, mates: Collection[str] = ()) -> Place | None:
        """Choose a destination and take its room; None if no allowed one has any.

        `mates` are hosts that already get members of the same group: one of them is preferred,
        because a relay's dictionary is kept per destination. Else the host with most free
        memory, then fewest servers, then the first name.
        """
        group = server.affinity_group
        if group in self._pinned:
            return Place(self._pinned[group], f"affinity group {group} moves together")
        members = self._together[group] if group else [server]
        fitting = [host for host in self._free if self._fits(host, members)]
        if not fitting:
            return None
        host = min(fitting, key=lambda h: (h not in mates, -self._free[h][0],
                                           self._servers[h], h))
        reason = ("destination of its group" if host in mates else
                  f"most free memory of {len(fitting)} that fit "
                  f"({self._free[host][0] / GIB:.1f} GiB)")
        for member in members:
            self._take(host, member)
        if group:
            self._pinned[group] = host
        return Place(host, reason)

    def fit_together(self, servers: Sequence[Movable]) -> bool:
        """Return whether one destination could take all of these now."""
        return any(self._fits(host, servers) for host in self._free)

    def why_not(self, server: Movable) -> str:
        """Say in words why `place` found nothing."""
        allowed = [host for host in server.destinations if host in self._free]
        if not allowed:
            return "no destination is allowed for it"
        best = max(allowed, key=lambda h: (self._free[h][0], h))
        need = (f"{server.memory_bytes / GIB:.1f} GiB, {server.vcpus} VCPUs and "
                f"{server.disk_gb:g} GB of disk")
        left = self._free[best]
        return (f"none of {len(allowed)} allowed destinations has room beside the moves planned "
                f"already{self._group_words(server)}: it takes {need}; the most free memory is "
                f"on {best}: {left[0] / GIB:.1f} GiB, {left[1]:g} VCPUs, {left[2]:g} GB")

    @staticmethod
    def _group_words(server: Movable) -> str:
        if server.affinity_group:
            return f" for all of affinity group {server.affinity_group}"
        if server.anti_affinity_group:
            return f" without a member of anti-affinity group {server.anti_affinity_group}"
        return ""

    def _fits(self, host: str, servers: Sequence[Movable]) -> bool:
        memory, vcpus, disk_gb = self._free[host]
        apart = [s.anti_affinity_group for s in servers if s.anti_affinity_group]
        return (all(host in s.destinations for s in servers)
                and memory >= sum(s.memory_bytes for s in servers)
                and vcpus >= sum(s.vcpus for s in servers)
                and disk_gb >= sum(s.disk_gb for s in servers)
                and len(apart) == len(set(apart))
                and not any((host, group) in self._apart for group in apart))

    def _take(self, host: str, server: Movable) -> None:
        memory, vcpus, disk_gb = self._free[host]
        self._free[host] = (memory - server.memory_bytes, vcpus - server.vcpus,
                            disk_gb - server.disk_gb)
        self._servers[host] += 1
        if server.anti_affinity_group:
            self._apart.add((host, server.anti_affinity_group))


def place_groups(groups: Sequence[Sequence[Movable]], destinations: Sequence[Destination]
                 ) -> tuple[dict[str, Place], dict[str, str]]:
    """Place the members of all groups; return places by server id, and why others have none.

    Large ones go first. Where that leaves someone without a place, every server is tried in
    order of its size alone, groups ignored, and the better of both is kept.
    """
    by_size = sorted(groups, key=lambda g: (-sum(s.memory_bytes for s in g), g[0].id))
    first = _try([sorted(group, key=_largest_first) for group in by_size], destinations)
    if not first[1]:
        return first
    everyone = sorted((server for group in groups for server in group), key=_largest_first)
    second = _try([[server] for server in everyone], destinations)
    return second if len(second[1]) < len(first[1]) else first


def _largest_first(server: Movable):
    return -server.memory_bytes, -server.vcpus, -server.disk_gb, server.id


def _try(groups, destinations) -> tuple[dict[str, Place], dict[str, str]]:
    room = Room(destinations, [server for group in groups for server in group])
    places: dict[str, Place] = {}
    homeless: dict[str, str] = {}
    for group in groups:
        mates: set[str] = set()
        for server in group:
            place = room.place(server, mates)
            if place is None:
                homeless[server.id] = room.why_not(server)
            else:
                places[server.id] = place
                mates.add(place.host)
    return places, homeless
