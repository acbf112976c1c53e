"""traceparent as the kernel parses it, tracestate as a span carries it: W3C Trace Context, level 2."""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.trace.span import TraceState
from pure_c import compiled

from otel_goprobe.spans import trace_state_of

if TYPE_CHECKING:
    from collections.abc import Callable

Parsed = tuple[bytes, bytes, int] | None
"""Trace id, parent's span id, flags."""

GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Context(ctypes.Structure):
    """struct trace_context."""

    _fields_ = (("trace_id", ctypes.c_ubyte * 16), ("flags", ctypes.c_uint64))


@pytest.fixture(scope="module")
def parse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Parsed]:
    """Give traceparent_parse, fed as traceparent_read feeds it."""
    library = compiled(
        tmp_path_factory.mktemp("trace"),
        "trace.h",
        "u64 parse(struct traceparent_text *text, u64 length, struct trace_context *context)"
        "{ return traceparent_parse(text, length, context); }",
    )
    library.parse.restype = ctypes.c_uint64

    def call(value: bytes) -> Parsed:
        if len(value) < 55:
            return None  # traceparent_read reads none of it
        text = ctypes.create_string_buffer(b"\0" * 5 + value[:56], 64)
        context = Context()
        span_id = library.parse(text, ctypes.c_uint64(len(value)), ctypes.byref(context))
        return (bytes(context.trace_id), span_id.to_bytes(8, "little"), context.flags) if span_id else None

    return call


def reference(value: bytes) -> Parsed:
    """Parse as the recommendation says, slowly."""
    match = re.fullmatch(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", value, re.DOTALL)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest is not None):
        return None
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    return bytes.fromhex(trace_id.decode()), bytes.fromhex(span_id.decode()), int(flags, 16) & 3


def test_the_recommendations_own_example(parse: Callable[[bytes], Parsed]) -> None:
    """Section 3.2.5."""
    trace_id, span_id = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736"), bytes.fromhex("00f067aa0ba902b7")
    assert parse(GOOD.encode()) == (trace_id, span_id, 1)


@pytest.mark.parametrize(
    "value",
    [
        GOOD.replace("-01", "-00"),
        GOOD.replace("-01", "-ff"),
        "cc" + GOOD[2:],
        "cc" + GOOD[2:] + "-what-the-future-brings",
        "cc" + GOOD[2:] + "-",
    ],
)
def test_valid(parse: Callable[[bytes], Parsed], value: str) -> None:
    """Unknown flags are masked, versions to come accepted by their first 55 bytes."""
    assert parse(value.encode()) == reference(value.encode()) is not None


@pytest.mark.parametrize(
    "value",
    [
        "ff" + GOOD[2:],
        GOOD + "-extra",
        GOOD + " ",
        "cc" + GOOD[2:] + ".what",
        GOOD.upper(),
        GOOD.replace("4bf9", "4Bf9"),
        GOOD[:-1],
        GOOD.replace("-", "_"),
        "00-" + "0" * 32 + GOOD[35:],
        GOOD[:36] + "0" * 16 + GOOD[52:],
        "0g" + GOOD[2:],
        GOOD[:-1] + "g",
        GOOD.replace("4bf9", "4bg9"),
        "",
    ],
)
def test_invalid(parse: Callable[[bytes], Parsed], value: str) -> None:
    """Version ff, more behind version 00, capitals, zeros, letters that are no digits, too short."""
    assert parse(value.encode()) is reference(value.encode()) is None


HEX = st.text("0123456789abcdef0123456789abcdefABg:`/@ ", min_size=1)


@given(st.binary(max_size=80))
@example(GOOD.encode())
def test_any_bytes(parse: Callable[[bytes], Parsed], value: bytes) -> None:
    """Whatever a client sends is judged as the reference judges it."""
    assert parse(value) == reference(value)


@given(st.integers(0, 54), st.binary(min_size=1, max_size=1), st.binary(max_size=3))
def test_one_byte_changed(parse: Callable[[bytes], Parsed], at: int, byte: bytes, more: bytes) -> None:
    """Each byte of a valid one is looked at."""
    value = GOOD.encode()
    changed = value[:at] + byte + value[at + 1 :] + more
    assert parse(changed) == reference(changed)


@given(st.from_regex(r"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z]{0,9})?\Z"))
def test_well_formed(parse: Callable[[bytes], Parsed], value: str) -> None:
    """Every digit reaches its place."""
    assert parse(value.encode()) == reference(value.encode())


@pytest.mark.parametrize(
    ("header", "state"),
    [
        (b"rojo=00f067aa0ba902b7", "rojo=00f067aa0ba902b7"),
        (b"rojo=1 , congo=t61rcWkgMzE,", "rojo=1,congo=t61rcWkgMzE"),
        (b"fw529a3039@dt=FfAwAAAA;1", "fw529a3039@dt=FfAwAAAA;1"),
        (b"dd=s:1;o:rum", "dd=s:1;o:rum"),
        (b"a=a value with blanks", "a=a value with blanks"),
        (b"", None),
        (b" , ,", None),
        (b"rojo", None),
        (b"Rojo=1", None),
        (b"rojo=1=2", None),
        (b"rojo=\xff", None),
        (b"rojo=1,rojo=2", None),
        (b"rojo=1,cut", None),
        (b",".join(b"k%d=v" % number for number in range(33)), None),
    ],
)
def test_tracestate(header: bytes, state: str | None) -> None:
    """A malformed list is dropped as a whole."""
    assert trace_state_of(header) == state


@given(st.binary(max_size=176))
def test_tracestate_of_any_bytes(header: bytes) -> None:
    """What is kept is a list that OpenTelemetry's own class reads the same."""
    state = trace_state_of(header)
    assert state is None or TraceState.from_header([state]).to_header() == state


@given(
    trace_id=st.binary(min_size=16, max_size=16), span_id=st.binary(min_size=8, max_size=8), flags=st.integers(0, 255)
)
@example(trace_id=bytes(range(0x09, 0xF9, 0xF))[:16], span_id=b"\x90\xa9\x9a\xa0\x0a\xff\x00\x0f", flags=3)
def test_a_line_is_written_as_it_would_be_read(
    line_of: Callable[[bytes, bytes, int], bytes], trace_id: bytes, span_id: bytes, flags: int
) -> None:
    """The header line that the kernel inserts: lower-case digits, the two flags that W3C defines."""
    expected = f"traceparent: 00-{trace_id.hex()}-{span_id.hex()}-{flags & 3:02x}\r\n"
    assert line_of(trace_id, span_id, flags) == expected.encode()


@pytest.fixture(scope="module")
def line_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes, bytes, int], bytes]:
    """Give the bytes of traceparent_words."""
    library = compiled(
        tmp_path_factory.mktemp("line"),
        "trace_line.h",
        "void line(u8 *line, const u64 trace_id[2], u64 span_id, u64 flags)"
        "{ u64 words[TRACEPARENT_LINE_WORDS]; traceparent_words(words, trace_id, span_id, flags);"
        "__builtin_memcpy(line, words, TRACEPARENT_LINE_BYTES); }",
        before=("trace.h",),
    )

    def call(trace_id: bytes, span_id: bytes, flags: int) -> bytes:
        line = ctypes.create_string_buffer(b"?" * 71, 71)
        library.line(line, trace_id, ctypes.c_uint64(int.from_bytes(span_id, "little")), ctypes.c_uint64(flags))
        assert line.raw[70:] == b"?"
        return line.raw[:70]

    return call
