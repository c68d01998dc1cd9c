"""How much of the best possible saving the planner's groups reach, and what simple ways save.

Two kinds of cases, each of a seeded random host: `optimal`, 5 to 13 servers whose best groups under
the same limits HiGHS finds, grouped as few servers are and as thousands are (`fast`); `replay`, 8
to 40 servers whose groups go through the dictionary beside one group of all and a random order.
Words for --only: `optimal`, `replay`.
"""
import collections
import functools

import numpy

from nbmbench import contract, exact_groups
from nbmbench.contract import Goal, percentile
from nbmbench.synthetic_cloud import Cloud, Shape
from nova_batch_migrate.planning import commonality, grouping
from nova_batch_migrate.planning.replay import Replay
from nova_batch_migrate.planning.scope import Scope
from nova_batch_migrate.planning.telemetry import PAGE_BYTES

NEEDS = "test"
#: `saving_vs_optimal_fast` has none: so few servers are never grouped that way.
GOALS = {"saving_vs_optimal": Goal(">=", 0.95), "saving_vs_baseline": Goal(">=", 1.0)}
#: Cases of each kind: used while tuning, and held out.
OPTIMAL, REPLAY, QUICK = 400, 60, 15
RANDOM_ORDERS = 5
#: Where the best groups save less than this share of all content there is nothing to tell apart:
#: the planner leaves such servers alone on purpose.
NOTHING_SHARE = 0.01


def run(settings: contract.Settings) -> list[dict]:
    """Return the cases; those whose seed comes from the commit are held out."""
    kinds = {"optimal": (_optimal, OPTIMAL), "replay": (_replayed, REPLAY)}
    cases = []
    for kind, (draw, count) in kinds.items():
        if settings.options and kind not in settings.options:
            continue
        unseen = settings.held_out(kind)
        for at in range(min(QUICK, count) if settings.quick else count):
            cases.append({"kind": kind, "seed": at, **draw(at)})
            seed = unseen.randrange(1 << 32)
            cases.append({"kind": kind, "seed": seed, **draw(seed), "held_out": True})
    return cases


def measured(cases) -> dict:
    """Return the 5th percentile and the minimum of the saving, and the worst against a baseline."""
    simple = [_against_baseline(case) for case in cases if case["kind"] == "replay"]
    optimal = [case for case in cases if case["kind"] == "optimal"]
    told = {"instances": len(_shares(cases, "saved_pages")),
            "not_worth_it": sum(not case["worth_it"] for case in optimal)}
    for name, pages in (("saving_vs_optimal", "saved_pages"),
                        ("saving_vs_optimal_fast", "fast_pages")):
        if shares := _shares(cases, pages):
            told |= {name: percentile(shares, 0.05), f"{name}_min": min(shares)}
    if simple:
        told |= {"saving_vs_baseline": min(simple), "saving_vs_baseline_total": _total(cases)}
    return told


def missing(cases) -> list[str]:
    """Return of what kind there are fewer cases than a whole benchmark has."""
    found = collections.Counter(case["kind"] for case in cases)
    return [f"{count - found[kind]} cases of {kind}"
            for kind, count in (("optimal", OPTIMAL), ("replay", REPLAY)) if found[kind] < count]


def intervals(cases) -> dict:
    """Return the 95 % intervals of the 5th percentiles."""
    found = {name: _shares(cases, pages) for name, pages in (
        ("saving_vs_optimal", "saved_pages"), ("saving_vs_optimal_fast", "fast_pages"))}
    return {name: contract.bootstrap(shares, functools.partial(numpy.percentile, q=5))
            for name, shares in found.items() if shares}


def _shares(cases, pages: str) -> list[float]:
    """Return what was saved as shares of the optimum, where there is something to save."""
    return [case[pages] / case["optimal_pages"] for case in cases
            if case["kind"] == "optimal" and case["worth_it"]]


def _against_baseline(case) -> float:
    best = max(case["one_group_pages"], case["random_order_pages"])
    return case["saved_pages"] / best if best else 1.0


def _total(cases) -> float:
    """Return what all plans save, as a share of what the better baseline saves in all."""
    found = [case for case in cases if case["kind"] == "replay"]
    best = max(sum(case[name] for case in found)
               for name in ("one_group_pages", "random_order_pages"))
    return sum(case["saved_pages"] for case in found) / best


