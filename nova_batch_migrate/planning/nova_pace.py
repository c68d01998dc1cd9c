"""How long Nova works on a migration besides its stream, told from the latest ones of the cloud.

The conductor gives what it has seen and what is configured; what comes out goes into the request of
the next plan.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence

from nova_batch_migrate.planning import evidence
from nova_batch_migrate.planning.conditions import beside_before
from nova_batch_migrate.planning.values import Value

#: Standard deviations of the logarithm of what is assumed: clouds differ by two and more from what
#: nobody has told; an operator has looked at his.
GUESSED, TOLD = 0.7, 0.2
#: Nova's seconds vary with the load of its hosts.
_SCATTER = evidence.Scatter(assumed=GUESSED, batch=0.35, migration=0.2, doubling=0.2)
#: Standard deviation of log(1 + sharing) before anything was seen, as a share of the others'.
_SHARING_SHARE = 0.7
_SHARINGS = tuple(0.05 * step for step in range(41))
#: So unlike, in doublings of load, are another source host, and streams that go another way.
_OTHER_SOURCE, _OTHER_WAY = 0.5, 1.0
#: A stretch shorter than this is taken for this long: clocks are looked at so often.
_LEAST_SECONDS = 0.25


@dataclasses.dataclass(frozen=True)
class NovaStay:
    """A completed migration's time in Nova's hands; seconds, the first two since any epoch."""

    issued_seconds: float
    finished_seconds: float
    nova_seconds: float
    #: Of them, before the stream; None: nobody saw it begin.
    before_seconds: float | None = None
    batch: str = ""
    source: str = ""
    #: Whether a relay carried its stream.
    relay: bool = False
    #: False: it went another way than planned, or not at the first attempt. It tells nothing, but
    #: others had it beside them.
    usual: bool = True


@dataclasses.dataclass(frozen=True)
class Ahead:
    """What the next migrations will run under."""

    #: When the plan is made; of the epoch of the stays.
    now_seconds: float
    sources: frozenset[str]
    relay: bool
    #: Servers of the batch, and how many of them migrate at once.
    servers: int
    at_once: int


@dataclasses.dataclass(frozen=True)
class NovaPace(Value):
    """Nova's own work around a stream: what a migration costs that has Nova for itself."""

    seconds: float
    #: What of them comes before the stream.
    before_share: float
    #: By what share of its time each further migration under way delays one that Nova works on.
    sharing: float
    #: Standard deviation of the logarithm of the seconds: of a batch to come, or, where they are
    #: assumed, of them.
    deviation: float = GUESSED
    #: From so many.
    migrations: int = 0


def unlearned(deviation: float) -> float:
    """Return what is not known of a batch to come where nothing but what is assumed is known."""
    return round(evidence.estimate((), dataclasses.replace(
        _SCATTER, assumed=deviation)).deviation, 3)


def learn(stays: Sequence[NovaStay], usual: NovaPace, ahead: Ahead) -> NovaPace | None:
    """Return how Nova will work, by what is assumed (`usual`) and the latest migrations.

    `usual.deviation` tells how sure what is assumed is: GUESSED or TOLD. None where none of the
    migrations went as planned.

    Each stretch in Nova's hands was as long as its work times 1 + sharing x (how many others were
    under way meanwhile, on average; `beside_before`). How much evidence that is tells
    planning.evidence: batches of another size, with another number at once, from other hosts, past
    or through relays, or long ago, say less. `sharing` moves only as far as migrations with more
    and with fewer beside them tell it from slow work.
    """
    ends = [_ends(stay, usual.before_share) for stay in stays]
    beside = [_beside(ends, at) for at in range(len(ends))]
    sizes: dict[str, int] = {}
    for stay in stays:
        sizes[stay.batch] = sizes.get(stay.batch, 0) + 1
    seen = [_Stretches(stay.batch, _unlike(stay, 1 + others[1], sizes[stay.batch], ahead),
                       tuple(max(_LEAST_SECONDS, until - since) for since, until in at), others)
            for stay, at, others in zip(stays, ends, beside, strict=True) if stay.usual]
    if not seen:
        return None
    # who assumes nothing at all leaves nothing that could be off by a factor
    works = tuple(max(_LEAST_SECONDS, usual.seconds * share)
                  for share in (usual.before_share, 1 - usual.before_share))
    sharing = _sharing(seen, works, usual)
    scatter = dataclasses.replace(_SCATTER, assumed=usual.deviation)
    found = [evidence.estimate(_values(seen, part, work, sharing, usual.sharing), scatter)
             for part, work in enumerate(works)]
    mean = [_mean_beside(seen, part) for part in range(len(works))]
    before, behind = (work * math.exp(part.mean) * (1.0 + usual.sharing * mean[at])
                      / (1.0 + sharing * mean[at])
                      for at, (work, part) in enumerate(zip(works, found, strict=True)))
    seconds = before + behind
    return NovaPace(
        seconds=round(seconds, 3), sharing=round(sharing, 2),
        before_share=round(before / seconds, 3),
        deviation=round(statistics.fmean(part.deviation for part in found), 3),
        migrations=len(seen))


