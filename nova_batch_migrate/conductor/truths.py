"""What Nova says of servers that migrate, in as few questions as will do: each takes it a while.

Called by the reconciler in every pass.
"""

import collections
import functools
from collections.abc import Callable

from oslo_utils import timeutils

from nova_batch_migrate.conductor import decide, state

#: The verdict of a migration that went well.
COMPLETED = "completed"
#: While a migration is in flight its server is looked at so often: Nova asks Neutron each time.
SERVER_LOOK_SECONDS = 60.0
#: Of a source's migrations, those that may be younger than ours: servers that others move.
FOREIGN_MIGRATIONS = 4


class Truths:
    """Asks Nova; keeps nothing."""

    def __init__(self, nova):
        self._nova = nova

    def of(self, migrating: list[dict]) -> dict[str, state.Truth]:
        """Return what Nova says of servers that migrate, by id; one list serves all of a source."""
        sources = collections.Counter(row["source"] for row in migrating)
        listed: dict[str, list] = {}
        for source, number in sources.items():
            if number > 1:
                for migration in self._nova.migrations_from(source, number + FOREIGN_MIGRATIONS):
                    listed.setdefault(migration.server_id, []).append(migration)
        at_rest = functools.cache(self._nova.at_rest_on)
        return {row["server_id"]: self._truth(row, tuple(listed.get(row["server_id"], ())), at_rest)
                for row in migrating}

    def _truth(self, row: dict, migrations: tuple,
               at_rest: Callable[[str], frozenset[str]]) -> state.Truth:
        """``migrations`` are what is known already of the server's; ours may not be among them.

        ``at_rest``: the servers that are so on a host.
        """
        def ours_of(found: tuple):
            return decide.new_migrations(row["known_migrations"], row["destination"], found)[1]

        # the migrations first: one that completes in between shows as running once more
        ours = ours_of(migrations)
        if ours is None:
            migrations = tuple(self._nova.migrations(row["server_id"]))
            ours = ours_of(migrations)
        progress, now = row["progress"] or {}, timeutils.utcnow_ts(True)
        if ours is not None and ours.status in state.IN_FLIGHT \
                and now - progress.get("server_seen", 0.0) < SERVER_LOOK_SECONDS:
            return state.Truth(None, migrations, asked=False)
        row["progress"] = progress | {"server_seen": now}
        # Nova has it at the destination and without its task in one step; all else is looked into
        if ours is not None and ours.status == COMPLETED \
                and row["server_id"] in at_rest(row["destination"]):
            return state.Truth(state.Arrived(row["destination"]), migrations)
        return state.Truth(self._nova.server(row["server_id"]), migrations)

    def at_rest(self, batch: dict, rows: dict, actions: list) -> set[str]:
        """Return which of the servers that are about to be asked for can go, by their ids.

        One list serves all of a source. Who is not on it is to be looked at alone.
        """
        next_of: dict[str, set[str]] = {}
        for action in actions:
            if isinstance(action, state.Issue):
                next_of.setdefault(rows[action.server_id]["source"], set()).add(action.server_id)
        found = set()
        for source, wanted in next_of.items():
            found |= wanted & self._nova.at_rest_on(source, batch["request"]["include_locked"])
        return found
