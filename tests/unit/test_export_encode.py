"""The encoder against a plain, slow reference made of the official protobuf classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from otel_goprobe import __version__
from otel_goprobe.export.decode import decode
from otel_goprobe.export.encode import SCHEMA_URL, Encoder
from otel_goprobe.model import AttributeValue, Booleans, Integers, Links, SpanColumns, SpanKind, Strings

Resources = Mapping[int, Mapping[str, AttributeValue]]

UGLY = ["", "\0", "a\0b", "ünïcode/漢字/🦀", "x" * 100_000, "\x1b[31m", "%00", "\ud800 lone", "\uffff"]
INT64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, -1, 2**63 - 1, -(2**63), 127, 128])


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _any(value: AttributeValue) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=_utf8(value))
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(array_value=ArrayValue(values=[_any(element) for element in value]))


def _pair(key: str, value: AttributeValue) -> KeyValue:
    return KeyValue(key=_utf8(key), value=_any(value))


def _reference_span(columns: SpanColumns, row: int, limit: int | None) -> Span:
    attributes = []
    for key, column in columns.attributes.items():
        if isinstance(column, Strings):
            if column.codes[row] >= 0:
                attributes.append(_pair(key, column.table[column.codes[row]][:limit]))
        elif column.present[row]:
            attributes.append(_pair(key, column.values[row].item()))
    parent = columns.parent_span_id[row].tobytes()
    has_parent = parent != bytes(8)
    remote = 0x200 if has_parent and columns.kind in (SpanKind.SERVER, SpanKind.CONSUMER) else 0
    return Span(
        trace_id=columns.trace_id[row].tobytes(),
        span_id=columns.span_id[row].tobytes(),
        parent_span_id=parent if has_parent else b"",
        trace_state=_utf8((*columns.trace_state.table, "")[columns.trace_state.codes[row]]),
        flags=int(columns.trace_flags[row]) | 0x100 | remote,
        name=_utf8(columns.name.table[columns.name.codes[row]]),
        kind=Span.SpanKind.Name(columns.kind + 0),  # type: ignore[arg-type]  # the stub wants the enum's own type
        start_time_unix_nano=int(columns.start_unix_ns[row]),
        end_time_unix_nano=int(columns.end_unix_ns[row]),
        attributes=attributes,
        status=Status(code=Status.STATUS_CODE_ERROR) if columns.error[row] else None,
        links=_reference_links(columns.links, row) if columns.links else [],
    )


def _reference_links(links: Links, row: int) -> list[Span.Link]:
    first = int(links.counts[:row].sum())
    return [
        Span.Link(
            trace_id=links.trace_id[at].tobytes(),
            span_id=links.span_id[at].tobytes(),
            flags=int(links.trace_flags[at]) | 0x100,
        )
        for at in range(first, first + int(links.counts[row]))
    ]


def _reference(columns: SpanColumns, resources: Resources, limit: int | None = None) -> ExportTraceServiceRequest:
    """Encode all rows into one request, the plain way."""
    request = ExportTraceServiceRequest()
    for slot in sorted(set(columns.slot.tolist())):
        resource = resources.get(slot, {"service.name": "unknown_service:go"})
        request.resource_spans.append(
            ResourceSpans(
                resource=Resource(attributes=[_pair(key, value) for key, value in resource.items()]),
                scope_spans=[
                    ScopeSpans(
                        scope=InstrumentationScope(name=_utf8(columns.scope), version=__version__),
                        spans=[
                            _reference_span(columns, row, limit)
                            for row in range(len(columns))
                            if columns.slot[row] == slot
                        ],
                        schema_url=SCHEMA_URL,
                    )
                ],
                schema_url=SCHEMA_URL,
            )
        )
    return request


@st.composite
def _columns(draw: st.DrawFn) -> SpanColumns:
    rows = draw(st.integers(0, 40) | st.just(100))  # from 65 on combinations are looked for
    text = st.text(max_size=20) | st.sampled_from([value[:3000] for value in UGLY])

    def strings(lowest: int) -> Strings:
        table = tuple(draw(st.lists(text, min_size=1, max_size=8)))
        codes = draw(st.lists(st.integers(lowest, len(table) - 1), min_size=rows, max_size=rows))
        return Strings(np.array(codes, np.int32), table)

    def integers() -> Integers:
        values = draw(st.lists(INT64, min_size=rows, max_size=rows))
        present = draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
        return Integers(np.array(values, np.int64), np.array(present, np.bool_))

    def booleans() -> Booleans:
        mask = st.lists(st.booleans(), min_size=rows, max_size=rows)
        return Booleans(np.array(draw(mask), np.bool_), np.array(draw(mask), np.bool_))

    def ids(width: int, count: int = rows) -> np.ndarray:
        found = draw(st.binary(min_size=count * width, max_size=count * width))
        return np.frombuffer(found, np.uint8).reshape(-1, width)

    def links() -> Links:
        counts = np.array(draw(st.lists(st.integers(0, 8), min_size=rows, max_size=rows)), np.intp)
        total = int(counts.sum())
        return Links(counts, ids(16, total), ids(8, total), ids(1, total).reshape(-1))

    def times() -> np.ndarray:
        return np.array(draw(st.lists(st.integers(0, 2**64 - 1), min_size=rows, max_size=rows)), np.uint64)

    parents = ids(8) * np.array(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)), np.uint8).reshape(-1, 1)
    keys = draw(st.lists(text, unique=True, max_size=6))
    return SpanColumns(
        scope=draw(text),
        kind=draw(st.sampled_from(SpanKind)),
        slot=np.array(draw(st.lists(st.integers(0, 3) | st.just(65535), min_size=rows, max_size=rows)), np.uint16),
        trace_id=ids(16),
        span_id=ids(8),
        parent_span_id=parents.reshape(-1, 8).astype(np.uint8),
        trace_flags=np.frombuffer(draw(st.binary(min_size=rows, max_size=rows)), np.uint8),
        trace_state=strings(-1),
        start_unix_ns=times(),
        end_unix_ns=times(),
        name=strings(0),
        error=np.array(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)), np.bool_),
        attributes={key: draw(st.sampled_from((lambda: strings(-1), integers, booleans)))() for key in keys},
        links=draw(st.sampled_from((lambda: None, links)))(),
    )


def _merged(pieces: list[bytes]) -> ExportTraceServiceRequest:
    """Parse the requests one behind the other, and join neighbours of one resource that a batch border has cut."""
    request = ExportTraceServiceRequest.FromString(b"".join(pieces))
    merged = ExportTraceServiceRequest()
    for resource_spans in request.resource_spans:
        last = merged.resource_spans[-1] if merged.resource_spans else None
        if last is not None and last.resource == resource_spans.resource:
            last.scope_spans[0].spans.extend(resource_spans.scope_spans[0].spans)
        else:
            merged.resource_spans.append(resource_spans)
    return merged


def _sorted(request: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    """Sort the attributes of each span, whose order means nothing (common.proto, KeyValue)."""
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                span.attributes.sort(key=lambda pair: pair.key)
    return request


def plain_columns(rows: int, slot: Callable[[int], int] = lambda _: 0, path: str = "/p") -> SpanColumns:
    """Ordinary spans; ids count up from 1."""
    ids = np.arange(1, rows + 1, dtype=">u8")
    start = np.arange(rows, dtype=np.uint64) + np.uint64(1_790_000_000_000_000_000)
    return SpanColumns(
        scope="otel-goprobe/net/http",
        kind=SpanKind.SERVER,
        slot=np.array([slot(row) for row in range(rows)], np.uint16),
        trace_id=np.repeat(ids.view(np.uint8).reshape(-1, 8), 2, axis=0).reshape(-1, 16),
        span_id=ids.view(np.uint8).reshape(-1, 8),
        parent_span_id=np.zeros((rows, 8), np.uint8),
        trace_flags=np.ones(rows, np.uint8),
        trace_state=Strings(np.full(rows, -1, np.int32), ()),
        start_unix_ns=start,
        end_unix_ns=start + np.uint64(1_500_000),
        name=Strings(np.zeros(rows, np.int32), ("GET /p",)),
        error=np.zeros(rows, np.bool_),
        attributes={"url.path": Strings(np.zeros(rows, np.int32), (path,))},
    )


RESOURCES: Resources = {
    0: {"service.name": "zero", "process.pid": 4242, "process.command_args": ["a", "", "ü"]},
    1: {"service.name": "one", "flag": True, "no": False, "ratio": 0.5},
    2: {},
    3: {"service.name": "three", "empty": "", "negative": -1},
}


@settings(max_examples=150, deadline=None)
@given(columns=_columns(), limit=st.none() | st.integers(0, 5))
def test_any_columns_decode_to_what_the_reference_says(columns: SpanColumns, limit: int | None) -> None:
    """Random columns decode, by the official classes, to what the reference says."""
    requests = Encoder(max_batch_bytes=2**31, attribute_value_length_limit=limit).encode(columns, RESOURCES)
    assert sum(request.spans for request in requests) == len(columns)
    parsed = ExportTraceServiceRequest.FromString(b"".join(request.data for request in requests))
    assert _sorted(parsed) == _sorted(_reference(columns, RESOURCES, limit))


@settings(max_examples=60, deadline=None)
@given(columns=_columns(), max_spans=st.integers(1, 9), max_bytes=st.integers(1, 3000))
def test_the_limits_cut_batches_and_lose_nothing(columns: SpanColumns, max_spans: int, max_bytes: int) -> None:
    """Both limits cut a batch; the pieces, one behind the other, are the whole."""
    resources = {slot: {"service.name": f"s{slot}"} for slot in (0, 1, 2, 3, 65535)}
    requests = Encoder(max_spans, max_bytes).encode(columns, resources)
    for request in requests:
        spans = list(decode(request.data))
        assert 1 <= len(spans) == request.spans <= max_spans
    merged = _merged([request.data for request in requests])
    assert _sorted(merged) == _sorted(_reference(columns, resources))


def test_every_ugly_value_arrives() -> None:
    """Empty, huge, NUL, non-ASCII and lone surrogates, extreme integers, and columns without any value."""
    rows = len(UGLY)
    columns = plain_columns(rows)
    extremes = np.resize(np.array([2**63 - 1, -(2**63), -1, 0], np.int64), rows)
    columns.attributes.update(  # type: ignore[attr-defined]  # a dict here
        {
            "ugly": Strings(np.arange(rows, dtype=np.int32), tuple(UGLY)),
            "absent": Strings(np.full(rows, -1, np.int32), ()),
            "extreme": Integers(extremes, np.ones(rows, np.bool_)),
            "nothing": Integers(extremes, np.zeros(rows, np.bool_)),
        }
    )
    (request,) = Encoder().encode(columns, RESOURCES)
    spans = list(decode(request.data))
    assert [span.attributes["ugly"] for span in spans] == [_utf8(value) for value in UGLY]
    assert [span.attributes["extreme"] for span in spans] == extremes.tolist()
    assert not any({"absent", "nothing"} & set(span.attributes) for span in spans)


def test_no_spans_make_no_request() -> None:
    """Nothing is sent for nothing."""
    assert Encoder().encode(plain_columns(0), RESOURCES) == []


def test_bytes_of_a_request_stay_under_the_limit_with_long_values() -> None:
    """A gRPC server's 4 MiB are kept also with long values."""
    requests = Encoder().encode(plain_columns(100, path="y" * 100_000), RESOURCES)
    assert [request.spans for request in requests] == [39, 39, 22]
    assert all(len(request.data) < 4 * 2**20 for request in requests)


