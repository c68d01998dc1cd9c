"""Groups at the relays, as the conductor opens and closes them through the agents.

Called by reconciler, executor, gangs and planner. A relay that can't be had is no reason to stop:
the group then goes the plain way, and the events say so. A set that moves together has no such way.
"""

import secrets
from collections.abc import Iterable

from oslo_log import log

from nova_batch_migrate import exception
from nova_batch_migrate.conductor import actuals, keeping
from nova_batch_migrate.db import api as db
from nova_batch_migrate.planning import commonality
from nova_batch_migrate.planning.telemetry import PAGE_BYTES, PageClasses

LOG = log.getLogger(__name__)
MIB = 1 << 20
#: Of the goodput of a link whose speed is known for sure.
UNDER_LINK = 0.98
#: How its speed is known then (telemetry.Bandwidth.source).
SURE = ("option", "tc")
#: With less a group is better off without; and what content may grow by meanwhile.
LEAST_DICTIONARY_BYTES = 16 << 20
#: Of a project, which has one of its own: less is refused by relays.
LEAST_SCOPE_BYTES = 4 << 20
CHANGING_CONTENT = 1.5
#: One dictionary for all servers of a host, where the operator asked for that.
WHOLE_HOST = "host"
#: A set that was let go, as its relay calls it.
RELEASED = "released"


#: Of a group's figures, those that are not bytes since it was opened.
MOMENTARY = ("bytes_per_second", "dictionary_bytes", "dictionary_fill_bytes", "cpu_seconds")
#: Why a server stays that is never to go without a relay.
REFUSED = "it is not tried without a relay (fallback: refuse)"


def carries(batch: dict, row: dict) -> bool:
    """Tell whether a relay's group is open for a row's migration."""
    if (row.get("progress") or {}).get("plain"):
        return False
    opened = batch["state"].get("relay_groups") or {}
    return row["destination"] in opened.get(f"{row['source']}/{row['group_index']}", ())


def planned(row: dict) -> bool:
    """Tell whether the present plan leads a server through relays."""
    return bool((row["current_projection"] or {}).get("relay"))


def shown(told: dict) -> dict:
    """Return what is kept of a group's figures for those who watch."""
    names = ("raw_bytes", "wire_bytes", *actuals.SAVINGS)
    counted = {name: told.get(name, 0) for name in names}
    return counted | {name: told.get(name) for name in MOMENTARY} | {"servers": {
        server_id: {name: counters.get(name, 0) for name in names}
        | {name: counters.get(name) for name in actuals.OF_A_STREAM}
        for server_id, counters in told.get("servers", {}).items()}}


def refuses(batch: dict) -> bool:
    """Tell whether what the plan leads through relays may not go without."""
    return batch["request"].get("fallback") == "refuse"


def lacks(batch: dict, row: dict) -> bool:
    """Tell whether the plan leads a server through relays, and its group could not be opened."""
    return planned(row) and not carries(batch, row)


def group_id(batch_id: str, source: str, index: int, destination: str) -> str:
    """Return the id of the relays' group of those members that go to one destination."""
    return f"{batch_id}/{source}/{index}/{destination}"


def open_ids(batch: dict) -> set[str]:
    """Return the ids of the relays' groups that are open for a batch."""
    found = set()
    for key, destinations in (batch["state"].get("relay_groups") or {}).items():
        source, _, index = key.rpartition("/")
        found |= {group_id(batch["id"], source, int(index), each) for each in destinations}
    return found


