"""A real Jaeger returns the spans from its API, and a browser shows them on its trace page (`make test-jaeger`)."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter

import pytest
from backends.backends import jaeger
from goprograms import go_binary
from harness import expect
from harness.agent import Agent
from harness.client import in_turn, one_after_another
from harness.target import Target

pytestmark = [pytest.mark.root, pytest.mark.jaeger, pytest.mark.timeout(900)]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def shown_by_browser(url: str) -> str:
    """Return the page at `url` as a headless browser has built it.

    Raises:
        RuntimeError: there is no browser.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise RuntimeError("Chromium is missing: apt install chromium")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]
    return subprocess.run([browser, *options, url], capture_output=True, text=True, check=True, timeout=90).stdout


def test_jaeger_returns_and_shows_the_spans() -> None:
    """23 requests are 23 traces of one span in /api/traces, and a trace's page has the span's name."""
    requests = in_turn(23)
    with jaeger() as backend, Target(go_binary("http_server")) as server:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": backend.otlp_http}
        with Agent("--service", "shop", "--pid", str(server.pid), environment=environment) as agent:
            agent.attached()
            one_after_another(server.port, requests)
            log = server.wait_log(23)
            outcome = agent.stop()
        traces = backend.wait_for_spans("shop", 23)
        assert (outcome.started, outcome.exported, outcome.dropped) == (23, 23, {})
        assert [len(trace["spans"]) for trace in traces] == [1] * 23
        expected = [
            expect.name(expect.attributes(line, route=request.route))
            for line, request in zip(log, requests, strict=True)
        ]
        assert Counter(trace["spans"][0]["operationName"] for trace in traces) == Counter(expected)
        for trace in traces:
            tags = {tag["key"]: tag["value"] for tag in trace["spans"][0]["tags"]}
            assert tags["span.kind"] == "server"
            assert tags["url.scheme"] == "http"
        for name in ("GET /ok", "GET /fail", "GET /panic"):
            trace = next(trace for trace in traces if trace["spans"][0]["operationName"] == name)
            page = shown_by_browser(backend.trace_url(trace["traceID"]))
            assert name in page
            assert "shop" in page
