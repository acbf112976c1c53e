"""A real OpenTelemetry Collector receives the spans over HTTP and over gRPC (`make test-jaeger`)."""

from __future__ import annotations

from typing import Any

import pytest
from backends.backends import collector, wait_until
from goprograms import go_binary
from harness import expect
from harness.agent import Agent
from harness.client import in_turn, one_after_another
from harness.target import Target

pytestmark = [pytest.mark.root, pytest.mark.collector, pytest.mark.timeout(900)]


def attributes(span: dict[str, Any]) -> dict[str, str | int]:
    """Return the attributes of a span in OTLP's JSON, in which 64-bit integers are strings."""
    return {
        pair["key"]: int(pair["value"]["intValue"]) if "intValue" in pair["value"] else pair["value"]["stringValue"]
        for pair in span["attributes"]
    }


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_collector_receives_every_span(protocol: str) -> None:
    """23 requests, 23 spans with all attributes, as the Collector passes them on."""
    requests = in_turn(23)
    with collector() as backend, Target(go_binary("http_server")) as server:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": backend.otlp_grpc if protocol == "grpc" else backend.otlp_http,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        }
        with Agent("--service", "shop", "--pid", str(server.pid), environment=environment) as agent:
            agent.attached()
            one_after_another(server.port, requests)
            log = server.wait_log(23)
            outcome = agent.stop()
        spans = sorted(backend.wait_for_spans(23), key=lambda span: int(span["startTimeUnixNano"]))
    assert (outcome.started, outcome.exported, outcome.dropped) == (23, 23, {})
    assert len(spans) == 23
    for span, line, request in zip(spans, log, requests, strict=True):
        expected = expect.attributes(line, route=request.route)
        assert attributes(span) == expected
        assert span["name"] == expect.name(expected)
        assert span["scope"] == "otel-goprobe/net/http"
        assert {"key": "service.name", "value": {"stringValue": "shop"}} in span["resource"]


@pytest.mark.parametrize("aggregation", ["explicit_bucket_histogram", "base2_exponential_bucket_histogram"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_collector_receives_metrics(protocol: str, aggregation: str) -> None:
    """23 requests in the histograms that the Collector passes on, of either kind, and spans of theirs as exemplars."""
    with collector() as backend, Target(go_binary("http_server")) as server:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": backend.otlp_grpc if protocol == "grpc" else backend.otlp_http,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": aggregation,
        }
        with Agent("--service", "shop", "--pid", str(server.pid), environment=environment) as agent:
            agent.attached()
            one_after_another(server.port, in_turn(23))
            server.wait_log(23)
            outcome = agent.stop()
        spans = {span["spanId"]: span for span in backend.wait_for_spans(23)}
        wait_until(backend.metrics, 10)
        metrics = backend.metrics()
    assert (outcome.exported, "doesn't take" in outcome.stderr) == (23, False)
    (metric,) = [metric for metric in metrics if metric["name"] == "http.server.request.duration"]
    assert (metric["unit"], metric["scope"]) == ("s", "otel-goprobe/net/http")
    assert {"key": "service.name", "value": {"stringValue": "shop"}} in metric["resource"]
    exponential = aggregation.startswith("base2")
    points = metric["exponentialHistogram" if exponential else "histogram"]["dataPoints"]
    assert sum(int(point["count"]) for point in points) == 23
    for point in points:
        counts = point["positive"]["bucketCounts"] if exponential else point["bucketCounts"]
        assert sum(map(int, counts)) == int(point["count"])
        assert point["exemplars"]
        for exemplar in point["exemplars"]:
            span = spans[exemplar["spanId"]]
            assert span["traceId"] == exemplar["traceId"]
            assert int(span["endTimeUnixNano"]) == int(exemplar["timeUnixNano"])
            told = attributes(span)
            assert attributes(point).items() <= told.items()
