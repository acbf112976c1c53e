"""Columns of strings, made from the fixed-width byte fields of records.

A column holds each distinct string once, so that what is derived of it (a route, an address and a port) is computed
once per distinct value and batch. Called by the libraries' declarations.
"""

from __future__ import annotations

import fnmatch
import functools
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from otel_goprobe.model import Booleans, Integers, Occurrences, SpanColumns, StringLists, Strings
from otel_goprobe.spans.links import take_links

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_goprobe.model import Column

T = TypeVar("T")

_FEW = 64
"""Up to so many strings, numpy costs more than a loop over them."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, made odd (Knuth, The Art of Computer Programming 3, 6.4)."""


def dictionary(
    matrix: npt.NDArray[np.void] | npt.NDArray[np.bytes_] | npt.NDArray[np.uint8], lengths: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int32], list[bytes]]:
    """Store each distinct byte string once.

    Args:
        matrix: n fields of a fixed width, in any dtype of that size; bytes behind a string's length are undefined.
        lengths: shape (n,), bytes.

    Returns:
        Codes, int32 of shape (n,), and the distinct strings they index.
    """
    rows = np.ascontiguousarray(matrix)
    count = len(rows)
    if not count:
        return np.empty(0, np.int32), []
    width = rows.nbytes // count
    sizes = np.minimum(lengths.astype(np.intp), width)
    if count > _FEW and width % 8 == 0:
        words = rows.view(np.uint64).reshape(count, -1) & _masks(width)[sizes]
        found = _alike(words, sizes)
        if found is not None:
            first_rows, codes = found
            text = rows.view(np.uint8).reshape(count, -1)
            return codes, [text[row, : sizes[row]].tobytes() for row in first_rows.tolist()]
    return _one_by_one(rows.tobytes(), width, sizes.tolist())


def _one_by_one(text: bytes, width: int, sizes: list[int]) -> tuple[npt.NDArray[np.int32], list[bytes]]:
    table: dict[bytes, int] = {}
    codes = [
        table.setdefault(text[at : at + size], len(table))
        for at, size in zip(range(0, len(text), width), sizes, strict=True)
    ]
    return np.array(codes, np.int32), list(table)


@functools.cache
def _masks(width: int) -> npt.NDArray[np.uint64]:
    """Return for each length up to `width` the words that keep that many bytes of a field."""
    kept = np.arange(width) < np.arange(width + 1).reshape(-1, 1)
    return (kept * np.uint8(0xFF)).view(np.uint64)


def _alike(
    words: npt.NDArray[np.uint64], sizes: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int32]] | None:
    """Find equal rows by a number mixed from their words; None where two different rows came to the same number.

    Returns:
        A row of each kind, and for each row which kind it is.
    """
    mixed = sizes.astype(np.uint64)
    for column in words.T:
        mixed = (mixed ^ column) * _MIX
        mixed ^= mixed >> np.uint64(29)
    if (mixed == mixed[0]).all():
        first_rows, codes = np.zeros(1, np.intp), np.zeros(len(words), np.intp)
    else:
        _, first_rows, codes = np.unique(mixed, return_index=True, return_inverse=True)
    like = first_rows[codes]
    if np.array_equal(words, words[like]) and np.array_equal(sizes, sizes[like]):
        return first_rows, codes.astype(np.int32)
    return None


def derive(codes: npt.NDArray[np.int32], table: Sequence[T], function: Callable[[T], str | None]) -> Strings:
    """Return the column of ``function(value)``, computed once per distinct value; None becomes -1."""
    distinct: dict[str, int] = {}
    translation = np.full(len(table) + 1, -1, np.int32)
    for code, value in enumerate(table):
        derived = function(value)
        if derived is not None:
            translation[code] = distinct.setdefault(derived, len(distinct))
    return Strings(translation[codes], tuple(distinct))


def combine(first: Strings, second: Strings, function: Callable[[str | None, str | None], str]) -> Strings:
    """Return the column of ``function(a, b)``, computed once per distinct pair; None stands for an absent value."""
    pairs = (first.codes.astype(np.int64) + 1) * (len(second.table) + 1) + second.codes + 1
    distinct, inverse = np.unique(pairs, return_inverse=True)
    a_table, b_table = (None, *first.table), (None, *second.table)
    values: dict[str, int] = {}
    translation = np.array(
        [
            values.setdefault(function(a_table[pair // len(b_table)], b_table[pair % len(b_table)]), len(values))
            for pair in distinct.tolist()
        ],
        np.int32,
    )
    return Strings(translation[inverse] if len(translation) else np.empty(0, np.int32), tuple(values))


def matching(columns: Sequence[Strings], globs: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which spans match a glob, by the first of `columns` in which a span has a value; shape (n,)."""
    count = len(columns[0].codes)
    matched = np.zeros(count, np.bool_)
    undecided = np.ones(count, np.bool_)
    for column in columns:
        hits = [any(fnmatch.fnmatchcase(value, glob) for glob in globs) for value in column.table]
        present = column.codes >= 0
        matched |= undecided & present & np.array([*hits, False])[column.codes]
        undecided &= ~present
    return matched


def take(columns: SpanColumns, rows: npt.NDArray[np.bool_] | npt.NDArray[np.integer]) -> SpanColumns:
    """Return the spans that a mask, or an array of indices, selects; tables are shared."""
    return replace(
        columns,
        slot=columns.slot[rows],
        trace_id=columns.trace_id[rows],
        span_id=columns.span_id[rows],
        parent_span_id=columns.parent_span_id[rows],
        trace_flags=columns.trace_flags[rows],
        trace_state=Strings(columns.trace_state.codes[rows], columns.trace_state.table),
        start_unix_ns=columns.start_unix_ns[rows],
        end_unix_ns=columns.end_unix_ns[rows],
        name=Strings(columns.name.codes[rows], columns.name.table),
        error=columns.error[rows],
        attributes={key: _rows(column, rows) for key, column in columns.attributes.items()},
    )


def take_occurrences(occurrences: Occurrences, rows: npt.NDArray[np.bool_]) -> Occurrences:
    """Return those that a mask selects."""
    return replace(
        occurrences,
        slot=occurrences.slot[rows],
        trace_id=occurrences.trace_id[rows],
        span_id=occurrences.span_id[rows],
        parent_span_id=occurrences.parent_span_id[rows],
        start_unix_ns=occurrences.start_unix_ns[rows],
        end_unix_ns=occurrences.end_unix_ns[rows],
        links=take_links(occurrences.links, rows) if occurrences.links else None,
    )


def _rows(column: Column, rows: npt.NDArray[np.bool_] | npt.NDArray[np.integer]) -> Column:
    if isinstance(column, Strings):
        return Strings(column.codes[rows], column.table)
    if isinstance(column, StringLists):
        return StringLists(column.codes[rows], column.table)
    if isinstance(column, Integers):
        return Integers(column.values[rows], column.present[rows])
    return Booleans(column.values[rows], column.present[rows])
