"""nova-batch-plan: makes a plan from a file, without a cloud; the same code as the conductor's.

    openstack server batch migration plan BATCH -f json > plan.json
    nova-batch-plan plan.json --chart plan.png

The file is a plan as the API gives it (what it was made from is in it), a bare PlanRequest, or the
telemetry of a host: then all its servers move to a place with room for all.
"""

import argparse
import json
import pathlib
import sys

from nova_batch_migrate import exception
from nova_batch_migrate.cmd import chart
from nova_batch_migrate.osc import tables, text
from nova_batch_migrate.planning import plan, request, schema, telemetry

#: Where servers of bare telemetry go.
ANYWHERE = "anywhere"
_ENDLESS = 1 << 50


def planned(content: str) -> plan.Plan:
    """Return the plan for the JSON of a plan, of a PlanRequest or of a host's telemetry.

    Raises PlanningError, naming the field, for anything else.
    """
    try:
        given = json.loads(content)
    except ValueError as error:
        raise exception.PlanningError(reason=f"the file is no JSON ({error})") from error
    if isinstance(given, dict):
        given = given.get("request", given)
        if "servers" in given and "host" in given:
            return plan.make_plan(anywhere(telemetry.HostTelemetry.from_dict(given)))
    return plan.make_plan(request.PlanRequest.from_dict(given))


def anywhere(host: telemetry.HostTelemetry) -> request.PlanRequest:
    """Return the request that moves all servers of a host to a place with room for all."""
    return request.PlanRequest(
        hosts=(host,), destinations=(request.Destination(ANYWHERE, _ENDLESS, _ENDLESS, _ENDLESS),),
        movable=tuple(request.Movable(s.id, (ANYWHERE,), s.memory_bytes, s.vcpus, 0.0)
                      for s in host.servers))


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
        made = planned(given.file.read_text())
        if given.chart:
            chart.draw(made, given.chart)
    except (OSError, UnicodeDecodeError, exception.PlanningError) as error:
        print(f"nova-batch-plan: {error}", file=sys.stderr)
        return 1
    print(json.dumps(made.to_dict(), indent=1) if given.json else "\n".join(explained(made)))
    return 0
