"""Rows of network's table -> metrics, a point for each destination; called by network.py.

Names and attributes are those of the conventions where these have one: ``process.network.io`` and its
``network.io.direction`` (model/process/metrics.yaml of semantic-conventions), ``network.transport``, ``server.*``,
``dns.question.name``, ``error.type``. Which way a connection was opened has no name there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_goprobe.model import Metric, SumPoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from otel_goprobe.model import AttributeValue
    from otel_goprobe.tools.base import Row
    from otel_goprobe.tools.network_table import Path, Table

    Attributes = Mapping[str, AttributeValue]

SCOPE = "otel-goprobe/tools/network"
MAX_POINTS = 2000
"""Of a metric and a target; what comes beyond is added up in one point, `OVERFLOW`. The specification's default and its
attribute: metrics/sdk.md, "Cardinality limits"."""
OVERFLOW: Mapping[str, AttributeValue] = {"otel.metric.overflow": True}

_METRICS = {
    "goprobe.network.connections": ("{connection}", "Connections that came about."),
    "goprobe.network.open": ("{connection}", "Connections that are open."),
    "process.network.io": ("By", "Bytes that the service sent and received over its connections."),
    "goprobe.network.failures": ("{connection}", "Connections that didn't come about, by error."),
    "goprobe.network.retransmits": ("{packet}", "Packets that were sent again."),
    "goprobe.network.resets": ("{connection}", "Connections that the other side reset."),
    "goprobe.network.lookups": ("{lookup}", "Questions for DNS, by error."),
    "goprobe.network.findings": ("{connection}", "Connections and questions that the policy doesn't allow."),
}


def metrics(table: Table, rows: Sequence[Row], resources: Mapping[int, Attributes]) -> list[Metric]:
    """Return all of them.

    Args:
        table: the paths.
        rows: of its paths, in their order: with the bytes of what is open.
        resources: attributes of the targets, by slot; without one a path has no point.
    """
    of: dict[str, dict[int, dict[tuple[tuple[str, AttributeValue], ...], SumPoint]]] = {}
    for (slot, *_), path, row in zip(table.paths, table.paths.values(), rows, strict=True):
        if slot not in resources:
            continue
        for name, value, attributes in _values(path, row):
            # Paths that differ by what isn't told have one point.
            points = of.setdefault(name, {}).setdefault(slot, {})
            key = tuple(attributes.items())
            if key not in points and len(points) >= MAX_POINTS:
                key = tuple(OVERFLOW.items())
            before = points.get(key)
            began = min(before.start_unix_ns, path.began_unix_ns) if before else path.began_unix_ns
            points[key] = SumPoint(resources[slot], dict(key), began, value + (before.value if before else 0))
    return [
        Metric(
            SCOPE,
            name,
            *_METRICS[name],
            tuple(point for points in by_slot.values() for point in points.values()),
            monotonic=not name.endswith(".open"),
        )
        for name, by_slot in of.items()
    ]


def _values(path: Path, row: Row) -> Iterator[tuple[str, int, Attributes]]:
    """Give a path's metrics: name, value, attributes."""
    where = _where(path)
    if path.findings:
        yield "goprobe.network.findings", path.findings, where
    if path.direction == "name":
        if path.opened:
            yield "goprobe.network.lookups", path.opened, where
        for error, count in path.failures.items():
            yield "goprobe.network.lookups", count, {**where, "error.type": error}
    elif path.direction != "listen":
        yield "goprobe.network.connections", path.opened, where
        yield "goprobe.network.open", path.open, where
        for key, direction in (("sent", "transmit"), ("received", "receive")):
            yield "process.network.io", int(str(row[key])), {**where, "network.io.direction": direction}
        for error, count in path.failures.items():
            yield "goprobe.network.failures", count, {**where, "error.type": error}
        if path.retransmits:
            yield "goprobe.network.retransmits", path.retransmits, where
        if path.resets:
            yield "goprobe.network.resets", path.resets, where


def _where(path: Path) -> Attributes:
    """Return the attributes of a path; who comes isn't told, since there may be any number of them."""
    if path.direction == "name":
        return {"dns.question.name": path.host}
    where: dict[str, AttributeValue] = {
        "network.transport": path.protocol,
        "goprobe.network.direction": path.direction,
    }
    if path.direction == "out" or path.protocol == "unix":
        where["server.address"] = path.host or path.address
    if path.port:
        where["server.port"] = path.port
    return where
