"""µs of CPU a span from columns to OTLP bytes, ours and by OpenTelemetry's own classes; and the agent's limit alone.

``python -m benchmarks.encode`` compares ways over the same spans, at several batch sizes. ``--produce``, as root,
records real requests once and replays their records through everything behind the ring buffer, conversion, queue and
transport, as fast as that goes and at fixed rates.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource  # noqa: TID251 - what is compared with
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider  # noqa: TID251 - the same
from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: TID251 - the same
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from benchmarks import produce
from benchmarks.machine import give, in_words, machine, table
from benchmarks.sample import RESOURCE, columns
from otel_goprobe.export import Encoder
from otel_goprobe.model import Integers, Occurrences, SpanColumns
from otel_goprobe.spans import take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue


BATCHES = (50, 512, 8192)
SPANS = 16384
DISTINCT = (64, SPANS)
"""Paths and ports: as few as a service has, or another for each span."""


def rows(spans: SpanColumns) -> Iterator[tuple[str, dict[str, str | int], bytes, bytes, int, int, bool]]:
    """Yield each span's name, attributes, trace id, span id, start, end and whether it is an error."""
    per_attribute = []
    for key, column in spans.attributes.items():
        if isinstance(column, Integers):
            values: list[Any] = [
                value if there else None
                for value, there in zip(column.values.tolist(), column.present.tolist(), strict=True)
            ]
        else:
            texts = (*column.table, None)
            values = [texts[code] for code in column.codes.tolist()]
        per_attribute.append([(key, value) for value in values])
    names = [spans.name.table[code] for code in spans.name.codes.tolist()]
    attributes = [{key: value for key, value in each if value is not None} for each in zip(*per_attribute, strict=True)]
    ids = (spans.trace_id.tobytes(), spans.span_id.tobytes())
    for row, (start, end, error) in enumerate(
        zip(spans.start_unix_ns.tolist(), spans.end_unix_ns.tolist(), spans.error.tolist(), strict=True)
    ):
        trace_id, span_id = ids[0][16 * row : 16 * row + 16], ids[1][8 * row : 8 * row + 8]
        yield names[row], attributes[row], trace_id, span_id, start, end, error


class _Ended(SpanProcessor):
    """Keeps what ended."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keep it."""
        self.spans.append(span)


class SdkSpans:
    """Spans made by a tracer of the SDK, as an instrumentation library makes them; ids are the SDK's own."""

    def __init__(self) -> None:
        self._ended = _Ended()
        provider = TracerProvider(resource=Resource(RESOURCE))
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer("otel-goprobe/net/http")

    def __call__(self, spans: SpanColumns) -> bytes:
        """Encode one batch."""
        for name, attributes, _, _, start, end, error in rows(spans):
            span = self._tracer.start_span(name, kind=SpanKind.SERVER, attributes=attributes, start_time=start)
            if error:
                span.set_status(StatusCode.ERROR)
            span.end(end)
        ended, self._ended.spans = self._ended.spans, []
        return encode_spans(ended).SerializeToString()


class ReadableSpans:
    """`ReadableSpan` objects made directly."""

    def __init__(self) -> None:
        self._resource = Resource(RESOURCE)
        self._scope = InstrumentationScope("otel-goprobe/net/http")

    def __call__(self, spans: SpanColumns) -> bytes:
        """Encode one batch."""
        readable = [
            ReadableSpan(
                name=name,
                context=SpanContext(
                    int.from_bytes(trace_id, "big"), int.from_bytes(span_id, "big"), False, TraceFlags(1)
                ),
                resource=self._resource,
                attributes=attributes,
                kind=SpanKind.SERVER,
                instrumentation_scope=self._scope,
                status=Status(StatusCode.ERROR if error else StatusCode.UNSET),
                start_time=start,
                end_time=end,
            )
            for name, attributes, trace_id, span_id, start, end, error in rows(spans)
        ]
        return encode_spans(readable).SerializeToString()


def _key_value(pair: KeyValue, key: str, value: str | int) -> None:
    pair.key = key
    if isinstance(value, str):
        pair.value.string_value = value
    else:
        pair.value.int_value = value


class ProtobufClasses:
    """The generated classes, filled field by field."""

    def __call__(self, spans: SpanColumns) -> bytes:
        """Encode one batch."""
        request = ExportTraceServiceRequest()
        resource_spans = request.resource_spans.add()
        for key, value in RESOURCE.items():
            _key_value(resource_spans.resource.attributes.add(), key, value)
        scope_spans = resource_spans.scope_spans.add()
        scope_spans.scope.name = spans.scope
        for name, attributes, trace_id, span_id, start, end, error in rows(spans):
            span = scope_spans.spans.add(
                name=name,
                trace_id=trace_id,
                span_id=span_id,
                kind=trace_pb2.Span.SPAN_KIND_SERVER,
                start_time_unix_nano=start,
                end_time_unix_nano=end,
                flags=0x101,
            )
            for key, value in attributes.items():
                _key_value(span.attributes.add(), key, value)
            if error:
                span.status.code = trace_pb2.Status.STATUS_CODE_ERROR
        return request.SerializeToString()


