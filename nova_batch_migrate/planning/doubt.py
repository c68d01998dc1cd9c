"""What in a host's telemetry cannot be true, and what is then planned without.

Called by planning.source on what agents sent. A server whose counts contradict each other counts as
not measured, with the reason in the plan: projected from its memory size alone, without a discount.
"""

import dataclasses

from nova_batch_migrate.planning.telemetry import (
    PAGE_BYTES,
    Bandwidth,
    DirtyModel,
    History,
    HostTelemetry,
    MigrationOptions,
    PageClasses,
    PageSequence,
    Portions,
    ServerTelemetry,
)

#: Distinct contents of a sample are an estimate, give or take.
ESTIMATE_ERROR = 0.1
#: zstd makes random bytes a little larger, never twice as large.
MOST_RATIO = 2.0
#: The fastest memory of today writes less in a second: 1 TiB/s.
MOST_PAGES_PER_SECOND = 1 << 28
#: Of a content: there are never so many.
MOST_NUMBER = 1 << 48
#: 10,000 times a rate are no error of it.
MOST_RELATIVE_ERROR = 1e4
#: No network interface has 100 Tbit/s, nor carries more payload than its speed.
MOST_LINK_BYTES_PER_SECOND, MOST_GOODPUT_SHARE = 12.5e12, 1.01
#: Of Nova's options, what it could be run with at all.
_SANE = {"downtime_ms": (1, 86_400_000), "downtime_steps": (1, 10_000),
         "downtime_delay_seconds": (0, 86_400), "completion_timeout_seconds_per_gib": (0, 10 ** 9)}


def believable(host: HostTelemetry) -> tuple[HostTelemetry, list[str]]:
    """Return the host without what cannot be true, and in words what was left out."""
    notes, changed = list(host.unreadable), {}
    servers = []
    for server in host.servers:
        wrong = contradiction(server) if server.error is None else None
        if wrong:
            server = dataclasses.replace(server, error=f"its figures cannot be true: {wrong}")
            changed["servers"] = True
            notes.append(f"{host.host}: {server.name or server.id} counts as not measured, "
                         f"{server.error}. Measure it again.")
        servers.append(server)
    if changed:
        changed["servers"] = tuple(servers)
    for field, instead, words, wrong in _common_wrong(host, servers):
        changed[field] = instead
        notes.append(f"{host.host}: {words} cannot be true: {wrong}. Measure the host again.")
    wrong = _link_wrong(host.bandwidth)
    if wrong:
        changed["bandwidth"] = dataclasses.replace(
            host.bandwidth, link_bytes_per_second=0.0, goodput_bytes_per_second=0.0,
            other_bytes_per_second=0.0, source="unknown")
        notes.append(f"{host.host}: the figures of its migration link cannot be true: {wrong}.")
    insane = [field for field, (least, most) in _SANE.items()
              if not least <= getattr(host.options, field) <= most]
    if insane:
        changed["options"] = dataclasses.replace(
            host.options, assumed=(*host.options.assumed, *map(MigrationOptions.nova_name, insane)),
            **{field: getattr(MigrationOptions, field) for field in insane})
    return (dataclasses.replace(host, **changed) if changed else host), notes


def contradiction(server: ServerTelemetry) -> str | None:
    """Return which of the server's figures contradict each other or the world, None if none."""
    total, content = server.total_pages, server.present_pages - server.zero_pages
    found = server.distinct_pages + server.self_duplicate_pages
    memory_pages = server.memory_bytes // PAGE_BYTES
    # the words are filled in only where something is wrong: servers are many
    checks = (
        (server.present_pages == 0 and server.state != "shutoff",
         "none of its memory is present"),
        (0 < total < server.present_pages,
         "{server.present_pages:.16g} pages are present of {total:.16g}"),
        (0 < memory_pages < (1 - ESTIMATE_ERROR) * total,
         "it has {total:.16g} pages in {memory_pages:.16g} pages of memory"),
        (content < 0, "{server.zero_pages:.16g} zero pages are more than the "
                      "{server.present_pages:.16g} that are present"),
        (server.swapped_pages > max(total, server.present_pages),
         "{server.swapped_pages:.16g} pages are in swap of {total:.16g}"),
        (found > content * (1 + ESTIMATE_ERROR) + 1,
         "{found:.16g} contents are counted in {content:.16g} pages"),
        (max(filter(None, (server.compress_unchanged, server.compress_changed, server.compress_own,
                           server.compress_own_behind_like, server.compress_shared)),
             default=0) > MOST_RATIO,
         "compression makes its pages more than twice as large"),
    )
    wrong = next((words for is_wrong, words in checks if is_wrong), None)
    if wrong:
        return wrong.format(server=server, total=total, content=content, found=found,
                            memory_pages=memory_pages)
    return (_model_wrong(server.changed, total) or _model_wrong(server.touched, total)
            or _sequence_wrong(server.sequence, max(total, server.present_pages))
            or _history_wrong(server.history, total))


