"""Sets of servers that move together: what they become, and which of them cannot.

Called by planning.plan before it groups, and again for what it had to give up. Never splits a set:
where one member has to stay, all stay.
"""

from collections.abc import Iterable, Mapping, Sequence

from nova_batch_migrate.planning import relaying
from nova_batch_migrate.planning.request import PlanRequest
from nova_batch_migrate.planning.telemetry import HostTelemetry


def merged(sets: Iterable[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Join sets that share a server; return them in the order of their first members.

    Who moves with two others makes all three move together. A set of one is none.
    """
    set_of: dict[str, list[str]] = {}
    for members in sets:
        joined: list[str] = []
        for server_id in members:
            for known in set_of.get(server_id, [server_id]):
                if known not in joined:
                    joined.append(known)
        for server_id in joined:
            set_of[server_id] = joined
    unique = {id(joined): joined for joined in set_of.values() if len(joined) > 1}
    return tuple(tuple(joined) for joined in unique.values())


def refusals(request: PlanRequest) -> dict[str, str]:
    """Return why members of sets that cannot move together stay, by server id.

    A relay has to let them go together, a set has to be on one source, whose nova-compute has to
    let as many migrate at once, and every member must be one that may move.
    """
    host_of = {server.id: host for host in request.hosts for server in host.servers}
    movable = {server.id for server in request.movable}
    reasons: dict[str, str] = {}
    for members in merged(request.synchronized):
        here = [i for i in members if i in movable]
        missing = [i for i in members if i not in movable]
        sources = sorted({host_of[i].host for i in here if i in host_of})
        if missing:
            reason = f"it moves together with {', '.join(missing)}, which cannot move"
        elif len(sources) > 1:
            reason = (f"it moves together with servers of {' and '.join(sources)}: a set has to "
                      "be on one host. Bring them to one host first, or leave the set out")
        elif (no_relay := _unrelayed(request, host_of[members[0]])) is not None:
            reason = f"it moves together with {len(members) - 1} others, and {no_relay}"
        elif len(members) > (most := host_of[members[0]].options.max_concurrent):
            reason = (f"it moves together with {len(members) - 1} others, and nova-compute of "
                      f"{sources[0]} lets {most} migrate at once: set [DEFAULT] "
                      f"max_concurrent_live_migrations there to {len(members)} or more, or make "
                      "the set smaller")
        else:
            continue
        reasons.update(dict.fromkeys(here, reason))
    return reasons


def _unrelayed(request: PlanRequest, host: HostTelemetry) -> str | None:
    if not request.relay:
        return "no relay carries the streams, which alone could let them go together"
    why = relaying.not_leaving(request, host)
    if why is not None:
        return f"only a relay lets them go together: {why}"
    if host.options.parallel_connections > 1:
        return (f"{host.host} sends memory over several connections "
                f"(live_migration_parallel_connections = {host.options.parallel_connections}), "
                "which can't be held together: set it to 1 there")
    return None


def unrelayed(source_reasons: Mapping[str, str], members: Sequence[str]) -> dict[str, str]:
    """Return why members of a set stay that goes past the relays, by server id."""
    why = next((source_reasons[i] for i in members if i in source_reasons), None)
    if why is None:
        return {}
    return dict.fromkeys(members, f"it moves together with {len(members) - 1} others, and only a "
                         f"relay lets them go together: {why}")


def cascade(sets: Sequence[Sequence[str]], lost: Mapping[str, str]) -> dict[str, str]:
    """Return why further members of sets stay, because those of `lost` (id -> reason) do."""
    reasons = {}
    for members in sets:
        staying = [i for i in members if i in lost]
        if staying:
            reason = f"it moves together with {', '.join(staying)}: {lost[staying[0]]}"
            reasons.update({i: reason for i in members if i not in lost})
    return reasons
