"""The published generator of planning instances: hosts, families, private and background content.

Used by planner_scale and grouping_quality. Draws from the seed it is given only: the same
arguments give the same request. It makes what agents would have measured, not memory.
"""

import dataclasses

import numpy

from nova_batch_migrate.planning import request, telemetry
from nova_batch_migrate.planning.telemetry import PAGE_BYTES, DirtyModel, PageClass, PageSequence

MIB = 1024 ** 2
GIB = 1024 ** 3
PAGES_PER_MIB = MIB // PAGE_BYTES


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a cloud is like; sizes in MiB are means of what is drawn."""

    servers_per_host: int = 40
    #: Mean size of a family (servers of one image with one job).
    family_servers: int = 6
    background_mib: int = 24
    family_mib: int = 160
    #: Content that two or three members of a family hold, per server.
    partial_mib: int = 48
    #: Content of two servers of different families, per server.
    stray_mib: int = 4
    private_mib: int = 300
    #: Repeated within a server, as a share of its content.
    self_share: float = 0.05
    projects: int = 3
    #: Share of servers that belong to another project than their family.
    strangers: float = 0.1
    destinations_per_source: float = 1.2
    #: Share of contents in a page sequence; 0 = none are given.
    sequence_theta: float = 1 / 512


class Cloud:
    """Draws a request of ``servers`` on as many hosts as the shape asks for."""

    def __init__(self, seed: int, shape: Shape | None = None):
        self._random = numpy.random.default_rng(seed)
        self._shape = shape or Shape()

    def draw_request(self, servers: int, **fields) -> request.PlanRequest:
        """Return the request to plan; ``fields`` are those of PlanRequest, like ``strategy``."""
        per_host = self._shape.servers_per_host
        sizes = [min(per_host, servers - at) for at in range(0, servers, per_host)]
        hosts = [self._host(f"src{at:04}", size) for at, size in enumerate(sizes)]
        places = [self._destination(f"dst{at:04}", per_host) for at in range(
            max(2, round(len(hosts) * self._shape.destinations_per_source)))]
        names = tuple(place.host for place in places)
        movable = tuple(
            request.Movable(server.id, names, server.memory_bytes, server.vcpus, 10)
            for host in hosts for server in host.servers)
        return request.PlanRequest(hosts=tuple(hosts), movable=movable,
                                   destinations=tuple(places), **fields)

    def _destination(self, name: str, per_host: int) -> request.Destination:
        memory_gib = per_host * 4 * self._random.uniform(0.9, 1.2)
        return request.Destination(name, int(memory_gib * GIB), per_host * 4.0, per_host * 100.0,
                                   int(self._random.integers(0, 20)))

    def _draw(self, mean_mib: float) -> int:
        """Return pages, log-normal around the mean."""
        mib = mean_mib * self._random.lognormal(-0.125, 0.5)
        return max(1, int(mib * PAGES_PER_MIB))

    def _host(self, name: str, size: int) -> telemetry.HostTelemetry:
        ids = [f"{name}-{at:05}" for at in range(size)]
        families = self._families(ids)
        projects = self._projects(families)
        classes = self._classes(ids, families)
        distinct = dict.fromkeys(ids, 0)
        for one in classes:
            for server in one.servers:
                distinct[server] += one.pages
        sequences = self._sequences(ids, classes, distinct)
        servers = tuple(self._server(i, name, projects[i], distinct[i], sequences.get(i))
                        for i in ids)
        return telemetry.HostTelemetry(
            name, telemetry.Bandwidth("eth0", 1250e6, 1170e6, 0.0, "ethtool"),
            telemetry.MigrationOptions(max_concurrent=4), servers,
            telemetry.PageClasses(True, 1.0, classes))

    def _projects(self, families: list[list[str]]) -> dict[str, str]:
        projects = {}
        for family in families:
            own = self._random.integers(self._shape.projects)
            for server in family:
                strange = self._random.random() < self._shape.strangers
                number = self._random.integers(self._shape.projects) if strange else own
                projects[server] = f"p{int(number)}"
        return projects

    def _classes(self, ids: list[str], families: list[list[str]]) -> tuple[PageClass, ...]:
        shape, found = self._shape, []
        if len(ids) > 1 and shape.background_mib:
            found.append(PageClass(tuple(ids), self._draw(shape.background_mib)))
        for family in families:
            if len(family) > 1:
                found.append(PageClass(tuple(family), self._draw(shape.family_mib)))
                found += self._partial(family)
        for server in ids:
            found.append(PageClass((server,), self._draw(shape.private_mib)))
            other = ids[int(self._random.integers(len(ids)))]
            if other != server and shape.stray_mib:
                found.append(PageClass(tuple(sorted((server, other))),
                                       self._draw(shape.stray_mib)))
        merged: dict[tuple[str, ...], int] = {}
        for one in found:
            merged[one.servers] = merged.get(one.servers, 0) + one.pages
        return tuple(PageClass(servers, pages) for servers, pages in merged.items())

    def _families(self, ids: list[str]) -> list[list[str]]:
        order = [ids[at] for at in self._random.permutation(len(ids))]
        families = []
        while order:
            size = 1 + int(self._random.poisson(max(0, self._shape.family_servers - 1)))
            families.append(sorted(order[:size]))
            order = order[size:]
        return families

    def _partial(self, family: list[str]) -> list[PageClass]:
        found = []
        for _ in family:
            size = min(len(family), int(self._random.integers(2, 4)))
            members = sorted(family[at] for at in
                             self._random.choice(len(family), size, replace=False))
            found.append(PageClass(tuple(members), self._draw(self._shape.partial_mib)))
        return found

    def _server(self, server_id, host, project, distinct_pages, sequence
                ) -> telemetry.ServerTelemetry:
        draw, repeated = self._random, int(distinct_pages * self._shape.self_share)
        content = distinct_pages + repeated
        zero = int(content * draw.uniform(0.1, 0.6))
        memory = 2 ** int(numpy.ceil(numpy.log2((content + zero) * PAGE_BYTES / GIB))) * GIB
        memory = max(GIB, memory)
        working_set = float(self._draw(40))
        return telemetry.ServerTelemetry(
            id=server_id, name=f"vm-{server_id}", host=host, project_id=project,
            memory_bytes=memory, vcpus=int(draw.integers(1, 5)),
            total_pages=memory // PAGE_BYTES, present_pages=content + zero, zero_pages=zero,
            distinct_pages=distinct_pages, self_duplicate_pages=repeated,
            changed=DirtyModel(float(draw.lognormal(6, 1.2)), working_set, 0.1, "content-diff"),
            sequence=sequence, compress_unchanged=0.5, compress_changed=0.5)

    def _sequences(self, ids, classes, distinct) -> dict[str, PageSequence]:
        """Sample each class alike in all its holders; a class lies in one run of addresses."""
        theta = self._shape.sequence_theta
        if not theta:
            return {}
        runs: dict[str, list[list[int]]] = {i: [] for i in ids}
        number = 0
        for one in classes:
            count = int(self._random.binomial(one.pages, theta))
            if len(one.servers) == 1:
                again = int(count * self._shape.self_share)
                runs[one.servers[0]].append(
                    ([-(count - again)] if count > again else [])
                    + [n for k in range(number, number + again) for n in (k, k)])
                number += again
                continue
            run = list(range(number, number + count))
            number += count
            for server in one.servers:
                runs[server].append(run)
        return {i: PageSequence(theta, tuple(
            n for at in self._random.permutation(len(parts)) for n in parts[at]))
            for i, parts in runs.items()}
