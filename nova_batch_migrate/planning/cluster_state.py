"""Clusters of servers being formed: what they save, and what the limits permit.

Used by planning.clustering and planning.improving. Counts contents by class; knows nothing of how
clusters are found.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from nova_batch_migrate.planning.commonality import Commonality
from nova_batch_migrate.planning.telemetry import ServerTelemetry

#: Contents that at least this share of the servers hold do not tell who belongs to whom.
BACKGROUND_SHARE = 0.9

NOBODY, FULL, DICTIONARY, DESTINATION = "nobody", "full", "dictionary", "destination"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a cluster has to keep to."""

    #: Whether servers (ids) could go to one destination.
    fits: Callable[[Sequence[str]], bool]
    dictionary_pages: float
    #: None = any number.
    most_members: int | None
    #: Share of its distinct contents that a joining server must have in common.
    least_share: float


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Servers that go together, and what kept more from joining."""

    servers: tuple[str, ...]
    recurring_pages: float
    #: Of those, contents that almost every server holds.
    background_pages: float
    stopped: str


class Facts:
    """Servers and shared classes by number."""

    def __init__(self, servers: Sequence[ServerTelemetry], known: Commonality):
        self.ids = [s.id for s in servers]
        self.distinct = [s.distinct_pages for s in servers]
        holders: dict[int, list[int]] = {}
        for at, i in enumerate(self.ids):
            for index in known.classes_of(i):
                holders.setdefault(index, []).append(at)
        #: Classes that at least two of these hold, those that can save most first.
        self.holders: list[list[int]] = []
        self.pages: list[float] = []
        self.classes: list[list[int]] = [[] for _ in self.ids]
        self.background: set[int] = set()
        self._narrow: list[list[int] | None] = [None] * len(self.ids)
        wide = max(3.0, BACKGROUND_SHARE * len(self.ids))
        shared = [(index, held) for index, held in holders.items()
                  if len(held) > 1 and known.classes[index][1] > 0]
        shared.sort(key=lambda item: (-known.classes[item[0]][1] * (len(item[1]) - 1), item[0]))
        for index, held in shared:
            if len(held) >= wide:
                self.background.add(len(self.pages))
            for at in held:
                self.classes[at].append(len(self.pages))
            self.holders.append(held)
            self.pages.append(known.classes[index][1])
        #: The classes of each server as a set.
        self.class_sets = [frozenset(held) for held in self.classes]

    def orders(self) -> Iterable[list[int]]:
        """Yield orders in which servers begin clusters: most shared, relatives, least shared."""
        most_first = self.by_share()
        yield most_first
        yield sorted(most_first, key=lambda at: (self.narrow(at), at))
        yield most_first[::-1]

    def by_share(self) -> list[int]:
        """Return the servers with most shared content first."""
        shared = [sum([self.pages[c] for c in held]) for held in self.classes]
        return sorted(range(len(self.ids)), key=lambda at: (-shared[at], at))

    def narrow(self, at: int) -> list[int]:
        """Return the server's classes that are no background, those that can save most first."""
        if self._narrow[at] is None:
            self._narrow[at] = [c for c in self.classes[at] if c not in self.background]
        return self._narrow[at]


class Group:
    """A cluster being formed."""

    __slots__ = ("changed", "held", "members", "recurring", "stopped")

    def __init__(self):
        self.members: dict[int, None] = {}
        self.held: dict[int, int] = {}
        self.recurring = 0.0
        self.stopped = NOBODY
        #: Number of the latest change of its members.
        self.changed = 0


