"""What a drain of the lab has come to: a report, as JSON and as a table, and what is wrong with it.

Called by lab/demo and the lab tests. Judges what the API, Nova and the guests' consoles told;
changes nothing.
"""
import statistics
from collections.abc import Mapping, Sequence

from nbmlab import drain, guests
from nbmlab.check import GuestVerdict
from nbmlab.families import FAMILIES
from nbmlab.guests import Guest

SHORTEST_STREAM_SECONDS = 10
_MIB = 1 << 20
_FROM_API = ("id", "name", "status", "reason", "source", "destination", "projected_seconds",
             "actual_seconds", "projected_bytes", "raw_bytes", "wire_bytes", "downtime_seconds")
# What has to be told of a server that moved.
_FIGURES = _FROM_API[6:]


def report(batch: dict, before: Sequence[Guest], verdicts: Mapping[str, GuestVerdict]) -> dict:
    """Return the API's batch and one entry per guest that was on the source before."""
    shown = {server["id"]: server for server in batch.get("servers", ())}
    servers = []
    for guest in before:
        known = shown.get(guest.id, {"id": guest.id, "name": guest.name, "source": guest.host})
        verdict = verdicts[guest.id]
        entry = {field: known.get(field) for field in _FROM_API}
        servers.append({"id": entry.pop("id"), "name": entry.pop("name"), "family": guest.family,
                        **entry, "guest_alive": verdict.alive,
                        "guest_memory_intact": verdict.memory_intact})
    return {"batch": batch, "servers": servers}


def problems(told: dict, before: Sequence[Guest]) -> list[str]:
    """Return, in words, everything that is not as a successful drain leaves it; best: nothing."""
    now = {guest.id: guest for guest in guests.listed()}
    streams = {server["id"]: server.get("actual_stream_seconds")
               for server in told["batch"].get("servers", ())}
    entries = {entry["id"]: entry for entry in told["servers"]}
    found = []
    for guest in before:
        entry, truth = entries[guest.id], now.get(guest.id)
        wrong = _of_stayer(entry, truth) if guest.locked else _of_mover(
            entry, truth, streams.get(guest.id))
        if not entry["guest_alive"]:
            wrong.append("the guest does not go on living")
        if not entry["guest_memory_intact"]:
            wrong.append("the guest's memory is not shown to be whole")
        found += [f"{guest.name}: {text}" for text in wrong]
    wanted = "partial" if any(guest.locked for guest in before) else "completed"
    if told["batch"]["status"] != wanted:
        found.append(f"the batch migration is {told['batch']['status']}, not {wanted}")
    found += [f"nova-compute of {service['host']} is {service['status']}"
              for service in drain.compute_services()
              if service["host"] == drain.SOURCE and service["status"] != "disabled"]
    return found


def _of_stayer(entry: dict, truth: Guest | None) -> list[str]:
    wrong = []
    if entry["status"] != "skipped" or not entry["reason"]:
        wrong.append(f"locked, but the batch calls it {entry['status']} ({entry['reason']})")
    if truth is None or (truth.host, truth.status) != (drain.SOURCE, "ACTIVE"):
        wrong.append(f"locked, but Nova says: {_place(truth)}")
    return wrong


def _of_mover(entry: dict, truth: Guest | None, stream_seconds: float | None) -> list[str]:
    wrong = []
    if entry["status"] != "completed":
        wrong.append(f"not moved: {entry['status']} ({entry['reason']})")
    if truth is None or truth.status != "ACTIVE" or truth.host != entry["destination"] \
            or truth.host == drain.SOURCE:
        wrong.append(f"to go to {entry['destination']}, but Nova says: {_place(truth)}")
    wrong += [f"{field} is missing" for field in _FIGURES if entry[field] is None]
    # through a relay little is left of a stream whose like has crossed before
    relayed = (entry["wire_bytes"] or 0) < (entry["raw_bytes"] or 0)
    shortest = 0 if relayed else SHORTEST_STREAM_SECONDS
    if stream_seconds is None or stream_seconds < shortest:
        wrong.append(f"its stream took {stream_seconds} s, not {shortest} or more")
    return wrong


def _place(truth: Guest | None) -> str:
    return f"{truth.status} on {truth.host}" if truth else "there is no such server"


def lines(told: dict) -> list[str]:
    """Return the report as a table, and how far the projections were off."""
    rows = [("SERVER", "STATE", "TO", "PROJECTED", "ACTUAL", "ERROR", "RAW", "ON THE WIRE",
             "SHARE", "DOWNTIME", "ALIVE", "MEMORY")]
    for entry in told["servers"]:
        error = _error(entry)
        rows.append((
            entry["name"], entry["status"] or "?", entry["destination"] or "-",
            _number(entry["projected_seconds"], " s"), _number(entry["actual_seconds"], " s"),
            "" if error is None else f"{error * 100:+.1f} %",
            _number(entry["raw_bytes"], " MiB", _MIB),
            _number(entry["wire_bytes"], " MiB", _MIB), _share([entry]),
            _number(entry["downtime_seconds"], " ms", 0.001),
            "yes" if entry["guest_alive"] else "NO",
            "whole" if entry["guest_memory_intact"] else "NOT WHOLE"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = ["  ".join(cell.ljust(width) if i < 3 else cell.rjust(width)
                       for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
             for row in rows]
    table += [f"{entry['name']} stayed: {entry['reason']}" for entry in told["servers"]
              if entry["status"] != "completed"]
    moved = [entry for entry in told["servers"] if entry["raw_bytes"]]
    table.append(f"raw beside wire: {_number(sum(e['raw_bytes'] for e in moved), ' MiB', _MIB)} of "
                 f"streams crossed as {_number(sum(e['wire_bytes'] for e in moved), ' MiB', _MIB)}"
                 f" ({_share(moved)})")
    errors = [abs(error) for entry in told["servers"]
              if writes(entry["family"]) and (error := _error(entry)) is not None]
    if errors:
        table.append(f"projected beside actual seconds, {len(errors)} writing guests: "
                     f"{statistics.median(errors) * 100:.1f} % at the median")
    return table


def writes(family: str) -> bool:
    """Tell whether a family's guests write all the time, by their own program or a real service."""
    known = FAMILIES[family]
    return known.load.pages_per_second >= 100 or known.root != "small"


def _error(entry: dict) -> float | None:
    """Return how far the projection was above (positive) or below what happened, as a share."""
    if entry["status"] != "completed" or not entry["actual_seconds"] \
            or entry["projected_seconds"] is None:
        return None
    return entry["projected_seconds"] / entry["actual_seconds"] - 1


def _share(entries: Sequence[dict]) -> str:
    """Return what crossed of what QEMU sent; nothing where nothing was sent."""
    raw = sum(entry["raw_bytes"] or 0 for entry in entries)
    return f"{100 * sum(entry['wire_bytes'] or 0 for entry in entries) / raw:.0f} %" if raw else ""


def _number(value: float | None, unit: str, per: float = 1) -> str:
    return "" if value is None else f"{value / per:.1f}{unit}"
