"""`Metric`s -> OTLP ``ExportMetricsServiceRequest`` -> a collector or the console; made by the agent on request.

By the official protobuf classes: a few hundred points a minute are no hot path. Not by the SDK's OTLP metric exporter,
whose pipeline begins at an instrument, while these have been added up in the kernel. Sent by the queue, thread, retries
and transports that spans have.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2

from otel_goprobe import __version__
from otel_goprobe.config import BatchConfig
from otel_goprobe.export.encode import SCHEMA_URL, Encoded
from otel_goprobe.export.otlp import METRICS, OtlpSink
from otel_goprobe.export.queued import QueuedExporter
from otel_goprobe.model import HistogramPoint
from otel_goprobe.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_goprobe.config import OtlpConfig
    from otel_goprobe.model import AttributeValue, Metric, SumPoint

_CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
_DELTA = metrics_pb2.AGGREGATION_TEMPORALITY_DELTA


def encode(metrics: Sequence[Metric], now_unix_ns: int) -> ExportMetricsServiceRequest:
    """Group points by resource, scope and metric, as OTLP nests them."""
    request = ExportMetricsServiceRequest()
    resources: dict[int, metrics_pb2.ResourceMetrics] = {}
    scopes: dict[tuple[int, str], metrics_pb2.ScopeMetrics] = {}
    for metric in metrics:
        for point in metric.points:
            of = id(point.resource)
            if of not in resources:
                resources[of] = request.resource_metrics.add(schema_url=SCHEMA_URL)
                resources[of].resource.attributes.extend(pairs(point.resource))
            if (of, metric.scope) not in scopes:
                scope = InstrumentationScope(name=metric.scope, version=__version__)
                scopes[of, metric.scope] = resources[of].scope_metrics.add(scope=scope, schema_url=SCHEMA_URL)
            written = scopes[of, metric.scope].metrics
            if not written or written[-1].name != metric.name:
                written.add(name=metric.name, unit=metric.unit, description=metric.description)
            _add(written[-1], metric, point, now_unix_ns)
    return request


def _add(written: metrics_pb2.Metric, metric: Metric, point: HistogramPoint | SumPoint, now_unix_ns: int) -> None:
    if isinstance(point, HistogramPoint) and point.scale is not None:
        written.exponential_histogram.aggregation_temporality = _DELTA if metric.delta else _CUMULATIVE
        written.exponential_histogram.data_points.add(
            attributes=pairs(point.attributes),
            start_time_unix_nano=point.start_unix_ns,
            time_unix_nano=now_unix_ns,
            count=sum(point.counts),
            sum=point.sum_s,
            scale=point.scale,
            positive={"offset": point.offset, "bucket_counts": point.counts},
            exemplars=_exemplars(point),
        )
    elif isinstance(point, HistogramPoint):
        written.histogram.aggregation_temporality = _DELTA if metric.delta else _CUMULATIVE
        written.histogram.data_points.add(
            attributes=pairs(point.attributes),
            start_time_unix_nano=point.start_unix_ns,
            time_unix_nano=now_unix_ns,
            count=sum(point.counts),
            sum=point.sum_s,
            bucket_counts=point.counts,
            explicit_bounds=metric.bounds,
            exemplars=_exemplars(point),
        )
    else:
        written.sum.aggregation_temporality = _CUMULATIVE
        written.sum.is_monotonic = metric.monotonic
        written.sum.data_points.add(
            attributes=pairs(point.attributes),
            start_time_unix_nano=point.start_unix_ns,
            time_unix_nano=now_unix_ns,
            as_int=point.value,
        )


def _exemplars(point: HistogramPoint) -> list[metrics_pb2.Exemplar]:
    return [
        metrics_pb2.Exemplar(
            time_unix_nano=exemplar.unix_ns,
            as_double=exemplar.value_s,
            trace_id=exemplar.trace_id,
            span_id=exemplar.span_id,
        )
        for exemplar in point.exemplars
    ]


def pairs(attributes: Mapping[str, AttributeValue]) -> list[KeyValue]:
    """Return attributes as OTLP has them."""
    return [KeyValue(key=key, value=value(each)) for key, each in attributes.items()]


def value(of: AttributeValue) -> AnyValue:
    """Return a value as OTLP has it."""
    if isinstance(of, str):
        return AnyValue(string_value=of.encode("utf-8", "replace").decode())
    if isinstance(of, bool):
        return AnyValue(bool_value=of)
    if isinstance(of, int):
        return AnyValue(int_value=of)
    if isinstance(of, float):
        return AnyValue(double_value=of)
    return AnyValue(array_value=ArrayValue(values=[value(element) for element in of]))


class ConsoleMetrics:
    """``OTEL_METRICS_EXPORTER=console``: one JSON object a collection and line, OTLP's own mapping."""

    def submit(self, metrics: Sequence[Metric], now_unix_ns: int) -> None:
        """Print them."""
        print(MessageToJson(encode(metrics, now_unix_ns), indent=None), file=sys.stdout, flush=True)

    def close(self, timeout_s: float) -> None:
        """Nothing is ever left."""


class OtlpMetrics:
    """``OTEL_METRICS_EXPORTER=otlp``: sends them with the retries of spans; they aren't counted as spans."""

    def __init__(self, config: OtlpConfig, timeout_s: float) -> None:
        sink = OtlpSink(config, timeout_s, telemetry=METRICS)
        self._queue = QueuedExporter(sink, BatchConfig(schedule_delay_s=0), Telemetry())

    def submit(self, metrics: Sequence[Metric], now_unix_ns: int) -> None:
        """Queue them; a queue that is full has lost collections of hours."""
        self._queue.submit(Encoded(encode(metrics, now_unix_ns).SerializeToString(), 0))

    def close(self, timeout_s: float) -> None:
        """Deliver what is queued, within `timeout_s`."""
        self._queue.close(timeout_s)
