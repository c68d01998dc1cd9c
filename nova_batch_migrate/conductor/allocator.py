"""Gives each stream of a batch its share of the wire while it runs, and sees that it holds.

Called by the reconciler in every pass [0040]. Who gets how much is planning.allocation's; here
links are looked at, and shares handed to what steers the streams. What was handed out stands in the
batch's ``state`` before it is, so that the next conductor applies it again, or takes it back.
"""

import math
from collections.abc import Mapping

from oslo_log import log
from oslo_utils import timeutils

from nova_batch_migrate import exception
from nova_batch_migrate.conductor import relays
from nova_batch_migrate.planning import allocation, projection, telemetry

LOG = log.getLogger(__name__)
MIB = 1 << 20
#: How old what is known of a link may be, and how long a share is trusted to be in force.
LOOK_SECONDS = 10.0
APPLY_AGAIN_SECONDS = 5.0


class Steering:
    """Caps a relay's group at the source's relay, and any other stream in the source's QEMU.

    A cap in QEMU would count bytes of a relay's stream that never leave the host.
    """

    def __init__(self, agents):
        self._agents = agents

    def steer(self, ctxt, row: dict, bytes_per_second: int | None) -> None:
        """Let a stream, running or about to, send so much payload; None lifts the cap.

        Raises AgentUnavailable, or AgentRefused where it is not there any more.
        """
        if row.get("relay_group"):
            self._agents.limit_group(ctxt, row["source"], row["server_id"], bytes_per_second)
        else:
            self._agents.tune(ctxt, row["source"], row["server_id"],
                              bytes_per_second=bytes_per_second or 0)


def through_relays(batch: dict, rows: Mapping[str, dict], streams: list[str]
                   ) -> dict[str, dict]:
    """Return the rows of what shares the wire: a relay's group, one stream after the other, is one.

    ``streams`` are servers that migrate or are about to. A group that is about to be opened is
    left out: it is opened with its cap.
    """
    shared: dict[str, dict] = {}
    for row in (rows[server_id] for server_id in streams):
        key = f"{row['source']}/{row['group_index']}"
        if relays.carries(batch, row):
            unit = relays.group_id(batch["id"], row["source"], row["group_index"],
                                   row["destination"])
            left = _need(row, 0.0, _UNKNOWN).remaining_bytes
            group = shared.setdefault(unit, {
                "server_id": unit, "source": row["source"], "status": "migrating",
                "relay_group": True, "progress": None, "memory_bytes": 0,
                "current_projection": {"raw_bytes": 0}})
            group["current_projection"]["raw_bytes"] += left
        elif row["status"] == "migrating" or not relays.planned(row) \
                or key in (batch["state"].get("relay_groups") or {}):
            shared[row["server_id"]] = row
    return shared


