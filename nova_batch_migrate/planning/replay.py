"""Which pages of a group cross as references: its page sequences through the relay's dictionary.

Called by planning.source for any group in any order (design 3, 6). Works on the sampled contents of
telemetry.PageSequence; never sees a page, and never knows what a stream costs in seconds.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy

from nova_batch_migrate.planning import commonality, reference
from nova_batch_migrate.planning.scope import Scope
from nova_batch_migrate.planning.telemetry import PAGE_BYTES, HostTelemetry

try:
    from nova_batch_migrate.planning import _speed
except ImportError:  # no compiler where it was installed
    _speed = None

#: What a server sends before it may push others' contents out, as a share of the ring: it may come
#: to what is held (relay/admission.py).
PATIENCE_SHARE = 1 / 8
#: One in so many places of a dictionary that is full takes what later rounds bring
#: (relay/dictionary.py).
LATE_SHARE = 8
#: How far back a relay's compression looks at most, as long as its dictionary is as large
#: ([relay] zstd_window_log).
FAR_BYTES = 1 << 29


@dataclasses.dataclass(frozen=True)
class Hits:
    """Shares (0..1) of a server's content pages of round 0 that cross as references."""

    #: The content came before in the same server.
    self_share: float = 0.0
    #: It came before in another server of the group only.
    cross_share: float = 0.0
    #: The latter in pages.
    cross_pages: float = 0.0
    #: The content came before, there was no room to hold it, and the relay's compression finds it:
    #: no reference.
    far_share: float = 0.0

    @property
    def reference_share(self) -> float:
        """Both together."""
        return self.self_share + self.cross_share


_NONE = Hits()


@dataclasses.dataclass(frozen=True)
class _Sampled:
    """The sample of a server's pages."""

    #: Of those contents that come again, here or in another server; in order.
    contents: numpy.ndarray
    #: In all.
    pages: int
    #: Different ones among `contents`.
    recurring: int

    @property
    def repeats(self) -> int:
        """Pages whose content came before in the same server."""
        return len(self.contents) - self.recurring


