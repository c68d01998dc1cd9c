"""Page frames that guests map together: merged by KSM, or of one shared file (FIG. 2A).

Called by measurement.py where [agent] mapped_pages is set, through a privileged process of its own:
the kernel shows frame numbers to CAP_SYS_ADMIN only. Costs no hashing, and finds the least that is
in common. Gives back counts, never frame numbers.
"""

import concurrent.futures

import numpy

from nova_batch_migrate import privsep
from nova_batch_migrate.agent import fingerprint, memory, scan
from nova_batch_migrate.agent.memory import PAGE_BYTES

_EXCLUSIVE = numpy.uint64(1 << 56)
_PRESENT = numpy.uint64(1 << 63)
_FRAME = numpy.uint64((1 << 55) - 1)
#: Spreads frame numbers over 64 bits, so that a share of them is a fair sample.
_SPREAD = numpy.uint64(0x9E3779B97F4A7C15)
_STEP_PAGES = 1 << 16


@privsep.frames_pctxt.entrypoint
def mapped(servers: list[dict], page_budget: int, read_bytes_per_second: float) -> dict | None:
    """Count the frames that each set of guests maps; return the JSON of a PageClasses.

    ``servers`` as scan.measure has them; those that can't be read are left out. Only frames that
    two guests map are counted, and none that holds zeros. None without CAP_SYS_ADMIN.
    """
    guests = []
    try:
        for server in servers:
            guest = _open(server)
            if guest is not None:
                guests.append((server["id"], guest))
        # as the scan does: a thread that gives way to guests, and ends with this
        with concurrent.futures.ThreadPoolExecutor(1, initializer=scan.yield_to_guests) as pool:
            return pool.submit(_classes, guests, page_budget,
                               memory.Pace(read_bytes_per_second)).result()
    finally:
        for _, guest in guests:
            guest.close()


def _open(server: dict) -> memory.GuestMemory | None:
    try:
        return memory.GuestMemory(memory.qemu_pid(server["pid_file"], server["id"]),
                                  server["blocks_bytes"])
    except memory.GuestMemoryError:
        return None


def _classes(guests: list, page_budget: int, pace: memory.Pace) -> dict | None:
    frames: dict[str, tuple[numpy.ndarray, numpy.ndarray]] = {}
    total = sum(guest.total_pages for _, guest in guests)
    theta = min(1.0, page_budget / total) if total else 1.0
    hidden = bool(guests)
    for server, guest in guests:
        try:
            pages, spread, visible = _shared_frames(guest, theta)
        except memory.GuestMemoryError:
            continue
        hidden = hidden and not visible
        frames[server] = pages, spread
    if hidden:
        return None
    common = _common([spread for _, spread in frames.values()])
    common = _without_zeros(guests, frames, common, pace)
    held = {server: numpy.unique(spread[numpy.isin(spread, common)])
            for server, (_, spread) in frames.items()}
    return fingerprint.page_classes(held, seed=1, theta=theta)


def _shared_frames(guest: memory.GuestMemory, theta: float):
    """Return addresses and spread frame numbers of pages that others may map too.

    The third value is false where the kernel hides frame numbers.
    """
    addresses, spread, visible = [], [], False
    for block in guest.blocks:
        for start in range(0, block.size_bytes // PAGE_BYTES, _STEP_PAGES):
            begin = block.address + start * PAGE_BYTES
            entries = guest.entries(begin, min(_STEP_PAGES, block.size_bytes // PAGE_BYTES - start))
            present = entries >= _PRESENT
            numbers = entries & _FRAME
            visible = visible or not present.any() or bool(numbers[present].any())
            wanted = numpy.flatnonzero(present & ((entries & _EXCLUSIVE) == 0) & (numbers != 0))
            found = numbers[wanted] * _SPREAD
            if theta < 1:
                kept = found < fingerprint.limit(theta)
                wanted, found = wanted[kept], found[kept]
            addresses.append(wanted.astype(numpy.uint64) * numpy.uint64(PAGE_BYTES)
                             + numpy.uint64(begin))
            spread.append(found)
    return numpy.concatenate(addresses), numpy.concatenate(spread), visible


def _common(spread_of: list[numpy.ndarray]) -> numpy.ndarray:
    if not spread_of:
        return numpy.empty(0, dtype=numpy.uint64)
    values, counts = numpy.unique(numpy.concatenate([numpy.unique(each) for each in spread_of]),
                                  return_counts=True)
    return values[counts > 1]


def _without_zeros(guests: list, frames: dict, common: numpy.ndarray, pace: memory.Pace
                   ) -> numpy.ndarray:
    """Read each common frame once, through one of its guests, and leave out those of zeros."""
    left, buffer, kept = common, memory.Buffer(), []
    zeros = bytes(PAGE_BYTES)
    for server, guest in guests:
        if server not in frames:
            continue
        addresses, spread = frames[server]
        mine, where = numpy.unique(spread, return_index=True)
        here = numpy.isin(mine, left)
        left = left[~numpy.isin(left, mine)]
        for number, address in zip(mine[here].tolist(), addresses[where[here]].tolist(),
                                   strict=True):
            part = memory.Slice(address, 1)
            pace.spend(PAGE_BYTES)
            try:
                present, _ = guest.presence(part)
                if present[0] and guest.read(part, present, buffer) \
                        and bytes(buffer.view[:PAGE_BYTES]) != zeros:
                    kept.append(number)
            except memory.GuestMemoryError:
                break
    return numpy.array(kept, dtype=numpy.uint64)
