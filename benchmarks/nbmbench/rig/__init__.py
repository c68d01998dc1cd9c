"""Real QEMU guests migrated between two network namespaces of a benchmark's own, without Nova.

Called by benchmarks: `with Rig(scratch) as rig`. Ends only processes and removes only namespaces
that it made itself.
"""
from nbmbench.rig.guest import Frozen, Guest, GuestSpec
from nbmbench.rig.link import Link
from nbmbench.rig.migration import Migration, Move, Nova, QemuOptions
from nbmbench.rig.rig import ONE_WAY, Rig
from nbmbench.rig.sink import Sink

__all__ = ["ONE_WAY", "Frozen", "Guest", "GuestSpec", "Link", "Migration", "Move", "Nova",
           "QemuOptions", "Rig", "Sink"]
