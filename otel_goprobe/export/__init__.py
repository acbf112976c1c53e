"""Columns of spans -> OTLP bytes -> a collector, the console, or nowhere; the agent uses `Encoder` and `make_exporter`.

What an exporter needs is imported when it is chosen: grpc for gRPC only, protobuf and rich for the console only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from otel_goprobe.export.encode import Encoded, Encoder
from otel_goprobe.export.reachability import ProbeResult, probe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    from otel_goprobe.config import Config, MetricsConfig
    from otel_goprobe.model import AttributeValue, Event, Metric
    from otel_goprobe.telemetry import Telemetry

__all__ = [
    "Encoded",
    "Encoder",
    "LogsExporter",
    "MetricsExporter",
    "NullExporter",
    "ProbeResult",
    "PrometheusServer",
    "SpanExporter",
    "encode_logs",
    "encode_own_spans",
    "make_exporter",
    "make_logs_exporter",
    "make_metrics_exporter",
    "probe",
    "serve_prometheus",
    "with_events",
]


class SpanExporter(Protocol):
    """Takes encoded spans; counts each once in `Telemetry`, as exported or as dropped."""

    def submit(self, encoded: Encoded) -> bool:
        """Take a request without waiting; False if it was dropped."""

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything submitted is delivered or given up; False if that took longer."""

    def close(self, timeout_s: float) -> bool:
        """Deliver what is left, within `timeout_s`; False if something had to be cut off."""

    @property
    def reader_gone(self) -> bool:
        """Whether nobody will ever take another span, so that the agent may end (``--exporter console | head``)."""


class NullExporter:
    """``OTEL_TRACES_EXPORTER=none``: nothing is sampled then, and what comes all the same is thrown away."""

    reader_gone = False

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def submit(self, encoded: Encoded) -> bool:
        """Count the spans as exported."""
        self._telemetry.exported(encoded.spans)
        return True

    def flush(self, timeout_s: float) -> bool:  # noqa: ARG002 - the protocol's
        """Nothing is ever left."""
        return True

    def close(self, timeout_s: float) -> bool:  # noqa: ARG002 - the protocol's
        """Nothing is ever left."""
        return True


class MetricsExporter(Protocol):
    """Takes collected metrics."""

    def submit(self, metrics: Sequence[Metric], now_unix_ns: int) -> None:
        """Take them without waiting."""

    def close(self, timeout_s: float) -> None:
        """Deliver what is left, within `timeout_s`."""


class LogsExporter(Protocol):
    """Takes encoded log records."""

    def submit(self, request: ExportLogsServiceRequest) -> None:
        """Take them without waiting."""

    def close(self, timeout_s: float) -> None:
        """Deliver what is left, within `timeout_s`."""


class PrometheusServer(Protocol):
    """Answers scrapes."""

    def close(self) -> None:
        """Stop listening."""


def make_metrics_exporter(name: str, config: MetricsConfig) -> MetricsExporter:
    """Make the exporter ``otlp`` or ``console``.

    Raises:
        UsageError: endpoint, headers, certificate or key can't be used.
    """
    from otel_goprobe.export.metrics import ConsoleMetrics, OtlpMetrics  # noqa: PLC0415 - imports protobuf

    return OtlpMetrics(config.otlp, config.timeout_s) if name == "otlp" and config.otlp else ConsoleMetrics()


def make_logs_exporter(config: Config) -> LogsExporter | None:
    """Make the exporter of log records that `config` asks for; None for none.

    Raises:
        UsageError: endpoint, headers, certificate or key can't be used.
    """
    if config.logs.exporter == "none":
        return None
    from otel_goprobe.export.logs import ConsoleLogs, OtlpLogs  # noqa: PLC0415 - imports protobuf

    return OtlpLogs(config.logs.otlp, config.batch) if config.logs.otlp else ConsoleLogs()


def encode_logs(
    events: Sequence[Event], resources: Mapping[int, Mapping[str, AttributeValue]], scope: str
) -> ExportLogsServiceRequest:
    """See `logs.encode_logs`."""
    from otel_goprobe.export import logs  # noqa: PLC0415 - imports protobuf

    return logs.encode_logs(events, resources, scope)


def encode_own_spans(
    events: Sequence[Event], resources: Mapping[int, Mapping[str, AttributeValue]], scope: str
) -> Encoded:
    """See `own_spans.encode_own_spans`."""
    from otel_goprobe.export import own_spans  # noqa: PLC0415 - imports protobuf

    return own_spans.encode_own_spans(events, resources, scope)


def with_events(shape: bytes, events: Sequence[Event]) -> bytes:
    """See `logs.with_events`."""
    from otel_goprobe.export import logs  # noqa: PLC0415 - imports protobuf

    return logs.with_events(shape, events)


def serve_prometheus(config: MetricsConfig, collect: Callable[[], list[Metric]]) -> PrometheusServer:
    """Answer scrapes with what `collect` returns, which another thread calls.

    Raises:
        UsageError: the address can't be listened on.
    """
    from otel_goprobe.export.prometheus import Server  # noqa: PLC0415 - imports an HTTP server

    return Server(config.prometheus_host, config.prometheus_port, collect)


def make_exporter(config: Config, telemetry: Telemetry) -> SpanExporter:
    """Make the exporter that `config` asks for and start its thread; nothing is sent yet.

    Raises:
        UsageError: endpoint, headers, certificate or key can't be used.
    """
    if config.exporter == "none":
        return NullExporter(telemetry)
    from otel_goprobe.export.queued import QueuedExporter, Sink  # noqa: PLC0415 - `none` has no queue

    sink: Sink
    if config.exporter == "console":
        from otel_goprobe.export.console import ConsoleSink  # noqa: PLC0415 - imports protobuf

        sink = ConsoleSink(json_lines=config.json_lines)
    else:
        from otel_goprobe.export.otlp import OtlpSink  # noqa: PLC0415 - imports http.client or grpc

        sink = OtlpSink(config.otlp, config.batch.export_timeout_s)
    return QueuedExporter(sink, config.batch, telemetry)
