"""What an operator asked for, checked and completed; pure.

Called by the manager before a batch is committed. The API has checked the syntax, here is the
meaning: which fields are built, which values go together.
"""

import datetime
from collections.abc import Iterable

from oslo_utils import timeutils

from nova_batch_migrate import exception

DEFAULTS = {
    "hosts": [],
    "servers": [],
    "target_hosts": [],
    "exclude_hosts": [],
    "strategy": "group",
    "plan_only": False,
    "max_bandwidth_mib_s": None,
    "max_parallel": None,
    "max_wait_seconds": 0,
    "on_non_convergence": "skip",
    "not_before": None,
    "deadline": None,
    "synchronized": None,
    "dedup_scope": "project",
    "include_locked": False,
    "stopped": "leave",
    "leave_disabled": True,
    "fallback": "plain",
    "urgent": False,
}
# field -> the values that are built; anything else answers 400, never silence
BUILT = {
    "stopped": ("leave",),
}


def normalize(request: dict) -> dict:
    """Return the request with every field set; moments as naive UTC ISO 8601.

    Raises FieldNotSupported for what is not built yet, InvalidInput for what contradicts itself.
    """
    for field, built in BUILT.items():
        if field in request and request[field] not in built:
            supported = ", ".join(repr(value) for value in built if value not in (None, []))
            raise exception.FieldNotSupported(
                field=field, value=request[field], supported=supported or "no value")
    result = DEFAULTS | {key: request[key] for key in DEFAULTS if request.get(key) is not None}
    if bool(result["hosts"]) == bool(result["servers"]):
        raise exception.InvalidInput(reason="give either hosts or servers, one of them.")
    _refuse_overlap(result, "target_hosts", "hosts",
                    "a host that is to be emptied cannot take its own servers")
    _refuse_overlap(result, "target_hosts", "exclude_hosts",
                    "a host is either a target or excluded")
    if result["urgent"] and result["max_wait_seconds"]:
        raise exception.InvalidInput(
            reason="urgent starts at once, and max_wait_seconds lets servers wait for a quiet "
                   "moment: give one of them.")
    for field in ("not_before", "deadline"):
        if result[field]:
            result[field] = _utc(field, result[field])
    _refuse_vain_deadline(result)
    return result


def _refuse_vain_deadline(request: dict) -> None:
    if request["deadline"] is None:
        return
    begins = request["not_before"] or timeutils.utcnow().isoformat()
    if _moment(request["deadline"]) <= _moment(begins):
        raise exception.InvalidInput(
            reason=f"the deadline {request['deadline']}Z is not after "
                   + (f"not_before {begins}Z" if request["not_before"] else f"now ({begins}Z)")
                   + ". Give a later moment, or leave deadline out.")


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def resolve_sets(sets: list[list[str]] | str | None, servers: Iterable, groups: Iterable[dict]
                 ) -> list[list[str]]:
    """Return the sets that move together as ids; ``servers`` are those of the batch.

    The word server-groups makes a set of the members of each of Nova's ``groups`` that are among
    them. Raises InvalidInput for what is no server of the batch, or the name of several.
    """
    if sets == "server-groups":
        here = {server.id for server in servers}
        found = ([i for i in group["members"] if i in here] for group in groups)
        return [members for members in found if len(members) > 1]
    if not sets:
        return []
    by_name: dict[str, list[str]] = {}
    for server in servers:
        by_name.setdefault(server.id, []).append(server.id)
        by_name.setdefault(server.name, []).append(server.id)
    return [[_only(name, by_name.get(name, [])) for name in members] for members in sets]


def _only(name: str, ids: list[str]) -> str:
    if not ids:
        raise exception.InvalidInput(
            reason=f"synchronized names {name}, which is no server of this batch. Name servers "
                   "that stand in servers, or that are on one of hosts.")
    if len(ids) > 1:
        raise exception.InvalidInput(
            reason=f"synchronized names {name}, and several servers of the batch have that name: "
                   f"{', '.join(ids)}. Give the id.")
    return ids[0]


def _refuse_overlap(request: dict, first: str, second: str, why: str) -> None:
    both = sorted(set(request[first]) & set(request[second]))
    if both:
        raise exception.InvalidInput(
            reason=f"{', '.join(both)} stands in {first} and in {second}: {why}.")


def _utc(field: str, text: str) -> str:
    try:
        return timeutils.normalize_time(timeutils.parse_isotime(text)).isoformat()
    except (ValueError, TypeError) as error:
        raise exception.InvalidInput(
            reason=f"{field} is no ISO 8601 time: {text}. Example: 2026-11-23T02:00:00Z."
        ) from error
