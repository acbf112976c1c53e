"""Who calls whom, counted from both ends of calls."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from otel_goprobe import service_graph as module
from otel_goprobe.model import HistogramPoint, SpanColumns, SpanKind, Strings, SumPoint
from otel_goprobe.service_graph import ServiceGraph
from otel_goprobe.spans import take

if TYPE_CHECKING:
    import pytest

BEGAN = 1_790_000_000_000_000_000
SERVICES = {0: {"service.name": "front"}, 1: {"service.name": "cart"}, 2: {"service.name": "pricing"}}
CALLS = 997


def spans(kind: SpanKind, slots: list[int], ids: list[int], ms: list[int], failed: list[bool]) -> SpanColumns:
    """Return ends of calls, a row each: `ids` are the client spans', 0 for none."""
    count = len(slots)
    own = np.array(ids, np.uint64).view(np.uint8).reshape(count, 8)
    other = np.arange(10**9, 10**9 + count, dtype=np.uint64).view(np.uint8).reshape(count, 8)
    of_client = kind == SpanKind.CLIENT
    start = np.full(count, BEGAN, np.uint64)
    return SpanColumns(
        scope="otel-goprobe/net/http",
        kind=kind,
        slot=np.array(slots, np.uint16),
        trace_id=np.repeat(own, 2, axis=1),
        span_id=own if of_client else other,
        parent_span_id=other if of_client else own,
        trace_flags=np.ones(count, np.uint8),
        trace_state=Strings(np.full(count, -1, np.int32), ()),
        start_unix_ns=start,
        end_unix_ns=start + np.array(ms, np.uint64) * np.uint64(10**6),
        name=Strings(np.zeros(count, np.int32), ("GET",)),
        error=np.array(failed),
        attributes={"server.address": Strings(np.zeros(count, np.int32), ("db.local",))} if of_client else {},
    )


def sums(graph: ServiceGraph, what: str) -> dict[tuple[object, ...], int]:
    """Return the values of a metric by its attributes' values."""
    for metric in graph.collect():
        if metric.name == f"traces_service_graph_{what}_total":
            assert metric.monotonic
            return {
                tuple(point.attributes.values()): point.value for point in metric.points if isinstance(point, SumPoint)
            }
    return {}


def test_calls_are_counted_as_a_loop_counts_them() -> None:
    """Both ends come in any order, in batches; failures of either end count; durations fall into inclusive bounds."""
    generator = np.random.default_rng(5)
    graph = ServiceGraph()
    ids = [int(number) for number in generator.permutation(np.arange(1, CALLS + 1))]
    clients = generator.integers(0, 3, CALLS).tolist()
    servers = generator.integers(0, 3, CALLS).tolist()
    client_ms = generator.choice([1, 2, 3, 100, 101, 20000], CALLS).tolist()
    client_failed, server_failed = (generator.random((2, CALLS)) < 0.3).tolist()
    rows = {
        SpanKind.CLIENT: spans(SpanKind.CLIENT, clients, ids, client_ms, client_failed),
        SpanKind.SERVER: spans(SpanKind.SERVER, servers, ids, [1] * CALLS, server_failed),
    }
    for part in np.array_split(generator.permutation(CALLS), 7):
        graph.see(take(rows[SpanKind.SERVER], part), SERVICES)
        graph.collect()
    for part in np.array_split(generator.permutation(CALLS), 5):
        graph.see(take(rows[SpanKind.CLIENT], part), SERVICES)

    names = [str(SERVICES[slot]["service.name"]) for slot in range(3)]
    pairs = [(names[client], names[server], "") for client, server in zip(clients, servers, strict=True)]
    failed = [a or b for a, b in zip(client_failed, server_failed, strict=True)]
    assert sums(graph, "request") == Counter(pairs)
    assert sums(graph, "request_failed") == Counter(pair for pair, bad in zip(pairs, failed, strict=True) if bad)
    (of_clients,) = (metric for metric in graph.collect() if metric.name.endswith("client_seconds"))
    for point in of_clients.points:
        assert isinstance(point, HistogramPoint)
        of_pair = [
            ms / 1e3 for ms, pair in zip(client_ms, pairs, strict=True) if pair == tuple(point.attributes.values())
        ]
        edges = (0.0, *of_clients.bounds, np.inf)
        expected = [sum(low < s <= high for s in of_pair) for low, high in pairwise(edges)]
        assert list(point.counts) == expected
        assert abs(point.sum_s - sum(of_pair)) < 1e-6


def test_an_end_that_stays_alone() -> None:
    """A client span names its server by address, a trace's first span is a user's, a lost client is told."""
    graph = ServiceGraph(wait_s=0.0)
    graph.see(spans(SpanKind.CLIENT, [0], [7], [3], [True]), SERVICES)
    graph.see(spans(SpanKind.SERVER, [1, 2], [0, 9], [3, 3], [False, False]), SERVICES)
    assert sums(graph, "request") == {("user", "cart", "virtual_node"): 1, ("front", "db.local", "virtual_node"): 1}
    assert sums(graph, "request_failed")[("front", "db.local", "virtual_node")] == 1
    assert sums(graph, "unpaired_spans") == {("pricing",): 1}


def test_it_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times as many ends as may wait, and more services than have names."""
    monkeypatch.setattr(module, "MAX_WAITING", 100)
    monkeypatch.setattr(module, "MAX_NAMES", 5)
    graph = ServiceGraph()
    for number in range(100):
        resources = {0: {"service.name": f"service {number}"}}
        graph.see(spans(SpanKind.CLIENT, [0] * 10, list(range(1, 11)), [1] * 10, [False] * 10), resources)
        assert sum(map(len, graph._waiting[SpanKind.CLIENT])) <= 100
    counted = sums(graph, "request")
    assert len(counted) <= 5
    assert sum(counted.values()) == 10 * 100 - sum(map(len, graph._waiting[SpanKind.CLIENT]))
