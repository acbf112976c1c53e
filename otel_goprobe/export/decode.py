"""Bytes of an ``ExportTraceServiceRequest`` -> spans, by the official protobuf classes; called by console.py.

Whatever wants spans rather than bytes gets them from here, so that encode.py stays the only mapping from columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

from otel_goprobe.model import SpanKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

    from otel_goprobe.model import AttributeValue


class Link(NamedTuple):
    """A span that another is linked to."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Span:
    """One span as a receiver sees it."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    parent_span_id: str
    """16 hexadecimal digits; empty for a root."""
    flags: int
    """``SpanFlags``."""
    name: str
    kind: SpanKind
    start_unix_ns: int
    end_unix_ns: int
    error: bool
    attributes: Mapping[str, AttributeValue]
    resource: Mapping[str, AttributeValue]
    scope: str
    scope_version: str
    links: tuple[Link, ...] = ()

    @property
    def duration_ns(self) -> int:
        """End minus start."""
        return self.end_unix_ns - self.start_unix_ns

    @property
    def service(self) -> str:
        """The resource's ``service.name``."""
        return str(self.resource.get("service.name", ""))


def decode(data: bytes) -> Iterator[Span]:
    """Yield the spans of a request, in its order.

    Raises:
        google.protobuf.message.DecodeError: `data` isn't an ``ExportTraceServiceRequest``.
    """
    for resource_spans in ExportTraceServiceRequest.FromString(data).resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_span_id=span.parent_span_id.hex(),
                    flags=span.flags,
                    name=span.name,
                    kind=SpanKind(span.kind),
                    start_unix_ns=span.start_time_unix_nano,
                    end_unix_ns=span.end_time_unix_nano,
                    error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                    attributes=_attributes(span.attributes),
                    resource=resource,
                    scope=scope_spans.scope.name,
                    scope_version=scope_spans.scope.version,
                    links=tuple(Link(link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, AttributeValue]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> AttributeValue:
    member = value.WhichOneof("value")
    if member == "array_value":
        return [element.string_value for element in value.array_value.values]
    found: AttributeValue = getattr(value, member) if member else ""
    return found
