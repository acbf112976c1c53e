"""What a span must say, computed from what the target itself logged; and the comparison of all with all."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.client import Request
    from harness.receiver import Span, Value
    from harness.target import Line

SERVER = 2
"""OTLP's SPAN_KIND_SERVER."""

KNOWN_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
"""RFC 9110 and 5789, which the semantic conventions name."""

CLOCK_NS = 1_000_000
"""How far the wall clock of a span may be off."""

MEDIAN_EXCESS_NS = 200_000
MOST_EXCESS_NS = 20_000_000


def attributes(line: Line, *, route: str = "", scheme: str = "http") -> dict[str, Value]:
    """Return all attributes that the span of a logged request has, and no others."""
    peer, _, peer_port = line.remote.rpartition(":")
    result: dict[str, Value] = {
        "http.request.method": line.method if line.method in KNOWN_METHODS else "_OTHER",
        "url.path": line.path,
        "url.scheme": scheme,
        "client.address": peer,
        "network.peer.address": peer,
        "network.peer.port": int(peer_port),
        "network.protocol.version": line.proto.removeprefix("HTTP/"),
    }
    host, _, port = line.host.partition(":")
    if host:
        result["server.address"] = host
    if port:
        result["server.port"] = int(port)
    if line.method not in KNOWN_METHODS:
        result["http.request.method_original"] = line.method
    if route:
        result["http.route"] = route
    if line.status:
        result["http.response.status_code"] = line.status
    if line.panic:
        result["error.type"] = line.panic
    elif line.status >= 500:
        result["error.type"] = str(line.status)
    elif not line.status:
        result["error.type"] = "runtime.Goexit"
    return result


def name(attributes_of_it: Mapping[str, Value]) -> str:
    """Return the name of a span with these attributes."""
    method = attributes_of_it["http.request.method"]
    route = attributes_of_it.get("http.route", "")
    return f"{'HTTP' if method == '_OTHER' else method} {route}".rstrip()


def pairs(spans: Sequence[Span], log: Sequence[Line]) -> list[tuple[Span, Line]]:
    """Match spans with logged requests: by the client's port, and on one connection in their order.

    Raises:
        AssertionError: there are more of one than of the other.
    """
    by_port: dict[int, tuple[list[Span], list[Line]]] = defaultdict(lambda: ([], []))
    for span in sorted(spans, key=lambda span: span.start):
        by_port[int(str(span.attributes["network.peer.port"]))][0].append(span)
    for line in sorted(log, key=lambda line: line.start):
        by_port[int(line.remote.rpartition(":")[2])][1].append(line)
    found: list[tuple[Span, Line]] = []
    for port, (of_port, logged) in by_port.items():
        assert len(of_port) == len(logged), f"port {port}: spans {of_port} for requests {logged}"
        found += zip(of_port, logged, strict=True)
    return found


def wall_offset() -> int:
    """Return the wall clock's lead over CLOCK_MONOTONIC, ns: the tightest of a few readings."""
    readings = []
    for _ in range(20):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        wall = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        readings.append((after - before, wall - (before + after) // 2))
    return min(readings)[1]


def enclosing(matched: Sequence[tuple[Span, Line]]) -> None:
    """Check that each span encloses the handler's own interval, and not much more.

    Raises:
        AssertionError: one doesn't, or spans are too long; the message has the numbers.
    """
    offset = wall_offset()
    excesses = []
    for span, line in matched:
        assert span.start <= line.start + offset + CLOCK_NS, f"{span} starts after its handler {line}"
        assert span.end >= line.end + offset - CLOCK_NS, f"{span} ends before its handler {line}"
        excesses.append((span.end - span.start) - (line.end - line.start))
        assert excesses[-1] >= 0, f"{span} is {-excesses[-1]} ns shorter than its handler {line}"
    median, most = statistics.median(excesses), max(excesses)
    print(f"spans exceed their handlers by {median / 1000:.0f} us in the median, {most / 1000:.0f} us at most")
    assert median <= MEDIAN_EXCESS_NS, f"median excess {median} ns"
    assert most <= MOST_EXCESS_NS, f"one exceeds its handler by {most} ns"


def spans_match(
    spans: Sequence[Span],
    log: Sequence[Line],
    requests: Sequence[Request],
    *,
    scheme: str = "http",
    timing: bool = True,
) -> None:
    """Check every span of requests to a plain ServeMux against the target's log: all attributes, name, status, time.

    Raises:
        AssertionError: any differs.
    """
    assert len(spans) == len(log)
    routes = {unquote(request.target.partition("?")[0]): request.route for request in requests}
    matched = pairs(spans, log)
    for span, line in matched:
        expected = attributes(line, route=routes.get(line.path, ""), scheme=scheme)
        assert span.attributes == expected
        assert span.name == name(expected)
        assert span.error == ("error.type" in expected)
        assert span.kind == SERVER
    well_formed(spans)
    if timing:
        enclosing(matched)


def well_formed(spans: Sequence[Span]) -> None:
    """Check what holds of every root span: ids, order of times, scope.

    Raises:
        AssertionError: it doesn't.
    """
    assert len({span.span_id for span in spans}) == len(spans)
    assert len({span.trace_id for span in spans}) == len(spans)
    for span in spans:
        assert len(span.trace_id) == 32
        assert len(span.span_id) == 16
        assert int(span.trace_id, 16)
        assert int(span.span_id, 16)
        assert span.parent_span_id == ""
        assert span.start <= span.end
        assert span.scope == "otel-goprobe/net/http"
