"""Requests that a net/http client sends become spans that say what the client itself logged, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.sent import sent_by, spans_match
from harness.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.receiver import Receiver

pytestmark = pytest.mark.root

BUILDS = {
    "machine": lambda: go_binary("http_client"),
    "1.21-stripped": lambda: go_binary("http_client", go="1.21", strip=True),
}


@pytest.fixture(params=BUILDS)
def exe(request: pytest.FixtureRequest) -> Path:
    """Give today's Go as it builds by default, and the oldest that tells who started a goroutine, stripped."""
    return BUILDS[request.param]()


@pytest.fixture
def origin() -> Iterator[Target]:
    """Give a server that nobody traces."""
    with Target(go_binary("http_server"), "-quiet") as target:
        yield target


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
    spans_match(receiver.spans, log, "net/http")
    assert len({span.trace_id for span in receiver.spans}) == len(log)
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
        spans_match(spans, log, "net/http")
        assert len({span.trace_id for span in spans}) == len(log)
        assert {line.proto for line in log} == {"HTTP/2.0" if mode == "http2" else "HTTP/1.1"}
        assert (outcome.started, outcome.exported, outcome.dropped) == (23, 23, {})
