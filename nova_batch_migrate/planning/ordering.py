"""In which order groups and members go: ascending projected time [0061], deadlines kept.

Called by planning.plan. Never changes who is in a group.
"""

import dataclasses
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from nova_batch_migrate.planning.request import Destination
from nova_batch_migrate.planning.result import PlanGroup, Projection

Item = TypeVar("Item")


def ascending(items: Iterable[Item], seconds: Callable[[Item], float],
              identity: Callable[[Item], Sequence[str]],
              last: Callable[[Item], bool] = lambda item: False,
              deadline: Callable[[Item], float | None] = lambda item: None) -> list[Item]:
    """Sort by projected seconds, then by (name, id); items that are `last` come behind the rest.

    Last are those whose projection is a guess, so that nobody waits behind a wrong one. An item
    with a `deadline` (seconds from now) goes earlier where it would miss it otherwise, and no
    earlier than it must: of all orders that keep the deadlines this one has the least sum of
    completion times (Smith's rule, from behind). Where they can't all be kept, the latest goes
    last.
    """
    ordered = sorted(items, key=lambda item: (last(item), seconds(item), *identity(item)))
    if all(deadline(item) is None for item in ordered):
        return ordered
    return _keeping_deadlines(ordered, seconds, last, deadline)


def _keeping_deadlines(ordered: Sequence[Item], seconds, last, deadline) -> list[Item]:
    """Fill the places from the last on; `ordered` is what decides where deadlines do not.

    A guessed item without a deadline takes the very end.
    """
    guesses = [item for item in ordered if last(item) and deadline(item) is None]
    rest = [item for item in ordered if not (last(item) and deadline(item) is None)]
    by_deadline = sorted(range(len(rest)), key=lambda at: (_or_never(deadline(rest[at])), at))
    left = sum(seconds(item) for item in rest)
    able: list[int] = []
    backward = []
    while by_deadline or able:
        while by_deadline and _or_never(deadline(rest[by_deadline[-1]])) >= left:
            heapq.heappush(able, -by_deadline.pop())
        at = -heapq.heappop(able) if able else by_deadline.pop()
        backward.append(rest[at])
        left -= seconds(rest[at])
    return backward[::-1] + guesses


def _or_never(seconds: float | None) -> float:
    return float("inf") if seconds is None else seconds


def whole_seconds(groups: Sequence[PlanGroup], destinations: Sequence[Destination]) -> float:
    """Return when the last group is done: sources run side by side, groups of one in turn.

    A destination that takes few streams at once holds sources up: all that goes there takes at
    least its seconds, by so many at once.
    """
    per_source: dict[str, float] = {}
    into: dict[str, float] = {}
    for group in groups:
        per_source[group.source] = per_source.get(group.source, 0.0) + group.projected_seconds
        for member in group.members:
            busy = member.projection.stream_seconds + member.projection.nova_seconds
            into[member.destination] = into.get(member.destination, 0.0) + busy
    arriving = (into.get(d.host, 0.0) / d.inbound_limit for d in destinations if d.inbound_limit)
    return max([*per_source.values(), *arriving], default=0.0)


def whole_seconds_by(end: Callable[[Projection], float | None], groups: Sequence[PlanGroup],
                     destinations: Sequence[Destination]) -> float | None:
    """Return when the last group is done if `end` tells when each member is; None: not of all."""
    ends = [[end(member.projection) for member in group.members] for group in groups]
    if any(None in each for each in ends):
        return None
    return whole_seconds([dataclasses.replace(group, projected_seconds=max(each, default=0.0))
                          for group, each in zip(groups, ends, strict=True)], destinations)


def inbound_parallel(hosts: Iterable[str], limits: Mapping[str, int | None]) -> float:
    """Return how many streams at once these hosts take; infinite where one has no limit."""
    found = [limits.get(host) for host in set(hosts)]
    if not found or None in found:
        return float("inf")
    return sum(found)
