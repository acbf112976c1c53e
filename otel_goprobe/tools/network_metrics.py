"""Rows of network's table -> metrics, a point for each destination; called by network.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_goprobe.model import Metric, SumPoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_goprobe.model import AttributeValue
    from otel_goprobe.tools.base import Row
    from otel_goprobe.tools.network_table import Table

SCOPE = "otel-goprobe/tools/network"

_METRICS = {
    "goprobe.network.connections": ("{connection}", "Connections that came about, and names that were found."),
    "goprobe.network.open": ("{connection}", "Connections that are open."),
    "goprobe.network.sent": ("By", "Bytes that the service sent."),
    "goprobe.network.received": ("By", "Bytes that the service received."),
    "goprobe.network.failures": ("{connection}", "Connections and lookups that failed, by error."),
    "goprobe.network.findings": ("{connection}", "Connections that the policy doesn't allow."),
}


def metrics(table: Table, rows: Sequence[Row], resources: Mapping[int, Mapping[str, AttributeValue]]) -> list[Metric]:
    """Return all of them.

    Args:
        table: the paths.
        rows: of its paths, in their order: with the bytes of what is open.
        resources: attributes of the targets, by slot; without one a path has no point.
    """
    of: dict[str, dict[tuple[int, tuple[tuple[str, AttributeValue], ...]], SumPoint]] = {}
    for (slot, *_), path, row in zip(table.paths, table.paths.values(), rows, strict=True):
        if slot not in resources:
            continue
        where: dict[str, AttributeValue] = {
            "network.transport": path.protocol,
            "network.io.direction": path.direction,
            "server.address": path.host or path.address,
            "server.port": path.port,
        }
        values = [("connections", path.opened, where), ("open", path.open, where)]
        values += [(direction, int(str(row[direction])), where) for direction in ("sent", "received")]
        values += [("failures", count, {**where, "error.type": error}) for error, count in path.failures.items()]
        values += [("findings", path.findings, where)] if path.findings else []
        for name, value, attributes in values:
            # Paths that differ by their function alone have one point.
            points = of.setdefault(f"goprobe.network.{name}", {})
            key = slot, tuple(attributes.items())
            before = points.get(key)
            began = min(before.start_unix_ns, path.began_unix_ns) if before else path.began_unix_ns
            points[key] = SumPoint(resources[slot], attributes, began, value + (before.value if before else 0))
    return [
        Metric(SCOPE, name, *_METRICS[name], tuple(points.values()), monotonic=not name.endswith(".open"))
        for name, points in of.items()
    ]
