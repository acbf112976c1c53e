"""`Event`s of tools that have a span of their own -> OTLP spans; made by tooling.py, sent with all other spans."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.trace.v1 import trace_pb2

from otel_goprobe import __version__
from otel_goprobe.export.encode import SCHEMA_URL, Encoded
from otel_goprobe.export.logs import resource_of
from otel_goprobe.export.metrics import pairs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_goprobe.model import AttributeValue, Event

_LOCAL_PARENT = 0x100
"""SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK: it is known that the parent is of the same process."""


def encode_own_spans(
    events: Sequence[Event], resources: Mapping[int, Mapping[str, AttributeValue]], scope: str
) -> Encoded:
    """Make a span of each: a child of the event's, a root where it has none.

    Args:
        events: of any targets, each with `Event.span` and a trace id.
        resources: attributes of the targets, by slot; of one without, ``service.name=unknown_service:go``.
        scope: name of the instrumentation scope.
    """
    request = ExportTraceServiceRequest()
    instrumentation = InstrumentationScope(name=scope, version=__version__)
    of_slot: dict[int, trace_pb2.ScopeSpans] = {}
    spans = 0
    for event in events:
        own = event.span
        if own is None:
            continue
        if event.slot not in of_slot:
            resource = request.resource_spans.add(resource=resource_of(event.slot, resources), schema_url=SCHEMA_URL)
            of_slot[event.slot] = resource.scope_spans.add(scope=instrumentation, schema_url=SCHEMA_URL)
        span = of_slot[event.slot].spans.add(
            trace_id=event.trace_id,
            span_id=os.urandom(8),
            parent_span_id=event.span_id,
            name=own.name,
            kind=trace_pb2.Span.SpanKind.ValueType(own.kind),
            start_time_unix_nano=event.unix_ns,
            end_time_unix_nano=own.end_unix_ns,
            attributes=pairs(event.attributes),
            flags=1 | _LOCAL_PARENT,
        )
        if "error.type" in event.attributes:
            span.status.code = trace_pb2.Status.STATUS_CODE_ERROR
        spans += 1
    return Encoded(request.SerializeToString(), spans)
