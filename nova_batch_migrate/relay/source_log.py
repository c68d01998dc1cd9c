"""The source's end of one ordered log: an encoder, its connection, and who may use it when.

Made by source.py, one per scope of a group; the streams of source_stream.py feed it from threads
of their own. Blocks leave in the order in which they were encoded.
"""

import collections
import dataclasses
import queue
import threading
import time

from oslo_log import log

from nova_batch_migrate import exception
from nova_batch_migrate.relay import (
    channel,
    dictionary,
    encoder,
    levels,
    pacing,
    qemu_stream,
    settings,
    wire,
)

LOG = log.getLogger(__name__)

#: What is let through at once by a cap, or half of what may leave at once; and where there is none.
_PIECE_BYTES, _UNCAPPED_PIECE_BYTES = 64 << 10, 1 << 20
#: What may lie unsent in the kernel where it leaves within a millisecond: who sends so fast does
#: not wait for every record.
_UNSENT_SECONDS, _MOST_UNSENT_BYTES = 0.001, 1 << 20
#: On a slower wire the next block is made while the one before leaves. On a faster one a block
#: leaves in less time than it takes to hand it to another thread and back.
_AHEAD_BYTES_PER_SECOND = 250e6
_AHEAD_LEAST_BYTES = 16 << 10


