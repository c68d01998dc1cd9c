"""Planning's inner loops in plain Python: what _speed.c does.

Used by planning.simulation and planning.replay where the extension is not built, and by tests as
the measure of it. A group is simulated event by event: the stream itself is planning.stream, here
is what goes on around it: Nova, the link that is shared, a relay's turns. Whoever changes one of
them changes _speed.c as well.
"""

import collections
import dataclasses
import math
from collections.abc import Sequence

from nova_batch_migrate.planning.conditions import (
    BESIDE_PREPARING,
    FIRST_ALONE_SECONDS,
    Link,
    NovaWork,
    Timing,
    beside_before,
)
from nova_batch_migrate.planning.stream import Stream, StreamLoad

#: A relay lets a stream in its later rounds go before others for so long; it may never end.
_URGENT_SECONDS = 20.0
#: So long a relay lets a stream wait for one that goes before it in the plan.
_GRACE_SECONDS = 0.5
#: A relay does not begin a further stream for less than this share of the wire.
_LEAST_SHARE = 0.05


def simulate(loads: Sequence[StreamLoad], link: Link, timing: Timing, alone: bool = False
             ) -> list[tuple]:
    """Run the migrations until each has completed or failed; return the fields of their Outcome.

    A failed one gives its place to the next. Time goes from event to event of any of them. `alone`:
    streams that never overlap, for which a relay knows no turns.
    """
    nova, turns = timing.nova, _Turns(link) if link.relay and not alone else None
    before, behind = nova.seconds * nova.before_share, nova.seconds * (1 - nova.before_share)
    runs = [_Run(_stream(load, timing), before, behind) for load in loads]
    waiting = collections.deque(runs)
    active: list[_Run] = []
    now, at_once = 0.0, nova.at_once if math.isinf(nova.at_once) else 1.0
    while waiting or active:
        at_start = sum(run.before_left > 0 for run in active)
        if at_start < len(runs) - len(waiting) or now >= FIRST_ALONE_SECONDS:
            at_once = nova.at_once
        to_end = sum(not run.stream.ended for run in active)
        while waiting and len(active) < timing.parallel and at_start < at_once \
                and to_end < nova.at_once + BESIDE_PREPARING:
            run = waiting.popleft()
            at_start += run.before_left > 0
            to_end += 1
            run.queue_seconds = now
            run.stream.begins_seconds = (timing.begins_seconds or 0.0) + now + before
            active.append(run)
        rates = link.rates(sum(run.stream.transferring for run in active))
        if turns is not None:
            turns.share(active, now)
        for run in active:
            if turns is None or not run.stream.transferring:
                run.rates = rates
        paces = [run.nova_pace(nova, at_start, len(active)) for run in active]
        step = min([run.wait(pace) for run, pace in zip(active, paces, strict=True)])
        if waiting and at_once < nova.at_once:
            step = min(step, FIRST_ALONE_SECONDS - now)
        if math.isinf(step):
            # Nothing will change any more, with the link as it is shared now.
            for run in active:
                run.stream.fail()
        else:
            now += step
            for run, pace in zip(active, paces, strict=True):
                run.advance(step, pace)
        active = [run for run in active if not run.ended]
    return [run.outcome() for run in runs]


def _stream(load: StreamLoad, timing: Timing) -> Stream:
    if timing.begins_seconds is None and load.cycle is not None:
        load = dataclasses.replace(load, cycle=None)
    return Stream(load, timing.setup_seconds)


@dataclasses.dataclass(eq=False)
class _Run:
    """One member's way through the simulation: Nova, its stream, Nova again."""

    stream: Stream
    #: Nova's work before the stream and behind it: the link is free meanwhile.
    before_left: float = 0.0
    behind_left: float = 0.0
    queue_seconds: float = math.inf
    nova_seconds: float = 0.0
    #: Whether a relay holds it, and for how long without its having been looked at.
    held: bool = False
    held_seconds: float = 0.0
    #: A relay has let others begin beside it; since when it goes before them.
    passed_on: bool = False
    urgent_since: float | None = None
    #: What it gets of the link: while it sends, in its last copy.
    rates: tuple[float, float] = (0.0, 0.0)

    def outcome(self) -> tuple:
        """Return the fields of its simulation.Outcome."""
        stream = self.stream
        return (stream.phase == "completed", self.queue_seconds, self.nova_seconds,
                stream.seconds, stream.sent_bytes, stream.wire_bytes, stream.rounds,
                stream.downtime_seconds, stream.aborted_at)

    @property
    def in_nova(self) -> bool:
        """Whether Nova works on it, before its stream or behind it."""
        return self.before_left > 0 or (self.behind_left > 0
                                        and self.stream.phase == "completed")

    def nova_pace(self, nova: NovaWork, before: int, active: int) -> float:
        """Return how fast Nova works on it, of so many that are active and before their stream."""
        if not nova.sharing or not self.in_nova:
            return 1.0
        if self.before_left > 0:
            return nova.pace(beside_before(before - 1, active - before))
        return nova.pace(active - 1)

    @property
    def ended(self) -> bool:
        """Whether it makes room for the next one."""
        return self.stream.phase == "failed" or (self.stream.ended and self.behind_left <= 0)

    def wait(self, nova_pace: float) -> float:
        """Return the seconds until something happens to it; one that is held waits for its end."""
        if self.in_nova:
            return (self.before_left or self.behind_left) / nova_pace
        if self.held:
            timeout = self.stream.load.schedule.timeout_seconds
            return math.inf if timeout is None else max(
                0.0, timeout - self.stream.seconds - self.held_seconds)
        return self.stream.next_event(*self.rates)

    def advance(self, step: float, nova_pace: float) -> None:
        """Let `step` pass, at most up to the next event."""
        if self.in_nova:
            self.nova_seconds += step
            left = (self.before_left or self.behind_left) - step * nova_pace
            left = 0.0 if left < 1e-9 else left
            if self.before_left:
                self.before_left = left
            else:
                self.behind_left = left
        elif not self.held:
            self.stream.advance(step, *self.rates)
        else:
            self.held_seconds += step
            if self.wait(nova_pace) <= 1e-6:
                self.go_on()

    def go_on(self) -> None:
        """Let pass at once what passed while it was held."""
        self.held = False
        if self.held_seconds:
            self.stream.next_event(0.0, 0.0)
            self.stream.advance(self.held_seconds, 0.0, 0.0)
            self.held_seconds = 0.0


