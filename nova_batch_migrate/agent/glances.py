"""Glances: the same few pages of a guest looked at again and again, to see how fast they change.

The privileged side of sampler.py. Remembers hashes of the latest glances, and gives back only how
many pages changed (design 5); far cheaper than a scan, and as coarse as its sample.
"""

import collections
import concurrent.futures
import dataclasses
import secrets
import threading
import time

import numpy

from nova_batch_migrate import privsep
from nova_batch_migrate.agent import fingerprint, memory, scan

#: Pages that are looked at lie in runs of so many: fewer calls to the kernel, still many places.
RUN_PAGES = 8
#: What nobody has looked at for so long is forgotten.
_KEEP_SECONDS = 300.0
#: Stands for a page that was not read: swapped out.
_UNREAD = numpy.uint64(0)

#: Of this process alone: no hash leaves it.
_SEED = secrets.randbits(63)
_ZERO = fingerprint.zero_hash(_SEED)

_lock = threading.Lock()
_watched: dict[tuple[str, str], "_Watched"] = {}


@dataclasses.dataclass
class _Watched:
    """A guest's pages of one series, and what they held at the latest glances."""

    pid: int
    runs: list[memory.Slice]
    glances: collections.deque
    total_pages: int


@privsep.memory_pctxt.entrypoint
def glance(series: str, servers: list[dict], pages: int, lags: list[int],
           read_bytes_per_second: float) -> list[dict]:
    """Look once at about ``pages`` pages of each guest; compare them with earlier glances.

    ``servers`` has id, pid_file and blocks_bytes of each; ``lags`` say with which glances of the
    same series: 1 is the one before. Returns per guest ``id``, ``at`` (seconds since the epoch) and
    ``windows`` ([lag, seconds, changed pages of all of its RAM]), or ``id`` and ``error``.
    """
    # priority is per thread in Linux, and this thread ends with its glance
    with concurrent.futures.ThreadPoolExecutor(1, initializer=scan.yield_to_guests) as pool:
        return pool.submit(_glance_all, series, servers, pages, sorted(lags),
                           read_bytes_per_second).result()


def _glance_all(series, servers, pages, lags, read_bytes_per_second) -> list[dict]:
    _forget_old()
    pace = memory.Pace(read_bytes_per_second)
    buffer = memory.Buffer()
    hasher = fingerprint.Hasher(buffer.view[:RUN_PAGES * memory.PAGE_BYTES], _SEED)
    found = []
    for server in servers:
        try:
            windows = _glance(series, server, pages, lags, pace, (buffer, hasher))
        except memory.GuestMemoryError as error:
            found.append({"id": server["id"], "error": str(error)})
        else:
            found.append({"id": server["id"], "at": time.time(), "windows": windows})
    return found


def _glance(series, server, pages, lags, pace, tools) -> list[list[float]]:
    pid = memory.qemu_pid(server["pid_file"], server["id"])
    guest = memory.GuestMemory(pid, server["blocks_bytes"])
    try:
        watched = _watched_of((series, server["id"]), pid, guest, pages, max(lags))
        now = time.monotonic()
        hashes = numpy.concatenate(
            [_hashes(guest, run, pace, *tools) for run in watched.runs])
    finally:
        guest.close()
    windows = []
    for lag in lags:
        if lag <= len(watched.glances):
            then, before = watched.glances[-lag]
            both = (hashes != _UNREAD) & (before != _UNREAD)
            changed = numpy.count_nonzero((hashes != before) & both)
            windows.append([lag, now - then, changed / len(hashes) * watched.total_pages])
    watched.glances.append((now, hashes))
    return windows


def _watched_of(key, pid: int, guest: memory.GuestMemory, pages: int, keep: int) -> _Watched:
    """Return what is remembered; begin anew for a new process, or when other pages are asked."""
    with _lock:
        watched = _watched.get(key)
        if watched is None or watched.pid != pid or watched.glances.maxlen != keep:
            watched = _Watched(pid, _runs(guest, pages), collections.deque(maxlen=keep),
                               guest.total_pages)
            _watched[key] = watched
        return watched


def _runs(guest: memory.GuestMemory, pages: int) -> list[memory.Slice]:
    """Choose runs of pages, one at a random place in each of as many equal parts of RAM."""
    all_runs = [memory.Slice(part.address + first * memory.PAGE_BYTES,
                             min(RUN_PAGES, part.pages - first))
                for part in guest.slices() for first in range(0, part.pages, RUN_PAGES)]
    wanted = max(1, min(len(all_runs), pages // RUN_PAGES))
    edges = numpy.linspace(0, len(all_runs), wanted + 1).astype(int)
    random = numpy.random.default_rng()
    return [all_runs[int(random.integers(low, high))]
            for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]


def _hashes(guest, run: memory.Slice, pace: memory.Pace, buffer: memory.Buffer,
            hasher: fingerprint.Hasher) -> numpy.ndarray:
    present, swapped = guest.presence(run)
    hashes = numpy.full(run.pages, _ZERO, dtype=numpy.uint64)
    if present.any():
        pace.spend(int(numpy.count_nonzero(present)) * memory.PAGE_BYTES)
        size = guest.read(run, present, buffer)
        hashes[present] = hasher.hash(size // memory.PAGE_BYTES)
    hashes[swapped] = _UNREAD
    return hashes


def _forget_old() -> None:
    too_old = time.monotonic() - _KEEP_SECONDS
    with _lock:
        for key, watched in list(_watched.items()):
            if watched.glances and watched.glances[-1][0] < too_old:
                del _watched[key]