class SourceLog:
    """Feeds one encoder and sends what it makes; hands back what comes on the return paths.

    ``connect(session, anew)`` gives an SSL connection and the peer's answer; ``bucket`` and
    ``rate`` are the group's. With ``adapts`` the level of compression moves with what is scarce,
    the link or the core.
    """

    def __init__(self, connect, log_settings: settings.LogSettings, bucket: pacing.TokenBucket,
                 rate: pacing.WireRate, adapts: bool = False,
                 memory: dictionary.Memory | None = None):
        self._connect = connect
        #: As the source wants it; the destination may allow a smaller dictionary.
        self.settings = log_settings
        self._memory = memory or dictionary.Memory(log_settings.dictionary_bytes)
        self._bucket, self._rate = bucket, rate
        # Encoding and sending are two locks, taken hand over hand: the next block is made while
        # the one before is on its way.
        self._encode = threading.Condition()
        self._order = threading.Lock()
        self._encoder: encoder.Encoder | None = None
        self._channel: channel.Channel | None = None
        self._streams: dict[int, object] = {}
        self._session = 0
        self._closed = False
        self._levels = levels.LevelChooser(log_settings.level) if adapts else None
        #: What batches of frames took, until the next one is made: as `LevelChooser.note` has it.
        self._taken: collections.deque[tuple[float, float, float, int]] = collections.deque()
        #: What a thread sends for streams that go on meanwhile: at most one batch of frames.
        self._ahead: queue.SimpleQueue = queue.SimpleQueue()
        self._sender: threading.Thread | None = None

    def prepare(self) -> None:
        """Have the dictionary's memory made: while the group opens, not while a stream waits."""
        self._memory.populate()

    def reach(self) -> None:
        """Connect before a stream comes, which else waits for it; where that fails, it tries again.
        """
        try:
            with self._encode:
                self._require_channel()
        except (OSError, ValueError, exception.RelayError, wire.RelayError) as error:
            LOG.info("the relay of the destination is not reached yet: %s", error)

    def open(self, number: int, server_id: str, metadata: bytes, stream) -> None:
        """Begin a stream; ``stream`` gets ``returned``, ``return_ended`` and ``reset`` called."""
        with self._encode:
            self._streams[number] = stream
        try:
            self._emit(lambda made: made.open_stream(number, server_id, metadata))
        except BaseException:
            with self._encode:
                self._streams.pop(number, None)
            raise

    def room(self, number: int, wanted: int, timeout_seconds: float = 1.0) -> int:
        """Return how many raw bytes the stream may feed now, 0 when it had to wait in vain."""
        with self._encode:
            if self._channel is None:
                raise exception.RelayError(reason="the connection of the relays broke.")
            free = self._encoder.room(number)
            if free <= 0:
                self._encode.wait(timeout_seconds)
                if self._channel is None:
                    raise exception.RelayError(reason="the connection of the relays broke.")
                free = self._encoder.room(number)
            return max(0, min(free, wanted))

    def buffer(self, number: int) -> memoryview:
        """Return where the next bytes of a stream belong; only its own thread writes there.

        Release it before ``commit``. A RelayError where the log has begun anew without the stream.
        """
        with self._encode:
            if self._channel is None:
                raise exception.RelayError(reason="the connection of the relays broke.")
            try:
                return self._encoder.buffer(number)
            except KeyError:
                raise exception.RelayError(reason="the stream was cut off.") from None

    def commit(self, number: int, count: int, ahead: bool = False
               ) -> tuple[qemu_stream.Position, int]:
        """Encode what was written to ``buffer`` and send; returns when the kernel has the bytes.

        ``ahead``: already when it has those of the call before, where the wire is slow. The
        results are how far the stream has come, and how many raw bytes it may bring next.
        """
        def taken(made: encoder.Encoder) -> list[bytes | memoryview]:
            nonlocal after
            try:
                # they keep until the next call but one; of that one, the call before has had the
                # order, so these have left
                frames = [piece for frame in made.commit(number, count) for piece in frame]
                after = (made.parser(number).position, made.room(number))
            except KeyError:
                raise exception.RelayError(reason="the stream was cut off.") from None
            return frames
        after = None
        self._emit(taken, count, ahead)
        return after

    def set_block_bytes(self, number: int, block_bytes: int | None) -> None:
        """Set the raw bytes at which a block of a stream is made; None: by its round."""
        with self._encode:
            try:
                self._encoder.set_block_bytes(number, block_bytes)
            except KeyError:
                raise exception.RelayError(reason="the stream was cut off.") from None

    def flush(self, number: int, rest: bool = True) -> int:
        """Send what the encoder still holds of a stream; without ``rest`` only what is complete.

        Returns how many bytes of an incomplete record it then holds.
        """
        def flushed(made: encoder.Encoder) -> list[bytes]:
            nonlocal held
            try:
                frames = made.flush(number, rest)
                held = made.progress(number).held_bytes
            except KeyError:
                raise exception.RelayError(reason="the stream was cut off.") from None
            return frames
        held = 0
        self._emit(flushed)
        return held

    def end(self, number: int) -> None:
        """Tell the other side that the stream's source has ended."""
        self._emit(lambda made: made.end(number))

    def abort(self, number: int, reason: str) -> None:
        """Tell the other side to drop the stream; where the connection is gone it has."""
        with self._encode:
            if self._channel is None:
                return
        try:
            self._emit(lambda made: made.abort(number, reason))
        except (OSError, exception.RelayError, wire.RelayError) as error:
            LOG.info("stream %d: %s (%s)", number, reason, error)

    def position(self, number: int) -> qemu_stream.Position:
        """Return how far a stream has come."""
        with self._encode:
            try:
                return self._encoder.progress(number).position
            except KeyError:
                raise exception.RelayError(reason="the stream was cut off.") from None

    def statistics(self, number: int):
        """Return the counters of a stream; None where the log does not know it (any more)."""
        with self._encode:
            try:
                return self._encoder and self._encoder.statistics(number)
            except KeyError:
                return None

    def crossed(self, number: int) -> tuple[int, int]:
        """Return raw bytes of a stream and what crossed of them; zeros where nobody knows it."""
        with self._encode:
            try:
                return self._encoder.crossed(number) if self._encoder else (0, 0)
            except KeyError:
                return 0, 0

    @property
    def fill_bytes(self) -> int:
        """Bytes of content in the dictionary."""
        with self._encode:
            return self._encoder.fill_bytes if self._encoder else 0

    def forget(self, number: int) -> None:
        """Forget a stream that is over in both directions."""
        with self._encode:
            self._streams.pop(number, None)

    def forgo(self, server_id: str) -> None:
        """Keep nothing in the dictionary for a server any longer, nor in one that follows.

        Waits for nobody.
        """
        self.settings = dataclasses.replace(self.settings, kept_for={
            each: other for each, other in self.settings.kept_for.items() if other != server_id})
        made = self._encoder
        if made is not None:
            made.forgo(server_id)

    def close(self) -> None:
        """End the connection; streams that still run are reset."""
        self._closed = True
        self._broke(self._channel, "the group was closed")
        # the group's own: else both would go, and their memory with them, no sooner than the
        # collector of cycles comes by
        self._connect = _connect_no_more
        # behind what has been handed over already
        with self._order:
            self._ahead.put(None)

    def _emit(self, produce, raw_bytes: int = 0, ahead: bool = False) -> None:
        self._encode.acquire()
        try:
            self._require_channel()
            line = self._channel
            self._choose_level()
            if self._levels is None:
                frames, encoding = produce(self._encoder), (0.0, 0.0)
            else:
                begun, core_begun = time.monotonic(), time.thread_time()
                frames = produce(self._encoder)
                # as long as it took, and what it had of a core: cores are shared with guests
                encoding = (time.monotonic() - begun, time.thread_time() - core_begun)
            self._order.acquire()
        finally:
            self._encode.release()
        if ahead and not self._closed and self._wire_is_slow() \
                and sum(map(len, frames)) > _AHEAD_LEAST_BYTES:
            # whoever sends them gives the order back
            self._hand_over(line, frames, encoding, raw_bytes)
            return
        failure = self._leave(line, frames, encoding, raw_bytes)
        if failure is not None:
            self._broke(line, f"sending failed: {failure}")
            raise exception.RelayError(
                reason=f"the connection of the relays broke: {failure}") from failure

    def _choose_level(self) -> None:
        """Reckon with what was sent since the last time; the lock on encoding is held."""
        while self._levels is not None and self._taken:
            self._encoder.set_level(self._levels.note(*self._taken.popleft()))

    def _wire_is_slow(self) -> bool:
        rate = self._rate.sending_bytes_per_second(self._bucket.bytes_per_second)
        return rate is not None and rate < _AHEAD_BYTES_PER_SECOND

    def _hand_over(self, *work) -> None:
        if self._sender is None:
            self._sender = threading.Thread(target=self._send_ahead, daemon=True)
            self._sender.start()
        self._ahead.put(work)

    def _send_ahead(self) -> None:
        """Send what is handed over; never wait for the lock on encoding.

        Its holder may be waiting for the order that goes with the next of this work.
        """
        while (work := self._ahead.get()) is not None:
            # without a cap, what the kernel takes would pass for the speed of the wire
            ahead = pacing.AHEAD_SECONDS if self._bucket.bytes_per_second else 0.0
            failure = self._leave(*work, ahead_seconds=ahead)
            if failure is not None:
                line = work[0]
                line.close()
                threading.Thread(target=self._broke, daemon=True,
                                 args=(line, f"sending failed: {failure}")).start()

    def _leave(self, line: channel.Channel, frames: list, encoding: tuple[float, float],
               raw_bytes: int, ahead_seconds: float = 0.0) -> OSError | None:
        """Send frames in their turn, then let the next ones leave; the lock on order is held."""
        begun = time.monotonic()
        try:
            line.let_unsent(self._unsent_bytes(ahead_seconds))
            self._send(line, frames, ahead_seconds)
        except OSError as error:
            return error
        finally:
            if raw_bytes and self._levels is not None:
                self._taken.append((*encoding, time.monotonic() - begun, raw_bytes))
            self._order.release()
        return None

    def _unsent_bytes(self, ahead_seconds: float) -> int:
        cap = self._bucket.bytes_per_second
        sending = self._rate.sending_bytes_per_second(cap) or 0.0
        return int(max(ahead_seconds * (cap or 0.0),
                       min(_UNSENT_SECONDS * sending, _MOST_UNSENT_BYTES)))

    def _send(self, line: channel.Channel, frames: list, ahead_seconds: float = 0.0) -> None:
        """Send frames in pieces; where there is no cap those of several are counted together."""
        cap = self._bucket.bytes_per_second
        most = counted = _UNCAPPED_PIECE_BYTES
        if cap:
            most, counted = min(most, max(_PIECE_BYTES, int(cap * pacing.BURST_SECONDS / 2))), 1
        size, begun = 0, time.monotonic()
        for frame in frames:
            view = memoryview(frame)
            for start in range(0, len(view), most):
                piece = view[start:start + most]
                self._bucket.take(len(piece), ahead_seconds)
                line.send(piece)
                size += len(piece)
                if size >= counted:
                    now = time.monotonic()
                    self._rate.sent(size, begun, now)
                    size, begun = 0, now
        if size:
            self._rate.sent(size, begun, time.monotonic())

    def _require_channel(self) -> None:
        """Connect where there is no connection; the lock on encoding is held."""
        if self._closed:
            raise exception.RelayError(reason="the group was closed.")
        if self._channel is not None:
            return
        line = self._dial(anew=self._encoder is None)
        if line is None:
            line = self._dial(anew=True)
        if self._closed:
            # meanwhile: nobody else knows of this connection
            line.close()
            raise exception.RelayError(reason="the group was closed.")
        self._channel = line
        threading.Thread(target=self._read, args=(line,), daemon=True).start()

    def _dial(self, anew: bool) -> channel.Channel | None:
        """Connect; go on with the log of before, or begin one. None where it can't go on."""
        self._session += 1
        connection, answer = self._connect(self._session, anew)
        line = channel.Channel(connection)
        try:
            frames = self._begin(answer) if anew else []
            if not anew:
                # the streams of the old connection have been reset; what they taught stays
                self._encoder.truncate(int(answer["last_number"]))
            with self._order:
                self._send(line, frames)
        except wire.CannotTruncate as error:
            LOG.info("the log begins anew: %s", error)
            line.close()
            return None
        return line

    def _begin(self, answer: dict) -> list[bytes]:
        size = min(self.settings.dictionary_bytes, int(answer["dictionary_bytes"]))
        self._encoder = encoder.Encoder(
            dataclasses.replace(self.settings, dictionary_bytes=size,
                                static=answer.get("static")), memory=self._memory)
        return self._encoder.hello()

    def _read(self, line: channel.Channel) -> None:
        reason = "the peer closed the connection"
        try:
            for frame in line.frames():
                self._handle(frame)
        except (OSError, wire.RelayError) as error:
            reason = str(error)
        self._broke(line, reason)

    def _handle(self, frame) -> None:
        if frame.kind is wire.Kind.CREDIT:
            with self._encode:
                self._encoder.on_frame(frame)
                self._encode.notify_all()
            return
        with self._encode:
            stream = self._streams.get(frame.stream)
        if stream is None:
            return
        if frame.kind is wire.Kind.RETURN:
            stream.returned(bytes(frame.payload))
        elif frame.kind is wire.Kind.RETURN_END:
            stream.return_ended()
        elif frame.kind is wire.Kind.ABORT:
            stream.reset(bytes(frame.payload).decode(errors="replace"))

    def _broke(self, line: channel.Channel | None, reason: str) -> None:
        """The connection is over: its streams can't go on, their guests run on at the source."""
        if line is not None:
            line.close()
        with self._encode:
            if self._channel is not line:
                return
            self._channel = None
            streams, self._streams = list(self._streams.values()), {}
            self._encode.notify_all()
        for stream in streams:
            stream.reset(reason)


def _connect_no_more(_session: int, _anew: bool):
    raise exception.RelayError(reason="the group was closed.")
