"""What the kernel tells of the TCP sockets of this network namespace, by sock_diag.

Used by attribution.py and source_stream.py. It looks at the sockets asked for alone, where
/proc/net/tcp goes through every connection.
"""

import socket
import struct
import sys
from collections.abc import Iterator

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, net/tcp_states.h
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST, _REQUEST_DUMP = 0x1, 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_LISTEN, _EVERY_STATE = 1 << 10, 0xFFF
_MESSAGE = struct.Struct("=IHHII")      # length, type, flags, sequence, port id
_WANTED = struct.Struct("=BBBxI")       # family, protocol, extensions, states; sockets' id behind
_ENDS = struct.Struct(">HH16s16s")      # ports and addresses, near and far
_ANY_INTERFACE, _NO_COOKIE = bytes(4), b"\xff" * 8
_ADDRESS_AT, _SENDING_AT, _INODE_AT = 8, 60, 68
_ANSWER_BYTES = 64 << 10


def listening_sockets(port: int) -> dict[int, str]:
    """Return inode -> local address ("": every) of the sockets that listen at a port."""
    found = {}
    with _kernel() as kernel:
        for family in (socket.AF_INET, socket.AF_INET6):
            _ask(kernel, _REQUEST_DUMP, family, _LISTEN, _ENDS.pack(port, 0, b"", b"") + bytes(12))
            size = 4 if family == socket.AF_INET else 16
            for told in _dump(kernel):
                address = told[_ADDRESS_AT:_ADDRESS_AT + size]
                inode = int.from_bytes(told[_INODE_AT:_INODE_AT + 4], sys.byteorder)
                found[inode] = socket.inet_ntop(family, address) if any(address) else ""
    return found


class SendQueue:
    """What one socket of this namespace has been given to send and its peer does not have yet.

    ``near`` and ``far`` are its own address and port and those it believes to be connected to.
    OSError where the kernel has no sock_diag.
    """

    def __init__(self, near: tuple[str, int], far: tuple[str, int]):
        self._family = socket.AF_INET6 if ":" in near[0] else socket.AF_INET
        addresses = (socket.inet_pton(self._family, address) for address, _ in (near, far))
        self._ends = _ENDS.pack(near[1], far[1], *addresses) + _ANY_INTERFACE + _NO_COOKIE
        self._kernel = _kernel()

    def size_bytes(self) -> int | None:
        """Return it; None for a socket that is not there (any more)."""
        try:
            _ask(self._kernel, _REQUEST, self._family, _EVERY_STATE, self._ends)
            data = self._kernel.recv(_ANSWER_BYTES)
        except OSError:
            return None
        if _MESSAGE.unpack_from(data)[1] == _NLMSG_ERROR:
            return None
        return struct.unpack_from("=I", data, _MESSAGE.size + _SENDING_AT)[0]

    def close(self) -> None:
        """Ask no more."""
        self._kernel.close()


def _kernel() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)


def _ask(kernel: socket.socket, how: int, family: int, states: int, ends: bytes) -> None:
    wanted = _WANTED.pack(family, socket.IPPROTO_TCP, 0, states) + ends
    kernel.send(_MESSAGE.pack(_MESSAGE.size + len(wanted), _SOCK_DIAG_BY_FAMILY, how, 0, 0)
                + wanted)


def _dump(kernel: socket.socket) -> Iterator[bytes]:
    """Give the messages of one dump; a family that the kernel does not have gives none."""
    while True:
        data, at = kernel.recv(_ANSWER_BYTES), 0
        while at + _MESSAGE.size <= len(data):
            length, kind, *_ = _MESSAGE.unpack_from(data, at)
            if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                return
            yield data[at + _MESSAGE.size:at + length]
            at += -(-length // 4) * 4
