"""The relay of one host: its listeners, its control socket, who is led to which open group.

Started by cmd/relay.py. Without an open group (groups.py) it only waits: no rule in nftables, no
migration sees it.
"""

import errno
import socket
import threading

from oslo_log import log

from nova_batch_migrate import exception
from nova_batch_migrate.relay import (
    arrivals,
    channel,
    control,
    destination,
    doorway,
    greeting,
    groups,
    metrics,
    redirect,
    source_stream,
    splice,
    values,
)

LOG = log.getLogger(__name__)

#: Of the redirected connections that are carried, so that what QEMU believes to have sent is not
#: far from sent. What is spliced on a fast link has more, no more than without a relay: small ones
#: cost four times the calls.
_SLOW_LINK_BUFFER_BYTES = 32 << 10
_FAST_LINK_BUFFER_BYTES = 1 << 20
_SPLICED_BUFFER_BYTES = 4 << 20
#: The kernel sizes QEMU's own send buffer by the number of segments under way and by what one
#: occupies, a power of two: 1408 bytes and the kernel's own fit into 2 KiB, more take 4. So QEMU's
#: holds 0.4 MB at most under cubic, with 1448 bytes and twice the buffer 1.0. A fast link, where
#: 3 MB are nothing, has a listener without.
_SLOW_LINK_SEGMENT_BYTES = 1400
#: Of sets that move together, on any link: what QEMU writes into the kernel at once has to be less
#: than a busy guest dirties from one of QEMU's looks to the next (approach.py). Some 0.6 MB are
#: under way in all.
_SET_BUFFER_BYTES, _SET_SEGMENT_BYTES = 16 << 10, 7500
_SO_RCVBUFFORCE = 33
_TCP_WINDOW_CLAMP = 10
_CONNECT_SECONDS = 20
#: Every address of both families.
_EVERYWHERE = "::"
#: Of one address.
_MOST_HANDSHAKES = 8


