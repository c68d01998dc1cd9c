"""The relay of one host: its listeners, its open groups, its control socket.

Started by cmd/relay.py. Without an open group it only waits: no rule in nftables, no migration
sees it.
"""

import collections
import errno
import socket
import threading
import time

from oslo_log import log

from nova_batch_migrate import exception, version
from nova_batch_migrate.relay import (
    arrivals,
    base_images,
    channel,
    control,
    destination,
    dictionary,
    greeting,
    metrics,
    redirect,
    source,
    source_stream,
    splice,
    switchover,
    throughput,
    values,
)

LOG = log.getLogger(__name__)

#: Of the redirected connections that are carried, so that what QEMU believes to have sent is not
#: far from sent. What is spliced on a fast link has more, no more than without a relay: small ones
#: cost four times the calls.
_SLOW_LINK_BUFFER_BYTES = 64 << 10
_FAST_LINK_BUFFER_BYTES = 1 << 20
_SPLICED_BUFFER_BYTES = 4 << 20
#: The kernel sizes QEMU's own send buffer by the segment: with loopback's own of 64 KiB some 3 MB
#: are under way in both buffers together, with this 1.2 MB. Small ones cost processor time for
#: every byte, so a fast link, where 3 MB are nothing, has a listener without.
_SLOW_LINK_SEGMENT_BYTES = 1448
#: Of sets that move together, on any link: what QEMU writes into the kernel at once has to be less
#: than a busy guest dirties from one of QEMU's looks to the next (approach.py). Some 0.6 MB are
#: under way in all.
_SET_BUFFER_BYTES, _SET_SEGMENT_BYTES = 16 << 10, 7500
_SO_RCVBUFFORCE = 33
_TCP_WINDOW_CLAMP = 10
_CONNECT_SECONDS = 20
#: Every address of both families.
_EVERYWHERE = "::"
_MOST_HANDSHAKES = 16
#: For which the dictionaries' memory waits for the next group.
_KEPT_SECONDS = 60


