"""What a scrape says, read by Prometheus' own parsers."""

from __future__ import annotations

import socket
import urllib.request
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from otel_goprobe import __version__
from otel_goprobe.errors import UsageError
from otel_goprobe.export.prometheus import Server
from otel_goprobe.model import Exemplar, HistogramPoint, Metric, SumPoint

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE = {
    "service.name": "one",
    "service.instance.id": "a",
    "process.pid": 7,
    "telemetry.sdk.name": "x",
    "args": ["a", "b"],
}
TWO = {"service.namespace": "shops", "service.name": 'tw"o\n', "service.instance.id": "b", "process.pid": 8}
SPAN = Exemplar(1_790_000_000_500_000_000, 0.15, bytes(range(16)), bytes(range(8)))
METRICS = [
    Metric(
        "otel-goprobe/net/http",
        "http.server.request.duration",
        "s",
        "How long.",
        (
            HistogramPoint(ONE, {"http.route": "/", "http.response.status_code": 200}, 5, (1, 2, 3), 0.75, (SPAN,)),
            HistogramPoint(ONE, {"http.route": "/", "error.type": "500"}, 5, (0, 1, 0), 0.15),
            HistogramPoint(TWO, {"http.route": "/"}, 5, (0, 0, 1), 2.5),
        ),
        (0.1, 1.0),
    ),
    Metric(
        "otel-goprobe/net/http", "http.server.active_requests", "{request}", "How many.", (SumPoint(ONE, {}, 5, 3),)
    ),
    Metric("otel-goprobe", "calls", "1", "Calls.", (SumPoint(ONE, {"client": "a"}, 5, 11),), monotonic=True),
]
COMMON = {
    "job": "one",
    "instance": "a",
    "otel_scope_name": "otel-goprobe/net/http",
    "otel_scope_version": __version__,
}


@pytest.fixture
def url() -> Iterator[str]:
    """Give the address of a server that tells `METRICS`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Server("127.0.0.1", port, lambda: METRICS)
    yield f"http://127.0.0.1:{port}/metrics"
    server.close()


def scrape(url: str, accept: str = "") -> str:
    """Return what a scraper gets."""
    request = urllib.request.Request(url, headers={"Accept": accept} if accept else {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def test_text_format(url: str) -> None:
    """Names, units, labels, cumulative buckets; a resource each."""
    families = {family.name: family for family in plain_text(scrape(url))}
    assert set(families) == {
        "target_info",
        "http_server_request_duration_seconds",
        "http_server_active_requests",
        "calls",
    }
    duration = families["http_server_request_duration_seconds"]
    assert (duration.type, duration.documentation) == ("histogram", "How long.")
    of_one = {
        sample.labels["le"]: sample.value
        for sample in duration.samples
        if sample.name.endswith("_bucket") and sample.labels.get("http_response_status_code") == "200"
    }
    assert of_one == {"0.1": 1, "1.0": 3, "+Inf": 6}
    sums = {
        (sample.labels["job"], sample.labels.get("error_type", "")): sample.value
        for sample in duration.samples
        if sample.name.endswith("_sum")
    }
    assert sums == {("one", ""): 0.75, ("one", "500"): 0.15, ('shops/tw"o\n', ""): 2.5}
    (active,) = families["http_server_active_requests"].samples
    assert families["http_server_active_requests"].type == "gauge"
    assert active.value == 3
    assert COMMON.items() <= active.labels.items()
    (calls,) = families["calls"].samples
    assert (families["calls"].type, calls.name, calls.value, calls.labels["client"]) == (
        "counter",
        "calls_total",
        11,
        "a",
    )
    info = {sample.labels["instance"]: sample for sample in families["target_info"].samples}
    assert {key: value for key, value in info["a"].labels.items() if value} == {
        "job": "one",
        "instance": "a",
        "process_pid": "7",
        "telemetry_sdk_name": "x",
        "args": '["a","b"]',
    }
    assert info["b"].labels["job"] == 'shops/tw"o\n'
    assert {sample.value for sample in info.values()} == {1}


def test_openmetrics_has_exemplars(url: str) -> None:
    """At the bucket that its value falls into, with the ids in hexadecimal."""
    text = scrape(url, "application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    families = {family.name: family for family in openmetrics(text)}
    assert families["http_server_request_duration_seconds"].unit == "seconds"
    found = [
        (sample.labels["le"], sample.exemplar)
        for sample in families["http_server_request_duration_seconds"].samples
        if sample.exemplar
    ]
    ((le, exemplar),) = found
    assert le == "1.0"
    assert (exemplar.value, exemplar.labels) == (
        0.15,
        {"trace_id": SPAN.trace_id.hex(), "span_id": SPAN.span_id.hex()},
    )
    assert float(exemplar.timestamp) == 1_790_000_000.5


def test_a_port_in_use(url: str) -> None:
    """Is said in a sentence that names it; an address of no interface too."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    with pytest.raises(UsageError, match=rf"127\.0\.0\.1:{port}: Address already in use"):
        Server("127.0.0.1", port, list)
    with pytest.raises(UsageError, match=r"203\.0\.113\.7:1"):
        Server("203.0.113.7", 1, list)
    with pytest.raises(UsageError, match="70000"):
        Server("127.0.0.1", 70000, list)
