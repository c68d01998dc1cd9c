"""What the servers of a host have in common, from page classes ([0047], FIG. 3).

Called by grouping and by the conductor (the chart). Works on counts per set of servers; never
sees a page or a hash, and never builds a matrix over pages.
"""

import functools
import itertools
from collections.abc import Collection, Iterable, Sequence

import numpy

from nova_batch_migrate import exception
from nova_batch_migrate.planning import doubt, sketch
from nova_batch_migrate.planning.telemetry import PAGE_BYTES, HostTelemetry, PageClasses

MIB = 1024 ** 2
#: Classes of the pairwise product taken at a time, which bounds its memory.
_CHUNK = 4096
#: Of what a server shares with others, what one of them holds that is its like.
KIN_SHARE = 0.5


class Commonality:
    """Common pages of any servers of one host, as sums over its page classes.

    Sampled classes are scaled by the share of the hash space that was looked at. Background is
    held by almost all and counted as held by all; its error is at most its own size.
    """

    def __init__(self, server_ids: Sequence[str], page_classes: PageClasses):
        self.server_ids = tuple(server_ids)
        self.exact = page_classes.exact and page_classes.background is None
        scale = 1.0 / page_classes.theta if page_classes.theta > 0 else 0.0
        known = set(self.server_ids)
        #: (servers, pages), shared contents only.
        self.classes: list[tuple[tuple[str, ...], float]] = []
        self._unshared_pages = dict.fromkeys(self.server_ids, 0.0)
        for page_class in page_classes.classes:
            holders = tuple(s for s in page_class.servers if s in known)
            if len(holders) == 1:
                self._unshared_pages[holders[0]] += page_class.pages * scale
            elif holders:
                self.classes.append((holders, page_class.pages * scale))
        background = page_classes.background
        self.background_pages = background.pages * scale if background else 0.0
        if self.background_pages and len(self.server_ids) > 1:
            self.classes.append((self.server_ids, self.background_pages))
        self._classes_of: dict[str, list[int]] = {s: [] for s in self.server_ids}
        for index, (holders, _) in enumerate(self.classes):
            for server in holders:
                self._classes_of[server].append(index)

    def classes_of(self, server: str) -> list[int]:
        """Return the indexes of the shared classes that the server holds."""
        return self._classes_of.get(server, [])

    def shared_pages(self, server: str) -> float:
        """Return the distinct contents that at least one other server holds too."""
        return sum([self.classes[index][1] for index in self.classes_of(server)])

    def unique_pages(self, servers: Collection[str]) -> float:
        """Return the distinct contents of these servers together, each counted once."""
        touched = {index for server in servers for index in self.classes_of(server)}
        return (sum(self.classes[index][1] for index in touched)
                + sum(self._unshared_pages.get(server, 0.0) for server in servers))

    def recurring_pages(self, servers: Collection[str]) -> float:
        """Return the distinct contents that at least two of these servers hold."""
        held: dict[int, int] = {}
        for server in servers:
            for index in self.classes_of(server):
                held[index] = held.get(index, 0) + 1
        return sum(self.classes[index][1] for index, count in held.items() if count > 1)

    def pair_pages(self) -> numpy.ndarray:
        """Return the common pages of every pair: servers x servers, in order of server_ids."""
        column = self._column
        common = numpy.zeros((len(column), len(column)))
        for start in range(0, len(self.classes), _CHUNK):
            chunk = self.classes[start:start + _CHUNK]
            holds = numpy.zeros((len(chunk), len(column)))
            for row, (holders, _) in enumerate(chunk):
                holds[row, [column[server] for server in holders]] = 1.0
            pages = numpy.array([pages for _, pages in chunk])
            common += (holds * pages[:, None]).T @ holds
        numpy.fill_diagonal(common, 0.0)
        return common

    def last_kin(self, servers: Sequence[str]) -> list[int]:
        """Return of each server the last place in this order where one is that holds much of it.

        Its own where nobody behind it does.
        """
        at = numpy.array([self._column.get(server, -1) for server in servers], dtype=int)
        shared = numpy.array([self.shared_pages(server) for server in servers])
        kin = self._pairs[numpy.ix_(at, at)] >= KIN_SHARE * shared[:, None]
        kin &= (shared[:, None] > 0) & (at[:, None] >= 0) & (at[None, :] >= 0)
        places = numpy.arange(len(servers))
        return numpy.maximum(places, numpy.where(kin, places, -1).max(axis=1, initial=-1)).tolist()

    @functools.cached_property
    def _column(self) -> dict[str, int]:
        return {server: at for at, server in enumerate(self.server_ids)}

    @functools.cached_property
    def _pairs(self) -> numpy.ndarray:
        return self.pair_pages()


def of_host(host: HostTelemetry) -> Commonality:
    """Return the commonality of a host's measured servers."""
    classes = host.page_classes or PageClasses(exact=False, theta=1.0)
    return Commonality([s.id for s in host.servers if s.error is None], classes)


