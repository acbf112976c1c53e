"""Durations of all requests, added up in the kernel, whatever becomes a span."""

from __future__ import annotations

import itertools
import json
import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness.agent import Agent, Outcome
from harness.client import Request, at_once, in_turn, one_after_another, page
from harness.receiver import Receiver, _mapping
from harness.target import Target
from opentelemetry.proto.metrics.v1 import metrics_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
DURATION, ACTIVE = "http.server.request.duration", "http.server.active_requests"


@dataclass(frozen=True, slots=True)
class Point:
    """A data point, with what stands around it."""

    export: int
    """Number of the export that it came with."""
    service: str
    scope: str
    metric: metrics_pb2.Metric
    attributes: dict[str, object]
    point: metrics_pb2.HistogramDataPoint | metrics_pb2.ExponentialHistogramDataPoint | metrics_pb2.NumberDataPoint


def points(receiver: Receiver, name: str) -> list[Point]:
    """Return the points of one metric, in the order of their coming."""
    return [
        Point(
            number,
            str(_mapping(of_resource.resource.attributes)["service.name"]),
            of_scope.scope.name,
            metric,
            dict(_mapping(point.attributes)),
            point,
        )
        for number, request in enumerate(receiver.metrics)
        for of_resource in request.resource_metrics
        for of_scope in of_resource.scope_metrics
        for metric in of_scope.metrics
        if metric.name == name
        for point in getattr(metric, str(metric.WhichOneof("data"))).data_points
    ]


def told(request: Request) -> tuple[object, ...]:
    """Return what a series says of a request."""
    error = {0: "*errors.errorString", 500: "500"}.get(request.status)
    return request.method, request.route or None, request.status or None, error


def told_by(point: Point) -> tuple[object, ...]:
    """Return the same of a point."""
    keys = ("http.request.method", "http.route", "http.response.status_code", "error.type")
    return tuple(point.attributes.get(key) for key in keys)


