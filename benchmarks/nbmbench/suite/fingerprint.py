"""How fast the agent reads and fingerprints guest memory, beside a C loop of read and XXH3.

Real guests of the lab, stopped so that both see the same pages. The agent's whole path: presence by
pagemap, reading, XXH3 of every page, collecting what is distinct; without a rate limit. Each pair
of runs is one after the other in turn, the bound with its better buffer size. Other cases tell
what identical blocks inside of pages would save behind zstd.
"""
import collections
import functools
import pathlib
import subprocess
import time

import numpy
import zstandard
from nbmlab import apt, layout, shell
from nbmlab.families import Load

from nbmbench import contract
from nbmbench.rig import Guest, GuestSpec, Rig
from nova_batch_migrate.agent import fingerprint, guest_scan, memory, scan
from nova_batch_migrate.agent.memory import PAGE_BYTES

NEEDS = "lab"
GOALS = {"ratio": contract.Goal(">=", 0.8)}
MIB = 1 << 20
SEED = 20180329737
SOURCE = pathlib.Path(__file__).parents[1] / "read_and_hash.c"
BOUND_BUFFERS_BYTES = (256 << 10, 2 << 20)
BLOCKS_BYTES = (512, 1024, 2048)
REFERENCE_BYTES = 8
PAIRS = 25
#: The relay's window, and the largest that zstd takes.
WINDOW_LOGS = (27, 30)


def run(settings: contract.Settings) -> list[dict]:
    """Measure guests of every family, and one of a gigabyte drawn from the commit's hash."""
    program = _build(settings.scratch)
    with Rig(settings.scratch / "rig") as rig:
        specs = [GuestSpec.of(f"alike{number}", "web") for number in range(2)]
        specs += [GuestSpec.of("other", "cache"), GuestSpec.of("redis", "redis")]
        if not settings.quick:
            chance = settings.held_out("fingerprint")
            load = Load(working_set_mib=chance.choice((64, 128, 256)),
                         compressible=chance.random() < 0.5)
            specs.append(GuestSpec.writer("drawn", load, memory_mib=1024,
                                          kernel=chance.choice(("6.1", "6.12"))))
        guests = rig.boot_all(specs)
        for guest in guests:
            guest.qmp.execute("stop")
        pairs = 5 if settings.quick else PAIRS
        reader = scan.ContentReader(SEED, memory.Pace(float("inf")))
        for guest in guests:
            # the first passes pay for memory that is fresh from the kernel
            _pair(program, guest, reader)
            _pair(program, guest, reader)
        cases = []
        for number in range(pairs):
            for guest in guests[1:]:
                cases.append({"case": "speed", "guest": guest.spec.name, "pair": number,
                              "held_out": guest.spec.name == "drawn",
                              **_pair(program, guest, reader)})
        cases += _portions(guests[:4])
        return cases


def measured(cases: list[dict]) -> dict:
    """Return medians: of the agent's speed, of the bound's, and of the ratio in each pair."""
    speeds = [case for case in cases if case["case"] == "speed"]
    if not speeds:
        return {}
    return {"bytes_per_second": float(numpy.median([_agent(case) for case in speeds])),
            "limit_bytes_per_second": float(numpy.median([_bound(case) for case in speeds])),
            "ratio": float(numpy.median([_ratio(case) for case in speeds]))}


def intervals(cases: list[dict]) -> dict:
    """Return the 95 % interval of the ratio's median."""
    ratios = [_ratio(case) for case in cases if case["case"] == "speed"]
    return {"ratio": contract.bootstrap(ratios, numpy.median)} if len(ratios) > 1 else {}


def missing(cases: list[dict]) -> list[str]:
    """Return the guests with fewer pairs of runs than a whole benchmark has."""
    pairs = collections.Counter(case["guest"] for case in cases if case["case"] == "speed")
    return [f"{PAIRS - pairs[guest]} pairs of {guest}" for guest in ("alike1", "other", "redis")
            if pairs[guest] < PAIRS]


def _agent(case: dict) -> float:
    return case["bytes"] / case["agent_seconds"]


def _bound(case: dict) -> float:
    return case["bytes"] / min(case["bound_seconds"].values())


def _ratio(case: dict) -> float:
    return _agent(case) / _bound(case)


def _build(scratch: pathlib.Path) -> pathlib.Path:
    """Compile the bound; its only library is a header, downloaded where it is not installed."""
    include = pathlib.Path("/usr/include")
    if not (include / "xxhash.h").exists():
        unpacked = layout.CACHE / "xxhash"
        include = unpacked / "usr/include"
        if not (include / "xxhash.h").exists():
            package, = apt.download(("libxxhash-dev",), layout.CACHE / "apt/xxhash")
            shell.run("dpkg-deb", "-x", package, unpacked)
    program = scratch / "read_and_hash"
    shell.run("gcc", "-O3", "-march=native", f"-I{include}", "-o", program, SOURCE)
    return program


