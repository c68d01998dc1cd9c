"""nova-batch-plan: makes a plan from a file, without a cloud; the same code as the conductor's.

    openstack server batch migration plan BATCH -f json > plan.json
    nova-batch-plan plan.json --chart plan.png

The file is a plan as the API gives it (what it was made from is in it), a bare PlanRequest, or the
telemetry of a host or of several (a list): then all their servers move to a place with room for
all. What is no figure of a server, or cannot be one, is named in the plan as the conductor does it.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from nova_batch_migrate import exception
from nova_batch_migrate.cmd import chart
from nova_batch_migrate.osc import tables, text
from nova_batch_migrate.planning import plan, reading, request, schema, telemetry

#: Where servers of bare telemetry go.
ANYWHERE = "anywhere"
_ENDLESS = 1 << 50
_WHAT_TO_GIVE = ("Give what `openstack server batch migration plan BATCH -f json` prints, the "
                 "telemetry of hosts out of it, or what `nova-batch-plan --schema` describes.")


def planned(content: str) -> plan.Plan:
    """Return the plan for the JSON of a plan, of a PlanRequest or of a host's telemetry.

    Raises PlanningError, naming the field and what to give instead, for anything else.
    """
    try:
        given = json.loads(content)
    # brackets within brackets without an end
    except (ValueError, RecursionError) as error:
        raise exception.PlanningError(
            reason=f"the file is no JSON ({error}). {_WHAT_TO_GIVE}") from error
    # the API's answer holds the plan, and the plan what it was made from
    for around in ("plan", "request"):
        if isinstance(given, dict) and isinstance(given.get(around), dict):
            given = given[around]
    if isinstance(given, dict) and "servers" in given and "host" in given:
        given = [given]
    if isinstance(given, list) and given:
        return plan.make_plan(anywhere([
            reading.host(host, f"HostTelemetry[{at}]") for at, host in enumerate(given)]))
    if not isinstance(given, dict) or "hosts" not in given:
        raise exception.PlanningError(
            reason=f"the file holds neither a plan nor telemetry. {_WHAT_TO_GIVE}")
    return plan.make_plan(reading.plan_request(given))


def anywhere(hosts: Sequence[telemetry.HostTelemetry]) -> request.PlanRequest:
    """Return the request that moves all servers of hosts to a place with room for all.

    Of which no size is known stays: nothing could be said of it.
    """
    servers = [(host, s) for host in hosts for s in host.servers]
    sizes = {s.id: s.memory_bytes or s.total_pages * telemetry.PAGE_BYTES for _, s in servers}
    return request.PlanRequest(
        hosts=tuple(hosts),
        destinations=(request.Destination(ANYWHERE, _ENDLESS, _ENDLESS, _ENDLESS),),
        movable=tuple(request.Movable(s.id, (ANYWHERE,), sizes[s.id], s.vcpus, 0.0)
                      for _, s in servers if sizes[s.id]),
        staying=tuple(request.Staying(
            s.id, s.name or s.id, host.host, certainty="likely", reason=(
                f"not even its size is known ({s.error or 'no figures'}); measure it again"))
            for host, s in servers if not sizes[s.id]))


def explained(made: plan.Plan) -> list[str]:
    """Return the plan as lines for people, with the reason of each choice."""
    lines = tables.plan_lines(made.to_dict())
    if made.groups:
        lines += ["", "Why:"]
    for group in made.groups:
        lines.append(f"  group {group.index + 1} on {text.escape(group.source)}, "
                     f"{text.clock(group.projected_seconds)}: {text.escape(group.reason)}")
        lines += [f"    {member.order + 1}. {text.escape(member.name)}: "
                  f"{text.escape(member.reason)}" for member in group.members]
    return lines


def main(argv: list[str] | None = None) -> int:
    """Print the plan, as a table with the reason of each choice or as JSON; draw it if asked."""
    parser = argparse.ArgumentParser(prog="nova-batch-plan", description=__doc__.split("\n")[0])
    parser.add_argument("file", type=pathlib.Path, nargs="?",
                        help="JSON of a plan, of a request for one, or of a host's telemetry")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.add_argument("--chart", type=pathlib.Path, metavar="FILE.png",
                        help="draw what servers have in common (FIG. 3) and the groups' timeline")
    parser.add_argument("--schema", action="store_true",
                        help="print the JSON schema of the file and of all telemetry")
    given = parser.parse_args(argv)
    if given.schema:
        print(json.dumps(schema.json_schema(request.PlanRequest), indent=1))
        return 0
    if given.file is None:
        parser.error("a FILE is needed")
    try:
        # with or without a byte order mark
        made = planned(given.file.read_text("utf-8-sig"))
        if given.chart:
            chart.draw(made, given.chart)
    except (OSError, UnicodeDecodeError, exception.PlanningError) as error:
        print(f"nova-batch-plan: {error}", file=sys.stderr)
        return 1
    print(json.dumps(made.to_dict(), indent=1) if given.json else "\n".join(explained(made)))
    return 0
