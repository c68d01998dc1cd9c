"""The improving of clusters: moves, swaps, mergers and rebuilding, until nothing more is saved.

Called by planning.clustering. Looks at a bounded number of clusters and members for each server.
"""

import collections
from collections.abc import Callable, Sequence

from nova_batch_migrate.planning.cluster_state import Facts, Group, Limits, State

#: Clusters that a server is tried in, and members it is tried against in each.
MOST_CLUSTERS = 8
MOST_PARTNERS = 16
#: Servers that are tried as the first partner of another.
CLOSEST = 2
#: Holders of a class that are looked at in search of related clusters.
MOST_HOLDERS = 64
#: Rounds over all servers; a round that finds nothing is the last.
MOST_ROUNDS = 12
#: Pages saved that are worth a change; less is rounding.
LEAST = 1e-6


def improve(state: State) -> None:
    """Move, swap and merge until nothing more is saved."""
    for _ in range(MOST_ROUNDS):
        before = state.saved
        _merge(state)
        for server in list(state.group_of):
            _improve_one(state, server)
        state.groups = [group for group in state.groups if group.members]
        if state.saved <= before + LEAST:
            break


def rebuild(state: State, greedy: Callable[[Facts, Limits, Sequence[int]], State]) -> bool:
    """Dissolve two clusters and build them again, each member once as the first.

    Takes what saves most, for each cluster with those it is most related to; returns whether
    anything was found.
    """
    before = state.saved
    for group in list(state.groups):
        for other in _neighbours(state, group):
            if not group.members or not other.members:
                continue
            best = _built_again(state, [*group.members, *other.members], greedy)
            if best.saved > state.saved_in(group) + state.saved_in(other) + LEAST:
                state.replace([group, other], best)
                break
    return state.saved > before + LEAST


def shake(state: State) -> State:
    """Let each server and its closest leave for a cluster of their own, then improve again.

    Returns the best state found, which may be the one given.
    """
    for server in list(state.group_of):
        for partner in _closest(state, server):
            other = state.copy()
            group = other.new_group()
            other.remove(server, other.group_of[server])
            other.add(server, group)
            if not other.enough(partner, other.gain(partner, group)):
                continue
            other.remove(partner, other.group_of[partner])
            other.add(partner, group)
            if other.refused(group):
                continue
            improve(other)
            if other.saved > state.saved + LEAST:
                state = other
    return state


def _closest(state: State, server: int) -> list[int]:
    """Return the servers with most in common with this one, background apart."""
    facts, common = state.facts, collections.Counter()
    for c in facts.narrow(server)[:MOST_HOLDERS]:
        for holder in facts.holders[c][:MOST_HOLDERS]:
            if holder != server:
                common[holder] += facts.pages[c]
    return sorted(common, key=lambda s: (-common[s], s))[:CLOSEST]


def _neighbours(state: State, group: Group) -> list[Group]:
    """Return the clusters that are related to most members of this one, then any others."""
    votes = collections.Counter(
        id(other) for server in group.members for other in _related(state, server))
    others = [g for g in state.groups if g is not group and g.members]
    return sorted(others, key=lambda g: (-votes[id(g)], min(g.members)))[:MOST_CLUSTERS]


def _built_again(state: State, members: list[int], greedy) -> State:
    found = []
    for at in range(min(len(members), MOST_PARTNERS)):
        order = [members[at], *members[:at], *members[at + 1:]]
        found.append(greedy(state.facts, state.limits, order))
        improve(found[-1])
    return max(found, key=lambda one: one.saved)


def _related(state: State, server: int) -> list[Group]:
    """Return the other groups that share most with the server, background apart."""
    facts, mine = state.facts, state.group_of[server]
    weight: dict[int, float] = {}
    groups: dict[int, Group] = {}
    for c in facts.narrow(server)[:MOST_HOLDERS]:
        seen = set()
        for holder in facts.holders[c][:MOST_HOLDERS]:
            group = state.group_of.get(holder, mine)
            if group is not mine and id(group) not in seen:
                seen.add(id(group))
                groups[id(group)] = group
                weight[id(group)] = weight.get(id(group), 0.0) + facts.pages[c]
    found = sorted(groups.values(), key=lambda g: (-weight[id(g)], min(g.members)))
    return found[:MOST_CLUSTERS]


