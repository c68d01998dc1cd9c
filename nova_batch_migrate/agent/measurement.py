"""One measurement of servers of this host: memory content, dirty rates and disks put together.

Called by jobs.py in a thread of its own. A guest that is migrating is not measured (design 5).
"""

import concurrent.futures
import dataclasses
import datetime

from oslo_log import log

from nova_batch_migrate import exception, privsep
from nova_batch_migrate.agent import (
    dirty_rate,
    disks,
    domains,
    feedback,
    keys,
    sampler,
    scan,
)
from nova_batch_migrate.planning.telemetry import (
    PAGE_BYTES,
    DirtyWindow,
    History,
    PageClasses,
    ServerTelemetry,
)

LOG = log.getLogger(__name__)

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a measurement asks beside libvirt; made once by the agent's service."""

    hypervisor: domains.Hypervisor
    keys: keys.KeySource
    sampler: sampler.Sampler
    feedback: feedback.Feedback


def measure(conf, parts: Parts, job: str, server_ids: list[str], windows_seconds: list[float],
            max_wait_seconds: float = 0.0) -> tuple[list[dict], dict]:
    """Measure servers; return the JSON of their ServerTelemetry and of their PageClasses.

    A server that can't be measured has ``id`` and ``error`` only. With ``max_wait_seconds`` (how
    long one may wait for a quiet moment) servers without much history are followed to find their
    period ([0072]).
    """
    hypervisor = parts.hypervisor
    refused, watches = {}, {}
    measured = []
    for server_id in server_ids:
        try:
            domain = hypervisor.domain(server_id)
            reason = _why_not(domain)
        except exception.AgentRefused as error:
            reason = str(error)
        if reason:
            refused[server_id] = reason
        else:
            measured.append(domain)
            watches[server_id] = disks.DiskWatch(hypervisor, domain)
    with concurrent.futures.ThreadPoolExecutor(2) as beside:
        asking = beside.submit(dirty_rate.ask_qemu, hypervisor, measured, conf.agent)
        following = beside.submit(parts.sampler.follow_for, measured, max_wait_seconds)
        counts, page_classes = _scan(conf, parts.keys, job, measured, windows_seconds)
        sampled, touched = asking.result()
        following.result()
    values = []
    for domain in measured:
        reason = _moved(hypervisor, domain.id)
        if reason:
            refused[domain.id] = reason
            continue
        rates = _Rates(sampled.get(domain.id, []),
                       touched.get(domain.id) or _fed_back(parts.feedback, domain.id),
                       parts.sampler.history_of(domain))
        value = _telemetry(conf, domain, counts[domain.id], rates, watches[domain.id].result())
        values.append(value.to_dict())
    values += [{"id": server_id, "error": reason} for server_id, reason in refused.items()]
    return values, page_classes


@dataclasses.dataclass(frozen=True)
class _Rates:
    """What is known of a server's dirty rate beside content diff."""

    sampled: list[DirtyWindow]
    touched: dirty_rate.Touched
    history: History | None


def _fed_back(seen: feedback.Feedback, server_id: str) -> dirty_rate.Touched:
    windows = seen.windows(server_id)
    return dirty_rate.Touched(tuple(windows), "touched pages as its latest attempt to migrate "
                              "showed them" if windows else "")


def _why_not(domain) -> str | None:
    if not domain.has_memory:
        return f"it is {domain.presence.state}: there is no memory to measure"
    if domain.presence.post_copy:
        return "it is in post-copy: reading its memory would disturb the migration"
    if domain.presence.migrating:
        return "it is migrating"
    return None


def _moved(hypervisor, server_id: str) -> str | None:
    presence = hypervisor.presence(server_id)
    if presence is None:
        return "it left this host while it was measured"
    if presence.migrating:
        return "it began to migrate while it was measured"
    return None


def _scan(conf, key_source, job: str, measured: list, windows_seconds: list[float]):
    """Return counts by server id, and the page classes, from the privileged process."""
    wanted = [{"id": domain.id, "pid_file": domain.pid_file,
               "blocks_bytes": list(domain.definition.memory_blocks_bytes)}
              for domain in measured]
    key = key_source.current(datetime.datetime.now(datetime.UTC))
    try:
        found = scan.measure(job, wanted, windows_seconds, key.seed, conf.agent.page_budget,
                             conf.agent.read_mib_s * MIB)
    except privsep.FAILURES as error:
        LOG.exception("guest memory cannot be read")
        reason = f"the privileged process failed: {error}"
        return ({domain.id: {"error": reason} for domain in measured},
                PageClasses(exact=False, theta=1.0).to_dict())
    return {counted["id"]: counted for counted in found["servers"]}, found["page_classes"]


def _telemetry(conf, domain, counts: dict, rates: _Rates, domain_disks: list) -> ServerTelemetry:
    definition = domain.definition
    total_pages = definition.memory_bytes // PAGE_BYTES
    content = [DirtyWindow(window["seconds"], window["changed_pages"], "content-diff")
               for window in counts.get("windows", ())]
    if not content and not rates.sampled:
        return ServerTelemetry(id=domain.id, name=definition.name, host=conf.host,
                               error=counts.get("error", "no dirty rate could be measured"))
    changed, note = dirty_rate.choose(total_pages, content, counts.get("tracked_share", 0.0),
                                      rates.sampled, conf.agent.page_sampling_per_gib)
    touched = dirty_rate.touched_model(changed, list(rates.touched.windows), total_pages)
    if touched is not None:
        note += f"; {rates.touched.note}"
    if "error" in counts:
        note += f"; memory is counted as full and unlike any other: {counts['error']}"
    elif counts["tracked_share"] < 1:
        note += f"; {100 * counts['tracked_share']:.0f} % of memory was compared"
    return ServerTelemetry(
        id=domain.id,
        name=definition.name,
        project_id=definition.project_id,
        host=conf.host,
        memory_bytes=definition.memory_bytes,
        vcpus=domain.vcpus,
        state=domain.presence.state,
        total_pages=total_pages,
        present_pages=counts.get("present_pages", total_pages),
        zero_pages=counts.get("zero_pages", 0),
        distinct_pages=counts.get("distinct_pages", total_pages),
        self_duplicate_pages=counts.get("self_duplicate_pages", 0),
        touched=touched,
        changed=changed,
        windows=(*content, *rates.sampled, *rates.touched.windows),
        history=rates.history,
        compress_unchanged=counts.get("compress_unchanged"),
        compress_changed=counts.get("compress_changed"),
        disks=tuple(domain_disks),
        measured_at=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        source_note=note,
    )
