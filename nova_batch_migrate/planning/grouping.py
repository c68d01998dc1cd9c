"""Which servers of a source migrate together: strategies group, pair and none.

Called by planning.plan, once per source ([0051], [0063]-[0079], design 3). Knows commonality and
limits; what a projection or a destination allows comes in as functions. Never orders groups,
except for `pair`, whose order is part of FIG. 6.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence

import numpy

from nova_batch_migrate.planning import clustering
from nova_batch_migrate.planning.cluster_state import (
    DESTINATION,
    DICTIONARY,
    FULL,
    NOBODY,
    Cluster,
    Limits,
)
from nova_batch_migrate.planning.commonality import Commonality
from nova_batch_migrate.planning.replay import Replay
from nova_batch_migrate.planning.scope import Scope
from nova_batch_migrate.planning.telemetry import PAGE_BYTES, ServerTelemetry

#: After each group the rest is planned again with fresh figures [0062]; larger groups would put
#: that off, and delay short members behind long ones.
MOST_MEMBERS = 8
#: Any two guests have some trivial pages in common: less than this share of a server's distinct
#: contents does not make it a member.
LEAST_SHARE = 0.01
#: With a relay only the dictionary and the destination bound a group; so many members seldom go to
#: one destination. Where there are many servers in all, fewer keep the work down.
MOST_RELAYED, MOST_RELAYED_OF_MANY = 256, 64
_UNBOUNDED = 1 << 62
#: Orders of a group whose content does not fit the dictionary. In the second each kind comes in
#: while there is room: a full dictionary lets little in.
RELATIVES, IN_TURN = "relatives one behind the other", "one of each kind in turn"
BY_KIND = "likes one behind the other as their times are"
#: Orders that differ by less of what is sent once are as good: what else they save then decides.
AS_GOOD_SHARE = 0.001
MIB = 1024 ** 2

#: Whether servers (ids) could go to one destination; where they could, so could any of them.
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
    #: The servers in the order in which the dictionary serves them best; empty: any order is as
    #: good, or none was looked for.
    order: tuple[str, ...] = ()
    #: What that order is, in words.
    order_by: str = ""


def _by_name(server: ServerTelemetry):
    return server.name, server.id


def _mib(pages: float) -> str:
    return f"{pages * PAGE_BYTES / MIB:.1f} MiB"


def in_parts(ids: Sequence[str]) -> list[Sequence[str]]:
    """Part servers into as many groups as are needed to plan anew often enough [0062]."""
    return [ids[at:at + MOST_MEMBERS] for at in range(0, len(ids), MOST_MEMBERS)]


def none(servers: Sequence[ServerTelemetry], seconds: Callable[[str], float],
         parallel: int) -> list[Grouping]:
    """Group nothing: servers by ascending projected time, as many at once as may run at once."""
    ordered = sorted(servers, key=lambda s: (seconds(s.id), *_by_name(s)))
    return [Grouping(tuple(s.id for s in ordered[at:at + parallel]),
                     "strategy none: content in common is not looked at")
            for at in range(0, len(ordered), parallel)]


def group(servers: Sequence[ServerTelemetry], known: Commonality, scope: Scope, fits: Fits,
          dictionary_bytes: int, most_members: int | None, thorough: bool = True
          ) -> list[Grouping]:
    """Group by common content so that as many bytes as possible are sent once [0051].

    A content that k members hold saves k - 1 times its size. Members must share a part of the
    scope, their recurring contents must fit the dictionary, one destination must be able to take
    all, and a joining server must have LEAST_SHARE of its distinct contents in common. Groups are
    begun greedily and then improved by moves, swaps and mergers (planning.clustering); the work
    is near-linear in servers.
    """
    parts: dict[str, list[ServerTelemetry]] = {}
    for server in sorted(servers, key=_by_name):
        parts.setdefault(scope.part(server.id), []).append(server)
    limits = Limits(fits, dictionary_bytes / PAGE_BYTES, most_members, LEAST_SHARE)
    anywhere = dataclasses.replace(limits, fits=lambda ids: True)
    found = (cluster for part in parts.values() for cluster in clustering.clusters(
        part, known, anywhere if fits([s.id for s in part]) else limits, thorough))
    return [_reasoned(cluster, dictionary_bytes, most_members) for cluster in found]


def relayed(servers: Sequence[ServerTelemetry], known: Commonality, scope: Scope, fits: Fits,
            dictionary_bytes: int, replay: Replay, in_order: Callable[[Sequence[str]], list[str]],
            thorough: bool = True) -> list[Grouping]:
    """Group for a relay, whose streams go one after the other through a dictionary a group.

    Where all that recurs fits the dictionary, one group for each part of the scope (and each
    destination) saves most. Else the streams of one group that does not fit are replayed in order
    of their times and with relatives one behind the other; `thorough`: groups that fit as well,
    which are taken where they save as much. Of orders that send as much once the one counts that
    has likes so near each other that compression finds what the dictionary had no room for.
    """
    most = MOST_RELAYED if thorough else MOST_RELAYED_OF_MANY
    parts: dict[str, list[ServerTelemetry]] = {}
    for server in sorted(servers, key=_by_name):
        parts.setdefault(scope.part(server.id), []).append(server)
    groups = []
    for part in parts.values():
        ids = [s.id for s in part]
        if len(ids) <= most and fits(ids):
            whole = [_reasoned(clustering.everyone(part, known), dictionary_bytes, most)]
        else:
            whole = group(part, known, scope, fits, _UNBOUNDED, most, thorough)
        if replay.fits(ids):
            groups += _explained(whole, f"all that recurs among {len(part)} servers fits a "
                                 f"dictionary of {dictionary_bytes // MIB} MiB, so one group for "
                                 "each destination saves most")
            continue
        fitting = (group(part, known, scope, fits, dictionary_bytes, most, thorough)
                   if thorough else [])
        groups += _what_saves_most(fitting, whole, {s.id: s for s in part}, known, replay,
                                   in_order, dictionary_bytes)
    return groups


def _what_saves_most(fitting: Sequence[Grouping], whole: Sequence[Grouping],
                     servers: dict[str, ServerTelemetry], known: Commonality, replay: Replay,
                     in_order: Callable[[Sequence[str]], list[str]], dictionary_bytes: int
                     ) -> list[Grouping]:
    """Return groups that fit the dictionary, or those that do not in the best of some orders."""
    family = {server: at for at, g in enumerate(fitting) for server in g.servers}
    savings: dict[tuple, float] = {}

    def saving(g: Grouping) -> float:
        if len(g.servers) == 1:
            return 0.0
        key = g.servers, g.order
        if key not in savings:
            savings[key] = replay.saved_pages(g.order or in_order(g.servers))
        return savings[key]

    def best(g: Grouping) -> Grouping:
        chain = clustering.chain([servers[i] for i in g.servers], known)
        orders = [(RELATIVES, chain)]
        if family:
            ascending = in_order(g.servers)
            orders += [(BY_KIND, clustering.by_kind([servers[i] for i in ascending], known)),
                       (RELATIVES, chain[::-1]),
                       (RELATIVES, sorted(ascending, key=family.__getitem__)),
                       (IN_TURN, _in_turn(ascending, family)),
                       (IN_TURN, _in_turn(ascending[::-1], family))]
        options = [g, *(dataclasses.replace(g, order=tuple(order), order_by=words)
                        for words, order in orders)]
        # never less than in order of their times; what has no room may lie near its like
        enough = max(saving(g), (1.0 - AS_GOOD_SHARE) * max(map(saving, options)))
        return max((each for each in options if saving(each) >= enough),
                   key=lambda each: replay.far_pages(each.order or in_order(each.servers)))

    ordered = [best(g) for g in whole]
    saved, ascending, related = (sum(map(saving, groups)) for groups in (fitting, whole, ordered))
    if saved and saved >= related:
        return _explained(fitting, f"{_mib(saved)} are sent once by groups that fit the "
                          f"dictionary, {_mib(related)} by one group")
    by = " or ".join(sorted({g.order_by for g in ordered if g.order}))
    how = "" if not by else f" with {by} ({_mib(ascending)} in order of their times)"
    far = sum(replay.far_pages(g.order or in_order(g.servers)) for g in ordered)
    found = f"; compression finds {_mib(far)} that it has no room for" if far else ""
    groups = f", {_mib(saved)} by groups that fit" if fitting else ""
    return _explained(ordered, f"more than a dictionary of {dictionary_bytes // MIB} MiB holds, "
                      f"yet {_mib(related)} are sent once by it{how}{groups}{found}")


def _in_turn(ids: Sequence[str], family: dict[str, int]) -> list[str]:
    """Return the servers with one of each family behind the other, then the second of each, ..."""
    seen: collections.Counter[int] = collections.Counter()
    rank = {}
    for i in ids:
        rank[i] = seen[family[i]]
        seen[family[i]] += 1
    return sorted(ids, key=rank.__getitem__)


def _explained(groups: Sequence[Grouping], why: str) -> list[Grouping]:
    return [dataclasses.replace(g, reason=f"{g.reason}; {why}") if len(g.servers) > 1 else g
            for g in groups]


def _reasoned(cluster: Cluster, dictionary_bytes: int, most_members: int | None
              ) -> Grouping:
    stopped = {
        NOBODY: "nobody left has enough in common with it",
        FULL: f"a group has at most {most_members} members",
        DICTIONARY: f"more would not fit a dictionary of {dictionary_bytes // MIB} MiB",
        DESTINATION: "no destination could take more of them together",
    }[cluster.stopped]
    members = len(cluster.servers)
    if members == 1:
        return Grouping(cluster.servers, f"alone: {stopped}")
    background = (f", {_mib(cluster.background_pages)} of it by almost every server"
                  if cluster.background_pages else "")
    return Grouping(cluster.servers,
                    f"{_mib(cluster.recurring_pages)} of content is held by more than one of the "
                    f"{members} members{background}; {stopped}")


def pair(servers: Sequence[ServerTelemetry], known: Commonality, scope: Scope, fits: Fits,
         seconds: Seconds, dictionary_bytes: int) -> list[Grouping]:
    """Form pairs in the order of FIG. 6 and return them in the order of migration.

    608, 610: pair the rest, the pair with most in common first. 612: a pair can be migrated
    together if both converge, one destination can take both and their common content fits the
    dictionary. 614, 620: of those the shortest projected time goes next. 618: is there none, the
    server with least commonality goes alone [0076]. 624: again with the rest.

    Pairing the rest again without a pair that left gives the same other pairs, since neither of
    its two stood in anybody's way; only after 618 is it done.
    """
    chart = _Chart(sorted(servers, key=_by_name), known, scope)
    timed: dict[tuple[str, str], float | None] = {}

    def time_of(ab: tuple[str, str]) -> float | None:
        if ab not in timed:
            suits = fits(ab) and chart.common(*ab) * PAGE_BYTES <= dictionary_bytes
            timed[ab] = seconds(ab) if suits else None
        return timed[ab]

    groups = []
    while chart.left:
        able = [ab for ab in chart.pairs() if time_of(ab) is not None]
        # Earlier in the order of 610 wins a tie.
        for rest, chosen in zip(range(len(able), 0, -1), sorted(able, key=time_of), strict=True):
            groups.append(Grouping(chosen, (
                f"shortest projected time ({time_of(chosen):.1f} s) of {rest} pairs that can "
                f"migrate together; {_mib(chart.common(*chosen))} in common [0074]")))
            chart.remove(chosen)
        if chart.left:
            least, pages = chart.least_common()
            groups.append(Grouping((least,), (
                f"no pair can migrate together; least in common with the rest ({_mib(pages)}) "
                "goes alone [0076]" if len(chart.left) > 1 else
                "the last one has no partner [0076]")))
            chart.remove([least])
    return groups


class _Chart:
    """FIG. 3 of the servers that are left, out of scope 0, with FIG. 6's pairs."""

    def __init__(self, servers: Sequence[ServerTelemetry], known: Commonality, scope: Scope):
        #: Places of those left, in order of name.
        self.left = {server.id: at for at, server in enumerate(servers)}
        self._ids = list(self.left)
        column = {i: at for at, i in enumerate(known.server_ids)}
        at = [column[i] for i in self._ids]
        parts = [scope.part(i) for i in self._ids]
        number = {part: n for n, part in enumerate(dict.fromkeys(parts))}
        part = numpy.array([number[p] for p in parts], dtype=int)
        self._pages = known.pair_pages()[numpy.ix_(at, at)] * (part[:, None] == part[None, :])

    def common(self, a: str, b: str) -> float:
        """Return the pages of two that are left."""
        return float(self._pages[self.left[a], self.left[b]])

    def pairs(self) -> list[tuple[str, str]]:
        """Pair those left, most in common first, then by name; each is in one pair at most."""
        left = numpy.array(sorted(self.left.values()), dtype=int)
        rows, columns = numpy.triu_indices(len(left), 1)
        order = numpy.argsort(-self._pages[left[rows], left[columns]], kind="stable")
        free = set(self.left.values())
        found = []
        for a, b in zip(left[rows[order]].tolist(), left[columns[order]].tolist(), strict=True):
            if len(free) < 2:
                break
            if a in free and b in free:
                found.append((self._ids[a], self._ids[b]))
                free -= {a, b}
        return found

    def least_common(self) -> tuple[str, float]:
        """Return who of those left has least in common with the others, pair by pair, summed up."""
        left = sorted(self.left.values())
        totals = self._pages[numpy.ix_(left, left)].sum(1)
        least = int(totals.argmin())
        return self._ids[left[least]], float(totals[least])

    def remove(self, ids: Sequence[str]) -> None:
        """Let these go."""
        for i in ids:
            del self.left[i]
