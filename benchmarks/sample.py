"""Columns of spans like those of real requests, for what is measured without a target: encode.py and feed.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from otel_goprobe.model import Integers, SpanColumns, SpanKind, Strings

if TYPE_CHECKING:
    from collections.abc import Mapping

RESOURCE: Final[Mapping[str, str | int]] = {
    "service.name": "bench",
    "service.instance.id": "627cc493-f310-47de-96bd-71410b7dec09",
    "process.pid": 4242,
    "process.executable.name": "server",
    "process.runtime.name": "go",
    "process.runtime.version": "go1.26.8",
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.language": "go",
}


def _constant(count: int, value: str) -> Strings:
    return Strings(np.zeros(count, np.int32), (value,))


def columns(count: int, *, distinct: int = 64, seed: int = 7) -> SpanColumns:
    """Return `count` HTTP server spans of 11 attributes.

    Args:
        count: spans.
        distinct: how many paths there are among them, and a quarter as many connections.
        seed: the same seed, the same spans.
    """
    generator = np.random.default_rng(seed)
    everywhere = np.ones(count, np.bool_)
    started = np.uint64(1_790_000_000_000_000_000) + np.arange(count, dtype=np.uint64) * np.uint64(37_000)
    path = generator.integers(0, distinct, count).astype(np.int32)
    is_order = (path % 8 == 0).astype(np.int32)
    statuses = np.array([200, 200, 200, 404, 500], np.int64)[path % 5]
    ports = 30_000 + generator.integers(0, max(distinct // 4, 1), count)
    return SpanColumns(
        scope="otel-goprobe/net/http",
        kind=SpanKind.SERVER,
        slot=np.zeros(count, np.uint16),
        trace_id=generator.integers(0, 256, (count, 16), np.uint8),
        span_id=generator.integers(0, 256, (count, 8), np.uint8),
        parent_span_id=np.zeros((count, 8), np.uint8),
        trace_flags=np.ones(count, np.uint8),
        trace_state=Strings(np.full(count, -1, np.int32), ()),
        start_unix_ns=started,
        end_unix_ns=started + generator.integers(10_000, 10_000_000, count).astype(np.uint64),
        name=Strings(is_order, ("GET /products/{id}", "POST /orders")),
        error=statuses >= 500,
        attributes={
            "http.request.method": Strings(is_order, ("GET", "POST")),
            "url.path": Strings(path, tuple(f"/products/{number}" for number in range(distinct))),
            "url.scheme": _constant(count, "http"),
            "http.route": Strings(is_order, ("/products/{id}", "/orders")),
            "http.response.status_code": Integers(statuses, everywhere),
            "server.address": _constant(count, "shop.example.com"),
            "server.port": Integers(np.full(count, 8080, np.int64), everywhere),
            "client.address": _constant(count, "192.0.2.7"),
            "network.peer.address": _constant(count, "192.0.2.7"),
            "network.peer.port": Integers(ports, everywhere),
            "network.protocol.version": _constant(count, "1.1"),
        },
    )
