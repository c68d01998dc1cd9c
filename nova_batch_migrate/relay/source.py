"""A group as its source's relay carries it out: attribution, logs, order, cap, statistics.

Made by groups.py when a conductor opens a group here. A connection that can't be attributed, or
whose server has no scope, is none of this module's business: the service splices it.
"""

import dataclasses
import itertools
import ssl
import threading
import time

import numpy as np
from oslo_log import log

from nova_batch_migrate import exception
from nova_batch_migrate.relay import (
    admission,
    base_images,
    channel,
    dictionary,
    encoder,
    figures,
    greeting,
    guest_memory,
    pacing,
    settings,
    source_log,
    source_stream,
    switchover,
    turns,
    values,
)

LOG = log.getLogger(__name__)
_ANSWER_SECONDS = 5
#: Raw bytes of a stream that may wait in the destination's relay: what a stalled QEMU costs there.
#: Whole blocks, or the last of them would be taken in parts.
_FAST_CREDIT_BYTES, _SLOW_CREDIT_BYTES = 2 * encoder.MAX_BLOCK_BYTES, 9 << 20
#: Wire bytes that may be on their way until the destination has them in its dictionary.
_UNDER_WAY_BYTES = 64 << 20


#: Up to which speed of the wire a level pays (bytes/s): a slower one leaves more time for fewer
#: bytes; beyond the last, compression is what would take the time.
_LEVELS = ((60e6, 3), (600e6, 1))


@dataclasses.dataclass(frozen=True)
class Settings:
    """Options of [relay] that a group needs; bytes, seconds."""

    mark: int
    #: None: by the link; 0: nothing is compressed.
    zstd_level: int | None = None
    zstd_window_log: int = 29
    #: How long the link may be cut.
    link_seconds: int = 30
    #: Whose pages a log may begin with; None: no image's.
    images: base_images.BaseImages | None = None
    hold_seconds: float = 60.0
    pause_seconds: float = 2.0
    policy: switchover.Policy = switchover.Policy.TOGETHER
    #: Where dictionaries have their memory from; None: from the kernel.
    store: dictionary.Store | None = None


