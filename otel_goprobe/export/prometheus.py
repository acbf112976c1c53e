"""`Metric`s -> what Prometheus scrapes, as OpenMetrics with exemplars where the scraper takes it; for meter.py.

By `prometheus_client` and a collector of our own. Names, units and labels follow the specification's "Prometheus and
OpenMetrics Compatibility". One endpoint tells of several services: `job` and `instance` stand at each series, so that a
scraper has to be told ``honor_labels: true``.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from otel_goprobe import __version__
from otel_goprobe.errors import UsageError
from otel_goprobe.export.encode import SCHEMA_URL
from otel_goprobe.model import HistogramPoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from otel_goprobe import model
    from otel_goprobe.model import AttributeValue, Metric, SumPoint

_UNITS: Final = {"s": "seconds", "By": "bytes"}
"""Of metrics that there are; a unit in braces, such as ``{request}``, has no suffix."""


Family = HistogramMetricFamily | GaugeMetricFamily | CounterMetricFamily


class Metrics(Collector):
    """Turns a collection into families; `collect` is called once a scrape."""

    def __init__(self, collect: Callable[[], list[Metric]]) -> None:
        self._collect = collect

    def describe(self) -> Iterable[model.Metric]:
        """Return nothing: what there is depends on what is traced, and names can't clash."""
        return ()

    def collect(self) -> Iterator[Family | InfoMetricFamily]:
        """Yield the resources of what there is, and its metrics."""
        metrics = self._collect()
        resources = {id(point.resource): point.resource for metric in metrics for point in metric.points}
        if resources:
            yield _info(resources.values())
        for metric in metrics:
            yield _family(metric)


def _info(resources: Iterable[Mapping[str, AttributeValue]]) -> InfoMetricFamily:
    rows = [
        _identity(resource) | _labels({k: v for k, v in resource.items() if k not in _IDENTIFYING})
        for resource in resources
    ]
    names = _names(rows)
    family = InfoMetricFamily("target", "Target metadata", labels=names)
    for row in rows:
        family.add_metric([row.get(name, "") for name in names], {})
    return family


def _family(metric: Metric) -> Family:
    unit = _UNITS.get(metric.unit, "")
    scope = {
        "otel_scope_name": metric.scope,
        "otel_scope_version": __version__,
        "otel_scope_schema_url": SCHEMA_URL,
    }
    rows = [_labels(point.attributes) | _identity(point.resource) | scope for point in metric.points]
    names = _names(rows)
    name = _sanitised(metric.name)
    if not isinstance(metric.points[0], HistogramPoint):
        family = CounterMetricFamily if metric.monotonic else GaugeMetricFamily
        total = family(name, metric.description, labels=names, unit=unit)
        for point, row in zip(metric.points, rows, strict=True):
            total.add_metric([row.get(name, "") for name in names], _value(point))
        return total
    histogram = HistogramMetricFamily(name, metric.description, labels=names, unit=unit)
    for point, row in zip(metric.points, rows, strict=True):
        if isinstance(point, HistogramPoint):
            buckets = _buckets(point, metric.bounds)
            histogram.add_metric([row.get(name, "") for name in names], buckets, sum_value=point.sum_s)
    return histogram


def _value(point: HistogramPoint | SumPoint) -> float:
    return 0 if isinstance(point, HistogramPoint) else point.value


def _buckets(point: HistogramPoint, bounds: tuple[float, ...]) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    """Return upper bound, count up to it, and exemplar of each bucket."""
    upper = (*bounds, float("inf"))
    exemplars: dict[float, Exemplar] = {}
    for one in point.exemplars:
        at = next(bound for bound in upper if one.value_s <= bound)
        ids = {"trace_id": one.trace_id.hex(), "span_id": one.span_id.hex()}
        exemplars[at] = Exemplar(ids, one.value_s, one.unix_ns / 1e9)
    rows = zip((*map(str, bounds), "+Inf"), accumulate(point.counts), upper, strict=True)
    return [(le, count, exemplars[bound]) if bound in exemplars else (le, count) for le, count, bound in rows]


_IDENTIFYING: Final = ("service.namespace", "service.name", "service.instance.id")


def _identity(resource: Mapping[str, AttributeValue]) -> dict[str, str]:
    """Return `job` and `instance`, which join a series to its ``target_info``."""
    namespace, name, instance = (str(resource.get(key, "")) for key in _IDENTIFYING)
    return {"job": f"{namespace}/{name}" if namespace else name, "instance": instance}


def _labels(attributes: Mapping[str, AttributeValue]) -> dict[str, str]:
    """Return labels; the values of names that become one are joined by semicolons, in the order of the names."""
    labels: dict[str, str] = {}
    for key, value in sorted(attributes.items()):
        text = _text(value)
        name = re.sub(r"[^a-zA-Z0-9_]+", "_", key)
        name = f"key_{name}" if name[0].isdigit() else name
        labels[name] = f"{labels[name]};{text}" if name in labels else text
    return labels


def _text(value: AttributeValue) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value) if isinstance(value, str | int | float) else "[" + ",".join(f'"{_text(v)}"' for v in value) + "]"
    return text.encode("utf-8", "replace").decode()


def _names(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """Return all label names: a family has the same ones everywhere, and an empty value is as none."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _sanitised(name: str) -> str:
    return re.sub(r"_+", "_", re.sub(r"[^a-zA-Z0-9:_]", "_", name))


class Server:
    """Listens until it is closed.

    Args:
        host: name or address to listen on.
        port: TCP port.
        collect: what there is to tell; called from the server's threads.

    Raises:
        UsageError: the address can't be listened on.
    """

    def __init__(self, host: str, port: int, collect: Callable[[], list[Metric]]) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Metrics(collect))
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no such port"
            raise UsageError(
                f"Prometheus' metrics can't be served at {host}:{port}: {reason}",
                "set OTEL_EXPORTER_PROMETHEUS_HOST and OTEL_EXPORTER_PROMETHEUS_PORT to an address that is free",
            ) from error

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