class Ours:
    """`otel_goprobe.export.Encoder`."""

    def __init__(self) -> None:
        self._encoder = Encoder()

    def __call__(self, spans: SpanColumns) -> bytes:
        """Encode one batch."""
        return b"".join(encoded.data for encoded in self._encoder.encode(spans, {0: RESOURCE}))


class OursAgain:
    """The same, where spans like these have come before; to find that out isn't in it, see produce.py."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._shapes: dict[int, list[bytes]] = {}
        self._kept: list[SpanColumns] = []

    def __call__(self, spans: SpanColumns) -> bytes:
        """Encode one batch."""
        if id(spans) not in self._shapes:
            self._kept.append(spans)  # so that no other gets its id
            self._shapes[id(spans)] = self._encoder.shapes(spans)
        occurrences = Occurrences(*(getattr(spans, name) for name in Occurrences.__slots__))
        codes = np.arange(len(spans))
        encoded = self._encoder.requests(spans.scope, occurrences, self._shapes[id(spans)], codes, {0: RESOURCE})
        return b"".join(request.data for request in encoded)


WAYS: dict[str, Callable[[], Callable[[SpanColumns], bytes]]] = {
    "SDK spans": SdkSpans,
    "ReadableSpans": ReadableSpans,
    "protobuf classes": ProtobufClasses,
    "otel-goprobe, each span new": Ours,
    "otel-goprobe, like ones before": OursAgain,
}


def us_a_span(encode: Callable[[SpanColumns], bytes], batches: list[SpanColumns]) -> float:
    """Return µs of CPU a span over all batches."""
    began = time.process_time_ns()
    for batch in batches:
        encode(batch)
    return (time.process_time_ns() - began) / 1e3 / sum(map(len, batches))


def compare(spans: int, repetitions: int) -> dict[str, dict[str, float]]:
    """Return µs a span by way, and by batch size and distinct values.

    Raises:
        SystemExit: two ways disagree on what a span holds.
    """
    results: dict[str, dict[str, float]] = {way: {} for way in WAYS}
    for distinct in DISTINCT:
        sample = columns(spans, distinct=distinct)
        check(take(sample, np.arange(min(spans, 256))))
        for size in BATCHES:
            batches = [take(sample, np.arange(at, min(at + size, spans))) for at in range(0, spans, size)]
            for way, make in WAYS.items():
                encode = make()
                for batch in batches:
                    encode(batch)
                times = [us_a_span(encode, batches) for _ in range(repetitions)]
                results[way][f"{size} at once, {distinct:,} paths"] = round(statistics.median(times), 2)
    return results


def check(sample: SpanColumns) -> None:
    """Compare what the ways make of a few spans: names, attributes, times and status."""
    said = {}
    for way, make in WAYS.items():
        request = ExportTraceServiceRequest.FromString(make()(sample))
        said[way] = [
            (
                span.name,
                sorted((pair.key, str(pair.value)) for pair in span.attributes),
                (span.start_time_unix_nano, span.end_time_unix_nano),
                (span.status.code, span.kind),
            )
            for span in request.resource_spans[0].scope_spans[0].spans
        ]
    if any(each != said["SDK spans"] for each in said.values()):
        raise SystemExit("the ways don't encode the same spans")


def text(results: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    parts = [in_words(results["machine"])]
    if "ways" in results:
        header = list(next(iter(results["ways"].values())))
        lines = [[way, *(f"{value:.2f}" for value in times.values())] for way, times in results["ways"].items()]
        parts += ["µs of CPU a span, from columns to bytes:", table(["", *header], lines)]
    if "produced" in results:
        parts.append(produce.text(results["produced"]))
    return "\n\n".join(parts)


def main() -> None:
    """Answer the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3, help="of which the median is taken [%(default)s]")
    parser.add_argument("--quick", action="store_true", help="fewer spans, one repetition: does it work?")
    parser.add_argument("--produce", action="store_true", help="the agent's pipeline alone, to its limit; as root")
    parser.add_argument("--seconds", type=float, default=5.0, help="of --produce, each batch size [%(default)s]")
    parser.add_argument("--receiver", choices=("collector", "discard"), default="discard", help="[%(default)s]")
    parser.add_argument("--json", default="", metavar="FILE", help="write the results there")
    parser.add_argument("--into", default="", metavar="FILE", help="write the tables into this document's block")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine()}
    if options.produce:
        seconds = 1.0 if options.quick else options.seconds
        results["produced"] = produce.run(seconds, real=options.receiver == "collector")
    else:
        results["ways"] = compare(2048 if options.quick else SPANS, 1 if options.quick else options.repetitions)
    blocks = {"produce" if options.produce else "encode": text(results)}
    give(results, blocks, json_path=options.json, document=options.into)


if __name__ == "__main__":
    main()
