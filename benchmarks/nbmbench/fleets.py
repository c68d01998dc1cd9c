"""The fleets that several benchmarks migrate: alike, mixed, unlike; idle and busy; frozen.

Called by suite modules with a rig. Which guest is in which project and what in it is random filling
is told beside the states.

What a busy guest holds decides what can be saved on it, so it is chosen after real services. What
they keep in memory compresses: Google's fleet pays a third for memory that zswap holds (67 % less,
Lagar-Cavilla et al., ASPLOS 2019), and migration with its pages compressed sent 69 % less over the
workloads of Jin et al. (CLUSTER 2009): 3:1. The lab's writers know two contents only, both at an
end: random bytes, and words that `zstd -1` takes at 13:1. Half of a busy fleet holds the one and
half the other, which is 1.9:1 for all of it: less to save than was published. The loads are
those of the lab's families writer-text and writer-mid, with a working set of 16 MiB, 6 % of the
memory. `alike-random` is what busy was before: 32 MiB of nothing but random bytes, 13 % of the
memory and a quarter of what stock QEMU sends. There `zstd -9` of the whole fleet as one stream
saved half of the bytes of multifd with zstd: whoever sends it, a goal under that says nothing.
"""
import dataclasses
import pathlib
import pickle
import random
import shutil
from collections.abc import Iterator, Sequence

from nbmlab.families import FAMILIES, Family, Load

from nbmbench import unlike
from nbmbench.rig import Frozen, GuestSpec, Rig

PROJECTS = ("alpha", "beta")
SIZE = 8
IDLE = Load(8, 20)
BUSY = (FAMILIES["writer-text"].load, FAMILIES["writer-mid"].load)
RANDOM = Load(32, 1500)
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

    name: str                          # alike, alike-redis, mixed, unlike, alike-random, held-out
    activity: str                      # idle, busy
    members: tuple[Member, ...]

    def groups(self, scope: str) -> list[list[int]]:
        """Return the members' indexes by log: one for all, or one a project."""
        if scope == "host":
            return [list(range(len(self.members)))]
        return [[index for index, member in enumerate(self.members) if member.project == project]
                for project in PROJECTS]


class Pool:
    """Frozen guests by kind and load, made as they are asked for, kept in a directory.

    What an earlier run has left there serves again; without a rig nothing else does. A guest
    serves in several fleets, never twice in one.
    """

    def __init__(self, directory: pathlib.Path, rig: Rig | None):
        self._directory, self._rig = directory, rig

    def take(self, wanted: Sequence[tuple[str, Load]]) -> list[Frozen]:
        """Return frozen guests of these kinds and loads; LookupError for one that is not there."""
        alike = [_name(*each) for each in wanted]
        names = [f"{name}-{alike[:index].count(name)}" for index, name in enumerate(alike)]
        missing = [spec(name, *each) for name, each in zip(names, wanted, strict=True)
                   if not self._kept(name).exists()]
        if missing and not self._rig:
            raise LookupError(f"{missing[0].name} is not kept in {self._directory}")
        for frozen in _freeze(self._rig, self._directory, missing):
            if frozen.disk:
                disk = self._directory / f"{frozen.spec.name}.qcow2"
                frozen = dataclasses.replace(frozen, disk=shutil.move(frozen.disk, disk))
            self._kept(frozen.spec.name).write_bytes(pickle.dumps(frozen))
        return [pickle.loads(self._kept(name).read_bytes()) for name in names]

    def _kept(self, name: str) -> pathlib.Path:
        return self._directory / f"{name}.frozen"


def _name(kind: str, load: Load) -> str:
    load = load_of(kind, load)
    return (f"{kind}-{load.working_set_mib}-{load.pages_per_second}-{load.bytes_per_write}-"
            f"{'text' if load.compressible else 'random'}")


def load_of(kind: str, load: Load) -> Load:
    """Return what a guest of that kind writes: nothing of ours beside redis."""
    return FAMILIES["redis"].load if kind == "redis" else load


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


def freeze(rig: Rig, directory: pathlib.Path, wanted: Sequence[tuple[str, Load]],
           prefix: str) -> list[Frozen]:
    """Boot guests, a few at once, let them live for some seconds, freeze them."""
    return list(_freeze(rig, directory, [spec(f"{prefix}{n}-{kind}", kind, load)
                                         for n, (kind, load) in enumerate(wanted)]))


def _freeze(rig: Rig | None, directory: pathlib.Path, specs: Sequence[GuestSpec],
            ticks: int = 4, at_once: int = 4) -> Iterator[Frozen]:
    for first in range(0, len(specs), at_once):
        for guest in rig.boot_all(specs[first:first + at_once], ticks=ticks):
            yield guest.freeze(directory / f"{guest.spec.name}.stream")


def members(kinds: Sequence[str], loads: Sequence[Load],
            frozen: Sequence[Frozen | None]) -> tuple[Member, ...]:
    """Return guests as members, the projects by turns."""
    return tuple(
        Member(kind, PROJECTS[index % 2], state, random_bytes(load_of(kind, load)))
        for index, (kind, load, state) in enumerate(zip(kinds, loads, frozen, strict=True)))


def random_bytes(load: Load) -> int:
    """Return how much of a guest's memory such a load fills with what nothing can reduce."""
    return 0 if load.compressible else int(
        load.working_set_mib * (1 << 20) * RANDOM_SHARE)


def kinds_of(name: str, generator: random.Random | None = None) -> list[str]:
    """Return the kinds of a fleet's guests in their order."""
    if name in ("alike", "alike-random"):
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


def loads_of(name: str, activity: str, kinds: Sequence[str],
             generator: random.Random | None = None) -> list[Load]:
    """Return the loads of a fleet's guests; drawn ones for the held-out fleet."""
    if name == "held-out":
        return [drawn_load(generator) for _ in kinds]
    if name == "alike-random":
        return [RANDOM] * len(kinds)
    if activity == "idle":
        return [dataclasses.replace(IDLE, compressible=kind == "cache") for kind in kinds]
    # text and random by turns, as many of each in both projects and of every kind
    return [BUSY[(index + index // 2) % 2] for index, _ in enumerate(kinds)]


def drawn_load(generator: random.Random) -> Load:
    """Return a load for a held-out fleet."""
    return Load(generator.choice((8, 16, 24, 48)), generator.choice((50, 400, 1000, 2500)),
                generator.choice((64, 512, 2048, 4096)), generator.choice((False, True)))
