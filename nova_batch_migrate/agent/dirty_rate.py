"""The dirty rate of servers: QEMU's page sampling, and the choice between it and content diff.

Used by measurement.py; the content diff itself is scan.py's. Never asks QEMU for dirty-bitmap or
dirty-ring (design 5).
"""

import dataclasses
import math
import time

from oslo_log import log

from nova_batch_migrate import exception
from nova_batch_migrate.planning import dirty_model
from nova_batch_migrate.planning.telemetry import PAGE_BYTES, DirtyModel, DirtyWindow

LOG = log.getLogger(__name__)

#: libvirt's call takes whole seconds; two lengths show saturation.
SAMPLING_SECONDS = (1, 3)
#: QEMU's default, which libvirt's call cannot change.
SAMPLES_PER_GIB = 512
_PAGES_PER_MIB = (1 << 20) // PAGE_BYTES
_PAGES_PER_GIB = (1 << 30) // PAGE_BYTES
_SLICE_PAGES = 512
_POLL_SECONDS = 0.2
_OVERDUE_SECONDS = 5


def sample(hypervisor, server_ids: list[str],
           windows_seconds: tuple[int, ...] = SAMPLING_SECONDS) -> dict[str, list[DirtyWindow]]:
    """Let every QEMU sample its pages, all at the same time; return the windows of each server.

    A server whose QEMU refuses or does not come to an end has fewer windows, or none.
    """
    found: dict[str, list[DirtyWindow]] = {server: [] for server in server_ids}
    for seconds in windows_seconds:
        waiting = {server for server in server_ids if _start(hypervisor, server, seconds)}
        if not waiting:
            continue
        deadline = time.monotonic() + seconds + _OVERDUE_SECONDS
        time.sleep(seconds)
        while waiting and time.monotonic() < deadline:
            for server in sorted(waiting):
                window = _result(hypervisor, server, seconds)
                if window is not None:
                    found[server].append(window)
                    waiting.discard(server)
            if waiting:
                time.sleep(_POLL_SECONDS)
    return found


def _start(hypervisor, server: str, seconds: int) -> bool:
    try:
        hypervisor.start_dirty_rate(server, seconds)
        return True
    except exception.AgentRefused as error:
        LOG.info("no page sampling of server %s: %s", server, error)
        return False


def _result(hypervisor, server: str, seconds: int) -> DirtyWindow | None:
    try:
        mib_s = hypervisor.dirty_rate_mib_s(server)
    except exception.AgentRefused as error:
        LOG.info("no page sampling of server %s: %s", server, error)
        return None
    if mib_s is None:
        return None
    return DirtyWindow(float(seconds), float(mib_s * seconds * _PAGES_PER_MIB), "page-sampling")


def choose(memory_pages: int, content: list[DirtyWindow], tracked_share: float,
           sampled: list[DirtyWindow]) -> tuple[DirtyModel, str]:
    """Return the better founded model of changed pages and a sentence on how it was chosen.

    ``content`` are windows of which ``tracked_share`` of memory was compared page by page; either
    list may be empty. Better founded is the smaller relative error.
    """
    models = []
    if content:
        model = dirty_model.fit(content, memory_pages)
        models.append(_at_least(model, _cluster_error(content, tracked_share)))
    if sampled:
        model = dirty_model.fit(sampled, memory_pages)
        models.append(_at_least(model, _hit_error(sampled, memory_pages)))
    if not models:
        return DirtyModel(), "no dirty rate could be measured"
    models.sort(key=lambda model: model.relative_error)
    note = ", not ".join(
        f"{model.source} ({model.rate_pages_per_second:.0f} pages/s in "
        f"{model.working_set_pages:.0f} pages, error {100 * model.relative_error:.0f} %)"
        for model in models)
    return models[0], f"dirty rate by {note}"


def _at_least(model: DirtyModel, error: float) -> DirtyModel:
    return dataclasses.replace(model, relative_error=min(1.0, max(model.relative_error, error)))


def _hit_error(windows: list[DirtyWindow], memory_pages: int) -> float:
    """Counting error of page sampling: few samples, fewer hits; none at all tells nothing."""
    samples = SAMPLES_PER_GIB * memory_pages / _PAGES_PER_GIB
    hits = samples * sum(window.changed_pages for window in windows) / memory_pages
    return 1 / math.sqrt(max(1.0, hits))


def _cluster_error(windows: list[DirtyWindow], tracked_share: float) -> float:
    """Error from comparing whole slices of a share of memory, where written pages lie together."""
    changed_slices = tracked_share * max(w.changed_pages for w in windows) / _SLICE_PAGES
    return math.sqrt(max(0.0, 1 - tracked_share) / max(1.0, changed_slices))