def _host(draw, servers: int, theta: float):
    shape = Shape(
        servers_per_host=servers, family_servers=int(draw.integers(2, 7)),
        background_mib=int(draw.choice([0, 8, 24, 64])),
        family_mib=int(draw.choice([20, 80, 160])),
        partial_mib=int(draw.choice([16, 48, 120])), stray_mib=int(draw.choice([0, 4, 30])),
        projects=int(draw.choice([1, 1, 2])), sequence_theta=theta)
    request = Cloud(int(draw.integers(2 ** 31)), shape).draw_request(servers)
    return request.hosts[0]


def _optimal(seed: int) -> dict:
    draw = numpy.random.default_rng([seed, 1])
    servers = int(draw.integers(5, 14))
    host = _host(draw, servers, 0.0)
    known = commonality.of_host(host)
    number = {i: at for at, i in enumerate(known.server_ids)}
    classes = [(sum(1 << number[s] for s in holders), pages) for holders, pages in known.classes]
    recurring = known.recurring_pages(known.server_ids)
    dictionary_pages = recurring * float(draw.choice([0.2, 0.4, 0.7, 1.1]))
    most = int(draw.choice([2, 3, 4, 6, 8, servers]))
    memory = {s.id: s.memory_bytes for s in host.servers}
    room = max(sum(memory.values()) * float(draw.choice([0.4, 0.6, 1.0])), max(memory.values()))
    scope = Scope("project" if draw.random() < 0.5 else "host", host.servers)
    parts: dict[str, int] = {}
    for i in known.server_ids:
        parts[scope.part(i)] = parts.get(scope.part(i), 0) | 1 << number[i]

    def fits(ids) -> bool:
        return sum(memory[i] for i in ids) <= room

    def saved(thorough: bool) -> tuple[float, list[int]]:
        groups = grouping.group(host.servers, known, scope, fits,
                                int(dictionary_pages * PAGE_BYTES), most, thorough)
        masks = numpy.array([sum(1 << number[i] for i in g.servers) for g in groups],
                            dtype=numpy.uint32)
        return (float(exact_groups.saved_pages(classes, masks)[0].sum()),
                [len(g.servers) for g in groups])

    best = exact_groups.best_saving(
        servers, classes, dictionary_pages, most,
        lambda numbers: fits([known.server_ids[n] for n in numbers]), list(parts.values()))
    content = sum(s.distinct_pages for s in host.servers)
    saved_pages, groups = saved(thorough=True)
    return {"servers": servers, "dictionary_pages": round(dictionary_pages),
            "recurring_pages": round(recurring), "most_members": most, "scope": scope.dedup_scope,
            "groups": groups, "saved_pages": saved_pages, "fast_pages": saved(thorough=False)[0],
            "optimal_pages": best, "worth_it": best >= NOTHING_SHARE * content}


def _replayed(seed: int) -> dict:
    draw = numpy.random.default_rng([seed, 2])
    servers = int(draw.integers(8, 41))
    host = _host(draw, servers, 1 / 64)
    known = commonality.of_host(host)
    scope = Scope("host", host.servers)
    recurring = known.recurring_pages(known.server_ids)
    dictionary_bytes = int(recurring * PAGE_BYTES * draw.choice([0.1, 0.2, 0.4, 0.7, 1.1]))
    replay = Replay(host, "host", dictionary_bytes, known)
    content = {s.id: s.content_pages for s in host.servers}

    def in_order(ids) -> list[str]:
        # Ascending projected time [0061] is ascending content for servers that write alike.
        return sorted(ids, key=lambda i: (content[i], i))

    groups = grouping.relayed(host.servers, known, scope, lambda ids: True, dictionary_bytes,
                              replay, in_order)
    everyone = list(known.server_ids)
    shuffled = [[everyone[at] for at in draw.permutation(servers)] for _ in range(RANDOM_ORDERS)]
    return {"servers": servers, "dictionary_bytes": dictionary_bytes,
            "recurring_pages": round(recurring), "groups": [len(g.servers) for g in groups],
            "saved_pages": sum(replay.saved_pages(g.order or in_order(g.servers))
                               for g in groups),
            "one_group_pages": replay.saved_pages(in_order(everyone)),
            "random_order_pages": float(numpy.mean([
                replay.saved_pages(order) for order in shuffled]))}
