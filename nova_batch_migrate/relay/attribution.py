"""Whose migration a port of this host awaits: port, listening socket, QEMU process, domain UUID.

Called by destination.py before a byte of a stream enters a dictionary. Only reads /proc; needs
CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH to see the sockets of another user's process.
"""

import dataclasses
import os
import pathlib
import re

_PROC = pathlib.Path("/proc")
_LISTEN = "0A"
_QEMU = re.compile(rb"(?:^|/)qemu(?:-system-[\w.-]+|-kvm)?$")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclasses.dataclass(frozen=True)
class Listener:
    """A QEMU process that awaits a connection: its server and the addresses it listens at."""

    server_id: str
    pid: int
    #: "" for every address.
    address: str


def find(port: int, proc: pathlib.Path = _PROC) -> Listener | None:
    """Return who listens at a TCP port of this network namespace; None unless it is one QEMU.

    A port at which several processes listen, or one that is no QEMU with a UUID, is nobody's.
    """
    sockets = listening_sockets(port, proc)
    if not sockets:
        return None
    holders = []
    for directory in proc.iterdir():
        server_id = qemu_server(directory) if directory.name.isdigit() else None
        if server_id is not None and held_sockets(directory) & sockets.keys():
            holders.append((server_id, directory))
    if len(holders) != 1 or not held_sockets(holders[0][1]) >= sockets.keys():
        return None
    server_id, directory = holders[0]
    return Listener(server_id, int(directory.name), min(sockets.values()))


def listening_sockets(port: int, proc: pathlib.Path = _PROC) -> dict[str, str]:
    """Return inode -> local address in the kernel's hexadecimal of the sockets at a port."""
    found = {}
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "self/net" / name).read_text().splitlines()[1:]
        except OSError:
            # a kernel without IPv6
            continue
        for line in lines:
            words = line.split()
            address, _, number = words[1].rpartition(":")
            if words[3] == _LISTEN and int(number, 16) == port:
                found[words[9]] = "" if set(address) == {"0"} else address
    return found


def qemu_server(directory: pathlib.Path) -> str | None:
    """Return the UUID of the domain that a process runs; None when it is no QEMU with one."""
    try:
        words = (directory / "cmdline").read_bytes().split(b"\0")
    except OSError:
        # gone meanwhile
        return None
    if not _QEMU.search(words[0]) or b"-uuid" not in words[:-1]:
        return None
    uuid = words[words.index(b"-uuid") + 1].decode(errors="replace").lower()
    return uuid if _UUID.fullmatch(uuid) else None


def held_sockets(directory: pathlib.Path) -> set[str]:
    """Return the inodes of the sockets that a process has open; none where we may not look."""
    found = set()
    try:
        descriptors = list((directory / "fd").iterdir())
    except OSError:
        return found
    for descriptor in descriptors:
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found
