"""Metrics as OTLP, and what configures them."""

from __future__ import annotations

from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.metrics.v1 import metrics_pb2

from otel_goprobe import config
from otel_goprobe.errors import UsageError
from otel_goprobe.export import make_metrics_exporter
from otel_goprobe.export.metrics import ConsoleMetrics, OtlpMetrics, encode
from otel_goprobe.model import Exemplar, HistogramPoint, Metric, SumPoint

ONE, TWO = {"service.name": "one"}, {"service.name": "two", "process.command_args": ["a", "\udc80"]}


def histogram(resource: dict[str, object], *counts: int, route: str = "/") -> HistogramPoint:
    """Return a point that began at 5."""
    return HistogramPoint(resource, {"http.route": route, "http.response.status_code": 200}, 5, counts, 0.25)


def test_points_are_nested_as_otlp_has_them() -> None:
    """One resource, one scope, one metric, however the points come."""
    points = (histogram(ONE, 1, 2, 3), histogram(TWO, 0, 1, 0), histogram(ONE, 1, 0, 0, route="\udc80"))
    duration = Metric("scope", "duration", "s", "How long.", points, (0.1, 0.2))
    active = Metric("scope", "active", "{request}", "How many.", (SumPoint(ONE, {}, 5, 0), SumPoint(TWO, {}, 5, 3)))
    request = encode([duration, active], 9)
    assert [len(of.scope_metrics) for of in request.resource_metrics] == [1, 1]
    names = [[metric.name for metric in of.scope_metrics[0].metrics] for of in request.resource_metrics]
    assert names == [["duration", "active"]] * 2
    first, second = request.resource_metrics[0].scope_metrics[0].metrics
    assert [(point.count, list(point.bucket_counts)) for point in first.histogram.data_points] == [
        (6, [1, 2, 3]),
        (1, [1, 0, 0]),
    ]
    point = first.histogram.data_points[0]
    assert (point.sum, list(point.explicit_bounds)) == (0.25, [0.1, 0.2])
    assert (point.start_time_unix_nano, point.time_unix_nano) == (5, 9)
    assert first.histogram.data_points[1].attributes[0].value.string_value == "?"
    assert (second.sum.data_points[0].WhichOneof("value"), second.sum.is_monotonic) == ("as_int", False)


def test_temporality() -> None:
    """Delta is for histograms; a sum that can fall is always cumulative."""
    duration = Metric("scope", "duration", "s", "", (histogram(ONE, 1, 0),), (0.1,), delta=True)
    active = Metric("scope", "active", "1", "", (SumPoint(ONE, {}, 5, 1),), delta=True)
    first, second = encode([duration, active], 9).resource_metrics[0].scope_metrics[0].metrics
    assert first.histogram.aggregation_temporality == metrics_pb2.AGGREGATION_TEMPORALITY_DELTA
    assert second.sum.aggregation_temporality == metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
    calls = Metric("scope", "calls", "1", "", (SumPoint(ONE, {}, 5, 1),), monotonic=True)
    assert encode([calls], 9).resource_metrics[0].scope_metrics[0].metrics[0].sum.is_monotonic


def test_exponential_points_and_exemplars() -> None:
    """Scale, offset and counts of the positive range; ids and value of the exemplar."""
    exemplar = Exemplar(8, 0.25, bytes(range(16)), bytes(range(8)))
    point = HistogramPoint(ONE, {}, 5, (1, 0, 2), 0.75, (exemplar,), scale=3, offset=-17)
    metric = encode([Metric("scope", "duration", "s", "", (point,))], 9).resource_metrics[0].scope_metrics[0].metrics[0]
    (written,) = metric.exponential_histogram.data_points
    assert (written.count, written.sum, written.scale, written.zero_count) == (3, 0.75, 3, 0)
    assert (written.positive.offset, list(written.positive.bucket_counts)) == (-17, [1, 0, 2])
    told = written.exemplars[0]
    assert (told.time_unix_nano, told.as_double) == (8, 0.25)
    assert (told.trace_id, told.span_id) == (bytes(range(16)), bytes(range(8)))


def read(flags: config.Flags | None = None, **variables: str) -> config.MetricsConfig:
    """Return what the environment says of metrics."""
    return config.from_environment_and_flags(flags or config.Flags(), variables).metrics


def test_destination_is_that_of_metrics() -> None:
    """Their own variables come first, the general endpoint gets their own path."""
    general = read(
        OTEL_METRICS_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://a:1/b",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://traces:1",
        OTEL_EXPORTER_OTLP_METRICS_HEADERS="key=value",
        OTEL_EXPORTER_OTLP_HEADERS="key=other",
    )
    assert general.otlp is not None
    assert (general.otlp.endpoint, general.otlp.headers) == ("http://a:1/b/v1/metrics", (("key", "value"),))
    own = read(OTEL_METRICS_EXPORTER="otlp", OTEL_EXPORTER_OTLP_METRICS_ENDPOINT="http://m:1/x")
    assert own.otlp is not None
    assert own.otlp.endpoint == "http://m:1/x"
    for flag in ("http://c:1", "http://c:1/", "http://c:1/v1/traces"):
        flagged = read(config.Flags(endpoint=flag, metrics_exporter="otlp"))
        assert flagged.otlp is not None
        assert flagged.otlp.endpoint == "http://c:1/v1/metrics"


