"""nova-batch-plan: makes a plan from a file, without a cloud; the same code as the conductor's.

    openstack server batch migration plan BATCH -f json > plan.json
    nova-batch-plan plan.json

The file is a plan as the API gives it (what it was made from is in it) or a bare PlanRequest.
"""

import argparse
import json
import pathlib
import sys

from nova_batch_migrate import exception
from nova_batch_migrate.osc import tables
from nova_batch_migrate.planning import plan, request


def planned(text: str) -> plan.Plan:
    """Return the plan for the JSON of a plan or of a PlanRequest.

    Raises PlanningError, naming the field, for anything else.
    """
    try:
        given = json.loads(text)
    except ValueError as error:
        raise exception.PlanningError(reason=f"the file is no JSON ({error})") from error
    if isinstance(given, dict):
        given = given.get("request", given)
    return plan.make_plan(request.PlanRequest.from_dict(given))


def main(argv: list[str] | None = None) -> int:
    """Print the plan, as a table with the reason of each choice or as JSON."""
    parser = argparse.ArgumentParser(prog="nova-batch-plan", description=__doc__.split("\n")[0])
    parser.add_argument("file", type=pathlib.Path, help="JSON of a plan or of a request for one")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    given = parser.parse_args(argv)
    try:
        made = planned(given.file.read_text()).to_dict()
    except (OSError, exception.PlanningError) as error:
        print(f"nova-batch-plan: {error}", file=sys.stderr)
        return 1
    print(json.dumps(made, indent=1) if given.json else "\n".join(tables.plan_lines(made)))
    if not given.json:
        for group in made["groups"]:
            for member in group["members"]:
                print(f"  group {group['index'] + 1}, {member['order'] + 1}: {member['reason']}")
    return 0