def _improve_one(state: State, server: int) -> None:
    """Make the best move or swap of the server that saves more and that the limits permit."""
    mine = state.group_of[server]
    if state.settled(server):
        return
    lost = state.loss(server, mine)
    options = []
    related = _related(state, server)
    for group in related:
        gain = state.gain(server, group)
        if gain > lost and state.enough(server, gain):
            options.append((gain - lost, len(options), group, None))
        for other in list(group.members)[:MOST_PARTNERS]:
            saved = _swap_saves(state, server, mine, other, group)
            if saved > LEAST:
                options.append((saved, len(options), group, other))
    for _, _, group, other in sorted(options, key=lambda o: (-o[0], o[1])):
        if state.refusal(server, group, other):
            continue
        if other is not None and state.refusal(other, mine, server):
            continue
        state.remove(server, mine)
        if other is not None:
            state.remove(other, group)
            state.add(other, mine)
        state.add(server, group)
        return
    state.settle(server, related)


def _swap_saves(state: State, a: int, group_a: Group, b: int, group_b: Group) -> float:
    """Return the pages saved more once a and b have changed places."""
    of_a, of_b = state.facts.class_sets[a], state.facts.class_sets[b]
    pages, held_a, held_b = state.facts.pages, group_a.held, group_b.held
    saved = 0.0
    for c in of_a - of_b:
        if c in held_b:
            saved += pages[c]
        if held_a[c] > 1:
            saved -= pages[c]
    for c in of_b - of_a:
        if c in held_a:
            saved += pages[c]
        if held_b[c] > 1:
            saved -= pages[c]
    return saved


def _merge(state: State) -> None:
    """Merge groups, those that save most by it first; related ones, then by size."""
    groups = [group for group in state.groups if group.members]
    gains = {}
    by_size = sorted(groups, key=lambda g: (len(g.members), min(g.members)))
    for at, group in enumerate(by_size):
        if _too_many(state, group, by_size[0]):
            continue
        for other in by_size[at + 1:at + 1 + MOST_CLUSTERS]:
            _note_merger(state, gains, group, other)
        for server in list(group.members)[:MOST_PARTNERS]:
            for other in _related(state, server):
                _note_merger(state, gains, group, other)
    for _, (_, group, other) in sorted(
            gains.items(), key=lambda item: (-item[1][0], item[0])):
        if group.members and other.members and not _merger_refused(state, group, other):
            for server in list(other.members):
                state.remove(server, other)
                state.add(server, group)
    state.groups = [group for group in state.groups if group.members]


def _note_merger(state: State, gains, group: Group, other: Group) -> None:
    if group is other or _too_many(state, group, other):
        return
    key = tuple(sorted((min(group.members), min(other.members))))
    if key in gains:
        return
    small, large = sorted((group.held, other.held), key=len)
    gain = sum(state.facts.pages[c] for c in small if c in large)
    distinct = sum(state.facts.distinct[s] for s in
                   min((group, other), key=lambda g: len(g.members)).members)
    if gain > 0 and gain >= state.limits.least_share * distinct:
        gains[key] = gain, group, other


def _too_many(state: State, group: Group, other: Group) -> bool:
    most = state.limits.most_members
    return bool(most) and len(group.members) + len(other.members) > most


def _merger_refused(state: State, group: Group, other: Group) -> bool:
    limits = state.limits
    if _too_many(state, group, other):
        return True
    recurring = sum(
        state.facts.pages[c] for c in group.held.keys() | other.held.keys()
        if group.held.get(c, 0) + other.held.get(c, 0) > 1)
    if recurring > limits.dictionary_pages:
        return True
    return not limits.fits([state.facts.ids[m] for m in (*group.members, *other.members)])
