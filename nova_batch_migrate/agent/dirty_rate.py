"""The dirty rate of servers: what QEMU tells of it, and the choice between that and content diff.

Used by measurement.py; the content diff itself is scan.py's. Asks QEMU for page sampling only,
unless the operator has allowed another mode for this very QEMU; never while a guest migrates
(design 5).
"""

import dataclasses
import math
import time

from oslo_log import log

from nova_batch_migrate import exception, privsep
from nova_batch_migrate.agent import emulator
from nova_batch_migrate.planning import dirty_model
from nova_batch_migrate.planning.telemetry import PAGE_BYTES, DirtyModel, DirtyWindow

LOG = log.getLogger(__name__)

#: libvirt's call takes whole seconds; several lengths show saturation.
SAMPLING_SECONDS = (1, 2, 4)
#: Of the time that a measurement may take; the shortest two lengths are always tried.
_SAMPLING_SHARE = 0.5
#: QEMU's default, which libvirt's call cannot change.
SAMPLES_PER_GIB = 512
_PAGES_PER_MIB = (1 << 20) // PAGE_BYTES
_PAGES_PER_GIB = (1 << 30) // PAGE_BYTES
_SLICE_PAGES = 512
_POLL_SECONDS = 0.2
_OVERDUE_SECONDS = 5
#: Windows of lengths closer than this show no working set of their own.
_LEAST_SPREAD = 2.0
#: What the pages of a single round, or of windows of one length, are taken to be off.
_ROUND_ERROR = 0.1


@dataclasses.dataclass(frozen=True)
class Touched:
    """Windows of pages that were written to, changed or not, and where they are from."""

    windows: tuple[DirtyWindow, ...] = ()
    note: str = ""


def ask_qemu(hypervisor, domains: list, conf, seconds: float = 0.0
             ) -> tuple[dict[str, list[DirtyWindow]], dict[str, Touched]]:
    """Let every QEMU measure, all at the same time; return windows of changed and touched pages.

    ``conf`` is the group [agent]; ``seconds`` what the whole measurement may take (0: no limit),
    for which the longest windows are left out where they would outlast it. A server whose QEMU
    refuses, does not come to an end, or which begins to migrate has fewer windows, or none.
    """
    sampled: dict[str, list[DirtyWindow]] = {domain.id: [] for domain in domains}
    lengths = _lengths(seconds)
    if conf.page_sampling:
        sampled = _measure(hypervisor, dict.fromkeys(sampled, "page-sampling"), lengths,
                           conf.page_sampling_per_gib)
    modes = allowed_modes(hypervisor, domains, conf.dirty_rate_modes)
    touched = {
        server: Touched(tuple(windows), f"touched pages by {modes[server]}, allowed by "
                        "[agent] dirty_rate_modes and not verified by this project")
        for server, windows in _measure(hypervisor, modes, lengths).items() if windows}
    return sampled, touched


def allowed_modes(hypervisor, domains: list, entries: list[str]) -> dict[str, str]:
    """Return the mode in which each server's QEMU may be asked; nobody without an entry for it."""
    if not entries:
        return {}
    _, version = hypervisor.versions()
    allowed = {}
    for domain in domains:
        modes = [mode for found, accelerator, mode in (entry.split("/") for entry in entries)
                 if (found, accelerator) == (version, domain.definition.virt_type)]
        if not modes:
            continue
        try:
            is_installed = emulator.runs_installed(domain.pid_file, domain.id,
                                                   domain.definition.emulator)
        except privsep.FAILURES as error:
            LOG.warning("which program server %s runs can't be told: %s", domain.id, error)
            continue
        if is_installed:
            allowed[domain.id] = modes[0]
        else:
            LOG.info("server %s does not run the QEMU that is installed: %s is not asked of it",
                     domain.id, modes[0])
    return allowed


def _lengths(seconds: float) -> tuple[int, ...]:
    """Return the lengths of windows, one after the other, that fit into so many seconds."""
    if not seconds:
        return SAMPLING_SECONDS
    most = _SAMPLING_SHARE * seconds
    return tuple(length for at, length in enumerate(SAMPLING_SECONDS)
                 if at < 2 or sum(SAMPLING_SECONDS[:at + 1]) <= most)


