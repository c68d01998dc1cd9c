"""One TLS 1.3 connection between two relays: who may speak, and bytes in both directions.

Made by source.py and destination.py. Both ends show a certificate of the deployment's CA; the
name in it is the peer's host. What is in a frame is not known here.
"""

import dataclasses
import hashlib
import hmac
import os
import select
import socket
import ssl
import threading
from collections.abc import Iterator

from oslo_log import log

from nova_batch_migrate import exception
from nova_batch_migrate.relay import wire

LOG = log.getLogger(__name__)

HANDSHAKE_SECONDS = 10
#: What may lie unsent in the kernel: little, so that a byte taken from QEMU has really left.
_UNSENT_BYTES = 128 << 10
_TCP_NOTSENT_LOWAT = 25
CHALLENGE_BYTES = 32
#: A TLS record, with all that can be around it.
_RECORD_BYTES = (16 << 10) + 512
#: What one thread may take before the other has its turn with the connection.
_MOST_RECORDS = 16
#: Of the rest of a long frame, what is worth to be woken for.
_LEAST_BYTES = 256 << 10


@dataclasses.dataclass(frozen=True)
class Credentials:
    """Paths of PEM files: the deployment's CA, this host's certificate and its key."""

    ca_file: str
    certificate_file: str
    key_file: str

    def context(self, server: bool) -> ssl.SSLContext:
        """Return a context that takes nothing but TLS 1.3 and a certificate of this CA."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = not server
        if server:
            # a session that was resumed would carry a certificate that was checked earlier
            context.num_tickets = 0
        try:
            context.load_verify_locations(self.ca_file)
            context.load_cert_chain(self.certificate_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            raise exception.RelayError(
                reason=f"the certificates {self.ca_file}, {self.certificate_file} and "
                f"{self.key_file} can't be used ({error}); see [relay] ca_file.") from error
        return context

    def versions(self) -> tuple:
        """Return what differs when one of the files was written or replaced."""
        found = []
        for path in (self.ca_file, self.certificate_file, self.key_file):
            try:
                seen = os.stat(path)
            except OSError as error:
                found.append(error.errno)
                continue
            found.append((seen.st_ino, seen.st_mtime_ns, seen.st_size))
        return tuple(found)


class Contexts:
    """The contexts of a host's two ends, made of what its files hold when a connection begins.

    Certificates are renewed while relays run: who comes next sees the new ones, what is open goes
    on. Files that don't go together (yet) are looked at again with the next connection; until then
    the ones before stay in use. May be called from many threads.
    """

    def __init__(self, credentials: Credentials):
        self._credentials = credentials
        self._lock = threading.Lock()
        self._made: tuple[ssl.SSLContext, ssl.SSLContext] | None = None
        self._versions = self._refused = ()

    def server(self) -> ssl.SSLContext:
        """Return the context for who comes; RelayError while there were never usable files."""
        return self._now()[0]

    def client(self) -> ssl.SSLContext:
        """Return the context for going to another relay; RelayError as above."""
        return self._now()[1]

    def _now(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        with self._lock:
            # before they are read: what is replaced meanwhile is read with the next connection
            versions = self._credentials.versions()
            if self._made is None or versions != self._versions:
                self._read(versions)
            return self._made

    def _read(self, versions: tuple) -> None:
        try:
            made = self._credentials.context(True), self._credentials.context(False)
        except exception.RelayError as error:
            if self._made is None:
                raise
            if versions != self._refused:
                self._refused = versions
                LOG.error("the certificates that were read before stay in use: %s", error)
            return
        if self._made is not None:
            LOG.info("the certificates were renewed: connections from now on begin with them")
        self._made, self._versions = made, versions


def peer_names(connection: ssl.SSLSocket) -> set[str]:
    """Return the DNS names of the peer's certificate."""
    certificate = connection.getpeercert() or {}
    return {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}


def proof(token: str, side: str, challenge: bytes, *bound_to: str) -> str:
    """Return what shows that one knows a group's token, bound to a challenge of the peer.

    ``side`` differs between the two ends: what one said is of no use for the other.
    """
    text = "\0".join((side, *bound_to)).encode()
    return hmac.new(bytes.fromhex(token), challenge + text, hashlib.sha256).hexdigest()


