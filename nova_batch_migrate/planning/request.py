"""What the planner is asked: telemetry, who may move where, room at the destinations, limits.

Filled by the conductor from its survey, or read from a JSON file to plan again. Never changes.
"""

import dataclasses
import functools
import typing

from nova_batch_migrate.planning import nova_pace, values
from nova_batch_migrate.planning.conditions import NovaWork
from nova_batch_migrate.planning.learning import Learned
from nova_batch_migrate.planning.nova_pace import NovaPace
from nova_batch_migrate.planning.relay_pace import RelayPace
from nova_batch_migrate.planning.telemetry import HostTelemetry
from nova_batch_migrate.planning.values import Value

Strategy = typing.Literal["group", "pair", "none"]
OnNonConvergence = typing.Literal["skip", "pause", "post-copy", "auto-converge"]
DedupScope = typing.Literal["project", "host", "off"]


@dataclasses.dataclass(frozen=True)
class Movable(Value):
    """A server that may move, and what it takes at its destination."""

    id: str
    #: Hosts allowed by the survey; sources, busy and disabled hosts are already left out.
    destinations: tuple[str, ...]
    memory_bytes: int
    vcpus: int
    disk_gb: float
    #: Members of one anti-affinity group never share a destination (beyond `anti_affinity_most`).
    anti_affinity_group: str | None = None
    #: Members that one host may have: Nova's max_server_per_host.
    anti_affinity_most: int = 1
    #: Members of one affinity group that move share a destination.
    affinity_group: str | None = None
    #: Soft policies decide between destinations that have room, never against the last of them.
    soft_anti_affinity_group: str | None = None
    soft_affinity_group: str | None = None
    #: Seconds from now until it is to be there; it then goes before others.
    deadline_seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Staying(Value):
    """A server that will not move: why, how sure that is, and what would move it."""

    server_id: str
    name: str
    source: str
    reason: str
    certainty: typing.Literal["certain", "likely"]
    command: str | None = None


@dataclasses.dataclass(frozen=True)
class Destination(Value):
    """A host with room, as Placement counts it (allocation ratios and reservations included)."""

    host: str
    free_memory_bytes: values.SignedInt
    free_vcpus: values.SignedFloat
    free_disk_gb: values.SignedFloat
    running_servers: int = 0
    #: Server groups with members that run there; a group stands once for each.
    server_groups: tuple[str, ...] = ()
    #: Streams that may arrive at once, from all sources together; null = any number.
    inbound_limit: int | None = None


@dataclasses.dataclass(frozen=True)
class RelayHost(Value):
    """A host on which a relay answers, and what that relay was measured to work through."""

    host: str
    #: Raw bytes of streams per second, of content that it does not know and does not compress, and
    #: of content that it knows; null: not measured.
    new_bytes_per_second: float | None = None
    known_bytes_per_second: float | None = None
    #: Of its dictionaries in all; null: not told.
    dictionary_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class PlanRequest(Value):
    """Everything a plan depends on; `make_plan(PlanRequest.from_dict(json))` replays a plan."""

    hosts: tuple[HostTelemetry, ...]
    movable: tuple[Movable, ...]
    destinations: tuple[Destination, ...]
    staying: tuple[Staying, ...] = ()
    strategy: Strategy = "group"
    #: Streams of one source at once; Nova's max_concurrent_live_migrations bounds it too. null:
    #: the plan chooses, where no relay carries them, with how many they end soonest.
    max_parallel: int | None = 1
    #: Wire bytes of the whole batch; projected as shared equally by the sources.
    max_bandwidth_bytes_per_second: float | None = None
    #: Nova's time per migration outside of the stream, where it works on no other; as assumed.
    nova_seconds: float = 4.0
    #: What of them comes before the stream.
    nova_before_share: float = 0.5
    #: By what share of its time each further migration under way delays one that Nova works on.
    nova_sharing: float = 0.0
    #: Standard deviation of the logarithm of nova_seconds; it widens the intervals.
    nova_deviation: float = nova_pace.unlearned(nova_pace.GUESSED)
    #: The same four as finished migrations of the cloud tell them: they count instead; null: none
    #: is known.
    learned_nova: NovaPace | None = None
    #: Of the stream, before its first page.
    setup_seconds: float = 0.2
    #: Whether relays carry streams where they can: content in common then crosses once.
    relay: bool = False
    #: Where one answers; null: on every host.
    relays: tuple[RelayHost, ...] | None = None
    #: `max_parallel` of streams that relays carry; null: the same.
    relay_max_parallel: int | None = None
    #: Of them, those at once whose stream has not begun; null: any number.
    relay_max_preparing: int | None = None
    dedup_scope: DedupScope = "project"
    dictionary_bytes: int = 512 * 1024 * 1024
    #: What becomes of a server that does not converge by itself: it stays, or Nova ends its
    #: migration by these means where the options of its source permit them.
    on_non_convergence: OnNonConvergence = "skip"
    #: Sets of server ids that move together, each within one group.
    synchronized: tuple[tuple[str, ...], ...] = ()
    #: Seconds from now until the whole batch is to be done.
    deadline_seconds: float | None = None
    #: From the latest finished migrations of the cloud, past relays and through them; null: there
    #: are too few.
    learned: Learned | None = None
    learned_relayed: Learned | None = None
    #: What streams through relays take beside their link, as finished ones tell it; it counts in
    #: the projections. null: too few are known.
    learned_relay: RelayPace | None = None
    #: How long a server may wait for its quiet moment when its turn has come; 0 = nobody waits.
    max_wait_seconds: float = 0.0
    #: When the plan is made, seconds since the epoch; null: unknown, so nobody waits.
    now_seconds: float | None = None
    schema_version: str = values.SCHEMA_VERSION

    @functools.cached_property
    def relays_at(self) -> dict[str, list[RelayHost]]:
        """The known relays by their hosts: every stream's projection asks for two of them."""
        found: dict[str, list[RelayHost]] = {}
        for relay in self.relays or ():
            found.setdefault(relay.host, []).append(relay)
        return found

    @functools.cached_property
    def inbound_limits(self) -> dict[str, int | None]:
        """The streams that may arrive at once, by destination; null = any number."""
        return {destination.host: destination.inbound_limit for destination in self.destinations}

    @functools.cached_property
    def nova(self) -> NovaWork:
        """Nova's work as it counts: learned, else assumed."""
        pace = self.learned_nova
        if pace is None:
            return NovaWork(self.nova_seconds, self.nova_before_share, self.nova_sharing,
                            deviation=self.nova_deviation)
        return NovaWork(pace.seconds, pace.before_share, pace.sharing, deviation=pace.deviation)