@dataclasses.dataclass(frozen=True)
class _Stretches:
    """A migration's two stretches in Nova's hands: before its stream, and behind it."""

    batch: str
    unlike: float
    seconds: tuple[float, float]
    #: How many others weighed on them.
    beside: tuple[float, float]


def _unlike(stay: NovaStay, at_once: float, servers: int, ahead: Ahead) -> float:
    return (evidence.age(ahead.now_seconds - stay.finished_seconds)
            + evidence.doublings(at_once, max(1, ahead.at_once))
            + evidence.doublings(servers, max(1, ahead.servers))
            + (0.0 if stay.source in ahead.sources else _OTHER_SOURCE)
            + (0.0 if stay.relay == ahead.relay else _OTHER_WAY))


def _values(seen: Sequence[_Stretches], part: int, work: float, sharing: float, usual: float
            ) -> list[evidence.Seen]:
    """Return how long the stretches were beside what was to be expected, as logarithms.

    What `sharing` explains is taken from those with more beside them than the mean, and given to
    those with fewer: what all of them have in common stays what it was.
    """
    mean = _mean_beside(seen, part)
    common = work * (1.0 + usual * mean) / (1.0 + sharing * mean)
    return [evidence.Seen(math.log(each.seconds[part]
                                   / (common * (1.0 + sharing * each.beside[part]))),
                          each.batch, each.unlike) for each in seen]


def _mean_beside(seen: Sequence[_Stretches], part: int) -> float:
    weights = [1.0 / (1.0 + each.unlike) for each in seen]
    return sum(weight * each.beside[part] for weight, each in zip(weights, seen, strict=True)
               ) / sum(weights)


def _sharing(seen: Sequence[_Stretches], works: tuple[float, float], usual: NovaPace) -> float:
    """Return the sharing for which the stretches are most alike, in doubt what is assumed."""
    sizes: dict[str, int] = {}
    for each in seen:
        sizes[each.batch] = sizes.get(each.batch, 0) + 1
    weights = [1.0 / ((1.0 + each.unlike) * (sizes[each.batch] * _SCATTER.batch ** 2
                                             + _SCATTER.migration ** 2)) for each in seen]

    def cost(sharing: float) -> float:
        found = ((math.log1p(sharing) - math.log1p(usual.sharing))
                 / (_SHARING_SHARE * usual.deviation)) ** 2
        for part, work in enumerate(works):
            values = [each.value for each in _values(seen, part, work, sharing, usual.sharing)]
            middle = statistics.median(values)
            found += sum(weight * min(abs(value - middle), 2 * _SCATTER.batch) ** 2
                         for weight, value in zip(weights, values, strict=True)) / len(works)
        return found

    return min(sorted({*_SHARINGS, usual.sharing}),
               key=lambda tried: (round(cost(tried), 6), abs(tried - usual.sharing)))


def _ends(stay: NovaStay, usual_before_share: float) -> tuple[tuple[float, float], ...]:
    """Return when Nova worked on a migration: before the stream, and behind it."""
    before = stay.before_seconds
    if before is None:
        before = usual_before_share * stay.nova_seconds
    behind = max(0.0, stay.nova_seconds - before)
    return ((stay.issued_seconds, stay.issued_seconds + before),
            (stay.finished_seconds - behind, stay.finished_seconds))


def _beside(ends: list, own: int) -> tuple[float, float]:
    """Return how much others weighed on a migration before its stream, and behind it."""
    before, behind = ends[own]
    rest = [pair for at, pair in enumerate(ends)
            if at != own and pair[0][0] < behind[1] and pair[1][1] > before[0]]
    at_start = _overlap(before, [start for start, _ in rest])
    later = _overlap(before, [(start[1], end[1]) for start, end in rest])
    return (beside_before(at_start, later),
            _overlap(behind, [(start[0], end[1]) for start, end in rest]))


def _overlap(stretch: tuple[float, float], others: list[tuple[float, float]]) -> float:
    """Return how many of the others' stretches ran during this one, on average."""
    begun, ended = stretch
    if ended <= begun:
        return 0.0
    return sum(max(0.0, min(ended, until) - max(begun, since))
               for since, until in others) / (ended - begun)
