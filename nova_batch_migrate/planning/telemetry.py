"""What is measured of a source host and its servers, as frozen values.

Written by the agent, carried by the conductor, read by the planner; a batch stores it as JSON, so
that a plan can be computed again by hand. Never measures anything itself.
"""

import dataclasses
import functools
import math
import typing

import numpy

from nova_batch_migrate import exception
from nova_batch_migrate.planning import values
from nova_batch_migrate.planning.values import PAGE_BYTES, Value

__all__ = ("PAGE_BYTES", "Bandwidth", "DirtyModel", "DirtyWindow", "Disk", "HostTelemetry",
           "MigrationOptions", "PageClass", "PageClasses", "Background", "ServerTelemetry",
           "Confirmation", "History", "PageSequence", "Periodicity", "Portions", "Sketch")

#: Nova reads live_migration max_concurrent 0 as this many in threading mode.
NOVA_UNSET_CONCURRENCY = 5


#: Where a dirty rate comes from; dirty-ring and dirty-bitmap only by an operator's allow-list,
#: migration: what QEMU itself tells of a running pre-copy; history: an hour's rates alone, because
#: there was no time to measure.
DirtySource = typing.Literal["content-diff", "page-sampling", "dirty-ring", "dirty-bitmap",
                             "migration", "history", "none"]


@dataclasses.dataclass(frozen=True)
class DirtyModel(Value):
    """Distinct pages dirtied in a time: N(T) = W (1 - exp(-r T / W)) (design 3, [0053]).

    A service that never rests has in addition a few pages that are dirty again as soon as they
    have been sent. A single (r, W) of long windows does not show them; they are a second term of
    the same form.
    """

    #: Pages written per second, r; a page counts each time it is written.
    rate_pages_per_second: float = 0.0
    #: Writable working set, W: distinct pages dirtied in a very long window.
    working_set_pages: float = 0.0
    #: One-sided relative uncertainty of both, as a share (0.1 = 10 %).
    relative_error: float = 0.0
    source: DirtySource = "none"
    #: A second, small set of pages that is written far more often than the others (below).
    hot_rate_pages_per_second: float = 0.0
    hot_pages: float = 0.0

    @property
    def all_pages(self) -> float:
        """Pages dirtied in a very long time, the hot ones included."""
        return self.working_set_pages + self.hot_pages

    @property
    def total_rate_pages_per_second(self) -> float:
        """Pages written per second, the hot ones included."""
        return self.rate_pages_per_second + self.hot_rate_pages_per_second

    def pages(self, seconds: float) -> float:
        """Return the distinct pages dirtied in `seconds`."""
        return (_saturating(self.rate_pages_per_second, self.working_set_pages, seconds)
                + _saturating(self.hot_rate_pages_per_second, self.hot_pages, seconds))


    def written_after_sent(self, seconds: float) -> float:
        """Return which share of the pages written in a first pass was written after it was sent.

        Each page is sent once in these seconds, at any time; the others are sent again as they are,
        because the log is read only at the end.
        """
        written = after = 0.0
        for rate, pages in ((self.rate_pages_per_second, self.working_set_pages),
                            (self.hot_rate_pages_per_second, self.hot_pages)):
            if rate > 0 and pages > 0 and seconds > 0:
                writes = rate * seconds / pages
                ever = -math.expm1(-writes)
                written += pages * ever
                # half of the few; the difference would be lost in rounding
                after += pages * (1.0 - ever / writes if writes > 1e-6 else writes / 2)
        return min(1.0, after / written) if written else 1.0


def _saturating(rate: float, pages: float, seconds: float) -> float:
    return -pages * math.expm1(-rate * seconds / pages) if rate > 0 and pages > 0 else 0.0


@dataclasses.dataclass(frozen=True)
class DirtyWindow(Value):
    """One measured window: how many distinct pages changed in how many seconds."""

    seconds: float
    changed_pages: float
    source: DirtySource


@dataclasses.dataclass(frozen=True)
class Periodicity(Value):
    """A dirty rate that comes again with a period ([0072])."""

    period_seconds: float
    #: Seconds since the epoch, modulo the period, at which the quietest stretch begins.
    minimum_begins_seconds: float
    #: How long the quiet stretch lasts.
    minimum_lasts_seconds: float
    minimum_pages_per_second: float
    mean_pages_per_second: float
    #: 0..1; below what the planner asks for nothing is waited for.
    confidence: float


