"""The migrations that the projection benchmark runs: those it is tuned on, and drawn ones.

Data and a generator with a seed; runs nothing.
"""
import dataclasses
import math
import random

from nbmlab.families import Load

MIB = 1 << 20
PAGE_BYTES = 4096
PAGES_PER_MIB = MIB // PAGE_BYTES
#: What a guest has beside its working set, and the most that one of these cases takes.
OTHER_MIB, LONGEST_SECONDS = 115, 14
MOST_PAGES_PER_SECOND = 100 * PAGES_PER_MIB
WRITE_BYTES = (64, 256, 1024, 4096)


@dataclasses.dataclass(frozen=True)
class Member:
    """One guest: its load, or the family with a real service."""

    working_set_mib: int = 8
    pages_per_second: int = 0
    bytes_per_write: int = 256
    compressible: bool = False
    period_seconds: int = 0
    on_share: float = 1.0
    redis: bool = False

    @property
    def memory_mib(self) -> int:
        """Return what the guest needs: its buffer, and room for the rest."""
        return 384 if self.redis else 160 + 32 * math.ceil(self.working_set_mib / 32)

    def load(self) -> Load:
        """Return the load of the guest program."""
        return Load(self.working_set_mib, self.pages_per_second, self.bytes_per_write,
                    self.compressible, self.period_seconds, self.on_share)


@dataclasses.dataclass(frozen=True)
class Case:
    """Guests that migrate at once over a capped link, there and back."""

    link_mib_s: float
    members: tuple[Member, ...]
    held_out: bool = False
    kernel: str = "6.1"
    #: Nova's live_migration_downtime_delay and _completion_timeout, seconds per GiB of 2 GiB.
    delay_seconds: int = 3
    timeout_seconds: int = 15
    #: Migrations of each guest; one where nothing is learned from a second.
    runs: int = 2


def _one(link: float, *load, **fields) -> Case:
    return Case(link, (Member(*load, **{name: fields.pop(name) for name in tuple(fields)
                                        if name in Member.__dataclass_fields__}),), **fields)


#: Used while tuning.
TUNED = (
    _one(40, 4),
    _one(10, 4, 200),
    _one(20, 16, 500, 4096),
    _one(20, 16, 2000),
    _one(60, 64, 5000, 1024),
    _one(30, 64, 5000, kernel="6.12"),
    _one(30, 32, 2000, compressible=True),
    _one(50, 48, 7500, 64),
    _one(80, 96, 15000),
    _one(100, 8, 10000),
    _one(200, 128, 20000),
    _one(40, 4, 5000),
    _one(60, 16, 8000),
    _one(40, 1, 2000),
    _one(150, 96, 25000, 4096),
    # near the boundary
    _one(16, 24, 4000),
    _one(25, 32, 6000),
    # beyond it
    _one(20, 64, 8000, 4096, runs=1, timeout_seconds=8),
    _one(30, 128, 12000, runs=1, timeout_seconds=8),
    # several on one link
    Case(60, (Member(16, 1000), Member(32, 2000))),
    Case(40, (Member(8, 200), Member(16, 1000), Member(4, compressible=True))),
    Case(100, (Member(16, 2000), Member(64, 4000))),
    Case(100, (Member(8, 300), Member(16, 500), Member(4, 100), Member(8, 50))),
    # duty cycles
    _one(40, 32, 4000, period_seconds=6, on_share=0.5),
    _one(20, 16, 1500, period_seconds=8, on_share=0.5),
    # a real service
    _one(30, redis=True, runs=2),
    Case(80, (Member(8, 100, redis=True), Member(16, 1000))),
)


def held_out(chance: random.Random) -> list[Case]:
    """Draw cases of every kind: alone idle to busy, near the boundary, beyond, several, duty."""
    drawn = [*(_alone(chance, 0.0, 0.35) for _ in range(6)),
             *(_alone(chance, 0.35, 0.75) for _ in range(6)),
             *(_alone(chance, 0.85, 1.05, timeout_seconds=12) for _ in range(3)),
             *(_alone(chance, 1.4, 2.5, runs=1, timeout_seconds=8) for _ in range(2)),
             *(_several(chance, members) for members in (2, 2, 3, 4)),
             *(_duty(chance) for _ in range(2)),
             Case(round(chance.uniform(20, 100), 1), (Member(redis=True),))]
    return [dataclasses.replace(case, held_out=True) for case in drawn]


def _link(chance: random.Random, working_set_mib: float) -> float:
    """Draw 10 to 200 MiB/s, evenly by magnitude, not so slow that a case takes for ever."""
    slowest = max(10.0, (OTHER_MIB + working_set_mib) / LONGEST_SECONDS)
    return round(math.exp(chance.uniform(math.log(slowest), math.log(200.0))), 1)


def _working_set(chance: random.Random) -> int:
    return round(math.exp(chance.uniform(math.log(4), math.log(128))))


def _member(chance: random.Random, working_set_mib: int, pages_per_second: float) -> Member:
    return Member(working_set_mib, min(MOST_PAGES_PER_SECOND, round(pages_per_second)),
                  chance.choice(WRITE_BYTES), chance.random() < 0.4)


def _alone(chance: random.Random, low: float, high: float, **fields) -> Case:
    """Draw one that writes `low` to `high` times what the link carries."""
    working_set = _working_set(chance)
    link = _link(chance, working_set)
    rate = chance.uniform(low, high) * link * PAGES_PER_MIB
    return Case(link, (_member(chance, working_set, rate),),
                kernel=chance.choice(("6.1", "6.12")), **fields)


def _several(chance: random.Random, members: int) -> Case:
    sets = [chance.randint(4, 48) for _ in range(members)]
    link = round(chance.uniform(15, 35) * members, 1)
    return Case(link, tuple(_member(chance, size, chance.uniform(0, 0.4) * link * PAGES_PER_MIB
                                    / members) for size in sets), timeout_seconds=20)


def _duty(chance: random.Random) -> Case:
    working_set = chance.randint(8, 48)
    link = round(chance.uniform(15, 50), 1)
    member = _member(chance, working_set, chance.uniform(0.2, 0.6) * link * PAGES_PER_MIB)
    return Case(link, (dataclasses.replace(member, period_seconds=chance.choice((6, 7, 8)),
                                           on_share=0.5),))
