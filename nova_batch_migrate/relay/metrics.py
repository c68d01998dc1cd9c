"""The relay's figures for Prometheus, over HTTP on the loopback address.

Started by service.py where [relay] metrics_port is set. Counters of a group end with it; those of
the host go on, over all groups since the relay was started.
"""

from collections.abc import Callable, Iterator

import prometheus_client
from prometheus_client import core

from nova_batch_migrate.relay import statistics

_PREFIX = "nova_batch_relay"
#: Of the counters, those that are bytes of streams or of the wire.
_KINDS = tuple(name for name in statistics.Statistics().as_dict() if name.endswith("_bytes"))


class Collector:
    """Reads the relay whenever somebody asks; ``told`` returns Relay.statistics()."""

    def __init__(self, told: Callable[[], dict]):
        self._told = told

    def collect(self) -> Iterator[core.Metric]:
        """Yield the metrics as prometheus_client wants them."""
        told = self._told()
        total = core.CounterMetricFamily(
            f"{_PREFIX}_bytes", "Bytes of all groups since the start, by what became of them.",
            labels=["kind"])
        for kind in _KINDS:
            total.add_metric([_short(kind)], told["total"].get(kind, 0))
        yield total
        yield core.CounterMetricFamily(
            f"{_PREFIX}_spliced_bytes", "Bytes passed on as they were.",
            value=told["spliced_bytes"])
        yield core.CounterMetricFamily(
            f"{_PREFIX}_cpu_seconds", "Processor time of the relay.", value=told["cpu_seconds"])
        yield from _groups(told["groups"])


def _groups(groups: list[dict]) -> Iterator[core.Metric]:
    yield core.GaugeMetricFamily(f"{_PREFIX}_groups", "Groups that leave this host now.",
                                 value=len(groups))
    servers = core.CounterMetricFamily(
        f"{_PREFIX}_server_bytes", "Bytes of a server's streams in an open group, by what became "
        "of them.", labels=["group", "server", "kind"])
    used = core.CounterMetricFamily(
        f"{_PREFIX}_server_cpu_seconds", "Processor time at the source for a server's streams in "
        "an open group.", labels=["group", "server"])
    gauges = [core.GaugeMetricFamily(f"{_PREFIX}_group_{name}", text, labels=["group"])
              for name, text in (
                  ("bytes_per_second", "What a group puts on the wire, over its streams' time."),
                  ("dictionary_bytes", "Memory of a group's dictionaries."),
                  ("dictionary_fill_bytes", "Of it, what holds content."))]
    for group in groups:
        for server_id, counters in group["servers"].items():
            for kind in _KINDS:
                servers.add_metric([group["id"], server_id, _short(kind)], counters.get(kind, 0))
            used.add_metric([group["id"], server_id], counters.get("cpu_seconds") or 0.0)
        for gauge in gauges:
            value = group.get(gauge.name.removeprefix(f"{_PREFIX}_group_"))
            if value is not None:
                gauge.add_metric([group["id"]], value)
    yield from (servers, used, *gauges)


def _short(kind: str) -> str:
    return kind.removesuffix("_bytes")


class Endpoint:
    """Serves /metrics at a port of 127.0.0.1 until it is stopped."""

    def __init__(self, port: int, told: Callable[[], dict]):
        registry = prometheus_client.CollectorRegistry()
        registry.register(Collector(told))
        prometheus_client.ProcessCollector(registry=registry)
        self._server, self._thread = prometheus_client.start_http_server(
            port, addr="127.0.0.1", registry=registry)

    @property
    def port(self) -> int:
        return self._server.server_port

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
