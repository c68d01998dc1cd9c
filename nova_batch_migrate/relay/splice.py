"""Passes bytes between two sockets inside the kernel: no copy through this process, no parsing.

Called by source.py for what is not attributed or not worth the relay's work. Full duplex, with
half-close either way; what one side sends first reaches the other at once.
"""

import fcntl
import os
import socket
import threading

import numpy as np

from nova_batch_migrate.relay import kernel

_CHUNK_BYTES = 1 << 20
#: Behind a piece of a stream that flows: to be woken for each packet costs more than to move it.
#: What is small goes on at once, a request and its answer for instance.
_REST_MICROSECONDS = 200


class Splice:
    """Two connected sockets, joined until both directions have ended."""

    def __init__(self, first: socket.socket, second: socket.socket):
        self._sockets = (first, second)
        self._moved = np.zeros((2, 1), np.int64)

    @property
    def moved_bytes(self) -> list[int]:
        """Bytes from the first to the second so far, and back."""
        return self._moved[:, 0].tolist()

    def run(self) -> None:
        """Move bytes until both sides have closed; closes both sockets."""
        first, second = self._sockets
        back = threading.Thread(target=self._pump, args=(second, first, 1), daemon=True)
        back.start()
        try:
            self._pump(first, second, 0)
            back.join()
        finally:
            self.close()

    def close(self) -> None:
        """End both directions at once."""
        for each in self._sockets:
            shut(each, socket.SHUT_RDWR)
        for each in self._sockets:
            each.close()

    def _pump(self, source: socket.socket, target: socket.socket, index: int) -> None:
        # duplicates: a number that is closed meanwhile could be another connection's
        fds = list(os.pipe2(os.O_CLOEXEC))
        try:
            # room for as much as one call may take; an unprivileged user has 1 MiB at most
            fcntl.fcntl(fds[1], fcntl.F_SETPIPE_SZ, _CHUNK_BYTES)
            for each in (source, target):
                fds.append(os.dup(each.fileno()))
            kernel.pump(fds[2], fds[3], fds[0], fds[1], _CHUNK_BYTES, _REST_MICROSECONDS,
                        self._moved[index])
            shut(target, socket.SHUT_WR)
        except OSError:
            # a reset on one side is one on the other: neither waits for what can't come
            for each in self._sockets:
                shut(each, socket.SHUT_RDWR)
        finally:
            for each in fds:
                os.close(each)


def shut(connection: socket.socket, how: int) -> None:
    """Shut a socket down that may be closed already."""
    try:
        connection.shutdown(how)
    except OSError:
        return
