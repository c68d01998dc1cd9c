"""A plan, a report and a commonality chart as text for people.

Called by the commands; takes what the API answered and returns lines. It asks for nothing and
prints nothing. Machines get the API's own dictionaries instead (``-f json``).
"""

from collections.abc import Iterable, Sequence
from typing import Any

from nova_batch_migrate.osc import text

# More pairs than this say nothing to a person; -f json has them all.
_PAIRS_SHOWN = 40


def grid(headers: Sequence[str], rows: Iterable[Sequence[Any]], right: str = "") -> list[str]:
    """Return aligned lines; the columns named in ``right`` (blank-separated) are right-aligned.

    Cells are escaped here, so that no caller can forget it.
    """
    cells = [[text.escape(cell) for cell in row] for row in rows]
    widths = [
        max(text.width(row[i]) for row in [list(headers), *cells]) for i in range(len(headers))
    ]
    aligned_right = [header in right.split() for header in headers]
    return [
        "  ".join(
            " " * (columns - text.width(cell)) + cell if to_right else text.fit(cell, columns)
            for cell, columns, to_right in zip(row, widths, aligned_right, strict=True)
        ).rstrip()
        for row in [list(headers), *cells]
    ]


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """Return the plan: totals, each group in its order, then who stays, why, and the way out."""
    moving = sum(len(group["members"]) for group in plan["groups"])
    lines = [
        f"Plan (strategy {plan['strategy']}): {_count(moving, 'server')} to move in "
        f"{_count(len(plan['groups']), 'group')}, "
        f"{len(plan['staying'])} to stay; projected {text.clock(plan['projected_seconds'])}"
        f"{_learned(plan)}, {text.size(plan['wire_bytes'])} on the wire"
    ]
    if plan.get("deadline_met") is not None:
        lines.append("Deadline: " + ("met" if plan["deadline_met"] else "CANNOT BE MET"))
    lines += [f"Note: {text.escape(note)}" for note in plan["notes"]]
    for group in plan["groups"]:
        lines += ["", *_group_lines(group)]
    if plan["staying"]:
        lines += ["", "Staying:"]
    for server in plan["staying"]:
        lines.append(
            f"  {text.escape(server['name'])} on {text.escape(server['source'])} "
            f"({text.escape(server['certainty'])}): {text.escape(server['reason'])}"
        )
        if server.get("command"):
            lines.append(f"    to move it: {text.escape(server['command'])}")
    return lines


def _learned(plan: dict[str, Any]) -> str:
    if plan.get("learned_seconds") is None:
        return ""
    return f" ({text.clock(plan['learned_seconds'])} if streams go as finished ones did)"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _group_lines(group: dict[str, Any]) -> list[str]:
    rows = []
    for member in group["members"]:
        projection = member["projection"]
        rows.append((
            member["order"] + 1, member["name"], member["destination"],
            text.seconds(projection["projected_seconds"]),
            text.interval(projection["interval_seconds"]),
            text.seconds(projection["stream_seconds"]),
            text.seconds(projection["queue_seconds"]),
            text.seconds(projection["nova_seconds"]),
            text.size(projection["wire_bytes"]),
            text.milliseconds(projection["downtime_seconds"]),
            projection["verdict"],
        ))
    table = grid(
        ("#", "SERVER", "TO", "SECONDS", "RANGE", "STREAM", "QUEUE", "NOVA", "DATA", "DOWNTIME",
         "VERDICT"),
        rows, right="# SECONDS RANGE STREAM QUEUE NOVA DATA DOWNTIME",
    )
    title = (
        f"Group {group['index'] + 1} on {text.escape(group['source'])}: "
        f"{text.clock(group['projected_seconds'])}, {text.size(group['wire_bytes'])}, "
        f"{text.size(group['common_pages_bytes'])} in common"
        + (", together" if group.get("synchronized") else "")
        + (f", {group['parallel']} at once" if _side_by_side(group) else "")
    )
    waits = [f"  {text.escape(member['name'])} waits for its quiet moment "
             f"({member['wait_seconds']:.0f} s projected): {text.escape(member['wait']['reason'])}"
             for member in group["members"] if member.get("wait")]
    return [title, f"  {text.escape(group['reason'])}", *(f"  {line}" for line in table), *waits]


def _side_by_side(group: dict[str, Any]) -> bool:
    """Tell whether streams share the link; relays let one through after the other."""
    return (group.get("parallel") or 1) > 1 and not group.get("synchronized") and not any(
        member["projection"].get("relay") for member in group["members"])


def report_lines(batch: Any) -> list[str]:
    """Return one line per server: projected beside actual, destination or why it stayed."""
    servers = sorted(batch.servers or [], key=in_order)
    rows = [
        (
            server["name"], server["status"], server["source"], server["destination"],
            text.seconds(server["projected_seconds"]), text.seconds(server["actual_seconds"]),
            text.size(server["projected_wire_bytes"]), text.size(server["wire_bytes"]),
            text.milliseconds(server["downtime_seconds"]), why(server),
        )
        for server in servers
    ]
    moved = sum(server["status"] == "completed" for server in servers)
    return [
        f"Batch migration {batch.id}: {text.escape(batch.status)}, {moved} of {len(servers)} moved "
        f"in {text.clock(batch.actual_seconds) or '?'} "
        f"(projected {text.clock(batch.projected_seconds) or '?'})"
        + {True: ", in time", False: ", too late"}.get(batch.deadline_met, ""),
        *grid(
            ("SERVER", "STATE", "FROM", "TO", "PROJECTED_S", "ACTUAL_S", "PROJECTED", "SENT",
             "DOWNTIME", "WHY"),
            rows, right="PROJECTED_S ACTUAL_S PROJECTED SENT DOWNTIME",
        ),
        *_relay_lines(servers),
    ]


