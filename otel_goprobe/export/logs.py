"""`Event`s of tools -> OTLP: log records to a collector or the console, and events of spans; made by tooling.py.

By the official protobuf classes, and sent by the queue, thread, retries and transports that spans have.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_goprobe import __version__
from otel_goprobe.export.encode import SCHEMA_URL, Encoded
from otel_goprobe.export.metrics import pairs, value
from otel_goprobe.export.otlp import LOGS, OtlpSink
from otel_goprobe.export.queued import QueuedExporter
from otel_goprobe.export.wire import LENGTH, message, tag, varint
from otel_goprobe.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_goprobe.config import BatchConfig, OtlpConfig
    from otel_goprobe.model import AttributeValue, Event

MAX_SPAN_EVENTS = 128
"""Of one span: the specification's default, "Span Limits"; more are counted in the span's ``dropped_events_count``."""


def resource_of(slot: int, resources: Mapping[int, Mapping[str, AttributeValue]]) -> Resource:
    """Return a target's, of ``service.name=unknown_service:go`` where none is known."""
    return Resource(attributes=pairs(resources.get(slot, {"service.name": "unknown_service:go"})))


def encode_logs(
    events: Sequence[Event], resources: Mapping[int, Mapping[str, AttributeValue]], scope: str
) -> ExportLogsServiceRequest:
    """Group events by resource, as OTLP nests them.

    Args:
        events: of any targets; one whose slot is in no resource gets ``service.name=unknown_service:go``.
        resources: attributes of the targets, by slot.
        scope: name of the instrumentation scope.
    """
    request = ExportLogsServiceRequest()
    instrumentation = InstrumentationScope(name=scope, version=__version__)
    of_slot: dict[int, logs_pb2.ScopeLogs] = {}
    observed = time.time_ns()
    for event in events:
        if event.slot not in of_slot:
            resource = request.resource_logs.add(resource=resource_of(event.slot, resources), schema_url=SCHEMA_URL)
            of_slot[event.slot] = resource.scope_logs.add(scope=instrumentation, schema_url=SCHEMA_URL)
        of_slot[event.slot].log_records.add(
            time_unix_nano=event.unix_ns,
            observed_time_unix_nano=observed,
            severity_number=logs_pb2.SEVERITY_NUMBER_WARN if event.warning else logs_pb2.SEVERITY_NUMBER_INFO,
            severity_text="WARN" if event.warning else "INFO",
            event_name=event.name,
            body=value(event.body),
            attributes=pairs(event.attributes),
            trace_id=event.trace_id,
            span_id=event.span_id,
            flags=int(event.sampled),
        )
    return request


def with_events(shape: bytes, events: Sequence[Event]) -> bytes:
    """Return a span's shape, as `Encoder.shapes` gives it, that carries events as well.

    Shapes begin with a tag and the length of all of the span; fields of a message may come in any order.
    """
    body_at, length = 1, 0
    for shift in range(0, 64, 7):
        byte = shape[body_at]
        body_at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    added = b"".join(
        message(
            11,
            Span.Event(
                time_unix_nano=event.unix_ns, name=event.name, attributes=pairs(event.attributes)
            ).SerializeToString(),
        )
        for event in events[:MAX_SPAN_EVENTS]
    )
    if len(events) > MAX_SPAN_EVENTS:
        added += tag(12, 0) + varint(len(events) - MAX_SPAN_EVENTS)
    return tag(2, LENGTH) + varint(length + len(added)) + shape[body_at:] + added


class ConsoleLogs:
    """``OTEL_LOGS_EXPORTER=console``: one JSON object a batch and line, OTLP's own mapping."""

    def submit(self, request: ExportLogsServiceRequest) -> None:
        """Print it."""
        print(MessageToJson(request, indent=None), file=sys.stdout, flush=True)

    def close(self, timeout_s: float) -> None:
        """Nothing is ever left."""


class OtlpLogs:
    """``OTEL_LOGS_EXPORTER=otlp``: sends them with the retries of spans; they aren't counted as spans."""

    def __init__(self, config: OtlpConfig, batch: BatchConfig) -> None:
        self.telemetry = Telemetry()
        """Of log records."""
        sink = OtlpSink(config, batch.export_timeout_s, telemetry=LOGS)
        self._queue = QueuedExporter(sink, batch, self.telemetry)

    def submit(self, request: ExportLogsServiceRequest) -> None:
        """Queue it; a full queue drops the oldest and counts them."""
        records = sum(len(scope.log_records) for each in request.resource_logs for scope in each.scope_logs)
        self._queue.submit(Encoded(request.SerializeToString(), records))

    def close(self, timeout_s: float) -> None:
        """Deliver what is queued, within `timeout_s`."""
        self._queue.close(timeout_s)
