"""The example shop in a real Jaeger: one trace a request, three services, who calls whom (`make test-jaeger`)."""

from __future__ import annotations

import json
import time
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from backends.backends import Jaeger, jaeger, wait_until
from harness.agent import Agent
from harness.client import Connection, Request
from harness.shop import SERVICES, Shop, calls, of_request
from test_jaeger import shown_by_browser

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.jaeger, pytest.mark.timeout(900)]

KINDS = (
    ("GET", "/products/tea"),
    ("POST", "/cart/{user}/tea"),
    ("POST", "/cart/{user}/cake"),
    ("GET", "/cart/{user}"),
    ("POST", "/checkout/{user}"),
)
REQUESTS = 23

Trace = dict[str, Any]


def send(shop: Shop) -> None:
    """Send REQUESTS, the kinds in turn, one after another, each with its number as its id."""
    with Connection(shop.port) as connection:
        for number in range(REQUESTS):
            method, path = KINDS[number % len(KINDS)]
            target = path.format(user=f"user-{number // len(KINDS)}")
            answer = connection.ask(Request(target, method, headers=(("X-Request-Id", f"request-{number}."),)))
            assert answer.status == 200, answer


def service(trace: Trace, span: dict[str, Any]) -> str:
    """Return the service of a span."""
    return str(trace["processes"][span["processID"]]["serviceName"])


def kind(span: dict[str, Any]) -> str:
    """Return a span's kind in Jaeger's words."""
    return next(str(tag["value"]) for tag in span["tags"] if tag["key"] == "span.kind")


def edges(trace: Trace) -> Counter[tuple[str, str]]:
    """Count who called whom, as the parents of a trace's spans say: service of the parent, service of the child."""
    spans = {span["spanID"]: span for span in trace["spans"]}
    return Counter(
        (service(trace, spans[reference["spanID"]]), service(trace, span))
        for span in spans.values()
        for reference in span["references"]
    )


def all_traces(backend: Jaeger, spans: int) -> list[Trace]:
    """Return the traces of all services by their start, once they hold `spans` spans."""

    def found() -> dict[str, Trace]:
        return {trace["traceID"]: trace for name in SERVICES for trace in backend.traces(name)}

    assert wait_until(lambda: sum(len(trace["spans"]) for trace in found().values()) >= spans, 10)
    return sorted(found().values(), key=lambda trace: min(span["startTime"] for span in trace["spans"]))


def dependencies(backend: Jaeger) -> dict[tuple[str, str], int]:
    """Return what System Architecture is drawn from."""
    url = f"{backend.query}/api/dependencies?endTs={time.time_ns() // 10**6}&lookback={3600 * 1000}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        found = json.load(answer)["data"]
    return {(link["parent"], link["child"]): link["callCount"] for link in found}


def test_the_shop_in_jaeger(tmp_path: Path) -> None:
    """One trace a request, who asked whom in it as the services have logged it, and Jaeger's map of the services."""
    with jaeger() as backend, Shop(tmp_path) as shop:
        selected = [word for name, pid in shop.pids.items() for word in ("--service", f"{name}=pid:{pid}")]
        with Agent(*selected, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": backend.otlp_http}) as agent:
            agent.attached(len(SERVICES))
            send(shop)
            before = len(of_request(shop.asked(), "refresh"))
            shop.wait_asked("pricing", '"request":"refresh', before + 2)
            shop.stop()
            outcome = agent.stop()
        assert outcome.balanced
        assert outcome.dropped == {}
        traces = all_traces(backend, outcome.exported)
        asked = shop.asked()

        customers = [trace for trace in traces if service(trace, min(trace["spans"], key=start)) == "front"]
        assert len(customers) == REQUESTS
        for number, trace in enumerate(customers):
            logged = of_request(asked, rf"^request-{number}\.$")
            servers = [service(trace, span) for span in trace["spans"] if kind(span) == "server"]
            clients = [service(trace, span) for span in trace["spans"] if kind(span) == "client"]
            assert Counter(servers) == Counter(line.service for line in logged)
            assert Counter(clients) == Counter(line.by for line in logged if line.by in SERVICES)
            within = Counter((line.by, line.by) for line in logged if line.by in SERVICES)
            assert edges(trace) == calls(logged) + within
        assert {service(trace, span) for trace in customers for span in trace["spans"]} == set(SERVICES)

        whole = [trace for trace in traces if edges(trace) == {("cart", "pricing"): 1}]
        assert 2 <= len(whole) <= len(of_request(asked, "refresh")), "the background job's, each a trace of its own"
        truth = Counter({("cart", "pricing"): len(whole)})
        for line in of_request(asked, "^request-"):
            if line.by in SERVICES:
                truth.update([(line.by, line.service), (line.by, line.by)])
        assert dependencies(backend) == truth

        page = shown_by_browser(backend.trace_url(customers[4]["traceID"]))
        for text in (*SERVICES, "/checkout/", "/quotes/"):
            assert text in page
        page = shown_by_browser(f"{backend.query}/dependencies")
        for name in SERVICES:
            assert f'<div class="DAG--nodeLabel">{name}</div>' in page


def start(span: dict[str, Any]) -> int:
    """Return when a span starts, us."""
    return int(span["startTime"])
