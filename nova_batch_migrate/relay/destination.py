"""A group as its destination's relay carries it out: says whose a port is, rebuilds the streams.

Made by groups.py when a conductor opens a group here. Connects to nothing but ports at which a
QEMU of one of the group's servers listens.
"""

import json
import queue
import socket
import ssl
import threading
import time
from collections.abc import Sequence

from oslo_log import log

from nova_batch_migrate import exception
from nova_batch_migrate.relay import (
    arrivals,
    attribution,
    base_images,
    channel,
    decoder,
    dictionary,
    greeting,
    source_stream,
    splice,
    values,
    wire,
)

LOG = log.getLogger(__name__)
_READ_BYTES = 256 << 10
_CONNECT_SECONDS = 5
#: Of a QEMU that listens everywhere; where IPv6 sockets are for IPv6 alone that is one of them.
_EVERYWHERE = ("127.0.0.1", "::1")


class DestinationGroup:
    """One open group at its destination; each connection of the peer has a thread of its own."""

    def __init__(self, group: values.Group, mark: int, images: base_images.BaseImages,
                 find=attribution.find, store: dictionary.Store | None = None):
        self.group = group
        self._mark, self._images = mark, images
        self._find = find
        self._lock = threading.Lock()
        self._sessions: dict[str, int] = {}
        self._logs: dict[str, DestinationLog] = {}
        self._connections: set[ssl.SSLSocket] = set()
        self._closed = False
        scopes = {m.scope for m in group.members if m.scope is not None}
        self._dictionary_bytes = group.dictionary_bytes // max(1, len(scopes))
        make = store.memory if store else dictionary.Memory
        self._memory = {scope: make(self._dictionary_bytes) for scope in scopes}

    def prepare(self) -> None:
        """Have the dictionaries' memory made: while the group opens, not while a stream waits."""
        for each in list(self._memory.values()):
            each.populate()

    def serve(self, connection: ssl.SSLSocket, guest: greeting.Guest, answer: dict) -> None:
        """Serve a connection that was let in until it ends."""
        with self._lock:
            if self._closed or guest.session <= self._sessions.get(guest.purpose, 0):
                raise exception.RelayError(reason="an old session was played again.")
            self._sessions[guest.purpose] = guest.session
            self._connections.add(connection)
        try:
            if guest.purpose == greeting.CONTROL:
                self._converse(connection, answer)
            else:
                self._log_of(guest.purpose).serve(connection, answer, guest.session, guest.anew,
                                                  guest.static)
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def close(self) -> None:
        """End every connection of the group; what runs through it is reset."""
        with self._lock:
            self._closed = True
            connections = list(self._connections)
            logs = list(self._logs.values())
            # they refer to this group: else their memory went no sooner than the collector of
            # cycles comes by
            self._logs.clear()
            self._memory.clear()
        for each in connections:
            splice.shut(each, socket.SHUT_RDWR)
        for each in logs:
            each.close()

    def member_at(self, port: int) -> attribution.Listener | None:
        """Return who awaits a migration at a port, if that is a server of this group."""
        listener = self._find(port)
        if listener is None or self.group.member(listener.server_id) is None:
            return None
        return listener

    def _log_of(self, scope: str) -> "DestinationLog":
        with self._lock:
            if self._closed:
                raise exception.RelayError(reason="the group was closed meanwhile.")
            if scope not in self._logs:
                self._logs[scope] = DestinationLog(
                    self, self._dictionary_bytes, self._memory[scope], self._mark, self._images)
            return self._logs[scope]

    def _converse(self, connection: ssl.SSLSocket, answer: dict) -> None:
        greeting.write_line(connection, answer)
        connection.settimeout(None)
        while True:
            question = greeting.read_line(connection)
            told: dict = {}
            if isinstance(question.get("attribute"), int):
                listener = self.member_at(question["attribute"])
                told["server"] = listener and listener.server_id
                # of another group, or of nobody who could be found
                told["unknown"] = listener is None and self._find(question["attribute"]) is None
            greeting.write_line(connection, told)