def test_variables() -> None:
    """Interval, temporality, exporter; none unless somebody asks."""
    assert read() == config.MetricsConfig()
    assert read().exporters == ()
    asked = read(
        OTEL_METRICS_EXPORTER="console",
        OTEL_METRIC_EXPORT_INTERVAL="1500",
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="Delta",
    )
    assert (asked.exporters, asked.otlp, asked.interval_s, asked.delta) == (("console",), None, 1.5, True)


def test_several_exporters() -> None:
    """A list with commas; what nobody knows is warned about, in a flag it ends the run."""
    assert read(OTEL_METRICS_EXPORTER="Prometheus, otlp,none,otlp").exporters == ("prometheus", "otlp")
    assert read(config.Flags(metrics_exporter="console,otlp"), OTEL_METRICS_EXPORTER="none").exporters == (
        "console",
        "otlp",
    )
    asked = config.from_environment_and_flags(config.Flags(), {"OTEL_METRICS_EXPORTER": "otlp,statsd"})
    assert asked.metrics.exporters == ("otlp",)
    assert any("statsd is none of" in warning for warning in asked.warnings)
    with pytest.raises(UsageError, match="--metrics-exporter"):
        read(config.Flags(metrics_exporter="otlp,statsd"))


def test_prometheus_variables() -> None:
    """The specification's defaults, and what is set."""
    assert (read().prometheus_host, read().prometheus_port) == ("localhost", 9464)
    asked = read(OTEL_EXPORTER_PROMETHEUS_HOST="0.0.0.0", OTEL_EXPORTER_PROMETHEUS_PORT="9999")
    assert (asked.prometheus_host, asked.prometheus_port) == ("0.0.0.0", 9999)


@pytest.mark.parametrize(
    ("exporters", "aggregation", "exponential", "warnings"),
    [
        ("otlp", "base2_exponential_bucket_histogram", True, 0),
        ("console", "Base2_Exponential_Bucket_Histogram", True, 0),
        ("otlp", "explicit_bucket_histogram", False, 0),
        ("otlp", "", False, 0),
        ("none", "base2_exponential_bucket_histogram", False, 0),
        ("otlp,prometheus", "base2_exponential_bucket_histogram", False, 1),
        ("otlp", "exponential", False, 1),
    ],
)
def test_aggregation(exporters: str, aggregation: str, exponential: bool, warnings: int) -> None:
    """Exponential where it is asked for and every exporter can tell it."""
    name = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
    asked = config.from_environment_and_flags(config.Flags(), {"OTEL_METRICS_EXPORTER": exporters, name: aggregation})
    assert asked.red_exponential == exponential
    assert len([warning for warning in asked.warnings if name in warning]) == warnings


def test_exemplar_filter() -> None:
    """All three, the specification's default, a warning for what is none."""
    assert read().exemplars == "trace_based"
    assert read(OTEL_METRICS_EXEMPLAR_FILTER="always_off").exemplars == "always_off"
    assert read(OTEL_METRICS_EXEMPLAR_FILTER="ALWAYS_ON").exemplars == "always_on"
    assert read(OTEL_METRICS_EXEMPLAR_FILTER="sometimes").exemplars == "trace_based"


def test_nothing_is_read_for_spans_that_go_nowhere() -> None:
    """Without an exporter of spans no header is looked for; the endpoint may still be that of metrics."""
    asked = config.from_environment_and_flags(
        config.Flags(exporter="none", metrics_exporter="otlp", endpoint="http://c:1", user_agent=True), {}
    )
    assert (asked.traces, asked.tracecontext, asked.user_agent) == (False, False, False)
    assert asked.metrics.otlp
    assert asked.metrics.otlp.endpoint == "http://c:1/v1/metrics"


def test_exporters() -> None:
    """Each kind is made, and closes with nothing sent."""
    for name, kind in (("console", ConsoleMetrics), ("otlp", OtlpMetrics)):
        exporter = make_metrics_exporter(name, read(OTEL_METRICS_EXPORTER=name))
        assert isinstance(exporter, kind)
        exporter.close(1)


class _Service(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self) -> None:
        self.names: list[str] = []

    def Export(  # noqa: N802 - the service's name for it
        self, request: metrics_service_pb2.ExportMetricsServiceRequest, _context: grpc.ServicerContext
    ) -> metrics_service_pb2.ExportMetricsServiceResponse:
        self.names += [metric.name for metric in request.resource_metrics[0].scope_metrics[0].metrics]
        return metrics_service_pb2.ExportMetricsServiceResponse()


def test_over_grpc() -> None:
    """They reach the service of metrics, not that of spans."""
    service, server = _Service(), grpc.server(futures.ThreadPoolExecutor(1))
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    endpoint = f"http://127.0.0.1:{port}"
    asked = read(OTEL_METRICS_EXPORTER="otlp", OTEL_EXPORTER_OTLP_PROTOCOL="grpc", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    exporter = make_metrics_exporter("otlp", asked)
    exporter.submit([Metric("scope", "active", "1", "", (SumPoint(ONE, {}, 5, 1),))], 9)
    exporter.close(5)
    server.stop(None).wait()
    assert service.names == ["active"]
