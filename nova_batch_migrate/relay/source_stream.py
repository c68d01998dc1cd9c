"""One connection of the source's QEMU on its way: when and how fast its bytes are taken.

Made by source.py for every connection that was attributed; one thread takes bytes, one gives back
what comes on the return path. A stream that can't go on is reset: QEMU then gives the migration
up, and the guest runs on at the source.
"""

import functools
import queue
import select
import socket
import struct
import threading
import time

from oslo_log import log

from nova_batch_migrate import exception
from nova_batch_migrate.relay import (
    escort,
    figures,
    guest_memory,
    intake,
    main_channel,
    pacing,
    portions,
    qemu_stream,
    return_path,
    splice,
    switchover,
)

LOG = log.getLogger(__name__)

_GIVE_WAY_SECONDS = 0.002
#: A stream that spends so much of its time waiting leaves room on the wire for the next one.
_SLOWED_SHARE = 0.3
_STALLED_SECONDS = 2.0
_TURN_LOOK_SECONDS = 0.1
_RETURN_QUEUE_LENGTH = 256
#: A member of a set having been let go, its guest and those of the others need the processors more
#: than what is left to do for its stream.
_AFTERWARDS_SECONDS = 0.2


class SourceStream:
    """Carries one connection of a group's member through a log."""

    def __init__(self, number: int, connection: socket.socket, member, port: int, group,
                 gang: switchover.Gang | None):
        self._number = number
        self._connection = connection
        self.member, self._port = member, port
        self._group = group
        self._log = group.log(member.scope)
        #: Of a member of a synchronized set.
        self._escort = None if gang is None else escort.Escort(
            gang, member, connection, group.group.downtime_seconds,
            lambda: self._log.flush(number), lambda: group.turns.pass_on(number),
            self._source_listens)
        self._returned: queue.SimpleQueue = queue.SimpleQueue()
        self._ended = threading.Event()
        self._pace = pacing.Pace()
        self._memory: guest_memory.GuestMemory = group.memory(member.server_id)
        self._words = b""
        self._block_bytes: int | None = None
        self._portions = portions.Portions(group.group.link_is_slow, gang is not None,
                                           functools.partial(self._log.crossed, number))
        self._intake = intake.Intake(connection, self._portions.bulk_least_bytes)
        #: None until either side has spoken.
        self._is_migration: bool | None = None
        self.outcome = "running"
        #: None until round 0 is over; of a set's member none is told, which is held meanwhile.
        self.first_pass: figures.FirstPass | None = None
        #: Seconds in which the wire was left to others.
        self._gave_way = 0.0
        self._times: dict[str, float] = {"connected": time.monotonic()}

    # ---- what the log calls ---------------------------------------------------------------

    def returned(self, data: bytes) -> None:
        """Take what the destination sent back; never waits."""
        if self._returned.qsize() > _RETURN_QUEUE_LENGTH:
            self.reset("its source does not take what the destination sends back")
        else:
            self._returned.put(data)

    def return_ended(self) -> None:
        """The destination sends nothing more."""
        self._returned.put(None)

    def reset(self, reason: str) -> None:
        """End both directions at once, as a broken connection would."""
        if self._ended.is_set():
            return
        self.outcome = reason
        self._ended.set()
        LOG.warning("stream of server %s to port %d is reset: %s", self.member.server_id,
                    self._port, reason)
        self._group.turns.leave(self._number)
        splice.shut(self._connection, socket.SHUT_RD)
        reset_on_close(self._connection)
        self._connection.close()
        self._returned.put(None)

    # ---- the thread of the connection -----------------------------------------------------

    def run(self, led=lambda: None) -> None:
        """Carry the connection until both directions have ended; ``led``: when the log has it."""
        server_id = self.member.server_id
        try:
            # at once: where the server speaks first, as NBD's does, the source waits for it
            self._log.open(self._number, server_id, wire_metadata(self._port, server_id), self)
            led()
            back = threading.Thread(target=self._give_back, daemon=True)
            back.start()
            self._take()
            self._group.turns.leave(self._number)
            back.join()
            if self.outcome == "running":
                self.outcome = "done"
        except (OSError, exception.RelayError, ValueError) as error:
            # a ValueError is the core's, or a socket's that was closed before it was waited for
            self._log.abort(self._number, str(error))
            self.reset(str(error))
        finally:
            if self._escort is not None and self._is_migration:
                self._escort.ended()
            self._ended.set()
            self._group.turns.leave(self._number)
            self._memory.forget(self._number)
            self._tell()
            self._log.forget(self._number)
            self._connection.close()
            if self._escort is not None:
                self._escort.close()

    def _reached(self, what: str) -> None:
        """Note when the stream came to a point for the first time."""
        self._times.setdefault(what, time.monotonic())

    def _tell(self) -> None:
        """Log where the time of a stream went."""
        counters = self._log.statistics(self._number)
        if not self._is_migration or counters is None:
            return
        self._reached("ended")
        begun = self._times["connected"]
        LOG.info("stream of server %s (order %d): %s; %d bytes crossed as %d",
                 self.member.server_id, self.member.order,
                 ", ".join(f"{what} {at - begun:.3f} s" for what, at in self._times.items()),
                 counters.raw_bytes, counters.wire_bytes)

    def _first_words(self) -> None:
        """Wait for the first bytes of the source, without taking them, and see what they are."""
        self._words = self._intake.first(qemu_stream.CHANNELS)
        if self._is_migration is None:
            self._is_migration = self._words in qemu_stream.CHANNELS

    def _take(self) -> None:
        self._first_words()
        if self._is_migration:
            self._require_gang()
            self._group.turns.join(self._number, self.member.order)
            self._wait_for_turn()
        self._reached("turn")
        self._intake.begin()
        position = self._log.position(self._number)
        # since the last flush bytes came; it has left the beginning of a record
        fresh = begun = False
        moved_at, room = time.monotonic(), 0
        while not self._ended.is_set():
            late = self._portions.near_end(position.round, position.ram_end, position.ahead_bytes)
            wanted = self._portion_bytes(position, late)
            room = min(room, wanted) or self._log.room(self._number, wanted)
            if not room:
                self._yield_if_stalled(moved_at)
                continue
            try:
                memory = self._is_migration and position.ram_bytes
                with self._log.buffer(self._number) as buffer:
                    wanted = min(room, len(buffer))
                    taken = self._intake.take(buffer[:wanted], bool(memory), late)
            except BlockingIOError:
                if not self._intake.comes_soon() and fresh:
                    begun = self._log.flush(self._number, rest=not self._is_migration) > 0
                    # the main connection of several has few bytes, and knows how many are to come
                    position = self._log.position(self._number)
                    self._memory.note(self._number, position)
                    fresh = False
                    continue
                if not self._intake.comes(begun):
                    if begun:
                        self._log.flush(self._number)
                        begun = False
                    self._yield_if_stalled(moved_at)
                continue
            moved_at = time.monotonic()
            if not taken:
                if self._escort is not None and "let go" in self._times:
                    self._ended.wait(_AFTERWARDS_SECONDS)
                self._log.flush(self._number)
                self._log.end(self._number)
                return
            position, room = self._log.commit(self._number, taken, self._is_early(position))
            fresh = True
            if memory and late and taken < wanted:
                # it has run dry, and what comes last is waited for
                begun = self._log.flush(self._number, rest=False) > 0
                fresh = False
            self._taken(position, taken)

    def _taken(self, position: qemu_stream.Position, taken: int) -> None:
        """Note how far the stream is, and wait as long as its pace or its set ask for."""
        if position.round > 0:
            self._reached("round0")
            self._group.turns.urge(self._number)
        if position.ram_end:
            self._reached("ram_end")
        if position.round > 0 or position.ram_end:
            self._end_first_pass()
        self._memory.note(self._number, position)
        if self._escort is not None and self._is_migration:
            self._keep_together(position, taken)
        elif position.carries_memory:
            self._pace.took(taken, self._speed(position))
            if position.round > 0 or self._pace.waited_share > _SLOWED_SHARE:
                self._reached("slowed")
                self._end_first_pass()
                self._group.turns.pass_on(self._number)

    def _end_first_pass(self) -> None:
        """Note how long it was taken until now, and what its link alone needs for that."""
        if self.first_pass is not None or self._escort is not None:
            return
        counters, link = self._log.statistics(self._number), self._group.wire_bytes_per_second()
        if counters is not None and link:
            seconds = time.monotonic() - self._times["turn"] - self._gave_way
            self.first_pass = figures.FirstPass(seconds, counters.raw_bytes,
                                                counters.wire_bytes / link)

    def _is_early(self, position: qemu_stream.Position) -> bool:
        """Tell whether the wire is all that the stream waits for, and its end is far."""
        return self._is_migration and position.round == 0 and "slowed" not in self._times \
            and not (self._escort is not None and self._escort.held)

    def _portion_bytes(self, position: qemu_stream.Position, late: bool) -> int:
        """Return how much to take at once, having left the wire to who needs it more.

        ``late``: little is to lie in the relay.
        """
        portion = portions.PLAIN
        if self._is_migration:
            portion = self._portion(position, late)
            self._set_block(portion.block_bytes)
        return portion.size_bytes

    def _portion(self, position: qemu_stream.Position, late: bool) -> portions.Portion:
        if self._escort is not None and self._escort.leads:
            return self._portions.led(position.round, self._escort.through)
        sending = self._group.sending_bytes_per_second()
        if late:
            return self._portions.late(position.round, sending)
        portion, turns = self._portions.early(sending, self._is_early(position)), self._group.turns
        # on a fast link one that is alone has nobody to leave room for
        shares = turns.crowded and (self._group.group.link_is_slow or not turns.alone)
        if self._escort is None and shares \
                and (link := self._group.wire_bytes_per_second()) is not None:
            portion = self._portions.shared(link)
            since = time.monotonic()
            while turns.others_are_urgent(self._number) and not self._ended.is_set():
                time.sleep(_GIVE_WAY_SECONDS)
            self._gave_way += time.monotonic() - since
        return portion

    def _set_block(self, size_bytes: int | None) -> None:
        """Let blocks be no larger than what is taken at once; None: by the round."""
        if size_bytes != self._block_bytes:
            self._block_bytes = size_bytes
            self._log.set_block_bytes(self._number, size_bytes)

    def _yield_if_stalled(self, moved_at: float) -> None:
        """Let the others go on beside a stream that stands still; end one that is not to go."""
        if not self._is_migration:
            return
        self._require_gang()
        if time.monotonic() - moved_at > _STALLED_SECONDS:
            self._group.turns.pass_on(self._number)

    def _wait_for_turn(self) -> None:
        while not self._ended.is_set():
            if self._group.turns.wait(self._number, _TURN_LOOK_SECONDS):
                return
            self._require_gang()

    def _speed(self, position: qemu_stream.Position) -> float | None:
        """Return the most bytes/s to take now; None for as fast as they leave."""
        link = self._group.wire_bytes_per_second()
        if link is None:
            return None
        speed = pacing.taking_speed(self._memory.remaining_bytes(),
                                    link / self._changed_ratio(position),
                                    self._group.group.downtime_seconds)
        # of several connections QEMU adds up what each of them takes
        return speed / self._memory.carriers()

    def _changed_ratio(self, position: qemu_stream.Position) -> float:
        """Return wire bytes per byte of changed content, of what later rounds have sent so far."""
        seen = None if position.round == 0 else self._log.statistics(self._number)
        return pacing.changed_ratio(seen.changed_raw_bytes, seen.changed_wire_bytes) \
            if seen else pacing.WORST_RATIO

    # ---- synchronized members -------------------------------------------------------------

    def _require_gang(self) -> None:
        """End the stream of a member that is not let go and can't be held running any more."""
        if self._escort is not None:
            self._escort.require(single=self._words == main_channel.MAGIC)

    def _keep_together(self, position: qemu_stream.Position, taken: int) -> None:
        """Take a member as its set asks for; before its hold at its own pace."""
        if not position.carries_memory:
            self._escort.went_on(position)
        elif not self._escort.lead(position, taken, self._group.wire_bytes_per_second()):
            self._pace.took(taken, self._speed(position))
        if self._escort.through:
            self._reached("gate")
        if self._escort.hurries:
            self._intake.hurry(at_end=position.ram_end)

    def _source_listens(self) -> bool:
        """Tell whether QEMU still has its end open, without reading what it has sent."""
        if self._ended.is_set():
            return False
        poll = select.poll()
        poll.register(self._connection, select.POLLRDHUP)
        return not poll.poll(0)

    # ---- the way back ---------------------------------------------------------------------

    def _give_back(self) -> None:
        path = return_path.ReturnPath()
        try:
            while (data := self._returned.get()) is not None:
                if self._is_migration is None:
                    self._is_migration = False
                if not self._is_migration:
                    self._connection.sendall(data)
                    continue
                passing, last_step = path.feed(data)
                self._connection.sendall(passing)
                if last_step:
                    self._last_step(last_step)
            self._connection.sendall(path.rest())
            splice.shut(self._connection, socket.SHUT_WR)
        except OSError as error:
            if not self._ended.is_set():
                self._log.abort(self._number, f"the source does not listen any more: {error}")
                self.reset(f"QEMU closed the connection: {error}")

    def _last_step(self, message: bytes) -> None:
        """The destination has loaded everything: the source may give the guest up."""
        self._reached("loaded")

        def let_go() -> None:
            # before QEMU can close, whose end the other thread then need not clear up at once
            self._reached("let go")
            self._connection.sendall(message)
        if self._escort is None:
            self._connection.sendall(message)
        elif not self._escort.loaded(let_go):
            # however it got there: the guest goes on at the source
            reason = "a synchronized server came to its end before its set was let go"
            self._log.abort(self._number, reason)
            self.reset(reason)
            return
        self._group.turns.leave(self._number)


def wire_metadata(port: int, server_id: str) -> bytes:
    """Return what the destination has to know of a stream before its first byte."""
    return struct.pack(">H", port) + server_id.encode()


def read_metadata(metadata: bytes) -> tuple[int, str]:
    """Return port and server of :func:`wire_metadata`."""
    return struct.unpack_from(">H", metadata)[0], bytes(metadata[2:]).decode(errors="replace")


def reset_on_close(connection: socket.socket) -> None:
    """Let the close of a socket be a reset for its peer."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        return
