"""Which disks of a server would be copied by a migration, and what is on them.

Used by measurement.py. Reads mount tables and libvirt's counters, never the disks.
"""

import os
import time

from nova_batch_migrate import exception
from nova_batch_migrate.agent import domains
from nova_batch_migrate.planning.telemetry import Disk

_MOUNTS = "/proc/self/mounts"
#: File systems that both hosts see; libvirt migrates file disks only where it knows them.
_SHARED = frozenset({
    "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.quobyte", "gfs2", "gpfs",
    "lustre", "nfs", "nfs4", "ocfs2", "smb2", "smb3", "virtiofs"})


def is_shared(kind: str, path: str, mounts_file: str = _MOUNTS) -> bool:
    """Return whether a disk's data is seen by other hosts too.

    Network and block devices are volumes that Nova does not copy; a file is judged by the file
    system it lies on.
    """
    if kind != "file":
        return True
    best, best_type = "", ""
    with open(mounts_file, encoding="utf-8", errors="surrogateescape") as opened:
        for line in opened:
            _, mount_point, file_system, *_ = line.split()
            mount_point = mount_point.replace("\\040", " ")
            inside = os.path.commonpath((mount_point, path)) == mount_point
            # of mounts on the same point the last one is seen
            if inside and len(mount_point) >= len(best):
                best, best_type = mount_point, file_system
    return best_type in _SHARED


class DiskWatch:
    """Counts what a server writes to its disks between two looks."""

    def __init__(self, hypervisor: domains.Hypervisor, domain: domains.Domain):
        self._hypervisor = hypervisor
        self._domain = domain
        self._begun = time.monotonic()
        self._before = self._look()

    def _look(self) -> dict[str, domains.DiskUse]:
        found = {}
        for disk in self._domain.definition.disks:
            try:
                found[disk.device] = self._hypervisor.disk_use(self._domain.id, disk.device)
            except exception.AgentRefused:
                # an ejected medium has no counters, and nothing to copy
                continue
        return found

    def result(self) -> list[Disk]:
        """Return the disks with their write rates since this watch began."""
        after = self._look()
        seconds = max(time.monotonic() - self._begun, 1e-3)
        return [
            Disk(device=disk.device, allocated_bytes=after[disk.device].allocated_bytes,
                 write_bytes_per_second=max(0, after[disk.device].written_bytes
                                            - self._before[disk.device].written_bytes) / seconds,
                 shared=is_shared(disk.kind, disk.path))
            for disk in self._domain.definition.disks
            if disk.device in after and disk.device in self._before
        ]