def _model_wrong(model: DirtyModel | None, memory_pages: int) -> str | None:
    if model is None:
        return None
    for rate, pages in ((model.rate_pages_per_second, model.working_set_pages),
                        (model.hot_rate_pages_per_second, model.hot_pages)):
        if rate > 0 and pages <= 0:
            return f"it dirties {rate:.6g} pages/s of a working set of none"
        if rate > MOST_PAGES_PER_SECOND:
            return f"no memory is written at {rate:.3g} pages/s"
    if 0 < memory_pages * (1 + ESTIMATE_ERROR) < model.all_pages:
        return f"it writes to {model.all_pages:.3g} pages of {memory_pages:.3g}"
    if not model.relative_error <= MOST_RELATIVE_ERROR:
        return "the error of its dirty model is no number"
    return None


def _sequence_wrong(sequence: PageSequence | None, memory_pages: int) -> str | None:
    if sequence is None:
        return None
    if not 0 < sequence.theta <= 1:
        return "the sampled share of its pages is not between 0 and 1"
    if max(sequence.contents, default=0) > MOST_NUMBER:
        return "its contents are not numbered from 0 on"
    most = -min(sequence.contents, default=0)
    sampled = most if most > MOST_NUMBER else sequence.pages
    if sampled > min(memory_pages, MOST_NUMBER):
        return f"{sampled:.16g} pages are in a sample of its {memory_pages:.16g}"
    return None


def _history_wrong(history: History | None, memory_pages: int) -> str | None:
    if history is None:
        return None
    if len(history.at_seconds) != len(history.pages_per_second):
        return "its history has not as many rates as moments"
    return _model_wrong(history.model, memory_pages)


def _common_wrong(host: HostTelemetry, servers: list[ServerTelemetry]) -> list[tuple]:
    """Return (field, what it is without, what it is, what is wrong) of what servers share."""
    pages = {server.id: server.total_pages for server in servers
             if server.error is None and server.total_pages}
    found = [(field, None, words, wrong) for field, words in (
                ("page_classes", "nothing is known to be in common, its page classes"),
                ("mapped_classes", "its figures of pages mapped by two"),
                ("portions", "its figures of blocks in common"))
             if (wrong := _classes_wrong(getattr(host, field), pages))]
    classes = host.page_classes
    if classes is not None and classes.background is not None and pages \
            and not any(field == "page_classes" for field, *_ in found):
        held, most = classes.background.pages, max(pages.values())
        if held > _bound(most, held, classes.theta):
            found.append(("page_classes", dataclasses.replace(classes, background=None),
                          "what almost all its servers hold",
                          f"{held / classes.theta:.6g} pages in servers of at most {most}"))
    held = host.confirmation
    if held is not None and held.held > held.pairs:
        found.append(("confirmation", None, "its confirmation by bytes",
                      f"{held.held} of {held.pairs} pairs held"))
    return found


def _bound(memory_pages: int, counted: int, theta: float) -> float:
    """Return how many of a sample may be counted in so much memory."""
    return memory_pages * (1 + ESTIMATE_ERROR) * theta + 3 * (counted ** 0.5 + 1)


def _classes_wrong(classes: PageClasses | Portions | None, pages: dict[str, int]) -> str | None:
    """Say what is wrong with classes of servers that have so many pages; others are not judged."""
    if classes is None:
        return None
    if not 0 < classes.theta <= 1:
        return f"their share of hash space is {classes.theta:g}"
    per_page = 1
    if isinstance(classes, Portions):
        if not 0 < classes.block_bytes <= PAGE_BYTES:
            return f"a block has {classes.block_bytes} bytes"
        per_page = PAGE_BYTES // classes.block_bytes
    smallest = min(pages.values(), default=0) * per_page
    for each in classes.classes:
        # nearly all pass this, and holders are many
        if each.pages <= _bound(smallest, each.pages, classes.theta):
            continue
        held = min((pages[i] for i in each.servers if i in pages), default=None)
        if held is not None and each.pages > _bound(held * per_page, each.pages, classes.theta):
            return (f"{each.pages / classes.theta:.6g} contents in common in a server of {held} "
                    "pages")
    return None


def _link_wrong(link: Bandwidth) -> str | None:
    if link.source == "unknown":
        return None
    most = max(link.link_bytes_per_second, link.goodput_bytes_per_second,
               link.other_bytes_per_second)
    if link.link_bytes_per_second <= 0 or link.goodput_bytes_per_second <= 0:
        return "it carries nothing"
    if most > MOST_LINK_BYTES_PER_SECOND:
        return f"no interface carries {most:.3g} bytes/s"
    if link.goodput_bytes_per_second > MOST_GOODPUT_SHARE * link.link_bytes_per_second:
        return (f"it carries {link.goodput_bytes_per_second:.4g} bytes/s of payload at a speed of "
                f"{link.link_bytes_per_second:.4g}")
    return None