def test_slots_that_alternate_give_one_resource_each() -> None:
    """Rows are grouped by slot."""
    (request,) = Encoder().encode(plain_columns(20, slot=lambda row: row % 2), RESOURCES)
    parsed = ExportTraceServiceRequest.FromString(request.data)
    assert [len(rs.scope_spans[0].spans) for rs in parsed.resource_spans] == [10, 10]


def test_a_slot_that_is_used_again_gets_its_new_resource() -> None:
    """The cache of resources follows the mapping, not the slot."""
    encoder = Encoder()
    services = []
    for name in ("first", "second"):
        (request,) = encoder.encode(plain_columns(1), {0: {"service.name": name}})
        services += [span.service for span in decode(request.data)]
    assert services == ["first", "second"]


def test_a_slot_without_a_resource_is_named_as_the_specification_says() -> None:
    """A missing resource does not lose the spans."""
    (request,) = Encoder().encode(plain_columns(1), {})
    assert next(decode(request.data)).service == "unknown_service:go"


@pytest.mark.parametrize(("kind", "flags"), [(SpanKind.SERVER, 0x301), (SpanKind.INTERNAL, 0x101)])
def test_a_servers_parent_is_marked_remote(kind: SpanKind, flags: int) -> None:
    """Trace flags, has-is-remote and is-remote."""
    columns = plain_columns(1)
    values = {name: getattr(columns, name) for name in SpanColumns.__slots__}
    with_parent = SpanColumns(**{**values, "kind": kind, "parent_span_id": np.full((1, 8), 7, np.uint8)})
    (request,) = Encoder().encode(with_parent, RESOURCES)
    (span,) = decode(request.data)
    assert (span.parent_span_id, span.flags, span.kind) == ("07" * 8, flags, kind)
