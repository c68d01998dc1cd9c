"""What scans have read of guests, and told of them together, while it is young enough to use again.

Used by scan.py and recurring.py inside the privileged process, and lost with it. Holds hashes and
counts, never a page; reads nothing.
"""

import dataclasses
import time
from collections.abc import Sequence

from nova_batch_migrate.agent import guest_scan, memory

_KEEP_SECONDS = 3600.0

_known: dict[str, guest_scan.Known] = {}


@dataclasses.dataclass(frozen=True)
class _Told:
    """What a scan gave back, how it was done, and of which guests as they are remembered."""

    settings: object
    read_at: tuple[tuple[str, float], ...]
    found: dict


_latest: _Told | None = None


def known(server_id: str) -> guest_scan.Known | None:
    """Return what was read of a server's contents."""
    return _known.get(server_id)


def young(guest: guest_scan.Guest, seed: int, reuse_seconds: float) -> guest_scan.Known | None:
    """Return what was read of an open guest at most so long ago, with this seed of hashes."""
    found = _known.get(guest.id)
    if (found is not None and time.monotonic() - found.at_seconds < reuse_seconds
            and found.seed == seed and found.identity == guest.memory.identity()):
        return found
    return None


def keep(guest: guest_scan.Guest, seed: int, page_budget: int) -> None:
    """Remember a guest that was read completely; of more than twice the budget the oldest go.

    A guest that has ended meanwhile has ``error`` afterwards.
    """
    now = time.monotonic()
    for server_id in [i for i, held in _known.items() if now - held.at_seconds > _KEEP_SECONDS]:
        del _known[server_id]
    try:
        identity = guest.memory.identity()
    except memory.GuestMemoryError as error:
        guest.error = str(error)
        return
    _known.pop(guest.id, None)
    _known[guest.id] = guest_scan.Known(identity, seed, now, guest.counts(), guest.contents(1.0),
                                        guest.sample(1.0))
    pages = sum(len(held.contents.hashes) for held in _known.values())
    while pages > 2 * page_budget and len(_known) > 1:
        pages -= len(_known.pop(next(iter(_known))).contents.hashes)


def told(guests: Sequence[guest_scan.Guest], settings: object) -> dict | None:
    """Return what the latest scan gave back, where nothing of these guests would be read anew.

    ``settings`` are compared: whatever decides what a scan gives back.
    """
    if _latest is None or _latest.settings != settings or any(
            guest.known is None for guest in guests):
        return None
    if _latest.read_at != tuple((guest.id, guest.known.at_seconds) for guest in guests):
        return None
    return _latest.found | {"servers": [
        counts | {"reused": True} for counts in _latest.found["servers"]]}


def keep_told(guests: Sequence[guest_scan.Guest], settings: object, found: dict) -> None:
    """Remember what is given back, where every guest of it is remembered too."""
    global _latest
    held = [_known.get(guest.id) for guest in guests]
    if all(guest.complete for guest in guests) and None not in held:
        _latest = _Told(settings, tuple(
            (guest.id, each.at_seconds) for guest, each in zip(guests, held, strict=True)),
            dict(found))


def forget() -> None:
    """Forget everything."""
    global _latest
    _known.clear()
    _latest = None