def _measure(hypervisor, modes: dict[str, str], lengths: tuple[int, ...],
             samples_per_gib: int = 0) -> dict[str, list[DirtyWindow]]:
    """Return the windows of each server, measured in its mode."""
    found: dict[str, list[DirtyWindow]] = {server: [] for server in modes}
    for seconds in lengths:
        waiting = {server for server, mode in modes.items()
                   if _start(hypervisor, server, seconds, mode, samples_per_gib)}
        if not waiting:
            continue
        deadline = time.monotonic() + seconds + _OVERDUE_SECONDS
        time.sleep(seconds)
        while waiting and time.monotonic() < deadline:
            for server in sorted(waiting):
                window = _result(hypervisor, server, seconds, modes[server])
                if window is not None:
                    waiting.discard(server)
                    # what a migration wrote to the dirty log meanwhile is no guest's
                    if not _migrates(hypervisor, server):
                        found[server].append(window)
            if waiting:
                time.sleep(_POLL_SECONDS)
    return found


def _migrates(hypervisor, server: str) -> bool:
    presence = hypervisor.presence(server)
    return presence is None or presence.migrating


def _start(hypervisor, server: str, seconds: int, mode: str, samples_per_gib: int) -> bool:
    try:
        if _migrates(hypervisor, server):
            return False
        hypervisor.start_dirty_rate(server, seconds, mode, samples_per_gib)
        return True
    except exception.AgentRefused as error:
        LOG.info("no %s of server %s: %s", mode, server, error)
        return False


def _result(hypervisor, server: str, seconds: int, mode: str) -> DirtyWindow | None:
    try:
        mib_s = hypervisor.dirty_rate_mib_s(server)
    except exception.AgentRefused as error:
        LOG.info("no %s of server %s: %s", mode, server, error)
        return None
    if mib_s is None:
        return None
    return DirtyWindow(float(seconds), float(mib_s * seconds * _PAGES_PER_MIB), mode)


def touched_model(changed: DirtyModel, windows: list[DirtyWindow],
                  memory_pages: int) -> DirtyModel | None:
    """Return the model of touched pages; None without a window that shows any.

    Windows of unlike lengths are fitted. Those of one length, as of a single round of a migration,
    say how many times more pages are touched than changed: the model of changed pages is scaled.
    """
    windows = [window for window in windows if window.seconds > 0 and window.changed_pages > 0]
    if not windows:
        return None
    lengths = [window.seconds for window in windows]
    seen = sum(window.changed_pages for window in windows)
    expected = sum(changed.pages(window.seconds) for window in windows)
    if max(lengths) >= _LEAST_SPREAD * min(lengths) or expected <= 0:
        return dirty_model.fit(windows, memory_pages)
    # whatever was changed has been touched
    model = dirty_model.scaled(changed, max(1.0, seen / expected), memory_pages)
    return dataclasses.replace(_at_least(model, _ROUND_ERROR), source=windows[0].source)


def choose(memory_pages: int, content: list[DirtyWindow], tracked_share: float,
           sampled: list[DirtyWindow], samples_per_gib: int = 0,
           slice_pages: int = _SLICE_PAGES, always: dirty_model.Always | None = None
           ) -> tuple[DirtyModel, str]:
    """Return the better founded model of changed pages and a sentence on how it was chosen.

    ``content`` are windows of which ``tracked_share`` of memory was compared page by page, in
    slices of ``slice_pages``; either list may be empty. ``always`` is what these looks tell of hot
    pages. Better founded is the smaller relative error.
    """
    models = []
    if content:
        model = dirty_model.fit(content, memory_pages, always)
        models.append(_at_least(model, _cluster_error(content, tracked_share, slice_pages)))
    if sampled:
        model = dirty_model.fit(sampled, memory_pages)
        models.append(_at_least(model, _hit_error(sampled, memory_pages,
                                                  samples_per_gib or SAMPLES_PER_GIB)))
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


def _hit_error(windows: list[DirtyWindow], memory_pages: int, samples_per_gib: int) -> float:
    """Counting error of page sampling: few samples, fewer hits; none at all tells nothing."""
    samples = samples_per_gib * memory_pages / _PAGES_PER_GIB
    hits = samples * sum(window.changed_pages for window in windows) / memory_pages
    return 1 / math.sqrt(max(1.0, hits))


def _cluster_error(windows: list[DirtyWindow], tracked_share: float, slice_pages: int) -> float:
    """Error from comparing whole slices of a share of memory, where written pages lie together."""
    changed_slices = tracked_share * max(w.changed_pages for w in windows) / slice_pages
    return math.sqrt(max(0.0, 1 - tracked_share) / max(1.0, changed_slices))