class DestinationLog:
    """The destination's end of one ordered log; its dictionary outlives a broken connection."""

    def __init__(self, group: DestinationGroup, dictionary_bytes: int,
                 memory: dictionary.Memory, mark: int, images: base_images.BaseImages):
        self._group, self._images = group, images
        self._dictionary_bytes, self._memory = dictionary_bytes, memory
        self.mark = mark
        self._decoder = self._new_decoder()
        self._decoding = threading.Lock()
        self._serving = threading.Lock()
        self._entering = threading.Lock()
        #: Of the newest connection that has come, be it that it waits for the end of another.
        self._session = 0
        self._channel: channel.Channel | None = None
        self._streams: dict[int, Delivery] = {}
        self._arrivals = arrivals.Arrivals()

    def serve(self, connection: ssl.SSLSocket, answer: dict, session: int, anew: bool,
              claim: base_images.Claim | None = None) -> None:
        """Rebuild what comes on a connection until it ends; one of a newer session ends an older.

        Raises RelayError where a newer one came before this could begin.
        """
        with self._entering:
            self._require_newest(session)
            self._session = session
            self.close()
        with self._serving:
            static = self._images.match(claim) if anew else None
            if anew or self._decoder.broken:
                self._decoder = self._new_decoder(static)
            greeting.write_line(connection, {
                **answer, "static": static is not None, "dictionary_bytes": self._dictionary_bytes,
                "last_number": self._decoder.sequence})
            with self._entering:
                # who came meanwhile found nothing to close, and waits
                self._require_newest(session)
                line = self._channel = channel.Channel(connection)
            reason = "the source's relay closed the connection"
            try:
                self._read(line)
            except (OSError, wire.RelayError) as error:
                reason = str(error)
            finally:
                line.close()
                for delivery in list(self._streams.values()):
                    delivery.reset(reason)
                self._streams.clear()

    def _require_newest(self, session: int) -> None:
        if session < self._session:
            raise exception.RelayError(reason="a newer connection of the log has come.")

    def _new_decoder(self, static=None) -> decoder.Decoder:
        return decoder.Decoder(static, self._dictionary_bytes, memory=self._memory)

    def close(self) -> None:
        """End the present connection."""
        line = self._channel
        if line is not None:
            line.close()

    def _read(self, line: channel.Channel) -> None:
        for frame in line.frames():
            if frame.kind not in wire.NUMBERED:
                raise wire.CodecError(f"the source sends a frame of kind {frame.kind.name}")
            with self._decoding:
                deliveries = self._decoder.feed(frame)
            for each in deliveries:
                self._deliver(line, each)

    def _deliver(self, line: channel.Channel, delivery) -> None:
        number = delivery.stream
        if delivery.event is decoder.Event.OPEN:
            port, server_id = source_stream.read_metadata(delivery.data)
            self._streams[number] = Delivery(self, line, number, port, server_id,
                                             self._arrivals.place(port))
            self._streams[number].start()
            return
        stream = self._streams.get(number)
        if stream is None:
            return
        if delivery.event is decoder.Event.DATA:
            stream.put(delivery.data)
        elif delivery.event is decoder.Event.END:
            stream.put(None)
        else:
            stream.reset("the source's relay gave it up")

    def listener(self, port: int) -> attribution.Listener | None:
        return self._group.member_at(port)

    def delivered(self, line: channel.Channel, number: int, data: memoryview) -> None:
        """Tell the source what QEMU has taken, if it is worth a word; the data are gone then."""
        with self._decoding:
            self._decoder.delivered(number, len(data))
            self._decoder.recycle(data)
            due = self._decoder.credits()
        if due:
            line.send(b"".join(due))

    def forget(self, number: int) -> None:
        self._streams.pop(number, None)


