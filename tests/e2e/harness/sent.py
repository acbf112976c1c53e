"""What programs that are HTTP clients log of their requests -> what the spans of these have to say; for tests."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from signal import SIGUSR1
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from harness.expect import CLOCK_NS, KNOWN_METHODS, wall_offset

if TYPE_CHECKING:
    from harness.receiver import Span, Value
    from harness.target import Target

CLIENT = 3
"""OTLP's SPAN_KIND_CLIENT."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What the target itself says about one request that its Transport was given, or one attempt of it."""

    method: str
    url: str
    status: int
    error: str
    proto: str
    peer: str
    resends: int
    start: int
    end: int
    attempts: int = 1
    """Connections that it was handed to, where the program logs requests."""


def sent_by(client: Target, count: int) -> list[Sent]:
    """Have the client send what it was started for, and return its log."""
    os.kill(client.pid, SIGUSR1)
    client.stdout.wait_for("^done$")
    lines = [Sent(**json.loads(text)) for text in client.stdout.matching(r"^\{")]
    assert len(lines) >= count
    return lines


def attributes(line: Sent, *, attempt: int) -> dict[str, Value]:
    """Return all attributes that the span of an attempt has, and no others."""
    method = line.method or "GET"
    url = urlsplit(line.url)
    secret_less = re.sub(r"//[^/]*@", "//REDACTED:REDACTED@", re.sub(r"\bsig=[^&]*", "sig=REDACTED", line.url))
    result: dict[str, Value] = {
        "http.request.method": method if method in KNOWN_METHODS else "_OTHER",
        "url.full": secret_less,
        "server.address": str(url.hostname),
    }
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    if port:
        result["server.port"] = port
    if method not in KNOWN_METHODS:
        result["http.request.method_original"] = method
    if line.peer:
        peer, _, peer_port = line.peer.rpartition(":")
        result |= {"network.peer.address": peer, "network.peer.port": int(peer_port)}
    if line.resends + attempt:
        result["http.request.resend_count"] = line.resends + attempt
    if attempt + 1 < line.attempts:
        return {**result, "error.type": "*errors.errorString"}  # http: server closed idle connection
    if line.status:
        result["http.response.status_code"] = line.status
        result["network.protocol.version"] = line.proto.removeprefix("HTTP/").replace("2.0", "2")
    if line.error or line.status >= 400:
        result["error.type"] = line.error or str(line.status)
    return result


def spans_match(spans: list[Span], log: list[Sent], library: str) -> None:
    """Check every span against the log of requests that were sent one after the other.

    Raises:
        AssertionError: any differs.
    """
    expected = [(line, attempt) for line in log for attempt in range(max(line.attempts, 1))]
    spans = sorted(spans, key=lambda span: (span.start, span.end))
    assert len(spans) == len(expected)
    offset = wall_offset()
    for span, (line, attempt) in zip(spans, expected, strict=True):
        assert span.attributes == attributes(line, attempt=attempt)
        method = span.attributes["http.request.method"]
        assert span.name == ("HTTP" if method == "_OTHER" else method)
        assert span.kind == CLIENT
        assert span.error == ("error.type" in span.attributes)
        assert span.scope == f"otel-goprobe/{library}"
        assert span.parent_span_id == ""
        assert line.start + offset - CLOCK_NS <= span.start <= span.end <= line.end + offset + CLOCK_NS
    assert len({span.span_id for span in spans}) == len(spans)
