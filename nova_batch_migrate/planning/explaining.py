"""What a plan tells its reader in words: why servers stay or go as they do, and what to know of it.

Called by planning.plan; decides nothing. `unrelayed` and the waits hold their reasons already.
"""

from collections.abc import Sequence

from nova_batch_migrate.planning import commonality, helped, projection, relaying
from nova_batch_migrate.planning.grouping import Grouping
from nova_batch_migrate.planning.placement import Place
from nova_batch_migrate.planning.request import PlanRequest
from nova_batch_migrate.planning.source import MIB, MOST_AT_ONCE, Source
from nova_batch_migrate.planning.telemetry import PAGE_BYTES, ServerTelemetry

#: Of more sources the first ones are compared: pairs grow with the square.
MOST_COMPARED_HOSTS = 8
NO_RELAY = ("No relay carries the streams: content in common crosses once per server, the "
            "projection gives no discount for it; common_pages_bytes is what a relay would send "
            "once.")


def why_not(source: Source, server_id: str) -> str:
    """Say why a server that does not converge alone will stay, in figures."""
    refusal = helped.refusal(source.request.on_non_convergence, source.options, source.name)
    return _why_unaided(source, server_id) + (f"; {refusal}" if refusal else "")


def member_reason(source: Source, server_id: str, at: int, group: Grouping, place: Place) -> str:
    """Say why a member goes when and where it goes, which is the group's number ``at``."""
    where = f"to {place.host}: {place.reason}"
    server = source.servers[server_id]
    if server.error is not None:
        return (f"could not be measured ({server.error}): projected from its memory size alone, "
                f"so it goes last; {where}")
    seconds = source.alone_seconds(server_id)
    deadline = source.movable[server_id].deadline_seconds
    due = "" if deadline is None else f", to be there within {deadline:.0f} s"
    wait = source.waits.get(server_id)
    quiet = "" if wait is None else f"; waits for its quiet moment: {wait.reason}"
    by_kin = group.order and source.deadline(group.servers) is None
    by = group.order_by if by_kin else "ascending projected time [0061]"
    return (f"{at + 1} of {len(group.servers)} by {by}, {seconds:.1f} s alone"
            f"{due}{_history_words(server)}; {where}{quiet}{_help_words(source, server_id)}"
            f"{_way_words(source, server_id)}")


def _history_words(server: ServerTelemetry) -> str:
    if server.changed.source == "history":
        return ", by its history alone"
    if server.contents_read:
        return ""
    why = f" ({server.source_note})" if server.source_note else ""
    return f", its contents were not read and count as unlike any other{why}"


def _way_words(source: Source, server_id: str) -> str:
    """Say why no relay carries a stream where others of the batch have one."""
    why = source.unrelayed.get(server_id)
    return f"; without a relay: {why}" if why else ""


def _help_words(source: Source, server_id: str) -> str:
    help_ = source.help_of(server_id)
    if help_ is None:
        return ""
    does = {"pause": "pauses it", "post-copy": "switches to post-copy"}[help_]
    return (f"; {_why_unaided(source, server_id)}; Nova {does} once its memory has crossed "
            "(on_non_convergence)")


def _why_unaided(source: Source, server_id: str) -> str:
    """Say why a server does not converge by itself."""
    server, found = source.servers[server_id], source.unaided(server_id)
    carried = source.link([server_id]).rates(1)[0] / MIB
    dirtied = server.round_model.total_rate_pages_per_second * PAGE_BYTES / MIB
    if found.verdict == "nova-aborts":
        return (f"its memory would be across only after Nova gives up, "
                f"{found.abort_at_seconds:.0f} s after the start ([libvirt] "
                f"live_migration_completion_timeout on {source.name} can be raised)")
    if found.verdict == "never":
        written = sum(d.write_bytes_per_second for d in server.disks if not d.shared) / MIB
        disks = f", writes {written:.1f} MiB/s to disks that are copied" if written else ""
        return (f"it dirties {dirtied:.1f} MiB/s of memory{disks}, and the link carries "
                f"{carried:.1f} MiB/s: pre-copy cannot end at this bandwidth")
    return (f"it dirties {dirtied:.1f} MiB/s of memory over a link of {carried:.1f} MiB/s: "
            f"pre-copy would end only with a longer downtime than Nova allows "
            f"({source.options.downtime_ms} ms at most), or stopped by force")


