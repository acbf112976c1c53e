"""A real Collector receives the spans by both protocols; a real Jaeger returns them, and its page shows their names."""

from __future__ import annotations

import subprocess
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from backends.backends import Collector, Jaeger, collector, jaeger
from goprograms import go_binary
from harness.agent import Agent
from harness.client import in_turn, one_after_another
from harness.target import Target

if TYPE_CHECKING:
    from pathlib import Path

NAMES = Counter(
    {"GET /ok": 4, "GET": 4, "POST /get-only": 3, "GET /fail": 3, "GET /panic": 3, "GET /empty": 3, "POST /echo": 3}
)
"""Of 23 requests of the seven kinds in turn."""


def traced(backend: Collector | Jaeger, protocol: str) -> None:
    """Send 23 requests to a server and their spans to `backend`; all of them were taken."""
    endpoint = backend.otlp_grpc if protocol == "grpc" else backend.otlp_http
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    with (
        Target(go_binary("http_server")) as server,
        Agent("--service", "shop", "--pid", str(server.pid), environment=environment) as agent,
    ):
        agent.attached()
        one_after_another(server.port, in_turn(23))
        server.wait_log(23)
        outcome = agent.stop()
    assert (outcome.code, outcome.started, outcome.exported, outcome.dropped) == (0, 23, 23, {})


@pytest.mark.root
@pytest.mark.collector
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_collector_receives_every_span(protocol: str) -> None:
    """What it passes on has the names, the kind, the service and the scope that we sent."""
    with collector() as backend:
        traced(backend, protocol)
        spans = backend.wait_for_spans(23)
    assert Counter(span["name"] for span in spans) == NAMES
    assert {span["kind"] for span in spans} == {2}
    assert {span["scope"] for span in spans} == {"otel-goprobe/net/http"}
    assert all({"key": "service.name", "value": {"stringValue": "shop"}} in span["resource"] for span in spans)


@pytest.mark.root
@pytest.mark.jaeger
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_jaeger_returns_and_shows_every_span(protocol: str, tmp_path: Path) -> None:
    """The query service has all of them; a browser that opens the page of one shows its name."""
    with jaeger() as backend:
        traced(backend, protocol)
        traces = backend.wait_for_spans("shop", 23)
        spans = [span for trace in traces for span in trace["spans"]]
        assert Counter(span["operationName"] for span in spans) == NAMES
        failed = next(span for span in spans if span["operationName"] == "GET /fail")
        assert {"key": "error", "type": "bool", "value": True} in failed["tags"]
        page = subprocess.run(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                f"--user-data-dir={tmp_path}",
                "--virtual-time-budget=10000",
                "--dump-dom",
                backend.trace_url(failed["traceID"]),
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
    assert "GET /fail" in page
    assert "shop" in page
