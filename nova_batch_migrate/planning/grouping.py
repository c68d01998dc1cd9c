"""Which servers of a source migrate together: strategies group, pair and none.

Called by planning.plan, once per source ([0051], [0063]-[0079], design 3). Knows commonality and
limits; what a projection or a destination allows comes in as functions. Never orders groups,
except for `pair`, whose order is part of FIG. 6.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

from nova_batch_migrate.planning.commonality import Commonality
from nova_batch_migrate.planning.scope import Scope
from nova_batch_migrate.planning.telemetry import PAGE_BYTES, ServerTelemetry

#: After each group the rest is planned again with fresh figures [0062]; larger groups would put
#: that off, and delay short members behind long ones.
MOST_MEMBERS = 8
#: Any two guests have some trivial pages in common: less than this share of a server's distinct
#: contents does not make it a member.
LEAST_SHARE = 0.01
MIB = 1024 ** 2

#: Whether servers (ids) could go to one destination.
Fits = Callable[[Sequence[str]], bool]
#: Projected seconds of servers (ids) that migrate together, None if one does not converge.
Seconds = Callable[[Sequence[str]], float | None]


@dataclasses.dataclass(frozen=True)
class Grouping:
    """A group before it has destinations and times."""

    servers: tuple[str, ...]
    reason: str
    #: All of them move together, or none.
    synchronized: bool = False


def _by_name(server: ServerTelemetry):
    return server.name, server.id


def _mib(pages: float) -> str:
    return f"{pages * PAGE_BYTES / MIB:.1f} MiB"


def none(servers: Sequence[ServerTelemetry], seconds: Callable[[str], float],
         parallel: int) -> list[Grouping]:
    """Group nothing: servers by ascending projected time, as many at once as may run at once."""
    ordered = sorted(servers, key=lambda s: (seconds(s.id), *_by_name(s)))
    return [Grouping(tuple(s.id for s in ordered[at:at + parallel]),
                     "strategy none: content in common is not looked at")
            for at in range(0, len(ordered), parallel)]


def group(servers: Sequence[ServerTelemetry], known: Commonality, scope: Scope, fits: Fits,
          dictionary_bytes: int, most_members: int) -> list[Grouping]:
    """Group by common content, greedily [0051].

    The server with most shared content begins a group; then always the one joins that has most
    content in common with what the group holds. A joining server must bring LEAST_SHARE of its
    distinct contents in common, the recurring contents of the group must fit the dictionary, and
    one destination must be able to take all. Who finds no partner stays alone. The work is the
    sum of the class sizes, per group: near-linear where servers are alike in families.
    """
    left = {s.id: s for s in sorted(servers, key=lambda s: (-known.shared_pages(s.id),
                                                            *_by_name(s)))}
    groups = []
    while left:
        seed = left.pop(next(iter(left)))
        growing = _Growing(seed.id, known, scope, left)
        members, stopped = [seed.id], "nobody left has enough in common with it"
        while True:
            if len(members) >= most_members:
                stopped = f"a group has at most {most_members} members"
                break
            candidate = growing.best(left)
            if candidate is None:
                break
            if growing.recurring_with(candidate) * PAGE_BYTES > dictionary_bytes:
                growing.refuse(candidate)
                stopped = f"more would not fit a dictionary of {dictionary_bytes // MIB} MiB"
            elif not fits([*members, candidate]):
                growing.refuse(candidate)
                stopped = "no destination could take more of them together"
            else:
                growing.add(candidate)
                members.append(candidate)
                del left[candidate]
        reason = (f"{_mib(growing.recurring)} of content is held by more than one of the "
                  f"{len(members)} members; {stopped}" if len(members) > 1 else
                  f"alone: {stopped}")
        groups.append(Grouping(tuple(members), reason))
    return groups


class _Growing:
    """A group being formed: what each candidate has in common with it, kept up to date."""

    def __init__(self, seed: str, known: Commonality, scope: Scope,
                 left: dict[str, ServerTelemetry]):
        self.recurring = 0.0
        self._known = known
        self._allowed = {server for server in left if scope.allows(seed, server)}
        self._held: dict[int, int] = {}
        self._common: dict[str, float] = {}
        self.add(seed)

    def add(self, server: str) -> None:
        """Take the server in; whoever shares its contents gains by it."""
        self.recurring = self.recurring_with(server)
        self._common.pop(server, None)
        self._allowed.discard(server)
        for index in self._known.classes_of(server):
            self._held[index] = self._held.get(index, 0) + 1
            if self._held[index] == 1:
                holders, pages = self._known.classes[index]
                for holder in self._allowed.intersection(holders):
                    self._common[holder] = self._common.get(holder, 0.0) + pages

    def recurring_with(self, server: str) -> float:
        """Return the contents held by two or more once the server has joined."""
        return self.recurring + sum(self._known.classes[index][1]
                                    for index in self._known.classes_of(server)
                                    if self._held.get(index) == 1)

    def best(self, left: dict[str, ServerTelemetry]) -> str | None:
        """Return the candidate with most in common, None if nobody has enough."""
        enough = [server for server, pages in self._common.items()
                  if pages > 0 and pages >= LEAST_SHARE * left[server].distinct_pages]
        return min(enough, key=lambda s: (-self._common[s], *_by_name(left[s])), default=None)

    def refuse(self, server: str) -> None:
        """Do not offer the server again."""
        del self._common[server]
        self._allowed.discard(server)


def pair(servers: Sequence[ServerTelemetry], known: Commonality, scope: Scope, fits: Fits,
         seconds: Seconds, dictionary_bytes: int) -> list[Grouping]:
    """Form pairs in the order of FIG. 6 and return them in the order of migration.

    608, 610: pair the rest, the pair with most in common first. 612: a pair can be migrated
    together if both converge, one destination can take both and their common content fits the
    dictionary. 614, 620: of those the shortest projected time goes next. 618: is there none, the
    server with least commonality goes alone [0076]. 624: again with the rest.
    """
    common = _scoped_pairs(servers, known, scope)
    timed: dict[tuple[str, str], float | None] = {}
    left = {s.id: s for s in sorted(servers, key=_by_name)}
    ordered = sorted(itertools.combinations(left, 2), key=lambda ab: -common[ab])
    groups = []
    while left:
        ordered = [ab for ab in ordered if ab[0] in left and ab[1] in left]
        pairs = _matching(ordered)
        for ab in pairs:
            if ab not in timed:
                suits = fits(ab) and common[ab] * PAGE_BYTES <= dictionary_bytes
                timed[ab] = seconds(ab) if suits else None
        able = [ab for ab in pairs if timed[ab] is not None]
        if able:
            chosen = min(able, key=lambda ab: timed[ab])
            reason = (f"shortest projected time ({timed[chosen]:.1f} s) of {len(able)} pairs that "
                      f"can migrate together; {_mib(common[chosen])} in common [0074]")
        else:
            least = _least_common(left, ordered, common)
            chosen = (least[0],)
            reason = (f"no pair can migrate together; least in common with the rest "
                      f"({_mib(least[1])}) goes alone [0076]" if len(left) > 1 else
                      "the last one has no partner [0076]")
        groups.append(Grouping(chosen, reason))
        for server in chosen:
            del left[server]
    return groups


def _scoped_pairs(servers, known: Commonality, scope: Scope) -> dict[tuple[str, str], float]:
    """Return the pages in common of each pair, both in order of name; 0 out of scope."""
    column = {server: at for at, server in enumerate(known.server_ids)}
    pages = known.pair_pages()
    ids = [s.id for s in sorted(servers, key=_by_name)]
    return {(a, b): float(pages[column[a], column[b]])
            if a in column and b in column and scope.allows(a, b) else 0.0
            for a, b in itertools.combinations(ids, 2)}


def _matching(ordered) -> list[tuple[str, str]]:
    """Take pairs from the front; each server is in one at most."""
    taken: set[str] = set()
    pairs = []
    for a, b in ordered:
        if a not in taken and b not in taken:
            pairs.append((a, b))
            taken.update((a, b))
    return pairs


def _least_common(left, ordered, common) -> tuple[str, float]:
    """Return the server whose commonality with all others, pair by pair, sums up to least."""
    totals = dict.fromkeys(left, 0.0)
    for a, b in ordered:
        totals[a] += common[a, b]
        totals[b] += common[a, b]
    return min(totals.items(), key=lambda item: item[1])