class Relays:
    """Opens, closes and asks; keeps nothing. ``agents`` is the AgentAPI."""

    def __init__(self, agents):
        self._agents = agents

    def describe(self, ctxt, host: str) -> dict | None:
        """Return what the host's agent says of its relay; None where there is none.

        What an ended batch has left open there is closed: its agent could not be reached then.
        """
        try:
            found = self._agents.relay(ctxt, host)
            left = [] if found is None else _left_open(found.get("group_ids") or ())
            for group in left:
                LOG.warning("group %s was left open at the relay of %s: closed", group, host)
                self._agents.close_group(ctxt, host, group)
            return self._agents.relay(ctxt, host) if left else found
        except (exception.AgentUnavailable, exception.AgentRefused) as error:
            LOG.warning("no relay of %s: %s", host, error)
            return None

    def begin(self, ctxt, batch: dict, source: str, index: int, members: list[dict],
              together: bool = False) -> tuple[list[str], dict[str, str]]:
        """Open a group at both ends of every pair of hosts.

        Returns the destinations that it is open to, and why it is not by those that it is not.
        ``members`` are the rows that are about to move; ``together``: they are one set. Opening
        again replaces what an earlier conductor may have left.
        """
        if "telemetry" not in batch:
            # without its heavy columns
            batch = batch | {"telemetry": db.get_batch(batch["id"])["telemetry"]}
        opened, refused = [], {}
        whole = sorted(row["server_id"] for row in members) if together else []
        destinations = sorted({row["destination"] for row in members})
        caps = _caps(batch, source, members)
        _note_caps(batch, {group_id(batch["id"], source, index, each): cap
                           for each, cap in caps.items()})
        for at, destination in enumerate(destinations):
            rows = [row for row in members if row["destination"] == destination]
            try:
                self._open(ctxt, batch, source, index, destination, rows, whole,
                           len(destinations) - at, caps[destination])
                opened.append(destination)
                text = f"identical memory crosses once: {len(rows)} servers of group " \
                       f"{index + 1} go to {destination} through the relays"
            except (exception.AgentUnavailable, exception.AgentRefused) as error:
                self._close(ctxt, batch, source, index, destination)
                refused[destination] = error.text
                way = "does not go" if together else "goes"
                text = f"group {index + 1} {way} to {destination} without a relay: {error.text}"
            db.add_event(batch["id"], "relay", text, request_id=ctxt.request_id)
        return opened, refused

    def policy(self, ctxt, host: str) -> str:
        """Return what the relay of a source does when a member of a set fails or is late."""
        return (self.describe(ctxt, host) or {}).get("switchover_policy", "together")

    def set_of(self, ctxt, batch: dict, row: dict) -> dict | None:
        """Return what the source's relay says of the set that a row moves with (Gang.as_dict).

        None where it does not answer or knows nothing of it.
        """
        found = self._statistics(ctxt, batch, row) or {}
        return next((told for told in found.get("synchronized", ())
                     if row["server_id"] in told["members"]), None)

    def end(self, ctxt, batch: dict, source: str, index: int, destinations: list[str]
            ) -> dict[str, dict]:
        """Close a group everywhere; return its last figures by its ids, one a destination."""
        found = {group_id(batch["id"], source, index, destination):
                 self._close(ctxt, batch, source, index, destination)
                 for destination in destinations}
        found = {each: told for each, told in found.items() if told}
        raw, wire = (sum(told.get(name, 0) for told in found.values())
                     for name in ("raw_bytes", "wire_bytes"))
        if raw:
            db.add_event(
                batch["id"], "relay", f"group {index + 1} of {source}: {raw / MIB:.0f} MiB of "
                f"streams crossed as {wire / MIB:.0f} MiB", request_id=ctxt.request_id)
        return found

    def figures(self, ctxt, batch: dict, row: dict) -> dict | None:
        """Return the relay's counters of one server; None where no relay carried it."""
        found = self._statistics(ctxt, batch, row)
        return found and found["servers"].get(row["server_id"])

    def _statistics(self, ctxt, batch: dict, row: dict) -> dict | None:
        wanted = group_id(batch["id"], row["source"], row["group_index"], row["destination"])
        return self._told(ctxt, row["source"]).get(wanted)

    def look(self, ctxt, batch: dict) -> tuple[dict[str, dict], bool]:
        """Return the figures of the batch's open groups by their ids, with those of each server.

        And whether a set of them was let go and has not switched over.
        """
        found, switching = {}, False
        for key, destinations in (batch["state"].get("relay_groups") or {}).items():
            source, _, index = key.rpartition("/")
            wanted = {group_id(batch["id"], source, int(index), destination)
                      for destination in destinations}
            told = self._told(ctxt, source) if wanted else {}
            found |= {each: shown(told[each]) for each in wanted & told.keys()}
            switching |= any(gang["state"] == RELEASED and not gang["over"]
                             for each in wanted & told.keys()
                             for gang in told[each].get("synchronized", ()))
        return found, switching

    def _told(self, ctxt, source: str) -> dict[str, dict]:
        try:
            told = self._agents.relay_statistics(ctxt, source)
        except (exception.AgentUnavailable, exception.AgentRefused) as error:
            LOG.warning("no figures of the relay of %s: %s", source, error)
            return {}
        return {group["id"]: group for group in told["groups"]}

    def leave(self, ctxt, batch: dict, row: dict) -> None:
        """Let no further connection of a server through a group.

        Its next attempt passes by the relays; of a set that moves together it is counted out.
        """
        wanted = group_id(batch["id"], row["source"], row["group_index"], row["destination"])
        try:
            self._agents.leave_group(ctxt, row["source"], wanted, row["server_id"])
        except (exception.AgentUnavailable, exception.AgentRefused) as error:
            # no relay, no redirect
            LOG.info("server %s: %s", row["server_id"], error)

    def _open(self, ctxt, batch, source, index, destination, rows, whole, shares, cap) -> None:
        """``shares``: among so many groups the source's memory is still to be shared.

        ``cap``: bytes per second of its wire, None for no cap.
        """
        ends = {host: self.describe(ctxt, host) for host in (source, destination)}
        for host, found in ends.items():
            if found is None:
                raise exception.AgentRefused(reason=f"no nova-batch-relay answers on {host}.")
        telemetry = (batch["telemetry"] or {}).get(source) or {}
        scope = batch["request"]["dedup_scope"]
        scopes = [WHOLE_HOST if scope == "host" else row["project_id"] for row in rows]
        kept_for = _kept_for(telemetry, rows, scopes)
        group = {
            "id": group_id(batch["id"], source, index, destination),
            "token": secrets.token_hex(32), "source": source, "destination": destination,
            "peer_address": ends[destination]["address"],
            "peer_port": ends[destination]["port"],
            "dictionary_bytes": _dictionary_bytes(
                ends[source]["dictionary_free_bytes"] // shares,
                ends[destination]["dictionary_free_bytes"], telemetry, rows,
                len(set(scopes))),
            "link_bytes_per_second": _goodput(telemetry),
            "wire_bytes_per_second": cap,
            "downtime_seconds": _downtime_seconds(telemetry),
            "members": [{"server_id": row["server_id"], "order": row["order_index"],
                         "scope": of_row, "kept_for": kept_for.get(row["server_id"]),
                         "dirty_bytes_per_second":
                             (batch["state"].get("dirty") or {}).get(row["server_id"])}
                        for row, of_row in zip(rows, scopes, strict=True)],
            # the plan has joined the request's sets: this group is one
            "synchronized": [whole] if len(whole) > 1 else [],
        }
        self._close(ctxt, batch, source, index, destination)
        # the destination first: the source's relay reaches it when it opens
        self._agents.open_group(ctxt, destination, group | {"role": "destination"})
        self._agents.open_group(ctxt, source, group | {"role": "source"})

    def _close(self, ctxt, batch, source, index, destination) -> dict:
        wanted, told = group_id(batch["id"], source, index, destination), {}
        for host in (source, destination):
            try:
                told = self._agents.close_group(ctxt, host, wanted) or told
            except (exception.AgentUnavailable, exception.AgentRefused) as error:
                LOG.warning("group %s may still be open at %s: %s", wanted, host, error)
        return told


