"""Telemetry as it comes, by RPC or in a file: one wrong figure spoils no plan.

Called by the conductor with what an agent answered, and by nova-batch-plan with a file. What cannot
be read is left out, and named where the plan tells it: in the server's `error` or the host's
`unreadable`. Whether what was read can be true is planning.doubt's. Never guesses a figure.
"""

from nova_batch_migrate import exception
from nova_batch_migrate.planning import values
from nova_batch_migrate.planning.request import PlanRequest
from nova_batch_migrate.planning.telemetry import (
    Bandwidth,
    Confirmation,
    HostTelemetry,
    MigrationOptions,
    PageClasses,
    Portions,
    ServerTelemetry,
    Sketch,
)

#: What is known of a server without its memory having been read.
_BESIDE_MEMORY = ("name", "project_id", "host", "memory_bytes", "vcpus", "state", "disks")
#: Fields of a host that a plan does without, and what is then not known.
_OPTIONAL = {
    "page_classes": (PageClasses, "nothing is known to be in common"),
    "mapped_classes": (PageClasses, "nothing is known to be mapped by two servers"),
    "portions": (Portions, "no blocks are known to be in common"),
    "confirmation": (Confirmation, "nothing is known to have been compared byte by byte"),
    "sketch": (Sketch, "nothing is known to be in common with other hosts"),
}
UNKNOWN_LINK = Bandwidth("", 0.0, 0.0, 0.0, "unknown")


def plan_request(data: dict) -> PlanRequest:
    """Read a request; raise PlanningError, naming the field, for what is no telemetry's."""
    if isinstance(data, dict) and isinstance(data.get("hosts"), list):
        data = {**data, "hosts": [host(each, f"PlanRequest.hosts[{at}]")
                                  for at, each in enumerate(data["hosts"])]}
    return PlanRequest.from_dict(data)


def host(data: dict, where: str = "HostTelemetry") -> HostTelemetry:
    """Read a host's telemetry without what cannot be read of it.

    Raises PlanningError where there are no servers, or one without an id.
    """
    if not isinstance(data, dict) or not isinstance(data.get("servers"), (list, tuple)):
        return HostTelemetry.from_dict(data, where)
    name = data.get("host")
    lost = list(_readable(HostTelemetry, data, ["unreadable"]).get("unreadable", ()))
    kept = {**data, "servers": [server(each, str(name), where=f"{where}.servers[{at}]")
                                for at, each in enumerate(data["servers"])]}
    for field, (kind, consequence) in _OPTIONAL.items():
        try:
            kept[field] = None if data.get(field) is None else kind.from_dict(
                data[field], f"{where}.{field}")
        except exception.PlanningError as error:
            kept[field] = None
            lost.append(f"{name}: {consequence}: {error.reason}. Measure the host again.")
    try:
        kept["bandwidth"] = Bandwidth.from_dict(data.get("bandwidth"), f"{where}.bandwidth")
    except exception.PlanningError as error:
        kept["bandwidth"] = UNKNOWN_LINK
        lost.append(f"{name}: nothing is known of the migration link: {error.reason}.")
    kept["options"] = options(data.get("options"))
    return HostTelemetry.from_dict({**kept, "unreadable": lost}, where)


def server(data: dict, host_name: str = "", name: str = "", where: str | None = None
           ) -> ServerTelemetry:
    """Read a server's telemetry; where a figure is none (NaN, below 0), it says that in `error`.

    It is then planned by its memory size. Raises PlanningError for one without an id.
    """
    try:
        return ServerTelemetry.from_dict(data, where)
    except exception.PlanningError as error:
        if not isinstance(data, dict) or not isinstance(data.get("id"), str):
            raise
        known = {"name": name} | _readable(ServerTelemetry, data, _BESIDE_MEMORY)
        return ServerTelemetry.from_dict({
            **known, "id": data["id"], "host": host_name or known.get("host", ""),
            "error": f"its figures cannot be true: {error.reason}"})


def options(data: dict | None) -> MigrationOptions:
    """Read Nova's options; one that cannot be read has Nova's default and is named in `assumed`."""
    data = data if isinstance(data, dict) else {}
    try:
        return MigrationOptions.from_dict(data)
    except exception.PlanningError:
        known = _readable(MigrationOptions, data, data)
        lost = [MigrationOptions.nova_name(field) for field in data if field not in known]
        return MigrationOptions.from_dict({
            **known, "assumed": sorted({*known.get("assumed", ()), *lost})})


def _readable(kind: type[values.Value], data: dict, fields) -> dict:
    """Return those of the fields that are there and can be read."""
    known = {}
    for field in fields:
        if field not in data:
            continue
        try:
            values.read(kind, field, data[field])
        except exception.PlanningError:
            continue
        known[field] = data[field]
    return known
