"""What is known of servers without measuring them, for a batch that has no time: figures that are
young, else the dirty rates of the last hour and how much memory is present.

Called by manager.py. Reads no contents; of a server without a history a few pages for some seconds.
"""

import dataclasses
import datetime

from oslo_log import log

from nova_batch_migrate import exception, privsep
from nova_batch_migrate.agent import disks, measurement, scan
from nova_batch_migrate.planning.telemetry import (
    PAGE_BYTES,
    DirtyModel,
    History,
    ServerTelemetry,
)

LOG = log.getLogger(__name__)

#: For which servers without a history are looked at.
LOOK_SECONDS = 3.0
#: What happens next differs from an hour's mean by this at the least, as a share.
LEAST_ERROR = 0.5


def recall(conf, parts: measurement.Parts, server_ids: list[str]) -> list[dict]:
    """Return the JSON of the servers' ServerTelemetry at once.

    What is not young has the dirty model of its history (source ``history``), the hour's spread as
    its error, and contents that count as unlike any other. Those that are not here, or have no
    memory, have ``id`` and ``error`` only.
    """
    known, rest, refused = [], [], []
    for server_id in server_ids:
        try:
            domain = parts.hypervisor.domain(server_id)
            reason = measurement.why_not(domain)
        except exception.AgentRefused as error:
            reason = str(error)
        if reason:
            refused.append({"id": server_id, "error": reason})
        elif (value := parts.recent.of(server_id)) is not None:
            # its numbers mean nothing beside those of another measurement
            known.append(dataclasses.replace(value, sequence=None))
        else:
            rest.append(domain)
    watches = {domain.id: disks.DiskWatch(parts.hypervisor, domain) for domain in rest}
    present = _look(parts, rest)
    known += [_telemetry(conf, domain, parts.sampler.history_of(domain),
                         present.get(domain.id), watches[domain.id].result()) for domain in rest]
    return [*(measurement.with_attempt(value, parts.feedback).to_dict() for value in known),
            *refused]


def _look(parts: measurement.Parts, domains: list) -> dict[str, int]:
    """Look at those without a history; return the pages that are present, by server id."""
    if not domains:
        return {}
    try:
        parts.sampler.look_at(domains, LOOK_SECONDS)
        return scan.resident([
            {"id": domain.id, "pid_file": domain.pid_file,
             "blocks_bytes": list(domain.definition.memory_blocks_bytes)} for domain in domains])
    except privsep.FAILURES:
        LOG.exception("guest memory cannot be looked at; it counts as full")
        return {}


def _telemetry(conf, domain, history: History | None, present_pages: int | None, domain_disks: list
               ) -> ServerTelemetry:
    definition = domain.definition
    total = definition.memory_bytes // PAGE_BYTES
    present = total if present_pages is None else min(total, present_pages)
    return ServerTelemetry(
        id=domain.id, name=definition.name, project_id=definition.project_id, host=conf.host,
        memory_bytes=definition.memory_bytes, vcpus=domain.vcpus, state=domain.presence.state,
        total_pages=total, present_pages=present, distinct_pages=present, contents_read=False,
        changed=model(history, total), history=history, disks=tuple(domain_disks),
        measured_at=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        source_note=_note(history))


def model(history: History | None, total_pages: int) -> DirtyModel:
    """Return what makes rounds as an hour's history knows it, with the hour's spread as error.

    Where windows of one length only are known, all of memory is taken for the working set: a page
    that is written again then counts again.
    """
    if history is None or not history.pages_per_second:
        return DirtyModel(source="history", relative_error=LEAST_ERROR)
    rates = history.pages_per_second
    mean = sum(rates) / len(rates)
    spread = max(rates) / mean - 1.0 if mean > 0 else 0.0
    found = history.model or DirtyModel(mean, float(total_pages) if mean > 0 else 0.0)
    return dataclasses.replace(found, source="history", relative_error=max(
        LEAST_ERROR, spread, found.relative_error))


def _note(history: History | None) -> str:
    if history is None:
        return "not measured, as asked for (urgent): no dirty rate is known, none is taken for it"
    minutes = (history.at_seconds[-1] - history.at_seconds[0]) / 60
    return (f"not measured, as asked for (urgent): the dirty rate of {len(history.at_seconds)} "
            f"looks in the last {minutes:.0f} min; its memory counts as unlike any other")
