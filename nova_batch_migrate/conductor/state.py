"""What a decision sees and what it may answer; pure values.

Made by the reconciler from the database and from Nova's truth, read by ``decide``.
"""

import dataclasses
import datetime
import enum
from typing import Any

ACTIVE_STATUSES = ("accepted", "measuring", "planned", "running", "paused", "aborting")
SERVER_NEXT = ("pending", "waiting")
SERVER_OPEN = (*SERVER_NEXT, "migrating")
#: Of servers that have not moved and will not.
SERVER_OUT = ("skipped", "failed", "aborted")

#: Before a stream begins.
PREPARING = ("accepted", "queued", "preparing")
IN_FLIGHT = (*PREPARING, "running", "running (post-copy)", "post-migrating")
BROKEN = ("failed", "error", "cancelled")
ABORTABLE = ("queued", "preparing", "running")


class Pass(enum.IntEnum):
    """What a pass over a batch did."""

    #: The batch is not active.
    OVER = 0
    #: It was looked at, and what is under way was seen to.
    FOLLOWED = 1
    #: A step was taken behind which the next one may be due at once.
    STEPPED = 2
    #: As FOLLOWED, and the members of a set are about to switch over together.
    SWITCHING = 3
    #: Servers are measured, and all else waits for that.
    MEASURED = 4


@dataclasses.dataclass(frozen=True)
class Settings:
    """Options of [conductor] that decide something; seconds and counts."""

    #: Of a group that was not planned to go as it does; 1 where nobody has said how many.
    max_parallel: int = 1
    #: The same of groups that relays carry.
    relayed_parallel: int = 1
    #: Of them, those whose stream has not begun; None = any number.
    max_preparing: int | None = None
    max_attempts: int = 3
    retry_backoff_seconds: float = 5.0
    start_grace_seconds: float = 10.0
    start_timeout_seconds: float = 120.0
    settle_seconds: float = 4.0
    #: Migrations that may arrive at a host at once; None = any number.
    max_inbound: int | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One server of a batch as the database has it."""

    server_id: str
    name: str
    source: str
    destination: str | None
    status: str
    group_index: int | None = None
    order_index: int | None = None
    known_migrations: tuple[int, ...] = ()
    migration_id: int | None = None
    attempts: int = 0
    next_attempt_at: datetime.datetime | None = None
    issued_at: datetime.datetime | None = None
    broken_since: datetime.datetime | None = None
    #: The quiet moment it is to be migrated in (planning.result.Wait).
    wait: Any = None
    #: Until when it may wait for that, once its turn has come.
    wait_until: datetime.datetime | None = None
    #: Nova is to complete it by force once its memory has crossed; whether it has been asked to.
    help: str | None = None
    crossed_once: bool = False
    forced: bool = False
    #: Its stream has ended, Nova has work with it yet.
    streamed: bool = False

    @property
    def open(self) -> bool:
        return self.status in SERVER_OPEN


@dataclasses.dataclass(frozen=True)
class Arrived:
    """A server that Nova has at rest on a host: what of clients.nova.ServerInfo that decides."""

    host: str
    status: str = "ACTIVE"
    task_state: None = None


@dataclasses.dataclass(frozen=True)
class Truth:
    """What Nova says of a server now: clients.nova.ServerInfo (None: gone) or Arrived, migrations.

    Not ``asked``: while its migration is in flight the server itself says nothing new.
    """

    server: Any
    migrations: tuple
    asked: bool = True


@dataclasses.dataclass(frozen=True)
class Measure:
    """The measurement under way: ``purpose`` initial, regroup or arrivals; ``state`` running,
    done or failed; ``age_seconds`` since its start."""

    purpose: str
    state: str
    age_seconds: float = 0.0
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class CalledOff:
    """Why a set that moves together goes nowhere now; ``final``: nor later."""

    reason: str
    final: bool


@dataclasses.dataclass(frozen=True)
class BatchState:
    """One batch at one moment; ``now`` is naive UTC like every time here.

    ``started``: it is to be executed, not only planned; ``planned``: it has had a plan;
    ``boundary``: sources where a group of the present plan is done and none of the next has begun;
    ``patience_seconds``: how long nothing may migrate, from now on, because of measuring;
    ``open_groups``: (source, index) of groups that have begun and whose end was not noted;
    ``together``: indexes of groups whose members are started together;
    ``relayed``: indexes of groups that relays carry;
    ``at_once``: of groups that were planned without, by index, how many migrate at once;
    ``called_off``: sets, by (source, index), whose members all come back;
    ``lost``: members that will not move, of sets that do not know it yet;
    ``inbound``: migrations of other batches that arrive at a host now.
    """

    status: str
    rows: tuple[Row, ...]
    now: datetime.datetime
    settings: Settings
    of_hosts: bool = True
    not_before: datetime.datetime | None = None
    started: bool = True
    planned: bool = False
    paused: bool = False
    abort: str | None = None
    replan: bool = False
    surveyed: bool = False
    sources_disabled: bool = False
    measure: Measure | None = None
    boundary: frozenset[str] = frozenset()
    patience_seconds: float = 20.0
    held_up: bool = False
    open_groups: tuple[tuple[str, int], ...] = ()
    together: frozenset[int] = frozenset()
    relayed: frozenset[int] = frozenset()
    at_once: dict[int, int] = dataclasses.field(default_factory=dict)
    called_off: dict[tuple[str, int], CalledOff] = dataclasses.field(default_factory=dict)
    lost: tuple[str, ...] = ()
    inbound: dict[str, int] = dataclasses.field(default_factory=dict)
    #: How long a server may wait for its quiet moment when its turn has come.
    max_wait_seconds: float = 0.0
    parallel_limits: dict[str, int] = dataclasses.field(default_factory=dict)
    truths: dict[str, Truth] = dataclasses.field(default_factory=dict)


def current_groups(rows: tuple[Row, ...]) -> dict[str, int]:
    """Return source -> index of the first group that still has open members."""
    current: dict[str, int] = {}
    for row in rows:
        if row.open and row.group_index is not None:
            current[row.source] = min(row.group_index, current.get(row.source, row.group_index))
    return current


# ---- what a decision about the batch may answer ------------------------------------------------

@dataclasses.dataclass(frozen=True)
class DisableSources:
    """Disable the compute service of every source host; the reason names the batch."""


@dataclasses.dataclass(frozen=True)
class TakeSurvey:
    """List the servers of the sources anew; new ones join the batch."""


@dataclasses.dataclass(frozen=True)
class StartMeasure:
    purpose: str


@dataclasses.dataclass(frozen=True)
class PollMeasure:
    """Fetch what the agents have."""


@dataclasses.dataclass(frozen=True)
class DropMeasure:
    """Forget a measurement that failed or came too late; the old plan goes on."""

    reason: str


@dataclasses.dataclass(frozen=True)
class HoldUp:
    """Nothing migrates from some sources because of measuring: note since when."""


@dataclasses.dataclass(frozen=True)
class GoOn:
    """Begin the next group by the old plan; what is being measured serves the one after it."""


@dataclasses.dataclass(frozen=True)
class EndGroup:
    """All members of a group that had begun are done, one way or the other."""

    source: str
    index: int


@dataclasses.dataclass(frozen=True)
class BeginAnew:
    """All members of a set that was called off are back: open the relays for it once more."""

    source: str
    index: int


@dataclasses.dataclass(frozen=True)
class MakePlan:
    """Group, project and order what is still to move; a server's first projection is kept."""


