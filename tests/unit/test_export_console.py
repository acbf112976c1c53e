"""The console exporter: trees for people, JSON lines for programs, and a reader that goes away."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from test_export_encode import plain_columns

from otel_goprobe.export.console import ConsoleSink
from otel_goprobe.export.encode import Encoded, Encoder
from otel_goprobe.model import AttributeValue, Integers, SpanColumns, Strings

_SHOP: dict[int, dict[str, AttributeValue]] = {
    0: {"service.name": "shop", "process.pid": 7},
    1: {"service.name": "cart"},
}


def _family(path: str = "/p") -> SpanColumns:
    """Two traces: a root with two children (the later one first, and an error) and a grandchild; and an orphan."""
    columns = plain_columns(5, slot=lambda row: row % 2)
    trace = np.zeros((5, 16), np.uint8)
    trace[4] = 0xBB
    parents = np.zeros((5, 8), np.uint8)
    parents[1, 7] = parents[2, 7] = 1  # span ids count up from 1
    parents[3, 7] = 2
    parents[4, 7] = 0x63
    start = columns.start_unix_ns + np.array([0, 900, 100, 1000, 0], np.uint64)
    return replace(
        columns,
        trace_id=trace,
        parent_span_id=parents,
        start_unix_ns=start,
        end_unix_ns=start + np.uint64(2_345_678),
        name=Strings(np.arange(5, dtype=np.int32), ("GET /", "later", "earlier", "grandchild", "orphan")),
        error=np.array([False, True, False, False, False]),
        attributes={
            "url.path": Strings(np.zeros(5, np.int32), (path,)),
            "http.response.status_code": Integers(np.full(5, 200), np.array([True, False, False, False, False])),
        },
    )


def _encoded(path: str = "/p") -> Encoded:
    (encoded,) = Encoder().encode(_family(path), _SHOP)
    return encoded


def _printed(tmp_path: Path, encoded: Encoded, **options: Any) -> str:
    """Print to a file."""
    with (tmp_path / "out").open("wb") as out:
        outcome = ConsoleSink(fd=out.fileno(), **options).deliver(encoded)
    assert outcome.exported == encoded.spans
    return (tmp_path / "out").read_text()


def test_a_trace_is_drawn_as_a_tree(tmp_path: Path) -> None:
    """Parents first, children indented and by start; an orphan is a marked root; the file gets plain text."""
    assert _printed(tmp_path, _encoded()).splitlines() == [
        "trace 00000000000000000000000000000000",
        "└─ shop  GET /  2.346 ms  200  url.path=/p",
        "   ├─ shop  earlier  2.346 ms  url.path=/p",
        "   └─ cart  later  2.346 ms  ERROR  url.path=/p",
        "      └─ cart  grandchild  2.346 ms  url.path=/p",
        "trace bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        "└─ …  shop  orphan  2.346 ms  url.path=/p",
    ]


def test_json_lines_hold_the_whole_span(tmp_path: Path) -> None:
    """One object a line, with the documented keys."""
    lines = [json.loads(line) for line in _printed(tmp_path, _encoded("/ü\n"), json_lines=True).splitlines()]
    assert len(lines) == 5
    assert next(line for line in lines if line["name"] == "later") == {
        "traceId": "00" * 16,
        "spanId": "0000000000000002",
        "parentSpanId": "0000000000000001",
        "name": "later",
        "kind": "SERVER",
        "startTimeUnixNano": "1790000000000000901",
        "endTimeUnixNano": "1790000000002346579",
        "durationMs": 2.345678,
        "status": "ERROR",
        "scope": "otel-goprobe/net/http",
        "attributes": {"url.path": "/ü\n"},
        "resource": {"service.name": "cart"},
    }


def test_a_request_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Control characters are escaped, long values cut."""
    text = _printed(tmp_path, _encoded("/\x1b[2J\r\n" + "x" * 1000))
    assert "\x1b" not in text
    assert "\\x1b[2J" in text
    assert len(text.splitlines()) == 7
    assert max(map(len, text.splitlines())) < 150


def test_parents_in_a_circle_are_drawn(tmp_path: Path) -> None:
    """What is no tree loses no span; a span that is its own parent neither."""
    columns = plain_columns(3)
    parents = np.zeros((3, 8), np.uint8)
    parents[:, 7] = (2, 1, 3)
    same = replace(columns, trace_id=np.zeros((3, 16), np.uint8), parent_span_id=parents)
    (encoded,) = Encoder().encode(same, _SHOP)
    assert _printed(tmp_path, encoded).count("└─ …  shop  GET /p") == 3


def test_a_terminal_gets_colours() -> None:
    """And the same words."""
    ours, theirs = pty.openpty()
    ConsoleSink(fd=theirs).deliver(_encoded())
    text = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert "\x1b[" in text
    assert "grandchild" in text


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    """Spans after that are counted as dropped, and the agent can see that it may end."""
    reading, writing = os.pipe()
    sink = ConsoleSink(fd=writing)
    assert sink.deliver(_encoded()).exported == 5
    assert not sink.reader_gone
    os.close(reading)
    for _ in range(2):
        outcome = sink.deliver(_encoded())
        assert (outcome.exported, outcome.dropped) == (0, {"console_closed": 5})
    assert sink.reader_gone
    os.close(writing)


_UNREAD = """
import sys, time
sys.path.insert(0, {here!r})
from test_export_console import _encoded
from otel_goprobe.config import BatchConfig
from otel_goprobe.export.console import ConsoleSink
from otel_goprobe.export.queued import QueuedExporter
from otel_goprobe.telemetry import Telemetry
telemetry = Telemetry()
exporter = QueuedExporter(ConsoleSink(), BatchConfig(schedule_delay_s=0.01), telemetry)
for _ in range(1000):
    telemetry.started(5)
    exporter.submit(_encoded())
exporter.close(0.5)
assert telemetry.snapshot().balanced
print(telemetry.snapshot().dropped, file=sys.stderr)
"""


def test_a_reader_that_stops_reading_does_not_keep_the_agent() -> None:
    """A full pipe blocks the exporter's thread only: close ends in time, the balance holds, the process exits."""
    script = _UNREAD.format(here=str(Path(__file__).parent))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.wait(20) == 0
        assert child.stderr is not None
        assert "export_failed" in child.stderr.read()


def test_only_what_is_chosen_is_imported() -> None:
    """Http needs neither grpc nor rich, nor protobuf before a partial success; gRPC needs no rich."""
    script = """
import sys
from otel_goprobe.config import Config, OtlpConfig, Selection
from otel_goprobe.export import make_exporter
from otel_goprobe.telemetry import Telemetry
make_exporter(Config(Selection(), OtlpConfig("http://127.0.0.1:1/v1/traces")), Telemetry()).close(1)
assert not {"grpc", "rich", "google.protobuf", "opentelemetry.sdk", "requests"} & set(sys.modules)
make_exporter(Config(Selection(), OtlpConfig("http://127.0.0.1:1", "grpc")), Telemetry()).close(1)
assert "grpc" in sys.modules and not {"rich", "opentelemetry.sdk", "requests"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=20)
