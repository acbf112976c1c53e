"""Names on the command line, and what the kernel found of them, become attributes that are lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_goprobe.errors import UsageError
from otel_goprobe.export.wire import key_value
from otel_goprobe.library_flags import MAX_NAMES, declared, names_of
from otel_goprobe.spans import captured

FLAG = next(flag for flag in declared() if flag.name == "grpc_metadata")
RECORD = np.dtype([("fixed", [("texts_bytes", "<u2")]), ("texts", "S448")])


def record(content: bytes) -> np.void:
    """Make a record that holds these bytes."""
    made: np.void = np.array([((len(content),), content)], RECORD)[0]
    return made


def test_names_are_told_apart() -> None:
    """In lower case, each once, in their order."""
    assert FLAG.takes_names
    assert names_of(FLAG, " X-Tenant, x-request-id,x-tenant,") == ("x-tenant", "x-request-id")
    assert names_of(FLAG, "") == ()


@pytest.mark.parametrize("text", ["x tenant", "tenänt", "x" * 41, ",".join(f"x-{n}" for n in range(MAX_NAMES + 1))])
def test_names_that_cannot_be(text: str) -> None:
    """The flag is named in what is said."""
    with pytest.raises(UsageError, match="--grpc-metadata"):
        names_of(FLAG, text)


def test_values_become_lists() -> None:
    """Of each name in their order; a name without values in any record has no column."""
    records = np.array([record(b"\x02\x01b\x01\x02a1\x02\x00"), record(b""), record(b"\x01\x02\xc3\xa9")])
    columns = captured(records, "texts", "prefix.", ("a", "b", "c"))
    assert set(columns) == {"prefix.a", "prefix.b"}
    a, b = columns["prefix.a"], columns["prefix.b"]
    assert [a.table[code] if code >= 0 else None for code in a.codes] == [("a1",), None, ("é",)]
    assert [b.table[code] if code >= 0 else None for code in b.codes] == [("b", ""), None, None]
    assert captured(records, "nothing", "prefix.", ("a",)) == {}
    assert captured(records, "texts", "prefix.", ()) == {}


@given(st.binary(max_size=448))
def test_any_bytes_are_read(content: bytes) -> None:
    """What isn't whole isn't a value."""
    columns = captured(np.array([record(content)]), "texts", "", ("a", "b"))
    assert sum(len(value) for column in columns.values() for value in column.table[0]) <= len(content)


def test_lists_are_encoded_as_opentelemetry_reads_them() -> None:
    """An array of strings, empty ones too."""
    span = Span.FromString(key_value(9, "rpc.request.metadata.a", ("x", "")))
    (pair,) = span.attributes
    assert [value.string_value for value in pair.value.array_value.values] == ["x", ""]