class Relay:
    """Opens and closes groups, and leads connections to them; cmd/relay.py starts and stops it."""

    def __init__(self, conf):
        options = conf.relay
        self._host = conf.host
        self._options = options
        self._credentials = channel.Credentials(options.ca_file, options.certificate_file,
                                                options.key_file)
        self._lock = threading.Lock()
        self._groups: dict[str, source.SourceGroup | destination.DestinationGroup] = {}
        self._gangs: dict[frozenset[str], switchover.Gang] = {}
        self._redirect = redirect.Redirect(options.mark, *options.migration_ports)
        self._images = base_images.BaseImages(options.base_images_path,
                                              options.base_images_mib << 20)
        self._store = dictionary.Store(options.dictionary_mib << 20)
        #: Gives the store's memory back a while after the last group.
        self._release: threading.Timer | None = None
        self._settings = source.Settings(
            images=self._images, store=self._store,
            mark=options.mark, zstd_level=options.zstd_level,
            zstd_window_log=options.zstd_window_log, link_seconds=options.link_seconds,
            hold_seconds=options.hold_seconds, pause_seconds=options.pause_seconds,
            policy=switchover.Policy(options.switchover_policy))
        self._arrivals = arrivals.Arrivals()
        self._handshakes = threading.BoundedSemaphore(_MOST_HANDSHAKES)
        self._listeners: list[socket.socket] = []
        self._control: control.Server | None = None
        self._metrics: metrics.Endpoint | None = None
        #: While a group is counted with the closed ones instead of the open ones.
        self._counting = threading.Lock()
        #: Counters of the groups that are closed.
        self._closed_total: collections.Counter[str] = collections.Counter()
        #: As `hello` tells it: measured when first asked, None where that failed.
        self._speeds: list[dict | None] = []
        self._measuring = threading.Lock()
        #: Bytes spliced past the logs, since the start.
        self._spliced_bytes = 0

    # ---- the service ----------------------------------------------------------------------

    def start(self) -> None:
        """Listen for peers, for redirected connections and for the agent."""
        try:
            self._redirect.prepare()
        except exception.RelayError as error:
            # only sources of migrations need it
            LOG.warning("no group can leave this host: %s", error)
        self._server_context = self._credentials.context(server=True)
        self._client_context = self._credentials.context(server=False)
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
        self._control = control.Server(options.control_socket, options.control_group, self)
        self._control.start()
        if options.metrics_port:
            self._metrics = metrics.Endpoint(options.metrics_port, self.statistics)

    def stop(self) -> None:
        """Close every group, then the listeners."""
        if self._control is not None:
            self._control.stop()
        if self._metrics is not None:
            self._metrics.stop()
        for group_id in list(self._groups):
            self.close_group(group_id)
        if self._release is not None:
            self._release.cancel()
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

    # ---- what the agent asks (control.Server calls these) ---------------------------------

    def hello(self) -> dict:
        """Return what an agent tells its conductor of this relay."""
        with self._lock:
            left = self._memory_left()
            groups = sorted(self._groups)
        return {"version": version.version_string(), "name": self._host,
                "port": self._options.port, "groups": len(groups),
                "group_ids": groups, "speed": self._speed(),
                "dictionary_bytes": self._options.dictionary_mib << 20,
                "dictionary_free_bytes": left,
                "switchover_policy": self._options.switchover_policy}

    def _speed(self) -> dict | None:
        with self._measuring:
            if not self._speeds:
                try:
                    found = throughput.measure(self._server_context, self._client_context,
                                               self._host).as_dict()
                    LOG.info("this relay works through %.0f MB/s of content that is new to it, "
                             "%.0f MB/s of other", found["new_bytes_per_second"] / 1e6,
                             found["known_bytes_per_second"] / 1e6)
                except OSError as error:
                    LOG.warning("the relay's speed could not be measured, so no plan reckons with "
                                "it: %s", error)
                    found = None
                self._speeds.append(found)
            return self._speeds[0]

    def open_group(self, given: dict) -> dict:
        """Open a group; harmless to repeat. At its source this reaches the destination first."""
        group = values.Group.from_dict(given)
        if self._host != (group.source if group.role == values.SOURCE else group.destination):
            raise exception.RelayError(reason=f"group {group.id} is none of {self._host}.")
        with self._lock:
            known = self._groups.get(group.id)
            if known is not None:
                if known.group != group:
                    raise exception.RelayError(reason=f"group {group.id} is open already.")
                return {}
            if group.dictionary_bytes > self._memory_left():
                raise exception.RelayError(
                    reason=f"{group.dictionary_bytes >> 20} MiB for the dictionary of group "
                    f"{group.id}, and {self._memory_left() >> 20} MiB are left. Wait for other "
                    "groups to end, or raise [relay] dictionary_mib.")
            if group.role == values.SOURCE:
                made = source.SourceGroup(group, self._settings, self._client_context, self._gangs)
            else:
                made = destination.DestinationGroup(group, self._options.mark, self._images,
                                                    store=self._store)
            self._groups[group.id] = made
        # beside Nova's own preparations: the first page comes seconds later
        threading.Thread(target=made.prepare, daemon=True).start()
        if group.role == values.SOURCE:
            try:
                made.check()
                self._redirect.add(made.addresses,
                                   self._options.redirect_port + (
                                       2 if group.synchronized else group.link_is_slow))
            except exception.RelayError:
                with self._lock:
                    self._groups.pop(group.id, None)
                made.close()
                raise
            threading.Thread(target=made.begin, daemon=True).start()
        LOG.info("group %s is open: %d servers from %s to %s", group.id, len(group.members),
                 group.source, group.destination)
        return {}

    def close_group(self, group_id: str) -> dict:
        """Close a group and return its statistics; harmless to repeat."""
        figures = {}
        with self._counting:
            with self._lock:
                made = self._groups.pop(group_id, None)
            if isinstance(made, source.SourceGroup):
                figures = made.figures()
                self._closed_total.update(_bytes_of(figures))
        if made is None:
            return {}
        if isinstance(made, source.SourceGroup):
            self._redirect.remove(made.addresses)
            with self._lock:
                for members in made.group.synchronized:
                    self._gangs.pop(members, None)
        made.close()
        self._release_later()
        LOG.info("group %s is closed", group_id)
        return figures

    def _release_later(self) -> None:
        """Give the dictionaries' memory back unless another group opens soon, as in a drain."""
        def release() -> None:
            with self._lock:
                if not self._groups:
                    self._store.release()
        with self._lock:
            if self._release is not None:
                self._release.cancel()
            self._release = threading.Timer(_KEPT_SECONDS, release)
            self._release.daemon = True
            self._release.start()

    def limit(self, group_id: str, bytes_per_second: float | None) -> dict:
        """Change the cap on the wire bytes of a group."""
        self._leaving(group_id).limit(bytes_per_second)
        return {}

    def leave_group(self, group_id: str, server_id: str) -> dict:
        """Let the further connections of a server go the plain way.

        Of one that is to move with others: let none of them pass, and count it out of its set.
        """
        self._leaving(group_id).exclude(server_id)
        return {}

    def _leaving(self, group_id: str) -> source.SourceGroup:
        with self._lock:
            made = self._groups.get(group_id)
        if not isinstance(made, source.SourceGroup):
            raise exception.RelayError(reason=f"no group {group_id} leaves this host.")
        return made

    def statistics(self) -> dict:
        """Return the counters of each open group that leaves this host, and since the start."""
        with self._counting:
            with self._lock:
                groups = [made for made in self._groups.values()
                          if isinstance(made, source.SourceGroup)]
            told = [made.figures() for made in groups]
            total = collections.Counter(self._closed_total)
        for figures in told:
            total.update(_bytes_of(figures))
        return {"groups": told, "total": dict(total),
                "spliced_bytes": self._spliced_bytes,
                "cpu_seconds": time.process_time()}

    def _memory_left(self) -> int:
        return (self._options.dictionary_mib << 20) - sum(
            made.group.dictionary_bytes for made in self._groups.values())

    # ---- connections ----------------------------------------------------------------------

    def _meet(self, plain: socket.socket, _place: None) -> None:
        """Let a peer in that shows a certificate and knows an open group; others get nothing."""
        connection: socket.socket = plain
        try:
            with self._handshakes:
                plain.settimeout(channel.HANDSHAKE_SECONDS)
                connection = self._server_context.wrap_socket(plain, server_side=True)
                guest, answer = greeting.receive(connection, self._destination_group)
                channel.bound_silence(connection, self._options.link_seconds)
            with self._lock:
                made = self._groups.get(guest.group.id)
            if not isinstance(made, destination.DestinationGroup):
                raise exception.RelayError(reason="the group was closed meanwhile.")
            made.serve(connection, guest, answer)
        except destination.FAILURES as error:
            LOG.info("a peer was turned away or has left: %s", error)
        finally:
            connection.close()

    def _destination_group(self, group_id: str) -> values.Group | None:
        with self._lock:
            made = self._groups.get(group_id)
        return made.group if isinstance(made, destination.DestinationGroup) else None

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
        with self._lock:
            groups = [made for made in self._groups.values()
                      if isinstance(made, source.SourceGroup)
                      and address in made.addresses]
        perhaps_together = False
        for made in groups:
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
        with self._lock:
            self._spliced_bytes += sum(joined.moved_bytes)


def _bytes_of(figures: dict) -> dict[str, int]:
    return {name: value for name, value in figures.items()
            if name.endswith("_bytes") and not name.startswith("dictionary")}


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
