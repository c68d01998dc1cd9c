"""nova-batch-relay: carries the migration streams of open groups, identical memory once."""

import ctypes
import sys

from nova_batch_migrate import service
from nova_batch_migrate.relay import service as relay

# malloc.h; 32 MiB is the most that it takes for a block not to be mapped for itself
_M_TRIM_THRESHOLD, _TRIM_BYTES = -1, 256 << 20
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 32 << 20


def main(argv: list[str] | None = None) -> None:
    """Run the relay of this host until it is told to stop."""
    argv = sys.argv[1:] if argv is None else argv
    _keep_memory()
    service.run(relay.Relay(service.prepare(argv, "nova-batch-relay")))


def _keep_memory() -> None:
    """Keep what blocks of streams need for the next ones.

    The C library would give blocks of 1 MiB back and take new ones, a page fault for every 4 KiB:
    a third of the time that a decoded byte costs. Another C library keeps its own ways.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