@dataclasses.dataclass(frozen=True)
class SetStatus:
    status: str


@dataclasses.dataclass(frozen=True)
class Finish:
    status: str
    error: str | None = None


# ---- what a decision about one server may answer -----------------------------------------------

@dataclasses.dataclass(frozen=True)
class ServerAction:
    """Base of the actions on one server."""

    server_id: str


@dataclasses.dataclass(frozen=True)
class Issue(ServerAction):
    """Ask Nova for the live migration; the intent is written first."""


@dataclasses.dataclass(frozen=True)
class AwaitMoment(ServerAction):
    """Its turn has come, its quiet moment has not: look again then; others go meanwhile."""

    seconds: float


@dataclasses.dataclass(frozen=True)
class Follow(ServerAction):
    """The migration runs: note its id and its progress."""

    migration: Any


@dataclasses.dataclass(frozen=True)
class Complete(ServerAction):
    """The server runs at ``host``; ``migration`` is None when somebody else moved it."""

    host: str
    migration: Any = None


@dataclasses.dataclass(frozen=True)
class NoteBroken(ServerAction):
    """The migration ended without moving the server; wait until Nova has settled."""


@dataclasses.dataclass(frozen=True)
class AttemptEnded(ServerAction):
    """An attempt is over and the server stays at the source: heal, then retry or give up."""

    migration: Any
    retry: bool
    reason: str


@dataclasses.dataclass(frozen=True)
class CallAgain(ServerAction):
    """Nova shows no trace of the call: it never arrived; ask again, same attempt."""


@dataclasses.dataclass(frozen=True)
class TellLost(ServerAction):
    """A member of a set will not move: the others go without it, or stay."""


@dataclasses.dataclass(frozen=True)
class StopMigration(ServerAction):
    """The operator aborts running migrations, or a member's set was called off: end this one."""

    migration: Any


@dataclasses.dataclass(frozen=True)
class ForceComplete(ServerAction):
    """It would not converge, and its memory has crossed: let Nova pause it, or use post-copy."""

    migration: Any


@dataclasses.dataclass(frozen=True)
class Close(ServerAction):
    """A server leaves the batch without having been moved by it (skipped or aborted)."""

    status: str
    reason: str
