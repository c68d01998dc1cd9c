"""One measurement of servers of this host: memory content, dirty rates and disks put together.

Called by jobs.py in a thread of its own. A guest that is migrating is not measured (design 5); one
that was measured a moment ago is not measured again.
"""

import concurrent.futures
import dataclasses
import datetime
import time

from oslo_log import log

from nova_batch_migrate import exception, privsep
from nova_batch_migrate.agent import (
    dirty_rate,
    disks,
    domains,
    feedback,
    frames,
    keys,
    memory,
    sampler,
    scan,
)
from nova_batch_migrate.planning import dirty_model
from nova_batch_migrate.planning.telemetry import (
    PAGE_BYTES,
    DirtyWindow,
    History,
    PageClasses,
    PageSequence,
    ServerTelemetry,
)

LOG = log.getLogger(__name__)

MIB = 1 << 20


class Recent:
    """Telemetry of servers that were measured completely, for as long as it is young."""

    def __init__(self, reuse_seconds: float):
        self.reuse_seconds = reuse_seconds
        self._held: dict[str, tuple[float, ServerTelemetry]] = {}
        #: Since when nothing that was read of a server before is to be used.
        self._spoilt: dict[str, float] = {}

    def keep(self, value: ServerTelemetry) -> None:
        """Take what was just measured; what is too old to be used is forgotten."""
        now = time.monotonic()
        self._held = {server: held for server, held in self._held.items()
                      if now - held[0] < self.reuse_seconds}
        self._held[value.id] = (now, value)
        self._spoilt.pop(value.id, None)

    def spoil(self, server_id: str) -> None:
        """Let a server be read anew: it migrated while it was read."""
        now = time.monotonic()
        self._spoilt = {server: at for server, at in self._spoilt.items()
                        if now - at < self.reuse_seconds} | {server_id: now}

    def is_spoilt(self, server_id: str) -> bool:
        """Return whether what the privileged process remembers of a server is not to be used."""
        return server_id in self._spoilt

    def of(self, server_id: str) -> ServerTelemetry | None:
        """Return a server's telemetry if it is young enough."""
        at, value = self._held.get(server_id, (0.0, None))
        return value if value and time.monotonic() - at < self.reuse_seconds else None


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a measurement asks beside libvirt; made once by the agent's service."""

    hypervisor: domains.Hypervisor
    keys: keys.KeySource
    sampler: sampler.Sampler
    feedback: feedback.Feedback
    recent: Recent = dataclasses.field(default_factory=lambda: Recent(0.0))


def measure(conf, parts: Parts, job: str, server_ids: list[str], windows_seconds: list[float],
            max_wait_seconds: float = 0.0, seconds: float = 0.0) -> tuple[list[dict], dict]:
    """Measure servers; return the JSON of their ServerTelemetry, and what they have in common.

    The latter by the names of HostTelemetry's fields, null where it was not looked for. A server
    that can't be measured has ``id`` and ``error`` only. With ``max_wait_seconds`` (how long one
    may wait for a quiet moment) servers without much history are followed to find their period
    ([0072]). Reading takes about ``seconds`` at most where that is not 0: what was not read by then
    is counted as unlike anything else.
    """
    hypervisor = parts.hypervisor
    refused, watches = {}, {}
    measured = []
    for server_id in server_ids:
        try:
            domain = hypervisor.domain(server_id)
            reason = why_not(domain)
        except exception.AgentRefused as error:
            reason = str(error)
        if reason:
            refused[server_id] = reason
        else:
            measured.append(domain)
            watches[server_id] = disks.DiskWatch(hypervisor, domain)
    with concurrent.futures.ThreadPoolExecutor(2) as beside:
        asking = beside.submit(
            dirty_rate.ask_qemu, hypervisor,
            [domain for domain in measured if parts.recent.of(domain.id) is None], conf.agent,
            seconds)
        following = beside.submit(parts.sampler.follow_for, measured, max_wait_seconds)
        counts, host = _scan(conf, parts, job, measured, windows_seconds, seconds)
        sampled, touched = asking.result()
        following.result()
    values = []
    for domain in measured:
        reason = _moved(hypervisor, domain.id)
        if reason:
            refused[domain.id] = reason
            parts.recent.spoil(domain.id)
            continue
        rates = _Rates(sampled.get(domain.id, []), touched.get(domain.id, dirty_rate.Touched()),
                       parts.sampler.history_of(domain))
        value = _value(conf, parts.recent, domain, counts[domain.id], rates, watches[domain.id])
        values.append(with_attempt(value, parts.feedback).to_dict())
    values += [{"id": server_id, "error": reason} for server_id, reason in refused.items()]
    return values, host


def _value(conf, recent: Recent, domain, counts: dict, rates, watch) -> ServerTelemetry:
    """Return a server's telemetry: young figures again, with what is counted anew each time."""
    value = recent.of(domain.id)
    if value is None or not counts.get("reused"):
        value = _telemetry(conf, domain, counts, rates, watch.result())
        if value.error is None and counts.get("complete"):
            recent.keep(value)
    sequence = counts.get("sequence")
    return dataclasses.replace(value, history=rates.history,
                               sequence=sequence and PageSequence.from_dict(sequence))