def chart(hosts: Iterable[HostTelemetry]) -> dict:
    """Return the chart of FIG. 3 in bytes: totals per server and every pair of a host.

    `share` is of the smaller one's distinct contents. Servers of different hosts are not
    compared, but the hosts themselves are, by their sketches (`host_pairs`). `exact` is false if
    classes were sampled or background was folded. Of each pair three things are told apart:
    contents of whole pages in common, the page frames among them that are one already
    (`mapped_bytes`), and blocks in common inside of other pages (`portion_bytes`); null where they
    were not looked for. `confirmation` adds up the pages compared byte by byte. What cannot be true
    is left out, as a plan does.
    """
    hosts = [doubt.believable(host)[0] for host in hosts]
    servers, pairs, totals = [], [], []
    exact, background = True, 0.0
    for host in hosts:
        known = of_host(host)
        measured = {s.id: s for s in host.servers if s.error is None}
        exact = exact and known.exact
        background += known.background_pages * PAGE_BYTES
        totals.append({"host": host.host, "distinct_bytes": round(
            known.unique_pages(known.server_ids)) * PAGE_BYTES})
        for server in measured.values():
            servers.append({
                "id": server.id, "name": server.name,
                "distinct_bytes": server.distinct_pages * PAGE_BYTES,
                "self_duplicate_bytes": server.self_duplicate_pages * PAGE_BYTES,
                "common_bytes": round(known.shared_pages(server.id)) * PAGE_BYTES})
        common = known.pair_pages()
        mapped, portions = _pairs_bytes(host, known.server_ids)
        for a, b in itertools.combinations(range(len(known.server_ids)), 2):
            pairs.append(_pair(measured[known.server_ids[a]], measured[known.server_ids[b]],
                               float(common[a, b])) | {
                "mapped_bytes": None if mapped is None else round(mapped[a, b]),
                "portion_bytes": None if portions is None else round(portions[a, b])})
    return {"servers": servers, "pairs": pairs, "exact": exact,
            "background_bytes": round(background), "confirmation": _confirmation(hosts),
            "hosts": totals, "host_pairs": host_pairs(hosts)}


def host_pairs(hosts: Iterable[HostTelemetry]) -> list[dict]:
    """Return what every two hosts have in common, with the half-width of the 95 % interval.

    `share` is of the contents of the one with fewer. Hosts without a sketch are left out; where two
    cannot be compared all figures are null and `reason` says why.
    """
    return [_host_pair(a, b) for a, b in itertools.combinations(
        [host for host in hosts if host.sketch is not None], 2)]


def _host_pair(a: HostTelemetry, b: HostTelemetry) -> dict:
    pair = {"a": a.host, "b": b.host, "bytes": None, "error_bytes": None, "share": None,
            "share_error": None, "reason": None}
    try:
        common = sketch.compare([a.sketch, b.sketch]).intersection
    except exception.PlanningError as error:
        return pair | {"reason": error.reason}
    fewer, more = sorted((a.sketch, b.sketch), key=lambda one: sketch.distinct(one).pages)
    share, error = sketch.held_by(fewer, more)
    return pair | {"bytes": common.bytes, "error_bytes": round(common.error_pages) * PAGE_BYTES,
                   "share": round(share, 4), "share_error": round(error, 4)}


def told_apart(host: HostTelemetry, server_ids: Sequence[str]) -> list[str]:
    """Say what of the content in common is one frame already, and how much of it was confirmed.

    [0037, 0044]; nothing where it was not looked for.
    """
    said = []
    if host.mapped_classes is not None:
        mapped = Commonality(server_ids, host.mapped_classes).recurring_pages(server_ids)
        said.append(f"{mapped * PAGE_BYTES / MIB:.1f} MiB of content are page frames that servers "
                    "map together already (KSM): a part of what is in common.")
    held = host.confirmation
    if held is not None and held.pairs:
        said.append(f"{held.held} of {held.pairs} pairs of pages with equal fingerprints were "
                    f"equal when compared byte by byte: {100 * held.held / held.pairs:.0f} % of "
                    "what is in common is reckoned with where a relay carries it.")
    return said


def _pairs_bytes(host: HostTelemetry, server_ids: Sequence[str]) -> tuple:
    """Return bytes of frames, and of blocks, in common of every pair; None for what is unknown."""
    mapped = portions = None
    if host.mapped_classes is not None:
        mapped = Commonality(server_ids, host.mapped_classes).pair_pages() * PAGE_BYTES
    if host.portions is not None:
        blocks = PageClasses(False, host.portions.theta, host.portions.classes)
        portions = Commonality(server_ids, blocks).pair_pages() * host.portions.block_bytes
    return mapped, portions


def _confirmation(hosts: Iterable[HostTelemetry]) -> dict | None:
    """Return how many equal hashes were equal pages when they were compared ([0044])."""
    known = [host.confirmation for host in hosts if host.confirmation is not None]
    if not known:
        return None
    return {"pairs": sum(each.pairs for each in known), "held": sum(each.held for each in known)}


def _pair(a, b, pages: float) -> dict:
    smaller = min(a.distinct_pages, b.distinct_pages)
    share = min(1.0, pages / smaller) if smaller else 0.0
    return {"a": a.id, "b": b.id, "bytes": round(pages) * PAGE_BYTES, "share": round(share, 4)}