class SourceGroup:
    """One open group at its source; ``carry`` may be called from many threads."""

    def __init__(self, group: values.Group, options: Settings, contexts: channel.Contexts,
                 gangs: dict[frozenset[str], switchover.Gang]):
        self.group = group
        self.options = options
        #: Of the destination; connections to them are ours.
        self.addresses = group.addresses()
        self.turns = turns.Turns(member.order for member in group.members)
        self._figures = figures.GroupFigures(group)
        #: Of the whole process: groups that are open side by side share it.
        self._cpu_begun = time.process_time()
        self._contexts = contexts
        self._gangs = gangs
        self._bucket = pacing.TokenBucket(group.wire_bytes_per_second)
        self._rate = pacing.WireRate(group.link_bytes_per_second,
                                     is_fast=not group.link_is_slow)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._control: ssl.SSLSocket | None = None
        self._closed = False
        self._control_session = 0
        self._excluded: set[str] = set()
        self._memories = {member.server_id: guest_memory.GuestMemory()
                          for member in group.members}
        #: Those that run, with what tells how much of a core their threads have had.
        self._streams: dict[int, tuple[source_stream.SourceStream, _ThreadTime]] = {}
        scopes = sorted({m.scope for m in group.members if m.scope is not None})
        self._logs = {scope: self._make_log(scope, group.dictionary_bytes // len(scopes))
                      for scope in scopes}

    def _make_log(self, scope: str, dictionary_bytes: int) -> source_log.SourceLog:
        return source_log.SourceLog(
            lambda session, anew: self._connect(scope, session, anew),
            settings.LogSettings(dictionary_bytes=dictionary_bytes,
                                 credit_bytes=_SLOW_CREDIT_BYTES if self.group.link_is_slow
                                 else _FAST_CREDIT_BYTES,
                                 under_way_bytes=_UNDER_WAY_BYTES,
                                 recurring=self._recurring(scope),
                                 kept_for=self._kept_for(scope),
                                 window_log=window_log(self.options.zstd_window_log,
                                                       dictionary_bytes),
                                 level=zstd_level(self.options.zstd_level,
                                                  self.group.known_bytes_per_second)),
            self._bucket, self._rate, adapts=self.options.zstd_level is None,
            memory=self.options.store and self.options.store.memory(dictionary_bytes))

    def _recurring(self, scope: str) -> admission.Recurring | None:
        found = next((each for each in self.group.recurring if each[0] == scope), None)
        if found is None:
            return None
        _, seed, hashes, theta = found
        return admission.Recurring(seed, np.sort(np.frombuffer(hashes, np.uint32)), theta)

    def _kept_for(self, scope: str) -> dict[str, str]:
        members = {each.order: each for each in self.group.members if each.scope == scope}
        return {each.server_id: members[each.kept_for].server_id
                for each in members.values() if each.kept_for in members}

    def log(self, scope: str) -> source_log.SourceLog:
        return self._logs[scope]

    def memory(self, server_id: str) -> guest_memory.GuestMemory:
        """Return how far a member's memory has come, over all its connections."""
        return self._memories[server_id]

    def wire_bytes_per_second(self) -> float | None:
        """Return what the wire gives this group now; None while nobody knows."""
        return self._rate.bytes_per_second(self._bucket.bytes_per_second)

    def sending_bytes_per_second(self) -> float | None:
        """Return how fast what is encoded leaves; None while nobody knows."""
        return self._rate.sending_bytes_per_second(self._bucket.bytes_per_second)

    def limit(self, bytes_per_second: float | None) -> None:
        """Change the cap on the group's wire bytes."""
        self._bucket.set_rate(bytes_per_second)

    def attribute(self, port: int) -> values.Member | None:
        """Ask the destination whose migration awaits a connection at a port; None for nobody's
        or one that is excluded.

        RelayError where the destination's relay can't be asked; with a set that moves together
        also where nobody can say whose it is, and for a member of it that was counted out.
        """
        with self._asking:
            answer = self._ask({"attribute": port})
        server_id = answer.get("server")
        if self.group.synchronized and answer.get("unknown"):
            raise exception.RelayError(reason=f"nobody knows whose port {port} is.")
        if not isinstance(server_id, str):
            return None
        if server_id in self._excluded:
            if self._set_of(server_id) is not None:
                raise exception.RelayError(
                    reason=f"server {server_id} does not move: its set goes together or not.")
            return None
        return self.group.member(server_id)

    def exclude(self, server_id: str) -> None:
        """Carry no further connection of a server; those that run go on.

        To the set that it is to move with it has failed: the others are told.
        """
        with self._lock:
            self._excluded.add(server_id)
        if (member := self.group.member(server_id)) is not None:
            self.turns.forgo(member.order)
            if member.scope is not None:
                self.log(member.scope).forgo(server_id)
        if (gang := self._gang(server_id)) is not None:
            gang.failed(server_id, "its migration ended")

    def prepare(self) -> None:
        """Have the dictionaries' memory made: while the group opens, not while a stream waits."""
        for each in self._logs.values():
            each.prepare()

    def begin(self) -> None:
        """Have the logs begin: a dictionary may take a second to know the base images."""
        for each in self._logs.values():
            each.reach()

    def check(self) -> None:
        """Reach the destination's relay, or raise RelayError."""
        with self._asking:
            self._ask({"ping": True})

    def carry(self, connection, port: int, member: values.Member, led=lambda: None) -> None:
        """Carry an attributed connection until it has ended; ``led``: when the log has it."""
        number = next(self._numbers)
        stream = source_stream.SourceStream(number, connection, member, port, self,
                                            self._gang(member.server_id))
        used = _ThreadTime()
        self._figures.begin(number)
        with self._lock:
            self._streams[number] = stream, used
        try:
            stream.run(led)
        finally:
            self._count(number, stream, used.seconds())
            with self._lock:
                del self._streams[number]

    def figures(self) -> dict:
        """Return the group's statistics as JSON can carry them."""
        with self._lock:
            # while a stream is in it, its thread is there
            running = [(number, stream, used.seconds())
                       for number, (stream, used) in self._streams.items()]
        for number, stream, seconds in running:
            self._count(number, stream, seconds)
        return self._figures.as_dict() | {
            "cpu_seconds": round(time.process_time() - self._cpu_begun, 3),
            "dictionary_bytes": self.group.dictionary_bytes,
            "dictionary_fill_bytes": sum(each.fill_bytes for each in self._logs.values()),
            "synchronized": [gang.as_dict() for gang in self._open_gangs()]}

    def close(self) -> None:
        """End everything of the group; streams that still run are reset."""
        self._closed = True
        for each in self._logs.values():
            each.close()
        with self._asking:
            if self._control is not None:
                self._control.close()
                self._control = None

    def _count(self, number: int, stream: source_stream.SourceStream, seconds: float) -> None:
        counters = self._logs[stream.member.scope].statistics(number)
        if counters is not None:
            self._figures.count(number, stream.member.server_id, counters.as_dict(),
                                stream.outcome, seconds, stream.first_pass)

    def _set_of(self, server_id: str) -> frozenset[str] | None:
        """Return the set that a server moves with; None where it goes alone."""
        return next((each for each in self.group.synchronized
                     if server_id in each and len(each) > 1), None)

    def _open_gangs(self) -> list[switchover.Gang]:
        with self._lock:
            return [self._gangs[members] for members in self.group.synchronized
                    if members in self._gangs]

    def _gang(self, server_id: str) -> switchover.Gang | None:
        members = self._set_of(server_id)
        if members is None:
            return None
        with self._lock:
            if members not in self._gangs:
                self._gangs[members] = switchover.Gang(
                    members, self.options.hold_seconds, self.options.pause_seconds,
                    self.options.policy)
            return self._gangs[members]

    def _connect(self, purpose: str, session: int, anew: bool = False
                 ) -> tuple[ssl.SSLSocket, dict]:
        """Return a connection and the answer; in that of a log that begins, its static pages."""
        group, begins = self.group, None
        if anew and self.options.images is not None:
            begins = self.options.images.begin(group.dictionary_bytes // len(self._logs))
        connection = self._reach()
        try:
            answer = greeting.introduce(connection, group, purpose, session, anew,
                                        begins and begins[0])
            known = begins is not None and answer.get("static") is True
            return connection, answer | {"static": begins[1] if known else None}
        except (OSError, KeyError, ValueError, exception.RelayError) as error:
            connection.close()
            raise exception.RelayError(
                reason=f"the relay of {group.destination} lets nobody in for group {group.id} "
                f"({_why(error)}): is it open there?") from error

    def _reach(self) -> ssl.SSLSocket:
        """Connect to the destination's relay at the first of its addresses that answers."""
        failures = []
        for address in sorted(self.addresses):
            try:
                connection = channel.connect(address, self.group.peer_port,
                                             self.group.destination,
                                             self._contexts.client(), self.options.mark)
                channel.bound_silence(connection, self.options.link_seconds)
                return connection
            except exception.RelayError as error:
                failures.append(error)
        raise failures[0]

    def _ask(self, question: dict) -> dict:
        """Ask on the control connection, once more on a new one when the old one is broken."""
        if self._closed:
            raise exception.RelayError(reason="the group was closed.")
        fresh = self._control is None
        try:
            if fresh:
                self._control_session += 1
                self._control, _ = self._connect(greeting.CONTROL, self._control_session)
                self._control.settimeout(_ANSWER_SECONDS)
            greeting.write_line(self._control, question)
            return greeting.read_line(self._control)
        except (OSError, ValueError, exception.RelayError) as error:
            # a ValueError is that of a connection which the group's end has closed meanwhile
            if self._control is not None:
                self._control.close()
                self._control = None
            if not fresh:
                return self._ask(question)
            raise exception.RelayError(
                reason=f"the relay of {self.group.destination} does not answer: {_why(error)}"
            ) from error


class _ThreadTime:
    """What the thread that made it has of a core from then on; anybody may ask while it lives."""

    def __init__(self):
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self._begun = time.clock_gettime(self._clock)

    def seconds(self) -> float:
        return time.clock_gettime(self._clock) - self._begun


def window_log(option: int, dictionary_bytes: int) -> int:
    """Return how far back a log's compression looks: no further than its dictionary is large.

    Both ends hold such a window for each log, and hosts have many: so all of them together take no
    more than the dictionaries do.
    """
    return max(settings.MIN_WINDOW_LOG, min(option, dictionary_bytes.bit_length() - 1))


def zstd_level(option: int | None, bytes_per_second: float | None) -> int | None:
    """Return the level for a wire of that speed (None: unknown); None for no compression.

    option: that of [relay], None where it is not set.
    """
    if option is not None:
        return option or None
    if bytes_per_second is None:
        return 1
    return next((level for most, level in _LEVELS if bytes_per_second <= most), None)


def _why(error: Exception) -> str:
    """Return an error's reason without the words that stand before it for operators."""
    return getattr(error, "kwargs", {}).get("reason") or str(error)
