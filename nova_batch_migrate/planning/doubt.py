"""What in a host's telemetry cannot be true, and what is then planned without.

Called by planning.source on what agents sent. A server whose counts contradict each other counts as
not measured, with the reason in the plan: projected from its memory size alone, without a discount.
"""

import dataclasses
import math

from nova_batch_migrate.planning.telemetry import (
    DirtyModel,
    HostTelemetry,
    PageClasses,
    ServerTelemetry,
)

#: Distinct contents of a sample are an estimate, give or take.
ESTIMATE_ERROR = 0.1
#: zstd makes random bytes a little larger, never twice as large.
MOST_RATIO = 2.0
#: The fastest memory of today writes less in a second: 1 TiB/s.
MOST_PAGES_PER_SECOND = 1 << 28


def believable(host: HostTelemetry) -> tuple[HostTelemetry, list[str]]:
    """Return the host without what cannot be true, and in words what was left out."""
    notes, servers = [], []
    for server in host.servers:
        wrong = contradiction(server) if server.error is None else None
        if wrong:
            server = dataclasses.replace(server, error=f"its figures cannot be true: {wrong}")
            notes.append(f"{host.host}: {server.name or server.id} counts as not measured, "
                         f"{server.error}. Measure it again.")
        servers.append(server)
    classes = host.page_classes
    if classes is not None and (wrong := _classes_wrong(classes)):
        notes.append(f"{host.host}: nothing is known to be in common, its page classes cannot be "
                     f"true: {wrong}. Measure the host again.")
        classes = None
    if not notes:
        return host, []
    return dataclasses.replace(host, servers=tuple(servers), page_classes=classes), notes


def contradiction(server: ServerTelemetry) -> str | None:
    """Return which of the server's figures contradict each other or the world, None if none."""
    content = server.present_pages - server.zero_pages
    found = server.distinct_pages + server.self_duplicate_pages
    checks = (
        (0 < server.total_pages < server.present_pages,
         f"{server.present_pages} pages are present of {server.total_pages}"),
        (content < 0, f"{server.zero_pages} zero pages are more than the {server.present_pages} "
                      "that are present"),
        (found > content * (1 + ESTIMATE_ERROR) + 1,
         f"{found} contents are counted in {content} pages"),
        (max(server.compress_unchanged or 0, server.compress_changed or 0) > MOST_RATIO,
         "compression makes its pages more than twice as large"),
        (server.sequence is not None and not 0 < server.sequence.theta <= 1,
         "the sampled share of its pages is not between 0 and 1"),
    )
    wrong = next((words for is_wrong, words in checks if is_wrong), None)
    return wrong or _model_wrong(server.changed) or _model_wrong(server.touched)


def _model_wrong(model: DirtyModel | None) -> str | None:
    if model is None:
        return None
    if model.rate_pages_per_second > 0 and model.working_set_pages <= 0:
        return f"it dirties {model.rate_pages_per_second:.0f} pages/s of a working set of none"
    if model.rate_pages_per_second > MOST_PAGES_PER_SECOND:
        return f"no memory is written at {model.rate_pages_per_second:.3g} pages/s"
    if not math.isfinite(model.relative_error):
        return "the error of its dirty model is no number"
    return None


def _classes_wrong(classes: PageClasses) -> str | None:
    if not 0 < classes.theta <= 1:
        return f"their share of hash space is {classes.theta:g}"
    return None