@dataclasses.dataclass(frozen=True)
class History(Value):
    """A server's dirty rate over the last hour [0049, 0109], oldest first."""

    #: Seconds since the epoch of each sample's begin.
    at_seconds: tuple[float, ...]
    #: Distinct pages dirtied per second in a window of `window_seconds`.
    pages_per_second: tuple[float, ...]
    window_seconds: float
    source: DirtySource
    #: The model of all samples together; null while there are too few.
    model: DirtyModel | None = None
    periodicity: Periodicity | None = None


@dataclasses.dataclass(frozen=True)
class PageSequence(Value):
    """Sampled pages of a server in address order, for replaying a dictionary (design 3).

    A page is in the sample if its content's hash lies in the share theta of the hash space. A
    number from 0 on stands for a content that comes again, in this server or another of the host:
    equal numbers are equal contents within one HostTelemetry. A negative number -n stands for n
    pages in a row whose contents are nowhere else. Zero pages are left out.
    """

    theta: float
    contents: tuple[values.SignedInt, ...]

    @functools.cached_property
    def recurring(self) -> numpy.ndarray:
        """The pages whose contents come again, as these contents' numbers (int64), in order."""
        numbers = self._numbers
        return numbers[numbers >= 0]

    @functools.cached_property
    def pages(self) -> int:
        """The pages of the sample."""
        numbers = self._numbers
        # as floats: what cannot be true is not to turn round
        return len(self.recurring) - int(numbers[numbers < 0].sum(dtype=float))

    @functools.cached_property
    def _numbers(self) -> numpy.ndarray:
        return numpy.array(self.contents, dtype=numpy.int64)


@dataclasses.dataclass(frozen=True)
class Disk(Value):
    """A disk of a server; only those that are not shared are copied (block migration)."""

    device: str
    allocated_bytes: int
    write_bytes_per_second: float
    shared: bool


@dataclasses.dataclass(frozen=True)
class ServerTelemetry(Value):
    """What is known of one server's memory, load and disks.

    `error` says why a server could not be measured; the page counts are then meaningless zeros.
    """

    id: str
    name: str = ""
    project_id: str = ""
    host: str = ""
    memory_bytes: int = 0
    vcpus: int = 0
    #: libvirt's word: running, paused, shutoff, ...
    state: str = "running"
    #: Pages of guest RAM; pages of the QEMU process outside of it are in none of the counts.
    total_pages: int = 0
    present_pages: int = 0
    #: Present and all zero.
    zero_pages: int = 0
    #: Distinct contents among the present pages that are not zero.
    distinct_pages: int = 0
    #: Present pages that are not zero and repeat a content of the same server.
    self_duplicate_pages: int = 0
    #: Pages of the dirty log (rounds); null where it can't be read.
    touched: DirtyModel | None = None
    #: Pages whose content differs (wire bytes).
    changed: DirtyModel = DirtyModel()
    windows: tuple[DirtyWindow, ...] = ()
    history: History | None = None
    sequence: PageSequence | None = None
    #: Pages in swap: never read; counted as content unlike any other.
    swapped_pages: int = 0
    #: False: the time allowed was over before all contents were read, or they cannot be read
    #: (`source_note` says why); they count as unlike any other until they have been.
    contents_read: bool = True
    #: Size behind zstd level 1 as a share of the size before it, 0..1.
    compress_unchanged: float | None = None
    compress_changed: float | None = None
    #: The same at level 3: of contents that no other server of the host has and that come once,
    #: alone and behind what the most like server has around the same shared content; of all others.
    compress_own: float | None = None
    compress_own_behind_like: float | None = None
    compress_shared: float | None = None
    disks: tuple[Disk, ...] = ()
    #: ISO 8601, UTC.
    measured_at: str = ""
    source_note: str = ""
    error: str | None = None

    @property
    def content_pages(self) -> int:
        """Pages that cross the wire whole in round 0."""
        return max(0, self.present_pages - self.zero_pages)

    @property
    def round_model(self) -> DirtyModel:
        """The model that makes rounds: pages touched if known, else pages changed."""
        return self.touched if self.touched is not None else self.changed


@dataclasses.dataclass(frozen=True)
class PageClass(Value):
    """Distinct contents held by exactly these servers."""

    servers: tuple[str, ...]
    pages: int


@dataclasses.dataclass(frozen=True)
class Background(Value):
    """Contents held by almost all: at least `servers_min` servers of the host."""

    servers_min: int
    pages: int


@dataclasses.dataclass(frozen=True)
class PageClasses(Value):
    """The Venn histogram of a host's page contents (design 3); the zero page is never in it.

    `pages` of a class are contents that were counted in the share `theta` of the hash space: a
    reader divides by theta to estimate all of them.
    """

    exact: bool
    theta: float
    classes: tuple[PageClass, ...] = ()
    background: Background | None = None


