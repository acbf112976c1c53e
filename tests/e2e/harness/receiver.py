"""OTLP receivers in this process: over HTTP and over gRPC, decoding with OpenTelemetry's own protobuf classes."""

from __future__ import annotations

import gzip
import threading
import time
import zlib
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

import grpc  # type: ignore[import-untyped] # it has no annotations
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1 import trace_pb2

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

Value = str | bool | int | float | list[str]


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it arrived."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_span_id: str
    trace_state: str
    flags: int
    """W3C's trace flags, 0x100, and 0x200 where the parent came over the wire."""
    start: int
    """Unix time, ns."""
    end: int
    attributes: dict[str, Value]
    error: bool
    """Whether the status is ERROR; it is UNSET otherwise, never OK."""
    status_message: str
    resource: dict[str, Value] = field(repr=False)
    scope: str = field(repr=False)
    events: tuple[Event, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    """Trace id and span id of each."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a span, or a log record, as it arrived."""

    name: str
    unix_ns: int
    attributes: dict[str, Value]
    severity: str = ""
    """Of a log record."""
    body: str = ""
    trace_id: str = ""
    span_id: str = ""


def _value(any_value: AnyValue) -> Value:
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [item.string_value for item in any_value.array_value.values]
    value: Value = getattr(any_value, str(kind))
    return value


def _mapping(pairs: object) -> dict[str, Value]:
    result: dict[str, Value] = {}
    pair: KeyValue
    for pair in pairs:  # type: ignore[attr-defined] # a RepeatedCompositeFieldContainer, which has no public name
        assert pair.key not in result, f"attribute {pair.key} is there twice"
        result[pair.key] = _value(pair.value)
    return result


def decode(request: ExportTraceServiceRequest) -> list[Span]:
    """Return the spans of one export."""
    spans = []
    for resource_spans in request.resource_spans:
        resource = _mapping(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                assert span.status.code != trace_pb2.Status.STATUS_CODE_OK, "OK is the application's to say"
                spans.append(
                    Span(
                        name=span.name,
                        kind=span.kind,
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_span_id=span.parent_span_id.hex(),
                        trace_state=span.trace_state,
                        flags=span.flags,
                        start=span.start_time_unix_nano,
                        end=span.end_time_unix_nano,
                        attributes=_mapping(span.attributes),
                        error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                        status_message=span.status.message,
                        resource=resource,
                        scope=scope_spans.scope.name,
                        events=tuple(
                            Event(event.name, event.time_unix_nano, _mapping(event.attributes)) for event in span.events
                        ),
                        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    )
                )
    return spans


def decode_logs(request: ExportLogsServiceRequest) -> list[Event]:
    """Return the log records of one export."""
    return [
        Event(
            record.event_name,
            record.time_unix_nano,
            _mapping(record.attributes),
            record.severity_text,
            record.body.string_value,
            record.trace_id.hex(),
            record.span_id.hex(),
        )
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


class _Store:
    """Spans that have arrived."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._changed = threading.Condition()
        self.exports = 0
        self.headers: list[dict[str, str]] = []

    def _keep(self, request: ExportTraceServiceRequest, headers: dict[str, str]) -> None:
        spans = decode(request)
        with self._changed:
            self._spans += spans
            self.exports += 1
            self.headers.append(headers)
            self._changed.notify_all()

    @property
    def spans(self) -> list[Span]:
        """All spans so far, by start."""
        with self._changed:
            return sorted(self._spans, key=lambda span: span.start)

    def wait_for(self, count: int, timeout_s: float = 20.0) -> list[Span]:
        """Wait for at least `count` spans and return all.

        Raises:
            TimeoutError: fewer came.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._spans) >= count, timeout_s):
                raise TimeoutError(f"{len(self._spans)} of {count} spans came within {timeout_s} s")
        return self.spans

    def close(self) -> None:
        """Stop listening."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    receiver: Receiver


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        """Take an export, or answer as the test wants it."""
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers["Content-Length"]))
        receiver.asked += 1
        receiver.go_on.wait()
        if self.path == receiver.metrics_path:
            receiver.keep_metrics(ExportMetricsServiceRequest.FromString(body))
            self.answer(receiver.status, ExportMetricsServiceResponse().SerializeToString())
            return
        if self.path == receiver.logs_path:
            receiver.logs += decode_logs(ExportLogsServiceRequest.FromString(body))
            self.answer(receiver.status, ExportLogsServiceResponse().SerializeToString())
            return
        status = receiver.status if self.path == receiver.path else 404
        answer = b""
        if status == 200:
            match self.headers.get("Content-Encoding", "identity"):
                case "gzip":
                    body = gzip.decompress(body)
                case "deflate":
                    body = zlib.decompress(body)
            receiver._keep(ExportTraceServiceRequest.FromString(body), dict(self.headers))
            response = ExportTraceServiceResponse()
            if receiver.rejects:
                response.partial_success.rejected_spans = receiver.rejects
                response.partial_success.error_message = "not these"
            answer = response.SerializeToString()
        self.answer(status, answer)

    def answer(self, status: int, answer: bytes) -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep the tests' output clean."""


class Receiver(_Store):
    """OTLP over HTTP on 127.0.0.1.

    Args:
        port: 0 takes a free one.

    Attributes:
        status: what it answers; anything but 200 keeps no span.
        rejects: spans of each export that it says it rejects (a partial success).
        go_on: cleared, it holds every export until it is set.
        asked: exports that have come, answered or not.
    """

    path = "/v1/traces"
    metrics_path = "/v1/metrics"
    logs_path = "/v1/logs"

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        self.status = 200
        self.rejects = 0
        self.asked = 0
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.logs: list[Event] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.receiver = self
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_address[1]

    @property
    def environment(self) -> dict[str, str]:
        """What points the agent here."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}"}

    def keep_metrics(self, request: ExportMetricsServiceRequest) -> None:
        """Take an export of metrics."""
        with self._changed:
            self.metrics.append(request)
            self._changed.notify_all()

    def wait_metrics(self, count: int, timeout_s: float = 20.0) -> None:
        """Wait for at least `count` exports of metrics.

        Raises:
            TimeoutError: fewer came.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.metrics) >= count, timeout_s):
                raise TimeoutError(f"{len(self.metrics)} of {count} exports of metrics came within {timeout_s} s")

    def close(self) -> None:
        """Stop listening."""
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()


class GrpcReceiver(_Store, trace_service_pb2_grpc.TraceServiceServicer):
    """OTLP over gRPC on 127.0.0.1."""

    def __init__(self) -> None:
        super().__init__()
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call] # generated
            self, self._server
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    @property
    def environment(self) -> dict[str, str]:
        """What points the agent here."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        }

    def Export(  # noqa: N802 - the service's name for it
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        """Take an export."""
        self._keep(request, {key: str(value) for key, value in context.invocation_metadata()})
        return ExportTraceServiceResponse()

    def close(self) -> None:
        """Stop listening."""
        self._server.stop(None).wait()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on at this moment."""
    receiver = Receiver()
    receiver.close()
    time.sleep(0)
    return receiver.port
