"""Chooses the zstd level of a log by what is scarce: the link, the core, or the host's cores.

Asked by the source's relay after each batch of frames; holds no clock. A change begins a new
compression context, which costs 0.2 % of the wire bytes if it happens every 200 MiB.
"""
import dataclasses

# Levels worth having, with the seconds of a core per raw byte relative to the first (measured on
# eight alike guests).
LADDER = ((None, 1.0), (-1, 1.7), (1, 1.9), (3, 4.2), (6, 7.4), (9, 9.6))
WINDOW_RAW_BYTES = 64 << 20
# Of the time in which the link is busy, what encoding may take at a higher level.
ROOM = 0.8
# How much longer encoding takes than it has of a core where the cores are shared with guests and
# with Nova, who need them to go on themselves.
CROWDED = 1.3
# The rung at which compression gives most for its time (level 1): those above save 4 to 12 % of the
# wire bytes for up to five times as much of it. A log that begins above it has a link that level 1
# outruns whatever comes, so it never falls below: of a window in which nearly all was found there
# is hardly anything to send, which says nothing of what comes next.
FRUGAL_RUNG = 2


@dataclasses.dataclass
class LevelChooser:
    """Watches encoding and sending of one log, which run beside each other."""

    level: int | None = 1
    highest: int = 9
    _lowest_rung: int = dataclasses.field(init=False, default=0)
    _encoding: float = 0.0
    _core: float = 0.0
    _sending: float = 0.0
    _raw: int = 0

    def __post_init__(self) -> None:
        if self.level is not None and self.level > LADDER[FRUGAL_RUNG][0]:
            self._lowest_rung = FRUGAL_RUNG

    def note(self, encode_seconds: float, core_seconds: float, send_seconds: float,
             raw_bytes: int) -> int | None:
        """Count a batch of frames; return the level that is right from now on.

        encode_seconds: as long as it took; core_seconds: what it had of a core meanwhile.
        send_seconds: until the link (or its cap) had taken the frames.
        """
        self._encoding += encode_seconds
        self._core += core_seconds
        self._sending += send_seconds
        self._raw += raw_bytes
        if self._raw >= WINDOW_RAW_BYTES:
            self.level = self._next()
            self._encoding = self._core = self._sending = 0.0
            self._raw = 0
        return self.level

    def _next(self) -> int | None:
        ladder = [rung for rung in LADDER if rung[0] is None or rung[0] <= self.highest]
        at = next((i for i, (level, _) in enumerate(ladder) if level == self.level), None)
        if at is None:                      # a level of the operator's own: not ours to change
            return self.level
        cost = ladder[at][1]
        crowded = self._encoding > CROWDED * self._core
        if at > self._lowest_rung and (
                self._encoding > self._sending or (crowded and at > FRUGAL_RUNG)):
            return ladder[at - 1][0]
        top = min(len(ladder) - 1, FRUGAL_RUNG if crowded else len(ladder))
        # as high as encoding still keeps up with the link
        while (at < top
               and self._encoding * ladder[at + 1][1] / cost < ROOM * self._sending):
            at += 1
        return ladder[at][0]