def _pair(program: pathlib.Path, guest: Guest, reader: scan.ContentReader) -> dict:
    """Run the bound and the agent's path over the present pages of a guest."""
    begin, end = guest.ram()
    opened = guest_scan.Guest(guest.spec.uuid)
    opened.memory = memory.GuestMemory(guest.pid, [end - begin])
    try:
        runs = _runs(opened.memory)
        bound, sums = {}, set()
        for size in BOUND_BUFFERS_BYTES:
            told = subprocess.run(
                [program, str(guest.pid), str(SEED), str(size)], input=runs, text=True,
                stdout=subprocess.PIPE, check=True).stdout.split()
            bound[str(size)], bound_bytes = float(told[0]), int(told[1])
            sums.add(told[2])
        seconds, hashed = _agent_path(opened, reader)
    finally:
        opened.close()
    if len(sums) != 1 or hashed != bound_bytes:
        raise RuntimeError(f"{guest.spec.name}: the bound read {bound_bytes} bytes, the agent "
                           f"{hashed}: the guest is not still")
    return {"bytes": bound_bytes, "bound_seconds": bound, "agent_seconds": seconds}


def _runs(ram: memory.GuestMemory) -> str:
    lines = []
    for part in ram.slices():
        present, _ = ram.presence(part)
        edges = numpy.flatnonzero(numpy.diff(present, prepend=False, append=False)).tolist()
        lines += [f"{part.address + first * PAGE_BYTES} {(last - first) * PAGE_BYTES}"
                  for first, last in zip(edges[::2], edges[1::2], strict=True)]
    return "\n".join(lines)


def _agent_path(opened: guest_scan.Guest, reader: scan.ContentReader) -> tuple[float, int]:
    """Read and fingerprint as scan.py does for contents; return seconds and bytes."""
    opened.seen = guest_scan.Seen()
    begun = time.monotonic()
    opened.collect(reader.zero, 1.0, 1.0)
    for part in scan.unread(opened):
        reader.read_contents(opened, part)
    seconds = time.monotonic() - begun
    if opened.error:
        raise RuntimeError(opened.error)
    return seconds, opened.seen.present * PAGE_BYTES


def _portions(guests: list[Guest]) -> list[dict]:
    """Say what each block size saves: pages once, then blocks once, then zstd with a long window.

    A block found before (in any page) crosses as a reference; what is left is compressed in order,
    as one stream of all guests.
    """
    cases = []
    for names, chosen in (("two alike", guests[:2]), ("two unlike", guests[1:3]),
                          ("all", guests)):
        pages = [page for guest in chosen for page in _contents(guest)]
        literal, references = _once(pages, PAGE_BYTES)
        raw = len(pages) * PAGE_BYTES
        for size in (PAGE_BYTES, *BLOCKS_BYTES):
            blocks = [page[start:start + size] for page in literal
                      for start in range(0, PAGE_BYTES, size)]
            kept, more = _once(blocks, size)
            cases += [{"case": "portions", "guests": names, "block_bytes": size,
                       "window_log": log, "raw_bytes": raw,
                       "wire_bytes": _packed(kept, log) + references + more}
                      for log in WINDOW_LOGS]
    return cases


def _contents(guest: Guest):
    begin, end = guest.ram()
    ram, buffer = memory.GuestMemory(guest.pid, [end - begin]), memory.Buffer()
    zeros = bytes(PAGE_BYTES)
    try:
        for part in ram.slices():
            present, _ = ram.presence(part)
            size = ram.read(part, present, buffer)
            for start in range(0, size, PAGE_BYTES):
                page = bytes(buffer.view[start:start + PAGE_BYTES])
                if page != zeros:
                    yield page
    finally:
        ram.close()


def _once(units: list[bytes], size: int) -> tuple[list[bytes], int]:
    """Return the units that were not there before, and the bytes of references to the others."""
    digest = functools.partial(fingerprint.hash_page, seed=SEED)
    seen, kept = set(), []
    for unit in units:
        name = digest(unit)
        if name not in seen:
            seen.add(name)
            kept.append(unit)
    return kept, (len(units) - len(kept)) * REFERENCE_BYTES


def _packed(units: list[bytes], window_log: int) -> int:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        1, window_log=window_log, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    size = 0
    for start in range(0, len(units), 1024):
        size += len(packer.compress(b"".join(units[start:start + 1024])))
    return size + len(packer.flush())
