"""What tools make of events: log records and events of spans by the official classes; the application's own frame."""

from __future__ import annotations

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_WARN
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from otel_goprobe.export.logs import MAX_SPAN_EVENTS, encode_logs, with_events
from otel_goprobe.export.wire import LENGTH, tag, text, varint
from otel_goprobe.gobinary import Frame
from otel_goprobe.model import Event
from otel_goprobe.stacks import application_frame, package_of
from otel_goprobe.stacks.resolver import mappings
from otel_goprobe.table import fitting
from otel_goprobe.tools.base import Column

EVENT = Event(3, 1_700_000_000_123_456_789, "file.open", "a opened", {"file.path": "a", "n": 7}, b"t" * 16, b"s" * 8)


def test_log_records() -> None:
    """One resource a target, the trace context, the severity of a warning."""
    warning = Event(4, 5, "network.finding", "no", {}, warning=True)
    request = encode_logs([EVENT, warning, EVENT], {3: {"service.name": "shop"}}, "scope")
    first, second = request.resource_logs
    assert first.resource.attributes[0].value.string_value == "shop"
    assert second.resource.attributes[0].value.string_value == "unknown_service:go"
    record = first.scope_logs[0].log_records[1]
    assert (record.time_unix_nano, record.event_name, record.body.string_value) == (
        EVENT.unix_ns,
        EVENT.name,
        EVENT.body,
    )
    assert (record.trace_id, record.span_id) == (EVENT.trace_id, EVENT.span_id)
    assert second.scope_logs[0].log_records[0].severity_number == SEVERITY_NUMBER_WARN


@pytest.mark.parametrize("count", [1, 2, MAX_SPAN_EVENTS + 5])
def test_span_events(count: int) -> None:
    """They are in the span, its length covers them, and those beyond the limit are counted."""
    body, own = text(5, "GET /" + "x" * 300), text(3, "own=part")
    shape = tag(2, LENGTH) + varint(len(body) + len(own)) + body
    spans = ScopeSpans.FromString(with_events(shape, [EVENT] * count) + own).spans
    assert len(spans) == 1
    assert spans[0].name.startswith("GET /")
    assert spans[0].trace_state == "own=part"
    assert len(spans[0].events) == min(count, MAX_SPAN_EVENTS)
    assert spans[0].dropped_events_count == max(count - MAX_SPAN_EVENTS, 0)
    assert spans[0].events[0].time_unix_nano == EVENT.unix_ns


@pytest.mark.parametrize(
    ("function", "package"),
    [
        ("main.main", "main"),
        ("net/http.(*conn).serve", "net/http"),
        ("example.com/shop/cart.Add[go.shape.int]", "example.com/shop/cart"),
        ("gopkg.in/yaml%2ev3.Unmarshal", "gopkg.in/yaml.v3"),
    ],
)
def test_package(function: str, package: str) -> None:
    """As the linker writes them."""
    assert package_of(function) == package


def test_application_frame() -> None:
    """The main module's first, else any module's, else the outermost of Go's own."""
    names = ["syscall.Open", "github.com/lib/pq.Dial", "example.com/shop/db.Open", "main.main", "runtime.goexit"]
    frames = [Frame(name, "file.go", 1) for name in names]
    assert application_frame(frames, "example.com/shop") == frames[2]
    assert application_frame(frames[:2], "example.com/shop") == frames[1]
    assert application_frame([frames[0], frames[4]], "") == frames[0]
    assert application_frame([], "") is None


def test_mappings() -> None:
    """Executable ranges only; a path may hold blanks or be deleted."""
    lines = (
        "00400000-00500000 r-xp 00001000 08:01 7  /srv/a b (deleted)\n"
        "00500000-00600000 rw-p 00101000 08:01 7  /srv/a b\n"
        "7f000000-7f001000 r-xp 00000000 00:00 0 \n"
    )
    first, second = mappings(lines)
    assert (first.start, first.end, first.offset, first.path) == (0x400000, 0x500000, 0x1000, "/srv/a b")
    assert second.path == ""


def test_columns_that_a_terminal_has_room_for() -> None:
    """Empty ones go first, then those at the right; the first one and the one that is sorted by stay."""
    columns = (
        Column("service", "SERVICE"),
        Column("route", "ROUTE"),
        Column("function", "FUNCTION"),
        Column("sent", "SENT", numeric=True, unit="B"),
        Column("count", "COUNT", numeric=True),
    )
    row = {"service": "shop", "route": None, "function": "main.(*Cart).Add.func1", "sent": 77_000, "count": 7}
    shown, left_out = fitting(columns, [row], "count", 80)
    assert [column.key for column in shown] == ["service", "function", "sent", "count"]
    assert left_out == ()
    shown, left_out = fitting(columns, [row], "count", 7 + 2 + 12 + 2 + 5)
    assert [column.key for column in shown] == ["service", "function", "count"]
    assert [column.key for column in left_out] == ["sent"]
    shown, _ = fitting(columns, [row], "count", 1)
    assert [column.key for column in shown] == ["service", "count"]
