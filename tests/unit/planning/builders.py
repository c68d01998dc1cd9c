"""Small telemetry by hand for the planning tests, in round numbers a person can check."""

import dataclasses

from nova_batch_migrate.planning import request, telemetry
from nova_batch_migrate.planning.telemetry import PAGE_BYTES, DirtyModel

MIB = 1024 ** 2
GIB = 1024 ** 3
PAGES_PER_MIB = MIB // PAGE_BYTES


def server(name, content_mib=100, memory_mib=256, dirty=None, project="p", **fields):
    """A server of `memory_mib` whose first `content_mib` hold something; idle unless told."""
    pages = content_mib * PAGES_PER_MIB
    values = dict(
        id=f"id-{name}", name=name, project_id=project, host="cmpa",
        memory_bytes=memory_mib * MIB, vcpus=1, total_pages=memory_mib * PAGES_PER_MIB,
        present_pages=pages, distinct_pages=pages,
        changed=dirty or DirtyModel(0, 0, 0, "content-diff"))
    return telemetry.ServerTelemetry(**{**values, **fields})


def classes(*found, background=None):
    """Page classes from (names of the holders, pages)."""
    return telemetry.PageClasses(True, 1.0, tuple(
        telemetry.PageClass(tuple(f"id-{name}" for name in names.split()), pages)
        for names, pages in found), background)


def bandwidth(mib_s=100, **fields):
    """A link that carries so much, with nobody else on it."""
    values = dict(interface="eth0", link_bytes_per_second=mib_s * MIB,
                  goodput_bytes_per_second=mib_s * MIB, other_bytes_per_second=0.0, source="tc")
    return telemetry.Bandwidth(**{**values, **fields})


def host(servers, page_classes=None, name="cmpa", mib_s=100, **options):
    """A source host with these servers."""
    return telemetry.HostTelemetry(
        name, bandwidth(mib_s), telemetry.MigrationOptions(**options),
        tuple(dataclasses.replace(s, host=name) for s in servers), page_classes or classes())


def movable(measured, destinations=("cmpb",), **fields):
    """The server may move to these destinations."""
    values = dict(id=measured.id, destinations=destinations, memory_bytes=measured.memory_bytes,
                  vcpus=measured.vcpus, disk_gb=1)
    return request.Movable(**{**values, **fields})


def destination(name="cmpb", memory_gib=64.0, vcpus=64, disk_gb=1000):
    """A host with room."""
    return request.Destination(name, int(memory_gib * GIB), vcpus, disk_gb)


def plan_request(*hosts, destinations=None, **fields):
    """All servers of the hosts may move to all destinations."""
    destinations = destinations or (destination(),)
    names = tuple(d.host for d in destinations)
    values = dict(hosts=hosts, destinations=destinations,
                  movable=tuple(movable(s, names) for h in hosts for s in h.servers))
    return request.PlanRequest(**{**values, **fields})
