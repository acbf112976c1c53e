"""Columns of strings and the clock."""

from __future__ import annotations

import fnmatch
import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otel_goprobe.model import Strings
from otel_goprobe.spans import Clock, combine, derive, dictionary, matching

ROWS = st.lists(st.binary(max_size=12), max_size=40)


def matrix(rows: list[bytes], width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Rows as a ring holds them: fixed width, rubbish behind each string's end."""
    text = b"".join(row + b"\xaa" * (width - len(row)) for row in rows)
    return np.frombuffer(text, f"V{width}"), np.array([len(row) for row in rows], np.uint16)


def strings(values: list[str | None]) -> Strings:
    """A column of given values."""
    table = sorted({value for value in values if value is not None})
    return Strings(np.array([-1 if v is None else table.index(v) for v in values], np.int32), tuple(table))


def values(column: Strings) -> list[str | None]:
    """What a column says of each row."""
    return [None if code < 0 else column.table[code] for code in column.codes.tolist()]


@given(ROWS)
def test_dictionary_holds_each_row_exactly(rows: list[bytes]) -> None:
    """Trailing NULs are kept, bytes behind the length never seen, each distinct string stored once."""
    codes, table = dictionary(*matrix(rows))
    assert [table[code] for code in codes.tolist()] == rows
    assert len(set(table)) == len(table)


def test_a_length_over_the_width_reads_no_neighbour() -> None:
    """A record that says more than its field holds gets the field, not the next record's bytes."""
    rows, _ = matrix([b"a" * 12, b"b" * 12])
    codes, table = dictionary(rows, np.array([200, 12], np.uint16))
    assert [table[code] for code in codes.tolist()] == [b"a" * 12, b"b" * 12]


@given(ROWS)
def test_derive_applies_the_function_to_each_row(rows: list[bytes]) -> None:
    """None becomes an absent value, and equal results share an entry."""
    codes, table = dictionary(*matrix(rows))
    column = derive(codes, table, lambda value: value[:1].hex() or None)
    assert values(column) == [row[:1].hex() or None for row in rows]
    assert len(set(column.table)) == len(column.table)


@given(st.lists(st.tuples(st.sampled_from([None, "GET", "POST"]), st.sampled_from([None, "/", "/a"])), max_size=30))
def test_combine_sees_every_pair(pairs: list[tuple[str | None, str | None]]) -> None:
    """Absent values reach the function as None."""
    first, second = strings([a for a, _ in pairs]), strings([b for _, b in pairs])
    assert values(combine(first, second, lambda a, b: f"{a} {b}")) == [f"{a} {b}" for a, b in pairs]


@given(st.lists(st.tuples(st.sampled_from([None, "/healthz", "/a"]), st.sampled_from(["/healthz/live", "/b"]))))
def test_matching_takes_the_first_column_with_a_value(pairs: list[tuple[str | None, str]]) -> None:
    """The path counts only where there is no route."""
    columns = [strings([a for a, _ in pairs]), strings([b for _, b in pairs])]
    expected = [fnmatch.fnmatchcase(a or b, "/healthz*") for a, b in pairs]
    assert matching(columns, ["/healthz*"]).tolist() == expected


def test_the_clock_is_right_to_a_millisecond() -> None:
    """A monotonic time taken now converts to the wall clock's now."""
    clock = Clock()
    before = time.time_ns()
    converted = int(clock.unix_ns(np.array([time.monotonic_ns()], np.uint64))[0])
    after = time.time_ns()
    assert before - 1_000_000 <= converted <= after + 1_000_000
