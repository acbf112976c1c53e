"""Requests that a net/http client sends become spans that say what the client itself logged, and nothing else."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from signal import SIGUSR1
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.expect import CLOCK_NS, KNOWN_METHODS, wall_offset
from harness.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.receiver import Receiver, Span, Value

pytestmark = pytest.mark.root

CLIENT = 3
"""OTLP's SPAN_KIND_CLIENT."""

BUILDS = {
    "machine": lambda: go_binary("http_client"),
    "1.21-stripped": lambda: go_binary("http_client", go="1.21", strip=True),
}


@dataclass(frozen=True, slots=True)
class Sent:
    """What the target itself says about one request that its Transport was given; see tests/go/http_client/main.go."""

    method: str
    url: str
    status: int
    error: str
    proto: str
    peer: str
    attempts: int
    resends: int
    start: int
    end: int


@pytest.fixture(params=BUILDS)
def exe(request: pytest.FixtureRequest) -> Path:
    """Give today's Go as it builds by default, and the oldest that tells who started a goroutine, stripped."""
    return BUILDS[request.param]()


@pytest.fixture
def origin() -> Iterator[Target]:
    """Give a server that nobody traces."""
    with Target(go_binary("http_server"), "-quiet") as target:
        yield target


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
        result["network.protocol.version"] = line.proto.removeprefix("HTTP/").removesuffix(".0")
    if line.error or line.status >= 400:
        result["error.type"] = line.error or str(line.status)
    return result


def spans_match(spans: list[Span], log: list[Sent]) -> None:
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
        assert span.scope == "otel-goprobe/net/http"
        assert span.parent_span_id == ""
        assert line.start + offset - CLOCK_NS <= span.start <= span.end <= line.end + offset + CLOCK_NS
    assert len({span.span_id for span in spans}) == len(spans)
    assert len({span.trace_id for span in spans}) == sum(1 for _, attempt in expected if not attempt)


KINDS = (
    *("ok", "missing", "failing", "redirect", "post", "brew", "secret", "escaped", "unescaped", "long", "late"),
    *("refused", "unresolved", "unsupported", "timeout", "canceled", "closed", "panic", "ok"),
)


def test_23_requests_are_told_as_they_were_sent(exe: Path, origin: Target, receiver: Receiver) -> None:
    """Redirects and repeated attempts are spans of their own; errors, odd methods and URLs, late bodies."""
    arguments = ("-origin", f"http://127.0.0.1:{origin.port}", "-kinds", ",".join(KINDS), "-times", "23")
    with (
        Target(exe, *arguments) as client,
        Agent("--service", "shop", "--pid", str(client.pid), environment=receiver.environment) as agent,
    ):
        agent.attached()
        log = sent_by(client, 23)
        outcome = agent.stop()
    spans_match(receiver.spans, log)
    assert max(line.attempts for line in log) == 2
    assert (outcome.code, outcome.started, outcome.exported, outcome.dropped) == (
        0,
        len(receiver.spans),
        len(receiver.spans),
        {},
    )


def test_http2_and_tls(exe: Path, receiver: Receiver) -> None:
    """Requests over HTTP/2, the first on a new connection and those behind it; over HTTP/1.1 and TLS."""
    for mode in ("http2", "http1"):
        with Target(go_binary("http_server"), "-quiet", "-tls", mode) as origin:
            arguments = ("-origin", f"https://127.0.0.1:{origin.port}", "-times", "23")
            with (
                Target(exe, *arguments) as client,
                Agent("--pid", str(client.pid), environment=receiver.environment) as agent,
            ):
                agent.attached()
                log = sent_by(client, 23)
                outcome = agent.stop()
        spans = [span for span in receiver.spans if span.attributes["server.port"] == origin.port]
        spans_match(spans, log)
        assert {line.proto for line in log} == {"HTTP/2.0" if mode == "http2" else "HTTP/1.1"}
        assert (outcome.started, outcome.exported, outcome.dropped) == (23, 23, {})
