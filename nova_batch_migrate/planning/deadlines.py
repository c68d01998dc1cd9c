"""What a plan says of deadlines: which cannot be met, and which it is not sure of.

Used by planning.plan when all is ordered; keeping them is planning.ordering's.
"""

import collections
from collections.abc import Sequence

from nova_batch_migrate.planning import ordering
from nova_batch_migrate.planning.request import PlanRequest
from nova_batch_migrate.planning.result import PlanGroup


def met(request: PlanRequest, projected_seconds: float) -> bool | None:
    """Return whether the projected end is before the deadline of the batch; None without one."""
    if request.deadline_seconds is None:
        return None
    return projected_seconds <= request.deadline_seconds


def notes(request: PlanRequest, groups: Sequence[PlanGroup], projected_seconds: float
          ) -> list[str]:
    """Say which deadlines will be missed, by how much, and what may help."""
    return [*_of_batch(request, groups, projected_seconds), *_of_members(request, groups)]


def _of_batch(request: PlanRequest, groups: Sequence[PlanGroup], seconds: float) -> list[str]:
    deadline = request.deadline_seconds
    if deadline is None:
        return []
    if seconds > deadline:
        return [f"The deadline is in {deadline:.0f} s and cannot be met: the projected end is in "
                f"{seconds:.0f} s, {seconds - deadline:.0f} s late. Begin earlier, raise "
                "max_bandwidth_mib_s or max_parallel, or move fewer servers."]
    latest = ordering.whole_seconds_by(lambda projection: projection.interval_seconds[1], groups,
                                       request.destinations)
    if latest is None:
        return [f"The deadline is in {deadline:.0f} s and may be missed: the projected end is in "
                f"{seconds:.0f} s, but how late it may be is not known."]
    if latest > deadline:
        return [f"The deadline is in {deadline:.0f} s and may be missed: the projected end is in "
                f"{seconds:.0f} s, but not surely before {latest:.0f} s."]
    return []


def _of_members(request: PlanRequest, groups: Sequence[PlanGroup]) -> list[str]:
    due = {m.id: m.deadline_seconds for m in request.movable if m.deadline_seconds is not None}
    found, begins = [], collections.Counter()
    for group in groups:
        for member in group.members:
            ends = begins[group.source] + member.projection.projected_seconds
            if ends > due.get(member.server_id, ends):
                found.append(f"{member.name} is to be moved within {due[member.server_id]:.0f} s "
                             f"and cannot be: projected in {ends:.0f} s.")
        begins[group.source] += group.projected_seconds
    return found
