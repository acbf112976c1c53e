"""Which records make spans that are alike, and what is encoded of those, against encoding each on its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_goprobe.export.encode import Encoder
from otel_goprobe.probes import http_server
from otel_goprobe.spans import Alike, Clock

if TYPE_CHECKING:
    import pytest

HEADER = np.dtype(
    [
        ("kind", "<u2"),
        ("slot", "<u2"),
        ("trace_flags", "u1"),
        ("late", "u1"),
        ("reserved", "<u2"),
        ("start_ns", "<u8"),
        ("end_ns", "<u8"),
        ("trace_id", "<u8", 2),
        ("span_id", "<u8"),
        ("parent_span_id", "<u8"),
    ]
)
FIXED = np.dtype(
    [
        ("header", HEADER),
        ("panic_type", "<u8"),
        *((name, "<u2") for name in ("status", "line_bytes", "route_bytes", "user_agent_bytes")),
        *((name, "u1") for name in ("host_bytes", "peer_bytes", "end", "tls")),
        *((name, "u1") for name in ("protocol_major", "protocol_minor", "tracestate_bytes", "method_bytes")),
    ]
)
RECORD = np.dtype(
    [("fixed", FIXED), *((n, "u1", w) for n, w in (("line", 32), ("host", 16), ("peer", 24), ("route", 16)))]
)
"""As clang lays out the structs of bpf/probes/http_server.h, texts shortened."""

TEXTS = {
    "line": [b"GET /", b"GET /a", b"POST /a", b"BREW /a\0", b"GET /%ff", b"GET /products/1234567890?x"],
    "host": [b"", b"shop:8080", b"[::1]:80"],
    "peer": [b"10.0.0.1:1234", b"10.0.0.1:1235", b""],
    "route": [b"", b"GET /a", b"/"],
}


class Conversion:
    """What the declaration asks for."""

    clock = Clock()
    options = frozenset(("url_query",))

    def type_name(self, slot: int, address: int) -> str:
        """Name a type after where it is."""
        return f"type {slot} {address}"


@st.composite
def _records(draw: st.DrawFn) -> np.ndarray:
    """Records of a few kinds, with rubbish wherever BPF leaves some, and ids of their own."""
    count = draw(st.integers(1, 30) | st.integers(100, 140))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    records = np.frombuffer(generator.bytes(count * RECORD.itemsize), RECORD).copy()
    fixed = records["fixed"]
    header = fixed["header"]
    header["kind"], header["reserved"] = 1, 0
    header["slot"] = generator.integers(0, 3, count)
    header["trace_flags"] = generator.integers(0, 4, count)
    header["late"] = generator.integers(0, 2, count)
    header["parent_span_id"] *= generator.integers(0, 2, count, np.uint64)
    header["start_ns"] = generator.integers(0, 2**40, count)
    header["end_ns"] = header["start_ns"] + 1000
    fixed["panic_type"] = 0
    fixed["status"] = generator.choice([0, 200, 404, 500], count)
    fixed["end"] = generator.integers(0, 3, count)
    fixed["tls"], fixed["protocol_major"], fixed["protocol_minor"] = 0, 1, 1
    fixed["user_agent_bytes"] = fixed["tracestate_bytes"] = 0
    for name, values in TEXTS.items():
        for row, value in enumerate(generator.choice(np.array(values, object), count)):
            fixed[f"{name}_bytes"][row] = len(value)
            records[name][row][: len(value)] = list(value)
            if name == "line":
                fixed["method_bytes"][row] = value.index(b" ")
    return records


def _sorted(data: bytes) -> list[bytes]:
    request = ExportTraceServiceRequest.FromString(data)
    for resource_spans in request.resource_spans:
        for span in resource_spans.scope_spans[0].spans:
            span.attributes.sort(key=lambda pair: pair.key)
    return [resource_spans.SerializeToString(deterministic=True) for resource_spans in request.resource_spans]


@settings(max_examples=100, deadline=None)
@given(batches=st.lists(_records(), min_size=1, max_size=3))
def test_shapes_kept_across_batches_give_the_spans_of_each_record(batches: list[np.ndarray]) -> None:
    """Columns of one record of each kind, made when it is first seen, give what columns of every record give."""
    alike, encoder, conversion = Alike(RECORD, HEADER), Encoder(), Conversion()
    kept: dict[bytes, bytes] = {}
    for records in batches:
        found = alike.sorted(records)
        new = [number for number, key in enumerate(found.keys) if key not in kept]
        made = encoder.shapes(http_server.columns(records[found.first_rows[new]], conversion)) if new else []
        kept |= zip((found.keys[number] for number in new), made, strict=True)
        occurrences = alike.occurrences(records, conversion.clock)
        shapes = [kept[key] for key in found.keys]
        requests = encoder.requests("otel-goprobe/net/http", occurrences, shapes, found.codes, {})
        plain = Encoder().encode(http_server.columns(records, conversion), {})
        assert sum(request.spans for request in requests) == len(records)
        assert _sorted(b"".join(r.data for r in requests)) == _sorted(b"".join(r.data for r in plain))


@settings(deadline=None)
@given(records=_records())
def test_only_what_a_span_says_makes_a_kind(records: np.ndarray) -> None:
    """Other ids, times and rubbish behind texts make no new kind; another length does."""
    alike = Alike(RECORD, HEADER)
    changed = np.repeat(records[:1], 3)
    header = changed["fixed"]["header"]
    header["trace_id"], header["span_id"] = 7, 8
    header["start_ns"] += 5
    begin = int(changed["fixed"]["line_bytes"][0])
    changed["line"][1][begin:] ^= 0xFF
    changed["fixed"]["line_bytes"][2] = begin - 1
    assert alike.sorted(np.concatenate([records[:1], changed])).codes.tolist() == [0, 0, 0, 1]


def test_different_records_that_mix_to_one_number_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the numbers can't tell records apart, their bytes are compared."""
    alike = Alike(RECORD, HEADER)
    monkeypatch.setattr(alike, "_multipliers", np.zeros(RECORD.itemsize // 8, np.uint64))
    records = np.zeros(200, RECORD)
    records["fixed"]["status"] = np.arange(200) % 7
    found = alike.sorted(records)
    assert found.codes.tolist() == [row % 7 for row in range(200)]
    assert len(found.keys) == 7


def test_a_large_batch_is_sorted_in_a_fraction_of_a_microsecond_each() -> None:
    """No loop runs over the records."""
    records = np.zeros(8192, RECORD)
    alike = Alike(RECORD, HEADER)
    alike.sorted(records)
    began = time.thread_time_ns()
    alike.sorted(records)
    assert time.thread_time_ns() - began < 8192 * 2000
