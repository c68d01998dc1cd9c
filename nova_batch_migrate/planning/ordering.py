"""In which order groups and members go: ascending projected time [0061].

Called by planning.plan. Never changes who is in a group.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def ascending(items: Iterable[Item], seconds: Callable[[Item], float],
              identity: Callable[[Item], Sequence[str]],
              last: Callable[[Item], bool] = lambda item: False) -> list[Item]:
    """Sort by projected seconds, then by (name, id); items that are `last` come behind the rest.

    Last are those whose projection is a guess, so that nobody waits behind a wrong one.
    """
    return sorted(items, key=lambda item: (last(item), seconds(item), *identity(item)))
