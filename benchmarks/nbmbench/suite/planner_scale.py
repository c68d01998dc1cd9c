"""How planning grows with the servers: seconds, peak memory, and what the plans save.

Each plan is made in a process of its own, of a request by the published generator
(nbmbench/synthetic_cloud.py), without and with a relay. Its saving is held against one group for
each host and against a random order, through the same dictionary to the same destinations. Words
for --only: a number of servers.
"""
import concurrent.futures
import gc
import multiprocessing
import resource
import time

import numpy

from nbmbench import contract
from nbmbench.contract import Goal
from nbmbench.synthetic_cloud import Cloud, Shape
from nova_batch_migrate.planning import plan
from nova_batch_migrate.planning.replay import Replay

NEEDS = "test"
GOALS = {"seconds_10000": Goal("<=", 5.0), "peak_bytes_10000": Goal("<=", 1 << 30),
         "exponent": Goal("<=", 1.2), "saving_vs_baseline": Goal(">=", 1.0)}
SIZES = (100, 1000, 10_000)
LARGEST = SIZES[-1]
#: The same work again and again; the worst of the largest counts.
REPEATED = 3
MIB = 1024 ** 2
#: name -> what of the request differs. 128 MiB are less than what recurs on most hosts.
KINDS = {
    "no relay": {"max_parallel": None},
    "relay": {"relay": True, "max_parallel": None, "relay_max_parallel": 1000},
    "small dictionary": {"relay": True, "max_parallel": None, "relay_max_parallel": 1000,
                         "dictionary_bytes": 128 * MIB},
}
RELAYED = [kind for kind, fields in KINDS.items() if fields.get("relay")]
RANDOM_ORDERS = 3


def run(settings: contract.Settings) -> list[dict]:
    """Return the cases; those whose seed comes from the commit are held out."""
    sizes = [n for n in SIZES if not settings.options or str(n) in settings.options]
    unseen = settings.held_out("planner_scale")
    cases = []
    for servers in sizes[:2] if settings.quick else sizes:
        for kind in KINDS:
            seed = unseen.randrange(1 << 32)
            for at in range(1 if settings.quick else REPEATED):
                cases.append(_apart(servers, kind, at))
            cases.append(_apart(servers, kind, seed) | {"held_out": True})
    return cases


def _apart(servers: int, kind: str, seed: int) -> dict:
    """Make one plan in a new process, so that the peak of memory is its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_case, servers, kind, seed).result()


def _case(servers: int, kind: str, seed: int) -> dict:
    request = Cloud(seed, Shape()).draw_request(servers, **KINDS[kind])
    gc.collect()
    before = time.perf_counter()
    made = plan.make_plan(request)
    seconds = time.perf_counter() - before
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    case = {"servers": servers, "kind": kind, "seed": seed, "seconds": seconds,
            "peak_bytes": peak_kib * 1024, "hosts": len(request.hosts),
            "groups": len(made.groups), "staying": len(made.staying)}
    return case | (_savings(request, made, seed) if request.relay else {})


def _savings(request: plan.PlanRequest, made: plan.Plan, seed: int) -> dict:
    """Return the pages saved by the plan, by one group for each host, and by random orders."""
    draw = numpy.random.default_rng(seed)
    hosts = {host.host: Replay(host, request.dedup_scope, request.dictionary_bytes)
             for host in request.hosts}
    places, order = {}, {name: [] for name in hosts}
    saved = 0.0
    for group in made.groups:
        ids = [member.server_id for member in group.members]
        places |= {member.server_id: member.destination for member in group.members}
        saved += hosts[group.source].saved_pages(ids, places)
        order[group.source] += [(m.projection.stream_seconds, m.server_id) for m in group.members]
    one_group = random_order = 0.0
    for name, members in order.items():
        ids = [i for _, i in sorted(members)]
        one_group += hosts[name].saved_pages(ids, places)
        random_order += sum(hosts[name].saved_pages([ids[n] for n in draw.permutation(len(ids))],
                                                    places) for _ in range(RANDOM_ORDERS))
    return {"saved_pages": saved, "one_group_pages": one_group,
            "random_order_pages": random_order / RANDOM_ORDERS}


def measured(cases) -> dict:
    """Return the worst of the largest plans, the worst growth of a kind, and the least saving."""
    told = {}
    largest = [case for case in cases if case["servers"] == LARGEST]
    if largest:
        told = {f"seconds_{LARGEST}": max(case["seconds"] for case in largest),
                f"peak_bytes_{LARGEST}": max(case["peak_bytes"] for case in largest)}
    kinds = {case["kind"] for case in cases}
    exponents = [found for kind in sorted(kinds)
                 if (found := _exponent([c for c in cases if c["kind"] == kind])) is not None]
    if exponents:
        told["exponent"] = max(exponents)
    relayed = [case["saved_pages"] / max(case["one_group_pages"], case["random_order_pages"])
               for case in cases if case["kind"] in RELAYED]
    if relayed:
        told["saving_vs_baseline"] = min(relayed)
    return told


def _exponent(cases) -> float | None:
    """Return the slope of log seconds over log servers, from the medians of three sizes."""
    sizes = sorted({case["servers"] for case in cases})
    if len(sizes) < len(SIZES):
        return None
    seconds = [float(numpy.median([c["seconds"] for c in cases if c["servers"] == size]))
               for size in sizes]
    # From 1,000 on: what a plan costs at the least flatters the growth.
    slopes = numpy.diff(numpy.log(seconds)) / numpy.diff(numpy.log(sizes))
    return float(max(slopes))