class Channel:
    """A TLS connection that one thread reads while others write.

    OpenSSL's connections are not made for two threads: every call is non-blocking and under a
    lock, the waiting is outside of it.
    """

    def __init__(self, connection: ssl.SSLSocket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        connection.setblocking(False)
        self._connection = connection
        self._unsent_bytes = _UNSENT_BYTES
        self._tls = threading.Lock()
        self._writing = threading.Lock()
        self._closed = False
        self._least = 1             # bytes that wake who waits for some
        self.sent_bytes = 0

    def let_unsent(self, size_bytes: int) -> None:
        """Let so many bytes lie unsent in the kernel, and no fewer than usual."""
        size = max(_UNSENT_BYTES, size_bytes)
        if size != self._unsent_bytes:
            self._unsent_bytes = size
            self._connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, size)

    def send(self, data) -> None:
        """Hand all bytes to the kernel, those of one call together; OSError when it is over."""
        with self._writing:
            view = memoryview(data)
            while view:
                given = self._try(self._connection.send, view)
                if given:
                    self.sent_bytes += given
                    view = view[given:]
                else:
                    self._wait(select.POLLOUT)

    def receive_into(self, buffer: memoryview) -> int:
        """Return how many bytes came, 0 at the end; waits for the first. One reader only."""
        while (taken := self._try(self._read, buffer)) is None:
            self._wait_for(len(buffer))
        return taken

    def _read(self, buffer: memoryview) -> int:
        """Take the records that are there, up to _MOST_RECORDS of them; 0 at the end."""
        taken, end, read = 0, min(len(buffer), _MOST_RECORDS * _RECORD_BYTES), self._connection.read
        try:
            while taken < end:
                got = read(end - taken, buffer[taken:])
                if not got:
                    break
                taken += got
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if not taken:
                raise
        return taken

    def frames(self) -> Iterator[wire.Frame]:
        """Give the frames that come, until the peer closes; WireError at what is none."""
        reader = wire.FrameReader()
        while taken := self.receive_into(reader.buffer()):
            if frame := reader.commit(taken):
                yield frame

    def _try(self, call, buffer) -> int | None:
        with self._tls:
            if self._closed:
                raise ConnectionAbortedError("the channel was closed")
            try:
                return call(buffer)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None

    def _wait_for(self, wanted_bytes: int) -> None:
        """Wait until something came; of a long frame, until a good part of it did.

        OpenSSL holds one record at most, so the rest of what is wanted is still to come.
        """
        least = max(1, min(wanted_bytes - _RECORD_BYTES, _LEAST_BYTES))
        with self._tls:
            if least != self._least and not self._closed:
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
                self._least = least
        self._wait(select.POLLIN)

    def _wait(self, event: int) -> None:
        poll = select.poll()
        with self._tls:
            if self._closed:
                raise ConnectionAbortedError("the channel was closed")
            poll.register(self._connection, event)
        poll.poll(1000)

    def close(self) -> None:
        """End the connection; threads that wait in it get an OSError."""
        with self._tls:
            if self._closed:
                return
            self._closed = True
            try:
                self._connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                # the peer was faster
                pass
            self._connection.close()


def bound_silence(connection: socket.socket, seconds: int) -> None:
    """Let a connection survive a link that is cut for up to so long, and end after that.

    Until then TCP itself sends again what was lost.
    """
    probes = 4
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, seconds // probes))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // probes))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * seconds)


def connect(address: str, port: int, peer: str, context: ssl.SSLContext,
            mark: int | None = None) -> ssl.SSLSocket:
    """Return a connection to the relay of host ``peer``, whose certificate must name it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    plain = socket.socket(family, socket.SOCK_STREAM)
    try:
        plain.settimeout(HANDSHAKE_SECONDS)
        if mark is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        plain.connect((address, port))
        return context.wrap_socket(plain, server_hostname=peer)
    except OSError as error:
        plain.close()
        raise exception.RelayError(
            reason=f"no connection to the relay of {peer} at {address} port {port}: {error}"
        ) from error
