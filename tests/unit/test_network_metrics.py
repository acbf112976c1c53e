"""Metrics of ``network``: names and attributes by the conventions, bounded."""

from __future__ import annotations

from otel_goprobe.model import Metric, SumPoint
from otel_goprobe.tools.network_metrics import MAX_POINTS, metrics
from otel_goprobe.tools.network_table import Connection, Path, Table

RESOURCE = {"service.name": "shop"}


def path_of(table: Table, *key: str | int) -> Path:
    """Return a new path of slot 3: direction, protocol, host, address, port, function."""
    direction, protocol, host, address, port, function = key
    path, new = table.path(
        (3, str(direction), str(protocol), str(host), str(address), int(port), str(function)), "shop", 0, 1000
    )
    assert path
    assert new
    return path


def told(table: Table) -> dict[str, dict[frozenset[tuple[str, object]], int]]:
    """Return by metric and attributes the values."""
    found: list[Metric] = metrics(table, table.rows({(3, 7): (5, 20, 10)}), {3: RESOURCE})
    values: dict[str, dict[frozenset[tuple[str, object]], int]] = {}
    for metric in found:
        for point in metric.points:
            assert isinstance(point, SumPoint)
            values.setdefault(metric.name, {})[frozenset(point.attributes.items())] = point.value
    return values


def test_names_and_attributes() -> None:
    """What goes out by its name, what comes by the own port; lookups by their name; bytes of what is open, too."""
    table = Table()
    for function in ("main.a", "main.b"):
        out = path_of(table, "out", "tcp", "db.example.test", "10.0.0.9", 5432, function)
        out.opened, out.open, out.sent, out.failures["ECONNREFUSED"], out.resets, out.retransmits = 3, 1, 100, 2, 1, 4
    table.connections[3, 7] = Connection(out, 5, "open")
    for client in ("10.0.0.1", "10.0.0.2"):
        path_of(table, "in", "tcp", "", client, 8080, "").opened = 1
    path_of(table, "out", "unix", "", "/run/db.sock", 0, "").opened = 1
    path_of(table, "listen", "tcp", "", "::", 8080, "")
    name = path_of(table, "name", "dns", "db.example.test", "", 0, "")
    name.opened, name.failures["timeout"] = 2, 1
    values = told(table)
    base = {("network.transport", "tcp"), ("goprobe.network.direction", "out"), ("server.port", 5432)}
    where = frozenset({*base, ("server.address", "db.example.test")})
    assert values["goprobe.network.connections"] == {
        where: 6,
        frozenset({("network.transport", "tcp"), ("goprobe.network.direction", "in"), ("server.port", 8080)}): 2,
        frozenset(
            {
                ("network.transport", "unix"),
                ("goprobe.network.direction", "out"),
                ("server.address", "/run/db.sock"),
            }
        ): 1,
    }
    assert values["goprobe.network.open"][where] == 2
    assert values["process.network.io"][where | {("network.io.direction", "transmit")}] == 220
    assert values["process.network.io"][where | {("network.io.direction", "receive")}] == 10
    assert values["goprobe.network.failures"] == {where | {("error.type", "ECONNREFUSED")}: 4}
    assert values["goprobe.network.retransmits"] == {where: 8}
    assert values["goprobe.network.resets"] == {where: 2}
    question = frozenset({("dns.question.name", "db.example.test")})
    assert values["goprobe.network.lookups"] == {question: 2, question | {("error.type", "timeout")}: 1}
    assert "goprobe.network.findings" not in values


def test_points_are_bounded() -> None:
    """What is beyond the limit is added up in one point, as the specification has it."""
    table = Table()
    for number in range(MAX_POINTS + 7):
        path_of(table, "out", "tcp", "", f"10.0.{number // 256}.{number % 256}", 80, "").opened = 1
    connections = told(table)["goprobe.network.connections"]
    assert len(connections) == MAX_POINTS + 1
    assert connections[frozenset({("otel.metric.overflow", True)})] == 7
