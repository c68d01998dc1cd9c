"""The groups of a batch: when each began, which relays are open for it, when it was over.

Called by the reconciler. Sets that move together are ``gangs``; their group begins and ends here.
"""

import datetime

from oslo_utils import timeutils

from nova_batch_migrate.conductor import gangs, keeping, loading, relays, state
from nova_batch_migrate.db import api as db


class Groups:
    """Keeps nothing; ``through`` is the Relays, ``sets`` the Gangs."""

    def __init__(self, through: relays.Relays, sets: gangs.Gangs):
        self._relays = through
        self._gangs = sets

    def started(self, ctxt, batch: dict, rows: dict, row: dict) -> str:
        """Return when the group of a server began: now, if it is the first of it."""
        began = dict(batch["state"].get("groups_started", {}))
        key = loading.group_key(row["source"], row["group_index"])
        if key not in began:
            began[key] = timeutils.utcnow().isoformat()
            keeping.save(batch, groups_started=began)
            db.add_event(batch["id"], "group-started",
                         f"group {row['group_index'] + 1} of {row['source']} begins",
                         request_id=ctxt.request_id)
            self._open_relays(ctxt, batch, rows, key, row)
        return began[key]

    def open_set(self, ctxt, batch: dict, rows: dict, row: dict) -> None:
        """Open the relays for the set that a server moves with."""
        self._gangs.open(ctxt, batch, [
            each for each in members_of(rows, row["source"], row["group_index"])
            if each["status"] in state.SERVER_OPEN])

    def _open_relays(self, ctxt, batch: dict, rows: dict, key: str, first: dict) -> None:
        """Let the relays carry a group that begins, where the plan counts on them."""
        if gangs.moves_together(batch, first):
            return self.open_set(ctxt, batch, rows, first)
        members = [row for row in members_of(rows, first["source"], first["group_index"])
                   if row["status"] in state.SERVER_OPEN and relays.planned(row)]
        if not members:
            return
        before = batch["state"].get("relay_groups") or {}
        # the intent first: what is open is closed at the end, whoever opened it
        keeping.save(batch, relay_groups=before | {
            key: sorted({row["destination"] for row in members})})
        opened, _ = self._relays.begin(ctxt, batch, first["source"], first["group_index"], members)
        keeping.save(batch, relay_groups=before | {key: opened})

    def _close_relays(self, ctxt, batch: dict, source: str, index: int) -> None:
        opened = dict(batch["state"].get("relay_groups") or {})
        destinations = opened.pop(loading.group_key(source, index), [])
        if destinations:
            last = self._relays.end(ctxt, batch, source, index, destinations)
            # each server's are with its actual figures
            kept = batch["state"].get("relay_figures") or {"at": 0.0, "groups": {}}
            groups = kept["groups"] | {i: relays.shown(told) | {"servers": {}}
                                       for i, told in last.items()}
            keeping.save(batch, relay_groups=opened, relay_figures=kept | {"groups": groups})

    def end(self, ctxt, batch: dict, rows: dict, source: str, index: int) -> None:
        """Note that a group is over, however its members ended."""
        members = members_of(rows, source, index)
        moved = sum(row["status"] == "completed" for row in members)
        key = loading.group_key(source, index)
        begun = datetime.datetime.fromisoformat(batch["state"]["groups_started"][key])
        took = (timeutils.utcnow() - begun).total_seconds()
        self._close_relays(ctxt, batch, source, index)
        keeping.save(batch, groups_ended=[*batch["state"].get("groups_ended", ()), key])
        db.add_event(batch["id"], "group-ended",
                     f"group {index + 1} of {source} is over after {took:.1f} s: {moved} of "
                     f"{len(members)} moved", request_id=ctxt.request_id)


def members_of(rows: dict, source: str, index: int) -> list[dict]:
    """Return the rows of a group."""
    return [row for row in rows.values()
            if (row["source"], row["group_index"]) == (source, index)]
