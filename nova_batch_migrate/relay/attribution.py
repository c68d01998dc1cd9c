"""Whose migration a port of this host awaits: port, listening socket, QEMU process, domain UUID.

Called by destination.py before a byte of a stream enters a dictionary. Only asks the kernel, by
sock_diag and /proc; needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH to see the sockets of another
user's process.
"""

import dataclasses
import os
import re

from nova_batch_migrate.relay import sock_diag

_PROC = "/proc"
_QEMU = re.compile(rb"(?:^|/)qemu(?:-system-[\w.-]+|-kvm)?$")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclasses.dataclass(frozen=True)
class Listener:
    """A QEMU process that awaits a connection: its server and the address it listens at."""

    server_id: str
    pid: int
    #: "" for every address.
    address: str


def find(port: int) -> Listener | None:
    """Return who listens at a TCP port of this network namespace; None unless it is one QEMU.

    A port at which several processes listen, or one that is no QEMU with a UUID, is nobody's.
    OSError where the kernel has no sock_diag.
    """
    sockets = sock_diag.listening_sockets(port)
    if not sockets:
        return None
    holders = []
    for name in os.listdir(_PROC):
        if not name.isdigit():
            continue
        server_id = qemu_server(f"{_PROC}/{name}")
        if server_id is not None and (held := held_sockets(f"{_PROC}/{name}")) & sockets.keys():
            holders.append((server_id, int(name), held))
    if len(holders) != 1 or not holders[0][2] >= sockets.keys():
        return None
    server_id, pid, _ = holders[0]
    return Listener(server_id, pid, min(sockets.values()))


def qemu_server(directory: str) -> str | None:
    """Return the UUID of the domain that a process runs; None when it is no QEMU with one.

    By its own words. /proc/PID/exe, which could be read as well, is no better witness: whoever may
    run a program on this host may run QEMU's with any UUID.
    """
    try:
        with open(f"{directory}/cmdline", "rb", buffering=0) as file:
            words = file.readall().split(b"\0")
    except OSError:
        # gone meanwhile
        return None
    if not _QEMU.search(words[0]) or b"-uuid" not in words[:-1]:
        return None
    uuid = words[words.index(b"-uuid") + 1].decode(errors="replace").lower()
    return uuid if _UUID.fullmatch(uuid) else None


def held_sockets(directory: str) -> set[int]:
    """Return the inodes of the sockets that a process has open; none where we may not look."""
    found = set()
    try:
        descriptors = os.listdir(f"{directory}/fd")
    except OSError:
        return found
    for descriptor in descriptors:
        try:
            target = os.readlink(f"{directory}/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found
