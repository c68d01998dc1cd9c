"""Which streams a relay carries, and why not the others: per source, server and destination.

Called by planning.source and planning.plan. A reason is a text for the operator; None means that a
relay can carry the stream. Whether that pays is the plan's comparison of both projections.
"""

import math
from collections.abc import Iterable

from nova_batch_migrate.planning.request import PlanRequest, RelayHost
from nova_batch_migrate.planning.telemetry import HostTelemetry

MIB = 1024 ** 2
_DECIDE_ON_RELAYS = {"live_migration_with_native_tls", "live_migration_permit_post_copy"}


def unrelayed(host: HostTelemetry) -> str | None:
    """Return why no relay can carry the streams that leave a host; None where one can."""
    if host.options.native_tls:
        return (f"{host.host}: QEMU encrypts its streams itself (live_migration_with_native_tls): "
                "no relay can find in them what is there already.")
    if host.options.permit_post_copy:
        return (f"{host.host}: Nova may go over to post-copy (live_migration_permit_post_copy), "
                "and a guest then depends on the connection: no relay is put into it.")
    unknown = sorted(_DECIDE_ON_RELAYS & set(host.options.assumed))
    if unknown:
        return (f"{host.host}: {' and '.join(unknown)} could not be read, so no relay is reckoned "
                "with. Set [agent] nova_config_files to what nova-compute reads.")
    return None


def not_leaving(request: PlanRequest, host: HostTelemetry) -> str | None:
    """Return why a relay carries nothing that leaves a host, in this request."""
    if request.dedup_scope == "off":
        return "dedup_scope is off"
    if not _answers(request, host.host):
        return f"{host.host}: no nova-batch-relay answers there"
    return unrelayed(host)


def not_arriving(request: PlanRequest, host: str) -> str | None:
    """Return why a relay carries nothing to a destination."""
    return None if _answers(request, host) else f"no nova-batch-relay answers on {host}"


def speed(request: PlanRequest, hosts: tuple[str, ...], reference_share: float) -> float:
    """Return the raw bytes/s that the relays of these hosts can work through; inf: nobody knows.

    `reference_share` of the pages cross as references, which costs them less.
    """
    if not request.relays:
        return math.inf
    return slowest((relay for host in hosts for relay in request.relays_at.get(host, ())),
                   reference_share)


def slowest(relays: Iterable[RelayHost], reference_share: float) -> float:
    """Return the raw bytes/s of the slowest of these relays, as `speed`."""
    return min((1.0 / (reference_share / relay.known_bytes_per_second
                       + (1.0 - reference_share) / relay.new_bytes_per_second)
                for relay in relays
                if relay.new_bytes_per_second and relay.known_bytes_per_second), default=math.inf)


def _answers(request: PlanRequest, host: str) -> bool:
    return request.relays is None or host in request.relays_at
