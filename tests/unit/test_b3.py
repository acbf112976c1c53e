"""B3's headers as the kernel parses them: https://github.com/openzipkin/b3-propagation."""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pure_c import compiled
from test_trace_context import Context

if TYPE_CHECKING:
    from collections.abc import Callable

DEFERRED, DENIED, ACCEPTED, INVALID = range(4)
"""enum b3_decision."""

LONG, SHORT, SPAN = "80f198ee56343ba864fe8b2a57d3eff7", "64fe8b2a57d3eff7", "e457b5a2e4d86bd1"


class Parsed(NamedTuple):
    """What a caller sent."""

    trace_id: bytes = b""
    span_id: bytes = b""
    """Empty where there are no ids."""
    decision: int = INVALID


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Give b3.h's functions."""
    library = compiled(
        tmp_path_factory.mktemp("b3"),
        "b3.h",
        "u64 parse(const struct b3_text *text, u64 length, struct trace_context *context, u32 *decision)"
        "{ enum b3_decision found; u64 id = b3_parse(text, length, context, &found); *decision = found; return id; }"
        "u64 ids(const struct b3_text *trace, u64 trace_bytes, const struct b3_text *span, u64 span_bytes,"
        " struct trace_context *context) { return b3_parse_ids(trace, trace_bytes, span, span_bytes, context); }"
        "u32 decision(u64 sampled, u64 flags) { return b3_multi_decision(sampled, flags); }",
        before=("trace.h",),
    )
    library.parse.restype = library.ids.restype = ctypes.c_uint64
    return library


@pytest.fixture(scope="module")
def parse(library: ctypes.CDLL) -> Callable[[bytes], Parsed]:
    """Give b3_parse, fed as b3_read feeds it."""

    def call(value: bytes) -> Parsed:
        context, decision = Context(), ctypes.c_uint32()
        text = ctypes.create_string_buffer(value[:72], 72)
        span_id = library.parse(text, ctypes.c_uint64(len(value)), ctypes.byref(context), ctypes.byref(decision))
        if not span_id:
            return Parsed(decision=decision.value)
        return Parsed(bytes(context.trace_id), span_id.to_bytes(8, "little"), decision.value)

    return call


def trace_id(text: str | bytes) -> bytes:
    """Return 16 bytes of 16 or 32 digits."""
    return bytes.fromhex(text if isinstance(text, str) else text.decode()).rjust(16, b"\0")


def reference(value: bytes) -> Parsed:
    """Parse as the grammar says, slowly."""
    decisions = {b"0": DENIED, b"1": ACCEPTED, b"d": ACCEPTED}
    if value in decisions:
        return Parsed(decision=decisions[value])
    grammar = rb"([0-9a-f]{32}|[0-9a-f]{16})-([0-9a-f]{16})(?:-([01d])(?:-.{16})?)?"
    match = re.fullmatch(grammar, value, re.DOTALL)
    if match is None or not int(match[1], 16) or not int(match[2], 16):
        return Parsed()
    return Parsed(trace_id(match[1]), bytes.fromhex(match[2].decode()), decisions[match[3]] if match[3] else DEFERRED)


@pytest.mark.parametrize(
    ("value", "decision"),
    [
        (f"{LONG}-{SPAN}-1-05e3ac9a4f6e3b90", ACCEPTED),
        (f"{LONG}-{SPAN}-1", ACCEPTED),
        (f"{LONG}-{SPAN}-d", ACCEPTED),
        (f"{LONG}-{SPAN}-0", DENIED),
        (f"{LONG}-{SPAN}", DEFERRED),
        (f"{SHORT}-{SPAN}-1", ACCEPTED),
        (f"{SHORT}-{SPAN}-0-05e3ac9a4f6e3b90", DENIED),
        (f"{SHORT}-{SPAN}", DEFERRED),
    ],
)
def test_a_single_header(parse: Callable[[bytes], Parsed], value: str, decision: int) -> None:
    """Trace ids of 64 bits are padded on the left."""
    assert parse(value.encode()) == Parsed(trace_id(value.split("-", maxsplit=1)[0]), bytes.fromhex(SPAN), decision)


@pytest.mark.parametrize(("value", "decision"), [("0", DENIED), ("1", ACCEPTED), ("d", ACCEPTED), ("2", INVALID)])
def test_a_decision_alone(parse: Callable[[bytes], Parsed], value: str, decision: int) -> None:
    """There is no trace to continue then."""
    assert parse(value.encode()) == Parsed(decision=decision)


HEX = st.text("0123456789abcdef", min_size=16, max_size=16)
ALMOST = st.tuples(
    HEX | st.tuples(HEX, HEX).map("".join) | st.just("0" * 32),
    st.sampled_from("--- "),
    HEX | st.just("0" * 16) | HEX.map(str.upper),
    st.sampled_from(("", "-0", "-1", "-d", "-2", "-", "1", "-1-" + SHORT, "-1-", "-1-" + LONG, "-d-" + SHORT[1:])),
).map("".join)


@given(ALMOST.map(str.encode) | st.binary(max_size=90))
@example(f"{LONG}-{SPAN}-1-05e3ac9a4f6e3b90x".encode())
@example(f"{SHORT}-{SPAN[1:]}".encode())
@example(b"")
def test_any_text(parse: Callable[[bytes], Parsed], value: bytes) -> None:
    """As the grammar has it, whatever comes."""
    assert parse(value) == reference(value)


@given(st.binary(max_size=40) | HEX.map(str.encode), st.binary(max_size=20) | HEX.map(str.encode))
@example(LONG.encode(), SPAN.encode())
@example(SHORT.encode(), SPAN.encode())
@example(b"0" * 32, SPAN.encode())
@example(LONG.encode(), b"0" * 16)
def test_ids_in_headers_of_their_own(library: ctypes.CDLL, trace: bytes, span: bytes) -> None:
    """X-B3-TraceId and X-B3-SpanId."""
    context = Context()
    texts = [ctypes.create_string_buffer(value[:72], 72) for value in (trace, span)]
    lengths = [ctypes.c_uint64(len(value)) for value in (trace, span)]
    found = library.ids(texts[0], lengths[0], texts[1], lengths[1], ctypes.byref(context))
    expected = reference(trace + b"-" + span)
    if not expected.span_id or len(span) != 16:
        assert not found
    else:
        assert (bytes(context.trace_id), found.to_bytes(8, "little")) == (expected.trace_id, expected.span_id)


@pytest.mark.parametrize(
    ("sampled", "flags", "decision"),
    [
        ("1", "", ACCEPTED),
        ("true", "", ACCEPTED),
        ("0", "", DENIED),
        ("false", "", DENIED),
        ("", "", DEFERRED),
        ("", "1", ACCEPTED),
        ("0", "1", ACCEPTED),
        ("1", "0", ACCEPTED),
        ("yes", "2", DEFERRED),
    ],
)
def test_decisions_in_headers_of_their_own(library: ctypes.CDLL, sampled: str, flags: str, decision: int) -> None:
    """X-B3-Sampled and X-B3-Flags, 1 of which is debug."""
    words = [ctypes.c_uint64(int.from_bytes(text.encode(), "little")) for text in (sampled, flags)]
    assert library.decision(*words) == decision