def _left_open(group_ids: Iterable[str]) -> list[str]:
    """Return those of groups that are no active batch's."""
    ids = list(group_ids)
    active = {batch["id"] for batch in db.active_batches()} if ids else set()
    return [each for each in ids if each.partition("/")[0] not in active]


def _dictionary_bytes(at_source: int, at_destination: int, telemetry: dict, rows: list[dict],
                      scopes: int) -> int:
    """Return the memory for a group's dictionaries: what there is, and no more than it can use.

    It is shared out among ``scopes``. Other batches may need the rest. Content that changes while
    it migrates takes more than was measured.
    """
    free = min(at_source, at_destination)
    pages = {server["id"]: server.get("distinct_pages")
             for server in telemetry.get("servers") or ()}
    measured = [pages.get(row["server_id"]) for row in rows]
    least = max(LEAST_DICTIONARY_BYTES, scopes * LEAST_SCOPE_BYTES)
    if all(measured):
        free = min(free, max(least, int(CHANGING_CONTENT * PAGE_BYTES * sum(measured))))
    if free < least:
        raise exception.AgentRefused(
            reason=f"{free // MIB} MiB are left for its dictionary, and it needs {least // MIB} "
            f"for {scopes} projects: other groups have the rest. Raise [relay] dictionary_mib on "
            "both hosts, or choose --dedup-scope host.")
    return free


