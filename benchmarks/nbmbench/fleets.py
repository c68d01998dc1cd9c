"""The fleets that several benchmarks migrate: alike, mixed, unlike; idle and busy; frozen.

Called by suite modules with a rig. Which guest is in which project and what in it is random filling
is told beside the states.
"""
import dataclasses
import pathlib
import random
from collections.abc import Iterable, Sequence

from nbmlab.families import FAMILIES, Family, Load

from nbmbench import unlike
from nbmbench.rig import Frozen, GuestSpec, Rig

PROJECTS = ("alpha", "beta")
SIZE = 8
IDLE = Load(8, 20)
BUSY = Load(32, 1500)
KINDS = ("web", "cache", "redis", *unlike.KINDS)
MIXED = ("web", "cache", "redis", "database")
UNLIKE = ("redis", *unlike.KINDS)
#: Of a page that the guest program fills: all but its header of 32 bytes.
RANDOM_SHARE = 4064 / 4096
MEMORY_MIB = 256


@dataclasses.dataclass(frozen=True)
class Member:
    """A frozen guest of a fleet."""

    kind: str
    project: str
    frozen: Frozen | None              # None: only its stream is there
    random_bytes: int                  # filling that nothing can reduce


@dataclasses.dataclass(frozen=True)
class Fleet:
    """Guests in the order in which they migrate."""

    name: str                          # alike, alike-redis, mixed, unlike, held-out
    activity: str                      # idle, busy
    members: tuple[Member, ...]

    def groups(self, scope: str) -> list[list[int]]:
        """Return the members' indexes by log: one for all, or one a project."""
        if scope == "host":
            return [list(range(len(self.members)))]
        return [[index for index, member in enumerate(self.members) if member.project == project]
                for project in PROJECTS]


def load_of(kind: str, load: Load) -> Load:
    """Return what a guest of that kind writes: text in a cache, nothing of ours beside redis."""
    if kind == "redis":
        return FAMILIES["redis"].load
    return dataclasses.replace(load, compressible=kind == "cache")


def spec(name: str, kind: str, load: Load) -> GuestSpec:
    """Return a guest of a kind with a load of the guest program."""
    load = load_of(kind, load)
    if kind in unlike.KINDS:
        vmlinuz, initramfs = unlike.files(kind)
        return GuestSpec(name, Family(name, kind, "small", MEMORY_MIB, load), vmlinuz=vmlinuz,
                         initramfs=initramfs)
    family = FAMILIES[kind]
    memory_mib = family.memory_mib if kind == "redis" else MEMORY_MIB
    return GuestSpec(name, dataclasses.replace(family, memory_mib=memory_mib, load=load))


def freeze(rig: Rig, directory: pathlib.Path, wanted: Sequence[tuple[str, Load]], prefix: str,
           ticks: int = 4, at_once: int = 4) -> list[Frozen]:
    """Boot guests, a few at once, let them live for some seconds, freeze them."""
    frozen = []
    for first in range(0, len(wanted), at_once):
        part = wanted[first:first + at_once]
        booted = rig.boot_all([spec(f"{prefix}{first + n}-{kind}", kind, load)
                               for n, (kind, load) in enumerate(part)], ticks=ticks)
        frozen += [guest.freeze(directory / f"{guest.spec.name}.stream") for guest in booted]
    return frozen


def members(frozen: Iterable[Frozen], kinds: Sequence[str]) -> tuple[Member, ...]:
    """Return frozen guests as members, the projects by turns."""
    return tuple(
        Member(kind, PROJECTS[index % 2], state, random_bytes(state.spec.family.load))
        for index, (state, kind) in enumerate(zip(frozen, kinds, strict=True)))


def gone(kinds: Sequence[str], load: Load) -> tuple[Member, ...]:
    """Return members of whom only the streams are left."""
    return tuple(Member(kind, PROJECTS[index % 2], None, random_bytes(load_of(kind, load)))
                 for index, kind in enumerate(kinds))


def random_bytes(load: Load) -> int:
    """Return how much of a guest's memory such a load fills with what nothing can reduce."""
    return 0 if load.compressible else int(
        load.working_set_mib * (1 << 20) * RANDOM_SHARE)


def kinds_of(name: str, generator: random.Random | None = None) -> list[str]:
    """Return the kinds of a fleet's guests in their order."""
    if name == "alike":
        return ["web"] * SIZE
    if name == "alike-redis":
        return ["redis"] * SIZE
    if name == "mixed":
        return [kind for kind in MIXED for _ in range(SIZE // len(MIXED))]
    if name == "unlike":
        return list(UNLIKE)
    if generator is None:
        raise ValueError(f"no fleet is called {name}")
    drawn = generator.sample(KINDS, 3)
    return sorted(generator.choice(drawn) for _ in range(SIZE))


def drawn_load(generator: random.Random) -> Load:
    """Return a load for a held-out fleet."""
    return Load(generator.choice((8, 16, 24, 48)), generator.choice((50, 400, 1000, 2500)),
                generator.choice((64, 512, 2048, 4096)))