@dataclasses.dataclass(frozen=True)
class Portions(Value):
    """Identical blocks inside of pages that are not identical as a whole.

    Like PageClasses, in blocks of `block_bytes`: `classes[].pages` are blocks.
    """

    block_bytes: int
    theta: float
    classes: tuple[PageClass, ...] = ()


@dataclasses.dataclass(frozen=True)
class Confirmation(Value):
    """Pairs of real pages compared byte by byte because their hashes are equal [0037, 0044]."""

    pairs: int
    #: Pairs that were equal when they were compared; the others had been written meanwhile.
    held: int


@dataclasses.dataclass(frozen=True)
class Sketch(Value):
    """Keyed identities of the contents of a host's servers in the share theta of hash space.

    Sketches of unequal `key_id` (the epoch) are never compared.
    """

    key_id: str
    theta: float
    #: Keyed BLAKE3, 64 bits, as 16 hex digits, ascending.
    identities: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Bandwidth(Value):
    """The migration link of a host."""

    interface: str
    #: L2 rate, or the cap that traffic control sets.
    link_bytes_per_second: float
    #: What one TCP stream gets of it.
    goodput_bytes_per_second: float
    #: What others send on it now.
    other_bytes_per_second: float
    source: typing.Literal["option", "tc", "ethtool", "unknown"]
    #: Nova's live_migration_bandwidth; per migration, null = no cap.
    nova_cap_bytes_per_second: float | None = None


@dataclasses.dataclass(frozen=True)
class MigrationOptions(Value):
    """Nova's options on the source that decide how a migration ends; Nova's own defaults."""

    downtime_ms: int = 500
    downtime_steps: int = 10
    downtime_delay_seconds: int = 75
    #: 0 = no timeout.
    completion_timeout_seconds_per_gib: int = 800
    timeout_action: typing.Literal["abort", "force_complete"] = "abort"
    permit_post_copy: bool = False
    permit_auto_converge: bool = False
    native_tls: bool = False
    #: Per migration, 0 = no cap.
    bandwidth_mib_s: int = 0
    #: Outbound migrations of one nova-compute at once.
    max_concurrent: int = 1
    #: Over how many QEMU sends a guest's memory beside the main one; 1 = over that alone.
    parallel_connections: int = 1
    #: Names of those that could not be read and are Nova's defaults here.
    assumed: tuple[str, ...] = ()

    @classmethod
    def from_nova(cls, nova_options: dict) -> typing.Self:
        """Read Nova's option names and values as `preflight` gives them.

        What is absent, "unknown" or no such option's value keeps Nova's default and is named in
        `assumed`.
        """
        found, assumed = {}, []
        for field, option in _NOVA_NAMES.items():
            value = nova_options.get(option, "unknown")
            try:
                # no option's value is "unknown"
                found[field] = values.read(cls, field, "unknown" if value is None else value)
            except exception.PlanningError:
                assumed.append(option)
        if found.get("max_concurrent") == 0:
            found["max_concurrent"] = NOVA_UNSET_CONCURRENCY
        return cls.from_dict({**found, "assumed": assumed})

    @staticmethod
    def nova_name(field: str) -> str:
        """Return the name that Nova has for a field."""
        return _NOVA_NAMES.get(field, field)


_NOVA_NAMES = {
    "downtime_ms": "live_migration_downtime",
    "downtime_steps": "live_migration_downtime_steps",
    "downtime_delay_seconds": "live_migration_downtime_delay",
    "completion_timeout_seconds_per_gib": "live_migration_completion_timeout",
    "timeout_action": "live_migration_timeout_action",
    "permit_post_copy": "live_migration_permit_post_copy",
    "permit_auto_converge": "live_migration_permit_auto_converge",
    "native_tls": "live_migration_with_native_tls",
    "bandwidth_mib_s": "live_migration_bandwidth",
    "max_concurrent": "max_concurrent_live_migrations",
    "parallel_connections": "live_migration_parallel_connections",
}


@dataclasses.dataclass(frozen=True)
class HostTelemetry(Value):
    """All that was measured of one source host."""

    host: str
    bandwidth: Bandwidth
    options: MigrationOptions
    servers: tuple[ServerTelemetry, ...]
    #: null: none were counted; nothing is then known to be in common.
    page_classes: PageClasses | None = None
    #: Page frames that servers map together (KSM, FIG. 2A): a lower bound, zero page left out.
    mapped_classes: PageClasses | None = None
    portions: Portions | None = None
    confirmation: Confirmation | None = None
    sketch: Sketch | None = None
    #: What could not be read of all this and is planned without, in words (planning.reading).
    unreadable: tuple[str, ...] = ()
    schema_version: str = values.SCHEMA_VERSION
