"""Whose migration a port of this host awaits: port, listening socket, QEMU process, domain UUID.

Called by destination.py before a byte of a stream enters a dictionary. Only asks the kernel, by
sock_diag and /proc; needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH to see the sockets of another
user's process.
"""

import dataclasses
import os
import re
import socket
import struct
import sys
from collections.abc import Iterator

_PROC = "/proc"
# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, net/tcp_states.h
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_LISTEN = 1 << 10
_MESSAGE = struct.Struct("=IHHII")      # length, type, flags, sequence, port id
_WANTED = struct.Struct("=BBBxI")       # family, protocol, extensions, states; sockets' id behind
_PORT = struct.Struct(">H")
_ID_BYTES = 48
_ADDRESS_AT, _INODE_AT = 8, 68
_ANSWER_BYTES = 64 << 10
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
    sockets = listening_sockets(port)
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


def listening_sockets(port: int) -> dict[int, str]:
    """Return inode -> local address ("": every) of the sockets that listen at a port.

    sock_diag looks at listeners alone, where /proc/net/tcp goes through every connection.
    """
    found = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        for family in (socket.AF_INET, socket.AF_INET6):
            wanted = _WANTED.pack(family, socket.IPPROTO_TCP, 0, _LISTEN) \
                + _PORT.pack(port).ljust(_ID_BYTES, b"\0")
            kernel.send(_MESSAGE.pack(_MESSAGE.size + len(wanted), _SOCK_DIAG_BY_FAMILY,
                                      _REQUEST_DUMP, 0, 0) + wanted)
            size = 4 if family == socket.AF_INET else 16
            for told in _answers(kernel):
                address = told[_ADDRESS_AT:_ADDRESS_AT + size]
                inode = int.from_bytes(told[_INODE_AT:_INODE_AT + 4], sys.byteorder)
                found[inode] = socket.inet_ntop(family, address) if any(address) else ""
    return found


def _answers(kernel: socket.socket) -> Iterator[bytes]:
    """Give the messages of one dump; a family that the kernel does not have gives none."""
    while True:
        data, at = kernel.recv(_ANSWER_BYTES), 0
        while at + _MESSAGE.size <= len(data):
            length, kind, *_ = _MESSAGE.unpack_from(data, at)
            if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                return
            yield data[at + _MESSAGE.size:at + length]
            at += -(-length // 4) * 4


def qemu_server(directory: str) -> str | None:
    """Return the UUID of the domain that a process runs; None when it is no QEMU with one."""
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