@pytest.fixture(params=["machine", "1.21"])
def server(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Give a server of today's Go, and of the oldest supported."""
    with Target(go_binary("http_server", go="" if request.param == "machine" else request.param)) as target:
        yield target


def run(server: Target, receiver: Receiver, requests: list[Request], *flags: str, **environment: str) -> Outcome:
    """Trace requests one after another, export metrics at the end, and check the balance of spans."""
    variables = {**receiver.environment, "OTEL_METRICS_EXPORTER": "otlp", **environment}
    with Agent("--service", "shop", "--pid", str(server.pid), *flags, environment=variables) as agent:
        agent.attached()
        one_after_another(server.port, requests)
        server.wait_log(len(requests))
        outcome = agent.stop()
    assert outcome.started == len(requests)
    assert outcome.balanced
    return outcome


@pytest.mark.parametrize("sampler", ["always_on", "always_off"])
def test_every_request_is_counted(server: Target, receiver: Receiver, sampler: str) -> None:
    """Also those that don't become spans: counts by method, route, status and error; buckets and sum by duration."""
    requests = in_turn(101)
    run(server, receiver, requests, OTEL_TRACES_SAMPLER=sampler)
    found = points(receiver, DURATION)
    assert Counter({told_by(one): one.point.count for one in found}) == Counter(map(told, requests))
    for one in found:
        assert (one.service, one.scope, one.metric.unit) == ("shop", "otel-goprobe/net/http", "s")
        assert one.metric.histogram.aggregation_temporality == metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
        assert tuple(one.point.explicit_bounds) == BOUNDS
        assert sum(one.point.bucket_counts) == one.point.count
        assert len(one.point.bucket_counts) == len(BOUNDS) + 1
        assert (one.attributes["url.scheme"], one.attributes["network.protocol.version"]) == ("http", "1.1")
        assert one.point.start_time_unix_nano < one.point.time_unix_nano <= time.time_ns()
    log = server.log()
    spent_s = sum(line.end - line.start for line in log) / 1e9
    assert spent_s <= sum(one.point.sum for one in found) <= spent_s + 0.005 * len(log)
    assert len(receiver.spans) == (101 if sampler == "always_on" else 0)


def test_a_duration_falls_into_its_bucket(server: Target, receiver: Receiver) -> None:
    """The buckets hold what the spans' own times say, which are those of sleeps."""
    run(server, receiver, [page("/slow?ms=30")] * 2 + [page("/slow?ms=300")])
    (one,) = points(receiver, DURATION)
    spent_s = sorted((span.end - span.start) / 1e9 for span in receiver.spans)
    assert 0.03 <= spent_s[0] <= spent_s[1] <= spent_s[2]
    assert spent_s[2] >= 0.3
    expected = [0] * (len(BOUNDS) + 1)
    for each in spent_s:
        expected[bisect_left(BOUNDS, each)] += 1
    assert list(one.point.bucket_counts) == expected


def test_methods_nobody_knows_are_one_series(server: Target, receiver: Receiver) -> None:
    """What a client invents makes no series of its own."""
    run(
        server, receiver, [page("/ok", method=f"BREW{number}") for number in range(13)] + [page("/ok", method="x" * 30)]
    )
    (one,) = points(receiver, DURATION)
    assert (one.attributes["http.request.method"], one.point.count) == ("_OTHER", 14)


def test_delta_and_cumulative(receiver: Receiver) -> None:
    """Delta points add up to the cumulative ones, and each begins where the last one ended."""
    with Target(go_binary("http_server")) as server:
        for preference in ("delta", "cumulative"):
            receiver.metrics.clear()
            variables = {
                **receiver.environment,
                "OTEL_METRICS_EXPORTER": "otlp",
                "OTEL_METRIC_EXPORT_INTERVAL": "300",
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": preference,
            }
            with Agent("--pid", str(server.pid), environment=variables) as agent:
                agent.attached()
                for count in (3, 5, 7):
                    before = len(receiver.metrics)
                    one_after_another(server.port, [page("/ok")] * count)
                    receiver.wait_metrics(before + 1)
                assert agent.stop().code == 0
            found = points(receiver, DURATION)
            counts = [one.point.count for one in found]
            if preference == "delta":
                assert sum(counts) == 15
                assert all(
                    a.point.time_unix_nano - b.point.start_time_unix_nano < 10**9 for a, b in itertools.pairwise(found)
                )
            else:
                assert counts == sorted(counts)
                assert counts[-1] == 15
                assert len({one.point.start_time_unix_nano for one in found}) == 1


def test_active_requests(server: Target, receiver: Receiver) -> None:
    """Those that run at the moment of the export, and 0 when they are done."""
    variables = {**receiver.environment, "OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "200"}
    with Agent("--pid", str(server.pid), environment=variables) as agent:
        agent.attached()
        at_once(server.port, [page("/slow?ms=1500")] * 7)
        before = len(receiver.metrics)
        receiver.wait_metrics(before + 2)
        agent.stop()
    found = points(receiver, ACTIVE)
    assert {one.attributes["http.request.method"] for one in found} == {"GET"}
    assert {one.metric.unit for one in found} == {"{request}"}
    assert not any(one.metric.sum.is_monotonic for one in found)
    values = [one.point.as_int for one in found]
    assert max(values) == 7
    assert values[-1] == 0


def test_series_are_bounded(server: Target, receiver: Receiver) -> None:
    """Behind the limit a route is ``_OTHER``; no request is lost, and it is counted how often that was."""
    requests = [page(path) for path in ("/ok", "/empty", "/large", "/chunks", "/hints")] * 7
    outcome = run(server, receiver, requests, "--max-series", "3")
    found = points(receiver, DURATION)
    counts = {one.attributes["http.route"]: one.point.count for one in found}
    assert counts == {"/ok": 7, "/empty": 7, "/large": 7, "_OTHER": 14}
    assert outcome.targets[0]["metric_overflow"] == 14


def test_two_targets_and_one_that_ends(receiver: Receiver) -> None:
    """Each has its own resource and counts; what a target counted before its end is told once more."""
    variables = {**receiver.environment, "OTEL_METRICS_EXPORTER": "otlp"}
    exe = go_binary("http_server")
    with Target(exe) as first, Target(exe) as second:
        pids = ("--service", f"one=pid:{first.pid}", "--service", f"two=pid:{second.pid}")
        with Agent(*pids, environment=variables) as agent:
            agent.attached(2)
            one_after_another(first.port, [page("/ok")] * 5)
            one_after_another(second.port, [page("/ok")] * 7)
            first.wait_log(5)
            first.stop()
            agent.stderr.wait_for("^detached")
            one_after_another(second.port, [page("/ok")] * 4)
            agent.stop()
    assert {one.service: one.point.count for one in points(receiver, DURATION)} == {"one": 5, "two": 11}


def test_console(receiver: Receiver) -> None:
    """One JSON object a collection."""
    with Target(go_binary("http_server")) as server:
        outcome = run(server, receiver, [page("/ok")] * 5, "--metrics-exporter", "console", OTEL_METRICS_EXPORTER="")
    (line,) = outcome.stdout.splitlines()
    (metric,) = json.loads(line)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    assert metric["histogram"]["dataPoints"][0]["count"] == "5"


def test_a_collector_without_metrics(receiver: Receiver) -> None:
    """A 404 for metrics is said once and costs no span."""
    receiver.metrics_path = "/elsewhere"
    with Target(go_binary("http_server")) as server:
        outcome = run(server, receiver, in_turn(23), OTEL_METRIC_EXPORT_INTERVAL="100")
    assert outcome.exported == 23
    assert outcome.stderr.count("doesn't take metrics") == 1
    assert "404" in outcome.stderr


def test_none_is_the_default(receiver: Receiver) -> None:
    """Nobody asked: nothing is counted or sent."""
    with Target(go_binary("http_server")) as server:
        run(server, receiver, [page("/ok")], OTEL_METRICS_EXPORTER="")
    assert receiver.metrics == []
    assert receiver.spans
