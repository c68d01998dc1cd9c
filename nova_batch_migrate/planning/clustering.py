"""Clusters of servers that save most by sending common content once, within limits.

Called by planning.grouping for the servers of one host whose content may be shared. A content
held by k members saves k - 1 times its pages. Greedy, then improved; looks at a bounded number of
candidates for each server, so that the work grows with the servers and their classes only. Never
projects, never draws a random number.
"""

import collections
import math
from collections.abc import Sequence

from nova_batch_migrate.planning import improving
from nova_batch_migrate.planning.cluster_state import FULL, Cluster, Facts, Group, Limits, State
from nova_batch_migrate.planning.commonality import Commonality
from nova_batch_migrate.planning.telemetry import ServerTelemetry

#: Holders of a class that are looked at in search of the next member.
MOST_HOLDERS = 64
#: Up to so many servers clusters are dissolved and built again.
FEW_SERVERS = 16
#: What a server further back in the chain counts, against the one behind it.
FORGETTING = 0.5
#: Servers of one kind have so much of the smaller one's contents in common, background apart.
OF_A_KIND_SHARE = 1 / 3
#: Passes of the thorough search.
MOST_PASSES = 4


def clusters(servers: Sequence[ServerTelemetry], known: Commonality, limits: Limits,
             thorough: bool = True) -> list[Cluster]:
    """Return clusters of all the servers, which are given in the order that breaks ties.

    Of several beginnings the best is improved; `thorough`: each of them, and for few servers
    related clusters are dissolved and built again as well, whose work grows faster than the
    servers.
    """
    facts = Facts(servers, known)
    found = [_greedy(facts, limits, order) for order in facts.orders()]
    if not thorough:
        found = [max(found, key=lambda state: state.saved)]
    best = None
    for state in found:
        improving.improve(state)
        if thorough and len(servers) <= FEW_SERVERS:
            state = _thorough(state)
        if best is None or state.saved > best.saved + improving.LEAST:
            best = state
    return best.result() if best else []


def everyone(servers: Sequence[ServerTelemetry], known: Commonality) -> Cluster:
    """Return one cluster of all the servers, whether or not they have anything in common."""
    nothing = Limits(lambda ids: True, math.inf, None, 0.0)
    state = State(Facts(servers, known), nothing)
    group = state.new_group()
    for server in range(len(servers)):
        state.add(server, group)
    return state.result()[0]


def chain(servers: Sequence[ServerTelemetry], known: Commonality) -> list[str]:
    """Return the servers' ids, each behind those with which it has most in common.

    The nearer these are, the more they count: a dictionary forgets. Work grows with the square of
    the servers of one group, which has a limit.
    """
    facts = Facts(servers, known)
    left = dict.fromkeys(facts.by_share())
    common = dict.fromkeys(left, 0.0)
    found = []
    while left:
        server = max(left, key=common.__getitem__)
        del left[server]
        found.append(facts.ids[server])
        for other in left:
            common[other] *= FORGETTING
        _add_common(facts, server, common)
    return found


def by_kind(servers: Sequence[ServerTelemetry], known: Commonality) -> list[str]:
    """Return the ids in the order given, but each with those of its kind right behind it."""
    facts = Facts(servers, known)
    left, found = dict.fromkeys(range(len(servers))), []
    while left:
        first = next(iter(left))
        del left[first]
        common = dict.fromkeys(left, 0.0)
        _add_common(facts, first, common)
        alike = [other for other, pages in common.items()
                 if 0 < pages >= OF_A_KIND_SHARE * min(facts.distinct[first],
                                                       facts.distinct[other])]
        for other in alike:
            del left[other]
        found += [facts.ids[at] for at in (first, *alike)]
    return found


def _add_common(facts: Facts, server: int, common: dict[int, float]) -> None:
    """Add to each of ``common`` the pages it shares with the server, background apart."""
    for c in facts.narrow(server):
        for holder in facts.holders[c]:
            if holder in common:
                common[holder] += facts.pages[c]


def _thorough(state: State) -> State:
    """Improve until neither dissolving two clusters nor parting pairs saves more."""
    for _ in range(MOST_PASSES):
        before = state.saved
        while improving.rebuild(state, _greedy):
            improving.improve(state)
        state = improving.shake(state)
        if state.saved <= before + improving.LEAST:
            break
    return state


def _greedy(facts: Facts, limits: Limits, order: Sequence[int]) -> State:
    """Begin groups in this order; always the one joins that has most in common with the group."""
    state = State(facts, limits)
    left = dict.fromkeys(order)
    place = {server: at for at, server in enumerate(order)}
    queues = [collections.deque(sorted((s for s in held if s in place), key=place.__getitem__))
              for held in facts.holders]
    rest = collections.deque(order)
    for seed in order:
        if seed not in left:
            continue
        group = state.new_group()
        common: dict[int, float] = {}
        refused: set[int] = set()
        _join(state, seed, group, left, queues, common)
        while True:
            candidate = _candidate(state, group, left, common, refused, rest)
            if candidate is None:
                break
            refusal = state.refusal(candidate, group)
            if refusal is None:
                _join(state, candidate, group, left, queues, common)
                continue
            group.stopped = refusal
            if refusal == FULL:
                break
            refused.add(candidate)
            common.pop(candidate, None)
            if len(refused) >= MOST_HOLDERS:
                break
    return state


def _join(state: State, server: int, group: Group, left, queues, common) -> None:
    """Add the server; who shares contents that it brings has more in common with the group."""
    facts = state.facts
    new = [c for c in facts.classes[server] if c not in group.held and c not in facts.background]
    state.add(server, group)
    del left[server]
    common.pop(server, None)
    for c in new:
        for holder in _first(queues[c], left):
            common[holder] = common.get(holder, 0.0) + facts.pages[c]


def _first(queue: collections.deque, left) -> list[int]:
    """Return the first of a queue that are left; those that are gone leave the queue."""
    if len(queue) <= MOST_HOLDERS:
        found = [server for server in queue if server in left]
        if len(found) < len(queue):
            queue.clear()
            queue.extend(found)
        return found
    found = []
    while queue and len(found) < MOST_HOLDERS:
        server = queue.popleft()
        if server in left:
            found.append(server)
    queue.extendleft(reversed(found))
    return found


def _candidate(state: State, group: Group, left, common, refused, rest) -> int | None:
    """Return who has most in common with the group, background apart; None if nobody enough."""
    facts = state.facts
    best, most = None, -1.0
    for server, pages in common.items():
        # most are no better than the best so far: whether they have enough does not matter
        if ((pages > most or (pages == most and server < best)) and server not in refused
                and state.enough(server, state.gain(server, group))):
            best, most = server, pages
    if best is not None or not any(c in group.held for c in facts.background):
        return best
    # Nobody is related: whoever shares the background, as they come.
    for server in _first(rest, left):
        if server not in refused and state.enough(server, state.gain(server, group)):
            return server
    return None