class State:
    """All clusters; what a change would save and whether the limits permit it."""

    def __init__(self, facts: Facts, limits: Limits):
        self.facts = facts
        self.limits = limits
        self.groups: list[Group] = []
        self.group_of: dict[int, Group] = {}
        self.saved = 0.0
        self._changes = 0
        #: Server -> changes until it was looked at in vain, and the groups it was tried in.
        self._settled: dict[int, tuple[int, list[Group]]] = {}

    def new_group(self) -> Group:
        """Return a new, empty cluster."""
        self.groups.append(Group())
        return self.groups[-1]

    def gain(self, server: int, group: Group) -> float:
        """Return the pages that the server has in common with the group."""
        pages, held = self.facts.pages, group.held
        return sum([pages[c] for c in self.facts.classes[server] if c in held])

    def growth(self, server: int, group: Group, without: int | None = None) -> float:
        """Return how much more recurs in the group once the server is in it (and one out)."""
        pages, held = self.facts.pages, group.held
        if without is None:
            return sum([pages[c] for c in self.facts.classes[server] if held.get(c) == 1])
        mine, gone = self.facts.class_sets[server], self.facts.class_sets[without]
        return (sum([pages[c] for c in mine - gone if held.get(c) == 1])
                - sum([pages[c] for c in gone - mine if held.get(c) == 2]))

    def refusal(self, server: int, group: Group, without: int | None = None) -> str | None:
        """Return which limit keeps the server out of the group (one leaving it), None if none."""
        limits = self.limits
        if without is None and limits.most_members and len(group.members) >= limits.most_members:
            return FULL
        if group.recurring + self.growth(server, group, without) > limits.dictionary_pages:
            return DICTIONARY
        ids = [self.facts.ids[m] for m in group.members if m != without]
        return None if limits.fits([*ids, self.facts.ids[server]]) else DESTINATION

    def enough(self, server: int, gain: float) -> bool:
        """Return whether that much in common makes the server a member."""
        return gain > 0 and gain >= self.limits.least_share * self.facts.distinct[server]

    def add(self, server: int, group: Group) -> None:
        """Put the server into the group."""
        pages, held = self.facts.pages, group.held
        gain = growth = 0.0
        for c in self.facts.classes[server]:
            count = held.get(c, 0)
            held[c] = count + 1
            if count:
                gain += pages[c]
                if count == 1:
                    growth += pages[c]
        self.saved += gain
        group.recurring += growth
        group.members[server] = None
        self.group_of[server] = group
        self._note_change(group)

    def remove(self, server: int, group: Group) -> None:
        """Take the server out of the group."""
        del group.members[server]
        self._note_change(group)
        pages = self.facts.pages
        for c in self.facts.classes[server]:
            count = group.held[c]
            if count == 1:
                del group.held[c]
            else:
                group.held[c] = count - 1
                self.saved -= pages[c]
                if count == 2:
                    group.recurring -= pages[c]

    def settle(self, server: int, tried: list[Group]) -> None:
        """Note that no change of the server's group saves more, as these groups are."""
        self._settled[server] = self._changes, tried

    def settled(self, server: int) -> bool:
        """Return whether the server's group and those it was tried in are as they were then."""
        changes, tried = self._settled.get(server, (-1, ()))
        return (self.group_of[server].changed <= changes
                and all([group.changed <= changes for group in tried]))

    def _note_change(self, group: Group) -> None:
        self._changes += 1
        group.changed = self._changes

    def saved_in(self, group: Group) -> float:
        """Return the pages that one group saves."""
        return sum(self.facts.pages[c] * (count - 1) for c, count in group.held.items())

    def replace(self, groups: Sequence[Group], other: "State") -> None:
        """Put the clusters of another state, of the same servers, in the place of these."""
        self.saved += other.saved - sum(self.saved_in(group) for group in groups)
        for group in groups:
            group.members, group.held, group.recurring = {}, {}, 0.0
            self._note_change(group)
        self.groups += other.groups
        self.group_of.update(other.group_of)
        for group in other.groups:
            self._note_change(group)

    def copy(self) -> "State":
        """Return a state that can be changed apart from this one."""
        other = State(self.facts, self.limits)
        other.saved = self.saved
        for group in self.groups:
            if group.members:
                twin = other.new_group()
                twin.members, twin.held = dict(group.members), dict(group.held)
                twin.recurring, twin.stopped = group.recurring, group.stopped
                other.group_of.update(dict.fromkeys(twin.members, twin))
        return other

    def refused(self, group: Group) -> bool:
        """Return whether the group as it is breaks a limit."""
        limits = self.limits
        return (bool(limits.most_members) and len(group.members) > limits.most_members
                or group.recurring > limits.dictionary_pages
                or not limits.fits([self.facts.ids[m] for m in group.members]))

    def loss(self, server: int, group: Group) -> float:
        """Return the pages that are no longer saved once the server is out of its group."""
        pages, held = self.facts.pages, group.held
        return sum([pages[c] for c in self.facts.classes[server] if held[c] > 1])

    def result(self) -> list[Cluster]:
        """Return the clusters, the one with most in common first."""
        facts = self.facts
        found = []
        for group in self.groups:
            if group.members:
                background = sum(facts.pages[c] for c in facts.background
                                 if group.held.get(c, 0) > 1)
                found.append((group.recurring, min(group.members), Cluster(
                    tuple(facts.ids[m] for m in sorted(group.members)), group.recurring,
                    background, self._why_stopped(group))))
        return [cluster for _, _, cluster in sorted(found, key=lambda f: (-f[0], f[1]))]

    def _why_stopped(self, group: Group) -> str:
        most = self.limits.most_members
        if most and len(group.members) >= most:
            return FULL
        return NOBODY if group.stopped == FULL else group.stopped