class Replay:
    """The dictionaries of one source host's groups, a new one for each group.

    A dictionary is a ring of contents (design 6): what is new goes in at the head, the oldest falls
    out, a hit moves nothing. What is let in is what relay/admission.py lets in: only what comes
    again in the same log, so that pages that are nowhere else cost no room; once the ring is full
    nothing by a server that finds most of its pages, and never in the place of a server's own, or
    of one's whose like is still to come. What it has no room for is still found by compression, if
    it was sent in full not long ago.
    """

    def __init__(self, host: HostTelemetry, dedup_scope: str, dictionary_bytes: int,
                 known: commonality.Commonality | None = None):
        self._servers = {s.id: s for s in host.servers}
        self._known = known or commonality.of_host(host)
        self._scope = Scope(dedup_scope, host.servers)
        self._dictionary_pages = dictionary_bytes / PAGE_BYTES
        self._far_pages = min(FAR_BYTES, dictionary_bytes) / PAGE_BYTES
        held = host.confirmation
        #: Equal hashes whose pages had been written by the time they were compared [0044].
        self._held_share = held.held / held.pairs if held and held.pairs else 1.0
        self._thetas = {s.id: s.sequence.theta if s.sequence else 0.0 for s in host.servers}
        self._samples: dict[str, _Sampled] = {}
        #: Hits by servers in order: groups are tried before they are planned.
        self._known_hits: dict[tuple[str, ...], dict[str, Hits]] = {}

    def hits(self, ids: Sequence[str], destinations: Mapping[str, str] | None = None
             ) -> tuple[Hits, ...]:
        """Return what each of these servers gets, migrated as one group in this order.

        There is a log for each destination (one if they are not known yet) and each part of the
        scope whose content may be shared. Servers without a sequence like the others' are estimated
        from the page classes, as if the dictionary were large enough.
        """
        found: dict[str, Hits] = {}
        for log in self._logs(ids, destinations):
            key = tuple(log)
            if key not in self._known_hits:
                self._known_hits[key] = self._hits_of_log(log)
            found.update(self._known_hits[key])
        return tuple([found.get(i, _NONE) for i in ids])

    def alone(self, server_id: str) -> Hits:
        """Return what a server gets that is the only one of its group."""
        if self._scope.dedup_scope == "off" or self._servers[server_id].error is not None:
            return _NONE
        return self._hits_of_log([server_id]).get(server_id, _NONE)

    def saved_pages(self, ids: Sequence[str], destinations: Mapping[str, str] | None = None
                    ) -> float:
        """Return the pages that another server of the group spares its members."""
        return sum(hit.cross_pages for hit in self.hits(ids, destinations))

    def far_pages(self, ids: Sequence[str]) -> float:
        """Return the pages that a dictionary has no room for, and the relay's compression finds."""
        return sum(hit.far_share * self._servers[i].content_pages
                   for i, hit in zip(ids, self.hits(ids), strict=True))

    def fits(self, ids: Sequence[str]) -> bool:
        """Return whether all that comes again in these servers fits the dictionary at once."""
        return all(self._admitted_pages(log) <= self._dictionary_pages
                   for log in self._logs(ids, None))

    def _logs(self, ids, destinations) -> list[list[str]]:
        logs: dict[tuple, list[str]] = {}
        for i in ids if self._scope.dedup_scope != "off" else ():
            where = destinations[i] if destinations else ""
            if self._servers[i].error is None:
                logs.setdefault((where, self._scope.part(i)), []).append(i)
        return list(logs.values())

    def _theta(self, ids: Sequence[str]) -> float:
        """Return the share of contents that is sampled in all of these; 0 if it is not one."""
        thetas = {self._thetas[i] for i in ids}
        return thetas.pop() if len(thetas) == 1 else 0.0

    def _admitted_pages(self, ids: Sequence[str]) -> float:
        theta = self._theta(ids)
        if not theta:
            return self._known.recurring_pages(ids)
        _, counts = numpy.unique(self._accesses(ids)[0], return_counts=True)
        return float(numpy.count_nonzero(counts > 1)) / theta

    def _hits_of_log(self, ids: Sequence[str]) -> dict[str, Hits]:
        theta = self._theta(ids)
        if not theta:
            return self._estimated(ids)
        if len(ids) == 1 and (
                self._sampled(ids[0]).repeats <= self._dictionary_pages * theta):
            # what of it comes again is let in, and all of that fits
            return {ids[0]: self._hits_of(ids[0], self._sampled(ids[0]).repeats, 0, theta)}
        contents, owners = self._accesses(ids)
        hit, crosses, far = replay(contents, owners, self._dictionary_pages * theta,
                                   [self._sampled(i).pages for i in ids],
                                   self._far_pages * theta, lambda: self._known.last_kin(ids))
        within, across, behind = (
            numpy.bincount(owners[which], minlength=len(ids)).tolist()
            for which in (hit & ~crosses, hit & crosses, far & crosses))
        return {i: self._hits_of(i, within[at], across[at], theta, behind[at])
                for at, i in enumerate(ids)}

    def _hits_of(self, server_id: str, within: int, across: int, theta: float, far: int = 0
                 ) -> Hits:
        """Return the hits of a server of which so many were found in its sample.

        The sample is one of contents, not of pages: it tells how many of the contents come from
        others, and which share of the repetitions hits. How many repetitions there are it can't
        tell, since a few contents make most of them (a page that a kernel fills its free memory
        with); they were counted.
        """
        server, sampled = self._servers[server_id], self._sampled(server_id)
        distinct, repeats = sampled.pages - sampled.repeats, sampled.repeats
        if not sampled.pages:
            return Hits()
        counted = server.distinct_pages + server.self_duplicate_pages
        if counted and server.contents_read:
            share = server.self_duplicate_pages / counted
        else:
            share = repeats / sampled.pages
        return Hits(share * (within / repeats if repeats else 1.0) * self._held_share,
                    (1.0 - share) * across / distinct * self._held_share,
                    across / theta * self._held_share,
                    (1.0 - share) * far / distinct * self._held_share)

    def _accesses(self, ids: Sequence[str]) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Return contents that may come again, in order, and the place of their server in ids."""
        parts = [self._sampled(i).contents for i in ids]
        owners = numpy.repeat(numpy.arange(len(ids)), [len(part) for part in parts])
        return numpy.concatenate(parts), owners

    def _sampled(self, server_id: str) -> "_Sampled":
        found = self._samples.get(server_id)
        if found is None:
            sequence = self._servers[server_id].sequence
            found = self._samples[server_id] = _Sampled(
                sequence.recurring, sequence.pages, len(set(sequence.recurring.tolist())))
        return found

    def _estimated(self, ids: Sequence[str]) -> dict[str, Hits]:
        """Return the hits as page classes tell them, all contents held until the end."""
        found: dict[str, Hits] = {}
        held: set[int] = set()
        for i in ids:
            server, classes = self._servers[i], self._known.classes_of(i)
            repeated = sum(self._known.classes[index][1] for index in classes if index in held)
            held.update(classes)
            if server.error is None and server.content_pages:
                within = min(server.self_duplicate_pages, server.content_pages)
                across = min(repeated, server.content_pages - within)
                found[i] = Hits(within / server.content_pages * self._held_share,
                                across / server.content_pages * self._held_share,
                                across * self._held_share)
        return found


def replay(contents: numpy.ndarray, owners: numpy.ndarray, capacity: float,
           pages: Sequence[int] = (), far_pages: float = 0.0,
           kept_for: Callable[[], Sequence[int]] | None = None
           ) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Return which accesses hit a ring of `capacity` contents, which of all cross servers, and
    which of those that miss came before, no more than `far_pages` sent in full ago.

    `owners` ascend. An access crosses if its own server had not brought the content before, but
    another had. `pages` are those that each owner sends in all, with those that are no accesses
    here; `kept_for` says of each owner until whose end its contents stay, its own by default.
    Whether an access hits depends on what was let in before it, so where not all fits they are
    followed one by one; some of the ring is then taken by what guests write meanwhile.
    """
    count = len(contents)
    if not count:
        return tuple(numpy.zeros(0, dtype=bool) for _ in range(3))
    order = numpy.argsort(contents, kind="stable")
    in_order, owners_in_order = contents[order], owners[order]
    # where another content begins, the ends included; where another owner does
    begins, others = numpy.ones(count + 1, dtype=bool), numpy.ones(count, dtype=bool)
    numpy.not_equal(in_order[1:], in_order[:-1], out=begins[1:-1])
    numpy.not_equal(owners_in_order[1:], owners_in_order[:-1], out=others[1:])
    first, once, crosses = (numpy.empty(count, dtype=bool) for _ in range(3))
    first[order] = begins[:-1]
    once[order] = begins[:-1] & begins[1:]
    # Of one content, accesses of a server stand together: servers come one after the other.
    crosses[order] = ~begins[:-1] & others
    slots = int(capacity)
    if numpy.count_nonzero(first & ~once) <= capacity:
        return ~first, crosses, numpy.zeros(count, dtype=bool)
    before = numpy.empty(count, dtype=numpy.int64)
    before[order] = numpy.concatenate(([-1], order[:-1]))
    before[first] = -1
    missed = _misses(before, first, once, owners, slots - slots // LATE_SHARE, pages, kept_for)
    sent = _sent_in_full(missed, owners, pages)
    return ~missed, crosses, missed & ~first & (sent - sent[before] <= far_pages)


def _sent_in_full(missed, owners, pages: Sequence[int]) -> numpy.ndarray:
    """Return for each access how many pages have been sent in full by then, by all."""
    accesses = numpy.bincount(owners, minlength=len(pages))
    # those that are no accesses lie evenly between the others
    rest = numpy.asarray(list(pages) or accesses, dtype=numpy.float64) - accesses
    between = numpy.divide(rest, accesses, out=numpy.zeros(len(accesses)), where=accesses > 0)
    # all of an owner's may be such
    alone = numpy.cumsum(numpy.where(accesses > 0, 0.0, rest))
    return numpy.cumsum(missed + between[owners]) + alone[owners]


def _misses(before, first, once, owners, slots: int, pages: Sequence[int],
            kept_for: Callable[[], Sequence[int]] | None) -> numpy.ndarray:
    """Follow all accesses but those that come once; `before` has the last one to their content."""
    again = numpy.flatnonzero(~once)
    # numbers among all accesses become numbers among these
    among = numpy.cumsum(~once) - 1
    last = numpy.where(first[again], -1, among[before[again]])
    accesses = numpy.bincount(owners[again], minlength=int(owners[-1]) + 1)
    # what an owner has sent grows evenly with those of its accesses that are followed
    sends = numpy.asarray(list(pages) or accesses, dtype=numpy.float64)
    followed = numpy.empty(len(again), dtype=bool)
    kept = numpy.array(kept_for() if kept_for else range(len(sends)), dtype=numpy.int64)
    (reference if _speed is None else _speed).follow_ring(
        last, numpy.ascontiguousarray(owners[again]), sends, kept, slots, PATIENCE_SHARE, followed)
    missed = once.copy()
    missed[again] = followed
    return missed
