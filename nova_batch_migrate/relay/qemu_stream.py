"""Follows one connection of a QEMU migration and says which stretches of it are pages.

Used by the encoder. Never blocks, never changes a byte: what it does not know is VERBATIM, from
there to the end of the connection.
"""
from typing import NamedTuple

from nova_batch_migrate.relay import main_channel, multifd_channel
from nova_batch_migrate.relay.runs import (
    BeforeRamEnd,
    Channel,
    Cursor,
    NeedMore,
    Runs,
    Unknown,
)

CHANNELS = {main_channel.MAGIC: main_channel.MainChannel,
            multifd_channel.MAGIC: multifd_channel.MultifdChannel}


class Position(NamedTuple):
    """How far a connection has come; pacing and switch-over decide by it."""

    understood: bool = True     # False: it is no migration stream that we know
    phase: str = "head"         # head, round0, later, ram-end, verbatim
    ram_bytes: int = 0          # sum of the RAM blocks; 0 on a multifd channel
    round: int = 0              # 0: every page comes for the first time
    round0_bytes: int = 0       # guest memory that round 0 has passed, zero pages included
    changed_pages: int = 0      # pages with content seen behind round 0
    ram_end_offset: int = -1    # raw offset of the header of the last RAM section
    # guest memory that comes here for the first time from now on, guest stopped or not; 0 where
    # pages have other connections, and behind them
    ahead_bytes: int = 0

    @property
    def ram_end(self) -> bool:
        return self.ram_end_offset >= 0

    @property
    def round0_share(self) -> float:
        """Return how much of round 0 is done, 0..1 (of a multifd channel: 0 until it is over)."""
        if self.round or self.ram_end:
            return 1.0
        return min(1.0, self.round0_bytes / self.ram_bytes) if self.ram_bytes else 0.0

    @property
    def carries_memory(self) -> bool:
        """Whether pages of a running guest come now, or did a moment ago."""
        return self.understood and self.phase in ("round0", "later")

    @property
    def remaining_bytes(self) -> int:
        """Return the guest memory that round 0 has still before it."""
        return int((1 - self.round0_share) * self.ram_bytes)


class QemuStream:
    """The parser of one connection's bytes towards the destination."""

    def __init__(self):
        self._channel: Channel | None = None
        self._understood = True
        self._ended = False             # verbatim to the end from here on
        self.offset = 0                 # raw bytes consumed
        self.understood_bytes = 0       # of them, before it went on verbatim
        self.starved = False            # what the last call left is a part of something

    @property
    def channel(self) -> Channel | None:
        """The kind of connection it turned out to be; None as long as that is open."""
        return self._channel

    @property
    def round(self) -> int:
        """Return 0 while every page comes for the first time."""
        return 0 if self._channel is None else self._channel.progress.round

    @property
    def position(self) -> Position:
        if self._channel is None:
            return Position(self._understood, "head" if self._understood else "verbatim")
        channel, progress = self._channel, self._channel.progress
        phase = channel.phase if not self._ended or channel.ram_end_offset >= 0 else "verbatim"
        return Position(self._understood, phase, channel.ram_bytes, progress.round,
                        progress.round0_bytes, progress.changed_pages, channel.ram_end_offset,
                        self._ahead_bytes())

    def _ahead_bytes(self) -> int:
        channel = self._channel
        if self._ended or channel.progress.round or not channel.hits.get("page"):
            return 0
        return max(0, channel.ram_bytes - channel.progress.round0_bytes)

    def parse(self, data: memoryview, start: int, end: int, runs: Runs) -> int:
        """Append the runs of data[start:end]; return where what was not consumed begins.

        Stops once in front of the header of the last RAM section, so that a block can end there.
        """
        at, self.starved = start, False
        while at < end and not self.starved:
            if self._ended:
                runs.verbatim(at, end - at)
                self.offset += end - at
                return end
            try:
                following = self._step(data, at, end, runs)
            except NeedMore:
                self.starved = True
                break
            except Unknown:
                self._understood &= self._channel is not None and self._channel.ram_end_offset >= 0
                self._ended = True
                continue
            except BeforeRamEnd:
                if at > start:
                    break
                continue
            self.offset += following - at
            self.understood_bytes = self.offset
            at, self.starved = following, self._channel.starved
        return at

    def _step(self, data: memoryview, at: int, end: int, runs: Runs) -> int:
        if self._channel is None:
            magic = bytes(Cursor(data, at, end).take(4))
            if magic not in CHANNELS:
                raise Unknown
            self._channel = CHANNELS[magic]()
        return self._channel.step(data, at, end, runs, self.offset)
