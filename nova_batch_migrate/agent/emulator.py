"""Tells whether a guest runs the program that is installed, or one from before an upgrade.

Used by dirty_rate.py, which may trust libvirt's word on QEMU's version only then.
"""

import os

from nova_batch_migrate import privsep
from nova_batch_migrate.agent import memory


@privsep.memory_pctxt.entrypoint
def runs_installed(pid_file: str, server_id: str, path: str) -> bool:
    """Say whether the guest's process was started from the file that lies at ``path`` now."""
    try:
        pid = memory.qemu_pid(pid_file, server_id)
        running, installed = os.stat(f"/proc/{pid}/exe"), os.stat(path)
    except (OSError, memory.GuestMemoryError):
        return False
    return (running.st_dev, running.st_ino) == (installed.st_dev, installed.st_ino)