class _Turns:
    """Who of a group's streams a relay takes now, and how fast: what relay.turns does.

    One at a time, as they were issued. One that the relay slows down for the sake of its downtime,
    or that is in its later rounds, leaves what it does not need to the next; in its later rounds
    it goes before them.
    """

    def __init__(self, link: Link):
        self._link = link
        self._turn: _Run | None = None

    def share(self, active: list[_Run], now: float) -> None:
        """Set what each of the streams that transfer gets, and hold those that get nothing.

        `active` is in the order of the plan; who comes a little early lets those before it come.
        """
        moving = [run for run in active if run.stream.transferring]
        rate = self._link.rates(1)[0]
        urgent = []
        for run in moving:
            run.stream.wire_bytes_per_second = rate
            if run.passed_on or run.stream.nearly_done(rate):
                run.passed_on = True
            if run.stream.in_later_rounds:
                run.urgent_since = now if run.urgent_since is None else run.urgent_since
                if now - run.urgent_since < _URGENT_SECONDS:
                    urgent.append(run)
        if urgent:
            self._give(moving, {run: rate / len(urgent) for run in urgent})
            return
        late = [run for run in moving if run.passed_on]
        shares, left = {}, rate
        for at, run in enumerate(late):
            # Where all want more than there is, each has its part.
            shares[run] = min(run.stream.wanted_rate(rate), left / (len(late) - at))
            left -= shares[run]
        fresh = [run for run in moving if not run.passed_on]
        if fresh and self._turn not in fresh:
            self._turn = None if self._awaited(active, fresh[0]) else fresh[0]
        if fresh and self._turn is not None and left > _LEAST_SHARE * rate:
            shares[self._turn] = left
        elif late:
            # Nobody else wants it.
            shares = {run: rate if len(late) == 1 else share for run, share in shares.items()}
        self._give(moving, shares)

    @staticmethod
    def _awaited(active: list[_Run], first: _Run) -> bool:
        """Tell whether one that goes before the first of those there is about to come."""
        before = active[:active.index(first)]
        return any(not run.in_nova and run.stream.begins_within(_GRACE_SECONDS) for run in before)

    @staticmethod
    def _give(moving: list[_Run], shares: dict[_Run, float]) -> None:
        for run in moving:
            share = shares.get(run, 0.0)
            if share <= 0:
                run.held = True
                continue
            run.go_on()
            run.rates = (share, share)


def follow_ring(last, owners, sends, kept_for, slots: int, patience: float, missed) -> None:
    """Fill in which accesses miss a ring of so many contents, each array in their order.

    `last` is the access to the same content before (-1: none), `owners` whose it is, `sends` the
    pages of each owner in all, `kept_for` the owner (itself or a later one) until whose end what it
    brought stays. What a server finds none of is let in once it has sent the share
    `patience` of the ring (planning.replay says what is let in, and why).
    """
    accesses = collections.Counter(owners.tolist())
    followed, found = [0] * len(sends), [0] * len(sends)
    #: Of each slot: who brought what it holds. Of each access: the number it was let in under.
    brought_by, let_in = [-1] * slots, [-1] * len(last)
    head = 0
    sends = sends.tolist()
    for at, (before, owner) in enumerate(zip(last.tolist(), owners.tolist(), strict=True)):
        number = let_in[before] if before >= 0 else -1
        missed[at] = number < 0 or head - number > slots
        if not missed[at]:
            let_in[at] = number
            found[owner] += 1
        else:
            sent = followed[owner] * sends[owner] / accesses[owner]
            if head < slots or (slots and sent >= slots * patience
                                and 2 * found[owner] < sent
                                and kept_for[brought_by[head % slots]] < owner):
                let_in[at] = head
                brought_by[head % slots] = owner
                head += 1
        followed[owner] += 1
