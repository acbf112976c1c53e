"""Which functions hold inlined copies of which: a probe on a function misses the calls that its copies stand for.

From the inline trees in the funcdata (runtime/symtabinl.go: inlinedCall), which are there because tracebacks need
them; `GoBinary.inlined` asks.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from otel_goprobe.gobinary.elf import Elf
    from otel_goprobe.gobinary.pclntab import FunctionTable

_MAX_TREE_BYTES = 1 << 18
_MAX_HITS = 1 << 16
_MAX_WORK = 1 << 22
"""Entries of pc-value tables that are read: two seconds' worth, fifty times what Prometheus needs."""
_CHUNK_BYTES = 1 << 20


class InlineTrees:
    """The inline trees of an executable.

    Args:
        elf: the file.
        functions: its function table.
        funcdata_address: what offsets of funcdata are relative to; `Module.funcdata`.
    """

    def __init__(self, elf: Elf, functions: FunctionTable, funcdata_address: int) -> None:
        self._elf = elf
        self._functions = functions
        self._funcdata = funcdata_address
        self._largest: dict[int, int] = {}
        self._work = 0

    @cached_property
    def _trees(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return self._functions.inline_trees()

    def holders(self, names: Iterable[str]) -> dict[str, frozenset[str]]:
        """For each of `names` that was inlined somewhere: the functions that hold such a copy.

        The trees lie back to back without their lengths, so the names are looked for in all of them at once and each
        hit is then assigned to the tree it lies in; it counts if the function's own table refers to that index.

        Raises:
            ValueError, IndexError: a table is damaged.
        """
        by_offset = self._functions.name_offsets(names)
        starts, owners = self._trees
        if not by_offset or not len(starts):
            return {}
        layout = self._functions.layout
        places, offsets = self._hits(np.fromiter(by_offset, np.uint32, len(by_offset)), int(starts[-1]))
        calls = places - layout.call_name
        trees = np.searchsorted(starts, calls, "right") - 1
        kept = (trees >= 0) & ((calls - starts[trees]) % layout.call_bytes == 0)
        if kept.sum() > _MAX_HITS:
            raise ValueError("the inline trees make no sense")
        found: dict[str, set[str]] = {}
        for call, tree, offset in zip(calls[kept].tolist(), trees[kept].tolist(), offsets[kept].tolist(), strict=True):
            start = int(starts[tree])
            # Functions whose trees are equal share one; `starts` then names it several times.
            for row in owners[int(np.searchsorted(starts, start)) : tree + 1].tolist():
                if (call - start) // layout.call_bytes <= self._largest_index(row):
                    found.setdefault(by_offset[offset], set()).add(self._functions.name_of(row))
        return {name: frozenset(holders) for name, holders in found.items()}

    def _hits(
        self, wanted: npt.NDArray[np.uint32], last_tree: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """Bytes from the funcdata's start at which one of `wanted` stands, and which."""
        segment = self._elf.segment(self._funcdata)
        first = self._elf.file_offset(self._funcdata)
        size = min(segment.offset + segment.size - first, last_tree + _MAX_TREE_BYTES)
        places, values = [], []
        for start in range(0, size, _CHUNK_BYTES):
            chunk = min(_CHUNK_BYTES, size - start)
            words = self._elf.words(first + start, chunk // 4, "<u4")
            hits = np.flatnonzero(np.isin(words, wanted))
            places.append(hits * 4 + start)
            values.append(words[hits])
            self._elf.release(first + start, chunk)
        return np.concatenate(places), np.concatenate(values).astype(np.uint32)

    def _largest_index(self, row: int) -> int:
        known = self._largest.get(row)
        if known is None:
            ranges = self._functions.inline_indexes(row)
            self._work += len(ranges) + 1
            if self._work > _MAX_WORK:
                raise ValueError("the inline trees make no sense")
            known = self._largest[row] = max((value for _, value in ranges), default=-1)
        return known