def _kept_for(telemetry: dict, rows: list[dict], scopes: list[str]) -> dict[str, int]:
    """Return by server the order of the last one behind it that holds much of the same content."""
    classes = telemetry.get("page_classes")
    if classes is None:
        return {}
    known = commonality.Commonality([row["server_id"] for row in rows],
                                    PageClasses.from_dict(classes))
    found = {}
    for scope in set(scopes):
        log = sorted((row for row, of_row in zip(rows, scopes, strict=True) if of_row == scope),
                     key=lambda row: row["order_index"])
        last = known.last_kin([row["server_id"] for row in log])
        found |= {row["server_id"]: log[place]["order_index"]
                  for at, (row, place) in enumerate(zip(log, last, strict=True)) if place > at}
    return found


def _goodput(telemetry: dict) -> float | None:
    return (telemetry.get("bandwidth") or {}).get("goodput_bytes_per_second")


def _downtime_seconds(telemetry: dict) -> float:
    return (telemetry.get("options") or {}).get("downtime_ms", 500) / 1000


def _caps(batch: dict, source: str, members: list[dict]) -> dict[str, float | None]:
    """Return by destination what its group is opened with: of the source's cap by their bytes.

    Streams to several destinations run side by side, and the allocator looks at them only once
    they do.
    """
    cap = _cap(batch, (batch["telemetry"] or {}).get(source) or {})
    sizes: dict[str, int] = {}
    for row in members:
        projected = (row.get("current_projection") or {}).get("raw_bytes")
        size = projected or row.get("memory_bytes") or 0
        sizes[row["destination"]] = sizes.get(row["destination"], 0) + max(1, size)
    whole = sum(sizes.values())
    return {each: cap and cap * size / whole for each, size in sizes.items()}


def _note_caps(batch: dict, caps: dict[str, float | None]) -> None:
    """Note for the allocator which groups begin with less than a lone one would.

    It gives them more when they are alone.
    """
    kept = batch["state"].get("allocation") or {}
    applied = {i: cap for i, cap in (kept.get("applied") or {}).items() if i not in caps}
    if len(caps) > 1:
        applied |= {i: int(cap) for i, cap in caps.items() if cap is not None}
    if applied != (kept.get("applied") or {}):
        keeping.save(batch, allocation=kept | {"applied": applied})


def _cap(batch: dict, telemetry: dict) -> float | None:
    """Return what the relay holds the group to: the operator's cap, and just under a known link.

    Sources send side by side. A queue that fills in front of a capped link would be waited for
    when the guest stands still already.
    """
    caps = []
    if batch["request"]["max_bandwidth_mib_s"] is not None:
        caps.append(batch["request"]["max_bandwidth_mib_s"] * MIB
                    / max(1, len(batch["telemetry"] or {})))
    if (telemetry.get("bandwidth") or {}).get("source") in SURE:
        caps.append(UNDER_LINK * _goodput(telemetry))
    return min(caps, default=None)