def _relay_lines(servers: list[dict[str, Any]]) -> list[str]:
    """Return raw beside wire bytes and what made the difference; nothing without a relay."""
    carried = [server for server in servers if server.get("relay")]
    if not carried:
        return []

    def total(name: str) -> str:
        return text.size(sum(server["relay"][name] for server in carried))
    raw, wire = (sum(server[name] for server in carried) for name in ("raw_bytes", "wire_bytes"))
    used = [seconds for server in carried
            if (seconds := server["relay"].get("cpu_seconds")) is not None]
    core = f"; {sum(used):.1f} s of a core at the source" if used else ""
    return [
        f"Relays: {text.size(raw)} of streams crossed as {text.size(wire)}"
        f" ({100 * wire / raw if raw else 100:.0f} %): a server's own duplicates "
        f"{total('self_duplicate_bytes')}, other servers' content "
        f"{total('cross_server_bytes')}, similar pages {total('delta_bytes')}, compression "
        f"{total('compressed_bytes')}; {total('zero_bytes')} of memory were zero pages{core}"
    ]


def why(server: dict[str, Any]) -> str:
    """Return why a server is not where it should be, with the way out; nothing if it moved."""
    if server["status"] == "completed" or not server.get("reason"):
        return ""
    if server.get("command"):
        return f"{server['reason']}; to move it: {server['command']}"
    return server["reason"]


def in_order(server: dict[str, Any]) -> tuple:
    """Sort key of a batch's servers: the plan's order, those without a place in it last."""
    group, order = server.get("group"), server.get("order")
    return (group is None, group or 0, order or 0, server["name"] or "", server["id"])


def commonality_lines(chart: dict[str, Any]) -> list[str]:
    """Return the chart of FIG. 3: memory of each server, then each pair's memory in common."""
    names = {server["id"]: server["name"] for server in chart["servers"]}
    pairs = sorted(chart["pairs"], key=lambda pair: (-pair["bytes"], pair["a"], pair["b"]))
    lines = grid(
        ("SERVER", "DISTINCT", "REPEATED_WITHIN", "COMMON_WITH_ANOTHER"),
        [
            (server["name"], text.size(server["distinct_bytes"]),
             text.size(server["self_duplicate_bytes"]), text.size(server["common_bytes"]))
            for server in chart["servers"]
        ],
        right="DISTINCT REPEATED_WITHIN COMMON_WITH_ANOTHER",
    )
    # what was not looked for has no column
    apart = [(name, header) for name, header in (("mapped_bytes", "MAPPED_BY_BOTH"),
                                                 ("portion_bytes", "BLOCKS_BESIDE"))
             if any(pair[name] is not None for pair in pairs)]
    lines += ["", *grid(
        ("SERVER", "AND", "IN_COMMON", "SHARE_OF_SMALLER", *(header for _, header in apart)),
        [
            (names.get(pair["a"], pair["a"]), names.get(pair["b"], pair["b"]),
             text.size(pair["bytes"]), f"{pair['share'] * 100:.0f} %",
             *("" if pair[name] is None else text.size(pair[name]) for name, _ in apart))
            for pair in pairs[:_PAIRS_SHOWN]
        ],
        right="IN_COMMON SHARE_OF_SMALLER MAPPED_BY_BOTH BLOCKS_BESIDE",
    )]
    if len(pairs) > _PAIRS_SHOWN:
        lines.append(f"... and {len(pairs) - _PAIRS_SHOWN} pairs with less; -f json has them all")
    lines += _told_apart(chart["pairs"])
    lines += [f"{text.escape(pair['a'])} and {text.escape(pair['b'])} have "
              f"{text.size(pair['bytes'])} in common (+- {text.size(pair['error_bytes'])})."
              if pair["bytes"] is not None else
              f"{text.escape(pair['a'])} and {text.escape(pair['b'])}: what they have in common is "
              f"not known: {text.escape(pair['reason'])}" for pair in chart["host_pairs"]]
    if not chart["exact"]:
        lines.append("Estimated from a sample of the contents.")
    confirmed = chart["confirmation"]
    if confirmed:
        lines.append(f"{confirmed['held']} of {confirmed['pairs']} pairs of pages compared byte by "
                     "byte were still equal.")
    return lines


def _told_apart(pairs: Sequence[dict[str, Any]]) -> list[str]:
    """Say what of the pairs' memory is one frame already, and what is common inside of pages."""
    lines = []
    for name, what in (("mapped_bytes", "are mapped by both already (KSM)"),
                       ("portion_bytes", "are blocks in common inside of other pages")):
        known = [pair[name] for pair in pairs if pair[name] is not None]
        if known:
            lines.append(f"Over all pairs, {text.size(sum(known))} {what}.")
    return lines