class Relay:
    """Leads connections to open groups; cmd/relay.py starts and stops it."""

    def __init__(self, conf):
        self._conf, options = conf, conf.relay
        self._options = options
        self._contexts = channel.Contexts(channel.Credentials(
            options.ca_file, options.certificate_file, options.key_file))
        self._redirect = redirect.Redirect(options.mark, *options.migration_ports)
        #: From the start on.
        self.groups: groups.OpenGroups | None = None
        self._arrivals = arrivals.Arrivals()
        self._doorway = doorway.Doorway(_MOST_HANDSHAKES, channel.HANDSHAKE_SECONDS)
        self._listeners: list[socket.socket] = []
        self._control: control.Server | None = None
        self._metrics: metrics.Endpoint | None = None

    # ---- the service ----------------------------------------------------------------------

    def start(self) -> None:
        """Listen for peers, for redirected connections and for the agent."""
        try:
            self._redirect.prepare()
        except exception.RelayError as error:
            # only sources of migrations need it
            LOG.warning("no group can leave this host: %s", error)
        # without certificates it does not start
        self._contexts.server()
        self.groups = groups.OpenGroups(self._conf, self._redirect, self._contexts)
        options = self._options
        peers = _listen_everywhere(options.port) if options.listen_address == _EVERYWHERE else \
            _listen(options.listen_address, options.port)
        self._serve(peers, self._meet)
        for address in ("127.0.0.1", "::1"):
            try:
                fast = _listen(address, options.redirect_port)
                slow = _listen(address, options.redirect_port + 1, _SLOW_LINK_BUFFER_BYTES,
                               _SLOW_LINK_SEGMENT_BYTES)
                sets = _listen(address, options.redirect_port + 2, _SET_BUFFER_BYTES,
                               _SET_SEGMENT_BYTES)
            except OSError as error:
                if address == "::1":
                    LOG.info("no IPv6 on this host: %s", error)
                    continue
                raise
            self._serve(fast, self._redirected, self._place)
            self._serve(slow, self._redirected, self._place)
            self._serve(sets, self._redirected, self._place)
        self._control = control.Server(options.control_socket, options.control_group,
                                       self.groups)
        self._control.start()
        if options.metrics_port:
            self._metrics = metrics.Endpoint(options.metrics_port, self.groups.statistics)

    def stop(self) -> None:
        """Close every group, then the listeners."""
        if self._control is not None:
            self._control.stop()
        if self._metrics is not None:
            self._metrics.stop()
        if self.groups is not None:
            self.groups.close()
        self._redirect.close()
        for listener in self._listeners:
            splice.shut(listener, socket.SHUT_RDWR)
            listener.close()

    def _serve(self, listener: socket.socket, handle, look=lambda connection: None) -> None:
        """Handle connections in threads, each with what ``look`` says of it in its turn."""
        self._listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError as error:
                    LOG.info("no longer listening: %s", error)
                    return
                seen = look(connection)
                try:
                    threading.Thread(target=handle, args=(connection, seen), daemon=True).start()
                except RuntimeError as error:
                    # no thread left: who comes later may find one
                    LOG.error("a connection is turned away: %s; see TasksMax of the unit", error)
                    source_stream.reset_on_close(connection)
                    connection.close()
                    if seen is not None:
                        seen.passed()
                        self._redirect.let_go()
        threading.Thread(target=accept, daemon=True).start()

    # ---- connections ----------------------------------------------------------------------

    def _meet(self, plain: socket.socket, _place: None) -> None:
        """Let a peer in that shows a certificate and knows an open group; others get nothing."""
        connection: socket.socket = plain
        try:
            with self._doorway.enter(plain.getpeername()[0]), \
                    self._doorway.hurry(lambda: connection):
                plain.settimeout(channel.HANDSHAKE_SECONDS)
                connection = self._contexts.server().wrap_socket(
                    plain, server_side=True, do_handshake_on_connect=False)
                connection.do_handshake()
                guest, answer = greeting.receive(connection, self._destination_group)
                channel.bound_silence(connection, self._options.link_seconds)
            made = self.groups.arriving(guest.group.id)
            if made is None:
                raise exception.RelayError(reason="the group was closed meanwhile.")
            made.serve(connection, guest, answer)
        except destination.FAILURES as error:
            LOG.info("a peer was turned away or has left: %s", error)
        finally:
            connection.close()

    def _destination_group(self, group_id: str) -> values.Group | None:
        made = self.groups.arriving(group_id)
        return made and made.group

    def _place(self, connection: socket.socket) -> arrivals.Place | None:
        """Return the place of a redirected connection among those to the same port."""
        try:
            place = self._arrivals.place(redirect.original_destination(connection))
            self._redirect.hold()
            return place
        except exception.RelayError as error:
            LOG.warning("%s", error)
            return None

    def _redirected(self, connection: socket.socket, place: arrivals.Place | None) -> None:
        if place is None:
            connection.close()
            return
        try:
            place.wait()
            self._lead(connection, *place.target, place.passed)
        except Exception:
            # whatever it was: QEMU learns that this connection leads nowhere
            LOG.exception("a connection to %s port %d is given up", *place.target)
            source_stream.reset_on_close(connection)
            connection.close()
        finally:
            place.passed()
            self._redirect.let_go()

    def _lead(self, connection: socket.socket, address: str, port: int, led) -> None:
        """Lead a connection to where it was meant to go; ``led``: when it is on its way."""
        perhaps_together = False
        for made in self.groups.leaving_to(address):
            try:
                member = made.attribute(port)
            except exception.RelayError as error:
                LOG.warning("%s", error)
                perhaps_together |= bool(made.group.synchronized)
                continue
            if member is not None and member.scope is not None:
                if self._came_fast(connection):
                    connection.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE,
                                          _FAST_LINK_BUFFER_BYTES)
                made.carry(connection, port, member, led)
                return
        if perhaps_together:
            # past the relay it would move without the others of its set
            LOG.warning("a migration to %s port %d is refused: its server may be one that moves "
                        "together with others", address, port)
            source_stream.reset_on_close(connection)
            connection.close()
            return
        self._splice(connection, address, port, led)

    def _came_fast(self, connection: socket.socket) -> bool:
        """Tell whether a connection came to the listener for fast links."""
        return connection.getsockname()[1] == self._options.redirect_port

    def _splice(self, connection: socket.socket, address: str, port: int, led) -> None:
        """Join a connection with the one that it meant, as if nobody stood between."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        onward = socket.socket(family, socket.SOCK_STREAM)
        try:
            onward.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._options.mark)
            onward.settimeout(_CONNECT_SECONDS)
            onward.connect((address, port))
            onward.settimeout(None)
            if self._came_fast(connection):
                connection.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _SPLICED_BUFFER_BYTES)
                connection.setsockopt(socket.IPPROTO_TCP, _TCP_WINDOW_CLAMP, _SPLICED_BUFFER_BYTES)
        except OSError as error:
            LOG.warning("%s port %d does not answer: %s", address, port, error)
            onward.close()
            source_stream.reset_on_close(connection)
            connection.close()
            return
        led()
        joined = splice.Splice(connection, onward)
        joined.run()
        self.groups.count_spliced(sum(joined.moved_bytes))


def _listen_everywhere(port: int) -> socket.socket:
    try:
        return _listen(_EVERYWHERE, port)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        # a kernel that was started without IPv6
        return _listen("0.0.0.0", port)


def _listen(address: str, port: int, buffer_bytes: int | None = None,
            segment_bytes: int | None = None) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != _EVERYWHERE))
    if buffer_bytes:
        # beyond net.core.rmem_max, too
        listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
    if segment_bytes:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment_bytes)
    listener.bind((address, port))
    listener.listen(64)
    return listener