class Allocator:
    """Looks at links and hands out shares; ``steering`` is what makes a stream keep to its own."""

    def __init__(self, agents, steering):
        self._agents = agents
        self._steering = steering

    def allocate(self, ctxt, batch: dict, rows: Mapping[str, dict], streams: list[str],
                 save) -> None:
        """Share the wire among ``streams``: servers that migrate or are about to.

        ``rows`` are the batch's servers by id, ``save`` writes keys of the batch's state.
        """
        moving = through_relays(batch, rows, streams)
        self._allocate(ctxt, batch, {**rows, **moving}, moving, save)

    def _allocate(self, ctxt, batch: dict, rows: Mapping[str, dict], moving: Mapping[str, dict],
                  save) -> None:
        kept = batch["state"].get("allocation") or {}
        if not moving and not kept.get("applied"):
            if kept.get("shares"):
                save(allocation=None)
            return
        links = self._look(ctxt, batch, moving, save)
        shares = self._shares(batch, moving, links, kept)
        applied = kept.get("applied") or {}
        wanted = {i: self._cap(batch, moving, links, i, shares, applied) for i in moving}
        self._hand_out(ctxt, batch, rows, shares, wanted, links, kept, save)

    def release(self, ctxt, batch: dict, rows: Mapping[str, dict], save) -> None:
        """Take every cap back that is still on a server of the batch (its end)."""
        self.allocate(ctxt, batch, rows, [], save)

    def _look(self, ctxt, batch: dict, moving: Mapping[str, dict], save) -> dict[str, dict]:
        """Return what is known of each source's link; asks where that is old."""
        known, now = dict(batch["state"].get("links") or {}), timeutils.utcnow_ts(True)
        old = {row["source"] for row in moving.values()
               if now - known.get(row["source"], {"at": 0.0})["at"] > LOOK_SECONDS}
        for source in sorted(old):
            try:
                seen = telemetry.Bandwidth.from_dict(self._agents.bandwidth(ctxt, source))
            except exception.BatchMigrateError as error:
                LOG.warning("the link of %s stays as it was seen before: %s", source, error)
                known[source] = known.get(source, _UNKNOWN) | {"at": now}
                continue
            known[source] = _link(seen) | {"at": now}
        if old:
            save(links=known)
        return known

    def _shares(self, batch: dict, moving: Mapping[str, dict], links: Mapping[str, dict],
                kept: dict) -> dict[str, float]:
        cap = batch["request"]["max_bandwidth_mib_s"]
        budget = math.inf if cap is None else cap * MIB * min(
            (links[row["source"]]["payload_share"] for row in moving.values()), default=1.0)
        dirty = batch["state"].get("dirty") or {}
        needs = [_need(row, dirty.get(server_id, 0.0), links[row["source"]])
                 for server_id, row in sorted(moving.items())]
        free = {source: math.inf if link["free"] is None else link["free"]
                for source, link in links.items()}
        previous = {i: math.inf if share is None else share
                    for i, share in (kept.get("shares") or {}).items()}
        return allocation.shares(needs, free, budget, previous)

    @staticmethod
    def _cap(batch: dict, moving: Mapping[str, dict], links: Mapping[str, dict], server_id: str,
             shares: Mapping[str, float], applied: Mapping[str, int | None]) -> int | None:
        """Return the cap for a stream; None: TCP itself gives a lone one all that is free.

        A cap that is lifted again falls back to Nova's own.
        """
        source, share = moving[server_id]["source"], shares[server_id]
        beside = sum(row["source"] == source for row in moving.values())
        needless = batch["request"]["max_bandwidth_mib_s"] is None and (
            beside == 1 or links[source]["free"] is None)
        if not needless and math.isfinite(share):
            under = links[source].get("under")
            if under is None or not moving[server_id].get("relay_group"):
                return int(share)
            # all together
            return int(share * min(1.0, under / sum(
                shares[i] for i, row in moving.items() if row["source"] == source)))
        if moving[server_id].get("relay_group") and applied.get(server_id) is not None:
            return int(share * relays.UNDER_LINK) if math.isfinite(share) else None
        most = links[source]["most"]
        return int(most) if most is not None and applied.get(server_id) is not None else None

    def _hand_out(self, ctxt, batch, rows, shares, wanted: dict[str, int | None], links, kept,
                  save) -> None:
        """Steer what is to change or may have been lost: first who gets less, then who gets more.

        A cap on a server that did not leave is taken back, once its migration is over. A relay's
        group keeps its own for as long as it is open: further streams may come.
        """
        applied, now = dict(kept.get("applied") or {}), timeutils.utcnow_ts(True)
        again = now - kept.get("at", 0.0) > APPLY_AGAIN_SECONDS
        for server_id in applied.keys() - shares.keys() - relays.open_ids(batch):
            if server_id not in rows or rows[server_id]["status"] == "completed":
                del applied[server_id]
            else:
                wanted[server_id] = None
        changes = {i: cap for i, cap in wanted.items()
                   if (again and (i in applied or cap is not None))
                   or applied.get(i) != cap}
        new = {"at": now if changes else kept.get("at", now),
               "shares": {i: _json(share) for i, share in shares.items()},
               "wire": {i: _json(share / links[rows[i]["source"]]["payload_share"])
                        for i, share in shares.items()},
               "applied": applied | changes}
        if not changes and new == kept:
            return
        save(allocation=new)
        lifted = set()
        for server_id, cap in sorted(changes.items(), key=lambda item: (
                _least(item[1]) > _least(applied.get(item[0])), item[0])):
            if self._steer(ctxt, rows[server_id], cap) and cap is None:
                lifted.add(server_id)
        if lifted:
            save(allocation=new | {"applied": {i: cap for i, cap in new["applied"].items()
                                               if i not in lifted}})

    def _steer(self, ctxt, row: dict, cap: int | None) -> bool:
        """Apply one cap; False where that has to be tried again."""
        try:
            self._steering.steer(ctxt, row, cap)
        except exception.AgentRefused as error:
            LOG.info("server %s is not held: %s", row["server_id"], error)
        except exception.AgentUnavailable as error:
            LOG.warning("server %s keeps its speed for now: %s", row["server_id"], error)
            return False
        return True


def _least(cap: int | None) -> float:
    return math.inf if cap is None else cap


def _json(share: float) -> int | None:
    return int(share) if math.isfinite(share) else None


_UNKNOWN = {"free": None, "payload_share": 1.0, "most": None}


def _link(seen: telemetry.Bandwidth) -> dict:
    """Return what streams may use of a link, in payload; ``free`` is null where nobody knows."""
    usable = projection.usable_link(seen, telemetry.MigrationOptions())
    goodput, wire = seen.goodput_bytes_per_second, seen.link_bytes_per_second
    return {"free": None if seen.source == "unknown" else usable.free,
            # what relays leave of a link that is known for sure
            "under": relays.UNDER_LINK * usable.free if seen.source in relays.SURE else None,
            "payload_share": goodput / wire if goodput and wire else 1.0,
            "most": usable.stream_cap if math.isfinite(usable.stream_cap) else None}


def _need(row: dict, dirty_bytes_per_second: float, link: dict) -> allocation.Need:
    """Return what a stream needs, by its job where it runs, else by its projection."""
    job = (row["progress"] or {}).get("job") or {}
    remaining = (row["current_projection"] or {}).get("raw_bytes") or row["memory_bytes"] or 0
    if job:
        remaining = job["memory_remaining_bytes"] + job.get("disk_remaining_bytes", 0)
        dirty_bytes_per_second = (job.get("dirty_rate_pages_per_second", 0)
                                  * telemetry.PAGE_BYTES or dirty_bytes_per_second)
    return allocation.Need(
        row["server_id"], row["source"], remaining, dirty_bytes_per_second,
        math.inf if link["most"] is None else link["most"])