@dataclasses.dataclass(frozen=True)
class _Rates:
    """What is known of a server's dirty rate beside content diff."""

    sampled: list[DirtyWindow]
    touched: dirty_rate.Touched
    history: History | None


def with_attempt(value: ServerTelemetry, seen: feedback.Feedback) -> ServerTelemetry:
    """Return the figures with the touched pages that the latest attempt to migrate showed.

    However young the figures: an attempt that ended since they were taken knows more. What QEMU was
    asked for stands.
    """
    if value.error is not None or value.touched is not None:
        return value
    windows = seen.windows(value.id)
    model = dirty_rate.touched_model(value.changed, windows, value.total_pages)
    if model is None:
        return value
    return dataclasses.replace(
        value, touched=model, windows=(*value.windows, *windows), source_note=(
            f"{value.source_note}; touched pages as its latest attempt to migrate showed them"))


def why_not(domain) -> str | None:
    """Return why a domain's memory is not to be looked at; None where it may be."""
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


def _scan(conf, parts: Parts, job: str, measured: list, windows_seconds: list[float],
          seconds: float):
    """Return counts by server id, and what they have in common, from the privileged processes."""
    wanted = [{"id": domain.id, "pid_file": domain.pid_file,
               "blocks_bytes": list(domain.definition.memory_blocks_bytes)}
              | ({"anew": True} if parts.recent.is_spoilt(domain.id) else {})
              for domain in measured]
    key = parts.keys.current(datetime.datetime.now(datetime.UTC))
    settings = scan.Settings(
        seed=key.seed, page_budget=conf.agent.page_budget,
        read_bytes_per_second=conf.agent.read_mib_s * MIB, seconds=seconds,
        reuse_seconds=parts.recent.reuse_seconds, sketch_key=key.sketch_key,
        sketch_key_id=key.key_id, portion_bytes=conf.agent.portion_bytes)
    try:
        found = scan.measure(job, wanted, windows_seconds, dataclasses.asdict(settings))
    except privsep.FAILURES as error:
        LOG.exception("guest memory cannot be read")
        reason = f"the privileged process failed: {error}"
        return ({domain.id: {"error": reason} for domain in measured},
                {"page_classes": PageClasses(exact=False, theta=1.0).to_dict()})
    counts = {counted["id"]: counted for counted in found.pop("servers")}
    return counts, found | {"mapped_classes": _mapped(conf, wanted)}


def _mapped(conf, wanted: list[dict]) -> dict | None:
    """Return the page frames that servers map together, if the operator wants them looked at."""
    if not conf.agent.mapped_pages:
        return None
    try:
        return frames.mapped(wanted, conf.agent.page_budget, conf.agent.read_mib_s * MIB)
    except privsep.FAILURES:
        LOG.exception("page frames cannot be looked at; set [nova_batch_frames] helper_command")
        return None


def _telemetry(conf, domain, counts: dict, rates: _Rates, domain_disks: list) -> ServerTelemetry:
    definition = domain.definition
    total_pages = definition.memory_bytes // PAGE_BYTES
    content = [DirtyWindow(window["seconds"], window["changed_pages"], "content-diff")
               for window in counts.get("windows", ())]
    if not content and not rates.sampled:
        return ServerTelemetry(id=domain.id, name=definition.name, host=conf.host,
                               error=counts.get("error", "no dirty rate could be measured"))
    always = counts.get("always")
    changed, note = dirty_rate.choose(
        total_pages, content, counts.get("tracked_share", 0.0), rates.sampled,
        conf.agent.page_sampling_per_gib, counts.get("slice_pages", memory.SLICE_PAGES),
        always and dirty_model.Always(tuple(always["gaps_seconds"]), always["pages"]))
    touched = dirty_rate.touched_model(changed, list(rates.touched.windows), total_pages)
    if touched is not None:
        note += f"; {rates.touched.note}"
    if "error" in counts:
        note += f"; memory is counted as full and unlike any other: {counts['error']}"
    else:
        note += _caveats(counts)
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
        swapped_pages=counts.get("swapped_pages", 0),
        contents_read=counts.get("complete", "error" not in counts),
        touched=touched,
        changed=changed,
        windows=(*content, *rates.sampled, *rates.touched.windows),
        history=rates.history,
        compress_unchanged=counts.get("compress_unchanged"),
        compress_changed=counts.get("compress_changed"),
        compress_own=counts.get("compress_own"),
        compress_own_behind_like=counts.get("compress_own_behind_like"),
        compress_shared=counts.get("compress_shared"),
        disks=tuple(domain_disks),
        measured_at=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        source_note=note,
    )


def _caveats(counts: dict) -> str:
    """Return what of a guest was not looked at, and what it is taken for."""
    said = ""
    if counts["tracked_share"] < 1:
        said += f"; {100 * counts['tracked_share']:.2g} % of memory was compared"
    if not counts.get("complete", True):
        said += "; its contents were not read in the time allowed and count as unlike any other"
    if counts.get("swapped_pages"):
        said += (f"; {counts['swapped_pages']} pages in swap, or that QEMU has not mapped, were "
                 "not read and count as unlike any other")
    return said
