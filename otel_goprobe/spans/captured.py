"""Values that bpf/include/captured.h put into a record -> an attribute of lists for each name; called by libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otel_goprobe.model import StringLists
from otel_goprobe.spans.columns import dictionary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

_HEAD_BYTES = 2
"""``CAPTURED_HEAD_BYTES``: the number of the name, the length of the text."""


def captured(records: npt.NDArray[np.void], member: str, prefix: str, names: Sequence[str]) -> dict[str, StringLists]:
    """Return a column for each name that any of the records has values of.

    Args:
        records: shape (n,); those that have no `member` at all have no values.
        member: of the record, whose length is ``fixed.<member>_bytes``.
        prefix: of the attributes, to which a name comes.
        names: that were looked for, in the order of the flag.
    """
    if not names or member not in (records.dtype.names or ()):
        return {}
    codes, texts = dictionary(records[member], records["fixed"][f"{member}_bytes"])
    columns = {}
    for number, name in enumerate(names, start=1):
        lists = [tuple(value for of, value in _values(text) if of == number) for text in texts]
        if any(lists):
            translation = np.array([row if values else -1 for row, values in enumerate(lists)], np.int32)
            columns[f"{prefix}{name}"] = StringLists(translation[codes], tuple(lists))
    return columns


def _values(text: bytes) -> Iterator[tuple[int, str]]:
    """Yield the number of its name with each value; one whose end is missing isn't there."""
    while len(text) >= _HEAD_BYTES:
        number, size = text[0], text[1]
        text = text[_HEAD_BYTES:]
        if len(text) < size:
            return
        yield number, text[:size].decode("utf-8", "replace")
        text = text[size:]