def notes(request: PlanRequest, sources: Sequence[Source], relayed: bool) -> tuple[str, ...]:
    """Return what a reader should know of the whole plan; ``relayed``: relays carry some of it."""
    told = [] if request.relay and relayed else [NO_RELAY]
    told += [why for host in request.hosts if (why := relaying.unrelayed(host))]
    told += _left_out(sources, told)
    if request.max_bandwidth_bytes_per_second and len(sources) > 1:
        share = request.max_bandwidth_bytes_per_second / len(sources) / MIB
        told.append(f"Projected with equal shares of the bandwidth limit, {share:.1f} MiB/s for "
                    f"each of {len(sources)} sources; while they migrate it is shared by need.")
    for source in sources:
        told += _source_notes(source)
    if sources and (pace := request.learned_nova) is not None:
        told.append(f"Nova's own part is taken as {pace.seconds:.1f} s, "
                    f"{100 * pace.sharing:.0f} % more for each other migration beside it, as "
                    f"{pace.migrations} migrations of this cloud tell; without them "
                    f"{request.nova_seconds:.1f} s and {100 * request.nova_sharing:.0f} %.")
    if relayed and (pace := request.learned_relay) is not None and pace.seconds_per_byte:
        told.append(f"A stream through relays is taken to need {1e9 * pace.seconds_per_byte:.1f} "
                    f"s for each GB beside what its link takes, as {pace.streams} streams of "
                    "this cloud tell: relays, QEMU and Nova share processors.")
    return (*told, *_host_notes(request, sources))


def _left_out(sources: Sequence[Source], told: Sequence[str]) -> list[str]:
    """Say once for each reason which servers go without a relay that others have."""
    names: dict[str, list[str]] = {}
    for source in sources:
        for server_id, why in source.unrelayed.items():
            if why and why not in told:
                names.setdefault(why, []).append(source.servers[server_id].name)
    return [f"Without a relay: {', '.join(sorted(which))}: {why}." for why, which in names.items()]


def _source_notes(source: Source) -> list[str]:
    """Return what a reader of the plan should know about this source."""
    notes = list(source.doubts)
    if source.bandwidth.source == "unknown":
        free = source.plain_link.free / MIB
        notes.append(f"{source.name}: the speed of the migration link is not known; "
                     f"{free:.0f} MiB/s are assumed. Set [agent] link_mib_s there.")
    notes += _crowded(source)
    if source.options.assumed:
        notes.append(f"{source.name}: Nova's options could not be read and are taken as Nova's "
                     f"defaults: {', '.join(source.options.assumed)}.")
    request, relayed = source.request, source.replay is not None
    wanted = min(len(source.servers), (request.relay_max_parallel if relayed else None)
                 or request.max_parallel or MOST_AT_ONCE)
    if source.options.max_concurrent < wanted:
        notes.append(f"{source.name}: at most {source.options.max_concurrent} at once, not "
                     f"{wanted}: [DEFAULT] max_concurrent_live_migrations of its nova-compute.")
    unread = sum(server.changed.source == "history" for server in source.servers.values())
    if unread:
        notes.append(f"{source.name}: {unread} of {len(source.servers)} servers go by their "
                     "history alone (urgent): their memory was not read and counts as unlike "
                     "any other, nothing of it is sent once in the projection, and the "
                     "intervals are as wide as the hour was.")
    elif not source.known.exact:
        notes.append(f"{source.name}: content in common is estimated (sampled or folded).")
    notes += source.told_apart
    recurring = source.known.recurring_pages(list(source.servers)) * PAGE_BYTES
    held = request.dictionary_bytes
    if relayed and recurring > held:
        notes.append(f"{source.name}: {recurring / MIB:.0f} MiB of content is held by more than "
                     f"one server, more than a dictionary of {held // MIB} MiB holds; the "
                     "rest crosses compressed. [relay] dictionary_mib of both hosts can be "
                     "raised.")
    if request.strategy != "none" and 0 < recurring <= held:
        needs = "the relay needs" if relayed else "a relay would need"
        notes.append(f"{source.name}: all content held by more than one server "
                     f"({recurring / MIB:.0f} MiB) fits a dictionary of {held // MIB} MiB: "
                     f"{needs} no groups.")
    return notes


def _crowded(source: Source) -> list[str]:
    """Say with how much of the link is reckoned where others take nearly all of it."""
    goodput, other = (source.bandwidth.goodput_bytes_per_second,
                      source.bandwidth.other_bytes_per_second)
    if goodput - other >= projection.LEAST_LINK_SHARE * goodput:
        return []
    return [f"{source.name}: other traffic takes {other / MIB:.0f} of the link's "
            f"{goodput / MIB:.0f} MiB/s; {source.plain_link.free / MIB:.1f} MiB/s, which TCP "
            "gets beside any of it, are reckoned with. Move when less is sent."]


def _host_notes(request: PlanRequest, sources: Sequence[Source]) -> list[str]:
    """Say what sources have in common: it crosses once from each, dictionaries are one source's."""
    names = [source.name for source in sources][:MOST_COMPARED_HOSTS]
    pairs = commonality.host_pairs(host for host in request.hosts if host.host in names)
    return [f"{pair['a']} and {pair['b']}: what they have in common is not known: {pair['reason']}"
            if pair["reason"] else
            f"{pair['a']} and {pair['b']} have {pair['bytes'] / MIB:.0f} MiB (+-"
            f"{pair['error_bytes'] / MIB:.0f}) of content in common, {100 * pair['share']:.0f} % "
            f"(+-{100 * pair['share_error']:.0f}) of the one with less: it crosses once from each, "
            "because a relay's dictionary is that of one source." for pair in pairs]
