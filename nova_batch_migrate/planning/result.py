"""What the planner answers: ordered groups with projections and reasons, and who stays.

Made by planning.plan, stored and shown by the conductor. Never computed from here on.
"""

import dataclasses
import typing

from nova_batch_migrate.planning import values
from nova_batch_migrate.planning.request import PlanRequest, Staying, Strategy
from nova_batch_migrate.planning.values import Value

Verdict = typing.Literal["converges", "needs-help", "never", "nova-aborts"]


@dataclasses.dataclass(frozen=True)
class Projection(Value):
    """How one migration is expected to go ([0052]-[0059])."""

    #: From the first byte (set-up included) to the guest running at the destination.
    stream_seconds: float
    #: From the start of the group until this member is issued.
    queue_seconds: float
    nova_seconds: float
    #: The sum of the three.
    projected_seconds: float
    #: Bytes QEMU sends (memory and copied disks).
    raw_bytes: int
    #: Bytes on the link; equal to raw without a relay.
    wire_bytes: int
    #: Times the dirty log is read and its pages are sent again.
    rounds: int
    downtime_seconds: float
    verdict: Verdict
    #: Seconds after the start of the stream at which Nova's completion timeout ends it.
    abort_at_seconds: float | None
    #: Of projected_seconds; the upper end is null if the pessimistic case does not converge.
    interval_seconds: tuple[float, float | None]
    #: projected_seconds and their interval with what finished migrations of this cloud taught;
    #: null: nothing was learned yet. The other fields never change by it.
    learned_seconds: float | None = None
    learned_interval_seconds: tuple[float, float | None] | None = None
    learned_downtime_seconds: float | None = None
    #: The same of wire_bytes, from streams that relays carried; null: no relay is to carry this
    #: one, or too few were carried.
    learned_wire_bytes: int | None = None
    #: By which of Nova's means a migration that does not converge is completed by force, once its
    #: memory has crossed; the verdict is needs-help or worse then. null: by none.
    help: typing.Literal["pause", "post-copy"] | None = None
    #: Whether a relay is to carry the stream.
    relay: bool = False
    #: What of the stream's seconds is none of the link's, for each raw byte: finished streams told
    #: how long relays work beside it.
    relay_seconds_per_byte: float = 0.0

    def later(self, seconds: float) -> typing.Self:
        """Return the projection of the same stream that is issued so much later."""
        def moved(interval):
            return interval and tuple(end if end is None else end + seconds for end in interval)

        learned = self.learned_seconds
        return dataclasses.replace(
            self, queue_seconds=self.queue_seconds + seconds,
            projected_seconds=self.projected_seconds + seconds,
            interval_seconds=moved(self.interval_seconds),
            learned_seconds=learned if learned is None else learned + seconds,
            learned_interval_seconds=moved(self.learned_interval_seconds))


@dataclasses.dataclass(frozen=True)
class Wait(Value):
    """The moment that comes again at which a server is best asked to migrate ([0072])."""

    period_seconds: float
    #: Seconds since the epoch, modulo the period, from which on it is right to ask.
    opens_seconds: float
    #: For how long it stays right.
    lasts_seconds: float
    #: Of the stream, against the mean dirty rate; null: at that rate it would not converge.
    saved_seconds: float | None
    reason: str


@dataclasses.dataclass(frozen=True)
class PlanMember(Value):
    """A server of a group, its destination and why it is here in this order."""

    server_id: str
    name: str
    destination: str
    #: From 0 in its group.
    order: int
    projection: Projection
    reason: str
    #: What it waits for when its turn comes; null: it goes at once.
    wait: Wait | None = None
    #: Seconds of waiting projected when the plan was made, in the projection's queue_seconds.
    wait_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class PlanGroup(Value):
    """Servers of one source that migrate together; groups of a source run one after another."""

    #: From 0 over the whole plan; groups of one source run in its order.
    index: int
    source: str
    members: tuple[PlanMember, ...]
    #: First issue to last done.
    projected_seconds: float
    raw_bytes: int
    wire_bytes: int
    #: Contents that more than one member brings to the same destination, each counted once.
    common_pages_bytes: int
    reason: str
    #: Its members are started together, and let go together.
    synchronized: bool = False
    #: Migrations of it at once; null: planned by a version that did not tell.
    parallel: int | None = None


@dataclasses.dataclass(frozen=True)
class Plan(Value):
    """The whole plan, with the request it was computed from."""

    strategy: Strategy
    #: Whether relays carry any of the streams; each member's projection says whether its own.
    relay: bool
    notes: tuple[str, ...]
    groups: tuple[PlanGroup, ...]
    staying: tuple[Staying, ...]
    #: Until the slowest source is done; sources run side by side.
    projected_seconds: float
    raw_bytes: int
    wire_bytes: int
    request: PlanRequest
    #: Whether the projected end is before the deadline; null without one.
    deadline_met: bool | None = None
    #: projected_seconds with what finished migrations taught of streams; null: of some nothing was.
    learned_seconds: float | None = None
    schema_version: str = values.SCHEMA_VERSION
