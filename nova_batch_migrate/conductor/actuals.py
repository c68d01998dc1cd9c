"""What really happened to a server, in the same three parts as its projection; pure.

Called when a migration has completed. Seconds and bytes; each part names its source, so that a
reader knows what was measured and what is the rest of a subtraction.
"""

import datetime

AT_DESTINATION = "libvirt's statistics of the completed job at the destination"
LAST_SEEN = "libvirt's job at the source, as last seen before it ended"
AT_RELAY = "the counters of the relay at the source"
#: What the relay tells apart, net of each other; bytes.
SAVINGS = ("zero_bytes", "self_duplicate_bytes", "cross_server_bytes", "delta_bytes",
           "literal_bytes", "compressed_bytes")
#: And beside that: wire bytes a second, seconds of a core at the source, and round 0 (its seconds,
#: its raw bytes and the seconds that the link needs for its wire bytes).
OF_A_STREAM = ("bytes_per_second", "cpu_seconds", "first_pass")
UNKNOWN = "unknown: no agent saw the job"


def actual(group_started_at: datetime.datetime, issued_at: datetime.datetime,
           finished_at: datetime.datetime, nova_queued_seconds: float,
           completed: dict | None, last_progress: dict | None,
           carried: dict | None = None, stream_began_at: str | None = None) -> dict:
    """Return stream, queue, nova and all seconds, bytes and downtime with their sources.

    ``stream_began_at`` tells Nova's seconds before the stream from those behind it; ``carried`` are
    the relay's counters of the server, None where none carried it; ``completed`` and
    ``last_progress`` are what the agents gave (AgentAPI.completed, .progress). What nobody saw is
    None, never a guess.
    """
    whole = (finished_at - group_started_at).total_seconds()
    queue = (issued_at - group_started_at).total_seconds() + nova_queued_seconds
    stream, sent, downtime, source = None, None, None, UNKNOWN
    if completed:
        stream, source = completed["elapsed_seconds"], AT_DESTINATION
        sent, downtime = completed["memory_transferred_bytes"], completed["downtime_seconds"]
    elif last_progress:
        stream, source = last_progress["elapsed_seconds"], LAST_SEEN
        sent = last_progress["memory_processed_bytes"]
    nova = None if stream is None else max(0.0, whole - queue - stream)
    before = None
    if nova is not None and stream_began_at is not None:
        began = datetime.datetime.fromisoformat(stream_began_at)
        before = min(nova, max(
            0.0, (began - issued_at).total_seconds() - nova_queued_seconds))
    return {
        "stream_seconds": stream,
        "queue_seconds": round(queue, 3),
        "nova_seconds": None if nova is None else round(nova, 3),
        "nova_queued_seconds": round(nova_queued_seconds, 3),
        "nova_before_seconds": None if before is None else round(before, 3),
        "actual_seconds": round(whole, 3),
        "raw_bytes": carried["raw_bytes"] if carried else sent,
        "wire_bytes": carried["wire_bytes"] if carried else sent,
        "relay": carried and through_relay(carried),
        "downtime_seconds": downtime,
        "sources": ({"bytes": AT_RELAY} if carried else {}) | {
            "stream": source,
            "queue": "conductor's clock: start of the group until the call to Nova, and the time "
                     "in which Nova showed the migration as queued",
            "nova": "the rest of the conductor's clock until Nova showed the server at the "
                    "destination",
        },
    }


def through_relay(carried: dict) -> dict:
    """Return what is shown of a relay's counters of a server (Relay.statistics)."""
    return {name: carried[name] for name in SAVINGS} | {
        name: carried.get(name) for name in OF_A_STREAM}
