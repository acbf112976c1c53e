"""Records -> which of them make spans that are alike in all but ids and times; called by conversion.py for each drain.

A service answers the same few questions over and over, so that of thousands of records a few dozen differ in what their
spans say. Only of those are columns made. Found by one pass over the records' bytes: bytes behind the end of a text,
which nobody has written, ids and times are masked, the rest is mixed into a number, and equal numbers are compared.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from otel_goprobe.model import Occurrences

if TYPE_CHECKING:
    from otel_goprobe.spans.clock import Clock

_FEW = 64
"""Up to so many records, numpy costs more than a loop over them."""

_PARENT = "parent_span_id"
_EACH_ITS_OWN = ("start_ns", "end_ns", "trace_id", "span_id", _PARENT)
"""Members of ``struct span_header`` that don't decide what else a span says, but that there is a parent."""


class Kinds(NamedTuple):
    """Records sorted by what their spans say."""

    codes: npt.NDArray[np.intp]
    """Shape (n,): index into the others."""
    first_rows: npt.NDArray[np.intp]
    """A record of each kind."""
    keys: list[bytes]
    """Names each kind, in every batch of this dtype."""


class Alike:
    """Compares records of one struct.

    Args:
        dtype: of the records, of whole 8-byte words, as each text is; in it ``fixed`` has the length of a text ``x`` as
            ``x_bytes``.
        header: dtype of ``struct span_header``, which is the first member of every record.

    Raises:
        ValueError: a text doesn't consist of whole words.
    """

    def __init__(self, dtype: np.dtype[np.void], header: np.dtype[np.void]) -> None:
        self._header = header
        self._words = dtype.itemsize // 8
        self._ids = [word for name in _EACH_ITS_OWN for word in _words_of(header, name)]
        (self._parent,) = _words_of(header, _PARENT)
        self._multipliers = np.frombuffer(os.urandom(8 * self._words), np.uint64) | np.uint64(1)
        """Another in each process: nobody can send what mixes to one number on purpose."""
        self._kept = np.empty((2, 0, self._words), np.uint64)
        self._texts = []
        for name in dtype.names or ():
            if f"{name}_bytes" in (dtype["fixed"].names or ()):
                offset, size = _fields(dtype)[name][1], dtype[name].itemsize
                if offset % 8 or size % 8:
                    raise ValueError(f"the text {name} of a record doesn't consist of whole words")
                self._texts.append((f"{name}_bytes", size, slice(offset // 8, (offset + size) // 8)))

    def sorted(self, records: npt.NDArray[np.void]) -> Kinds:
        """Tell which of `records`, shape (n,), are of one kind."""
        words, like = self._room(len(records))
        words[:] = np.ascontiguousarray(records).view(np.uint64).reshape(-1, self._words)
        has_parent = words[:, self._parent] != 0
        words[:, self._ids] = 0
        words[:, self._parent] = has_parent
        for length, size, place in self._texts:
            words[:, place] &= _masks(size).take(np.minimum(records["fixed"][length], size), 0)
        found = self._by_number(words, like) if len(words) > _FEW else None
        rows = words.view(f"V{8 * self._words}").ravel()
        if found is None:
            return _one_by_one(rows.tolist())
        first_rows, codes = found
        return Kinds(codes, first_rows, rows[first_rows].tolist())

    def _room(self, count: int) -> npt.NDArray[np.uint64]:
        """Return two arrays of shape (count, words), kept: made anew, such large ones cost page faults each time."""
        if self._kept.shape[1] < count:
            self._kept = np.empty((2, count, self._words), np.uint64)
        return self._kept[:, :count]

    def _by_number(
        self, words: npt.NDArray[np.uint64], like: npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]] | None:
        """Compare by a number mixed from the words; None where two different records came to the same one."""
        mixed = np.einsum("ij,j->i", words, self._multipliers)
        _, first_rows, codes = np.unique(mixed, return_index=True, return_inverse=True)
        words.take(first_rows[codes], 0, like, "clip")
        return (first_rows, codes) if np.array_equal(words, like) else None

    def occurrences(self, records: npt.NDArray[np.void], clock: Clock) -> Occurrences:
        """Return what differs in each of `records`, shape (n,)."""
        header = np.ndarray(records.shape, self._header, records, strides=records.strides)
        return Occurrences(
            slot=header["slot"],
            trace_id=_bytes(header["trace_id"], 16),
            span_id=_bytes(header["span_id"], 8),
            parent_span_id=_bytes(header["parent_span_id"], 8),
            start_unix_ns=clock.unix_ns(header["start_ns"]),
            end_unix_ns=clock.unix_ns(header["end_ns"]),
        )


def _one_by_one(rows: list[bytes]) -> Kinds:
    table: dict[bytes, int] = {}
    first_rows: list[int] = []
    codes = []
    for row, content in enumerate(rows):
        code = table.setdefault(content, len(table))
        if code == len(first_rows):
            first_rows.append(row)
        codes.append(code)
    return Kinds(np.array(codes, np.intp), np.array(first_rows, np.intp), list(table))


def _fields(dtype: np.dtype[np.void]) -> dict[str, tuple[np.dtype[np.void], int]]:
    return {name: (field[0], field[1]) for name, field in (dtype.fields or {}).items()}


def _words_of(header: np.dtype[np.void], name: str) -> range:
    dtype, offset = _fields(header)[name]
    return range(offset // 8, (offset + dtype.itemsize) // 8)


@functools.cache
def _masks(width: int) -> npt.NDArray[np.uint64]:
    """Return for each length up to `width` the words that keep that many bytes of a field; (width + 1, width / 8)."""
    kept = np.arange(width) < np.arange(width + 1).reshape(-1, 1)
    return (kept * np.uint8(0xFF)).view(np.uint64)


def _bytes(ids: npt.NDArray[np.uint64], width: int) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(ids).view(np.uint8).reshape(-1, width)