class Delivery:
    """One stream on its last metres: to the QEMU that awaits it, and back."""

    def __init__(self, of_log: DestinationLog, line: channel.Channel, number: int, port: int,
                 server_id: str, place: arrivals.Place):
        self._log, self._line, self._number = of_log, line, number
        self._port, self._server_id, self._place = port, server_id, place
        # not more than the credit that the source has
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()
        self._ended = False
        #: When QEMU was given something last, and when it said something last.
        self._given_at = self._said_at = time.monotonic()

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def put(self, data) -> None:
        """Queue bytes for QEMU, None for the end."""
        self._queue.put(data)

    def reset(self, reason: str) -> None:
        """End both directions at once: QEMU drops the half guest."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            LOG.warning("stream of server %s to port %d is reset: %s", self._server_id,
                        self._port, reason)
            if self._connection is not None:
                source_stream.reset_on_close(self._connection)
                # wakes who waits for QEMU in either direction
                splice.shut(self._connection, socket.SHUT_RDWR)
        self._queue.put(None)

    def _run(self) -> None:
        try:
            self._place.wait()
            try:
                self._connect()
            finally:
                self._place.passed()
            back = threading.Thread(target=self._give_back, daemon=True)
            back.start()
            while (data := self._queue.get()) is not None:
                self._connection.sendall(data)
                self._given_at = time.monotonic()
                self._log.delivered(self._line, self._number, data)
            if not self._ended:
                splice.shut(self._connection, socket.SHUT_WR)
                back.join()
                self._tell()
        except (OSError, exception.RelayError) as error:
            self._fail(str(error))
        finally:
            with self._lock:
                self._ended = True
                if self._connection is not None:
                    self._connection.close()
            self._log.forget(self._number)

    def _connect(self) -> None:
        listener = self._log.listener(self._port)
        if listener is None or listener.server_id != self._server_id:
            raise exception.RelayError(
                reason=f"no QEMU of server {self._server_id} listens at port {self._port}.")
        connection = self._reach([listener.address] if listener.address else _EVERYWHERE)
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            if self._ended:
                connection.close()
                raise exception.RelayError(reason="it was given up meanwhile.")
            self._connection = connection

    def _reach(self, addresses: Sequence[str]) -> socket.socket:
        """Connect to the first of these addresses of this host at which QEMU answers."""
        for last, address in enumerate(addresses, 1):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            connection = socket.socket(family, socket.SOCK_STREAM)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._log.mark)
            connection.settimeout(_CONNECT_SECONDS)
            try:
                connection.connect((address, self._port))
                return connection
            except OSError:
                connection.close()
                if last == len(addresses):
                    raise
        raise ValueError("no address")

    def _give_back(self) -> None:
        try:
            while data := self._connection.recv(_READ_BYTES):
                self._said_at = time.monotonic()
                self._send(wire.Kind.RETURN, data)
            self._send(wire.Kind.RETURN_END, b"")
        except OSError as error:
            if not self._ended:
                self._fail(f"the destination's QEMU broke off: {error}")

    def _tell(self) -> None:
        """Log how long QEMU took to load what it was given last."""
        now = time.monotonic()
        LOG.info("stream of server %s to port %d is over: QEMU had its last bytes %.3f s ago and "
                 "said its last word %.3f s ago", self._server_id, self._port,
                 now - self._given_at, now - self._said_at)

    def _fail(self, reason: str) -> None:
        try:
            self._send(wire.Kind.ABORT, reason.encode())
        except OSError as error:
            LOG.info("stream %d: %s", self._number, error)
        self.reset(reason)

    def _send(self, kind, data: bytes) -> None:
        self._line.send(wire.Frame(kind, self._number, 0, data).pack())


#: What ends a connection of a peer without being a failure of this service.
FAILURES = (OSError, exception.RelayError, wire.RelayError, json.JSONDecodeError, ValueError)
