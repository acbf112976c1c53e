"""What http_server's declaration makes of the members of its records and of the executable's layout."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otel_goprobe.probes.base import BLOCK_BYTES, Block
from otel_goprobe.probes.http_server import request_lines

TOKENS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ-!~", min_size=1, max_size=24).map(str.encode)
TARGETS = st.binary(min_size=1, max_size=40)
LINE_BYTES = 72


def records(rows: list[tuple[bytes, int]]) -> np.ndarray:
    """Return records that hold these lines and lengths of methods, rubbish behind each line's end."""
    dtype = np.dtype(
        [("fixed", [("line_bytes", "<u2"), ("method_bytes", "u1")]), ("line", "u1", (LINE_BYTES,))], align=False
    )
    made = np.zeros(len(rows), dtype)
    for row, (line, method_bytes) in zip(made, rows, strict=True):
        row["fixed"] = (len(line), method_bytes)
        row["line"] = np.frombuffer(line.ljust(LINE_BYTES, b"?"), np.uint8)
    return made


@given(st.lists(st.tuples(st.just(b"") | TOKENS, TARGETS), max_size=40))
def test_a_line_is_a_method_and_a_target(requests: list[tuple[bytes, bytes]]) -> None:
    """Each record gets its own, however often a text comes again; without a method all is the target."""
    rows = [(b"%s %s" % (method, target) if method else target, len(method)) for method, target in requests]
    (method_codes, methods), (target_codes, targets) = request_lines(records(rows))
    assert [methods[code] for code in method_codes.tolist()] == [method for method, _ in requests]
    assert [targets[code] for code in target_codes.tolist()] == [target for _, target in requests]
    assert len(set(methods)) == len(methods)
    assert len(set(targets)) == len(targets)


@given(st.lists(st.integers(0, 60).map(lambda word: 8 * word), min_size=1, max_size=6))
def test_a_block_holds_every_field_or_is_none(offsets: list[int]) -> None:
    """It begins as far to the front as it can: what is behind the struct may not be there to be read."""
    start = Block("m", "s", ("f",) * len(offsets)).start(offsets)
    if start is None:
        assert max(offsets) + 16 - min(offsets) > BLOCK_BYTES
    else:
        assert start <= min(offsets)
        assert max(offsets) + 16 <= start + BLOCK_BYTES
        assert start == 0 or start + BLOCK_BYTES == max(offsets) + 16


def test_fields_off_the_words_make_no_block() -> None:
    """C takes whole words from it."""
    assert Block("m", "s", ("a", "b")).start([0, 12]) is None
