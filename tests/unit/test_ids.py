"""Ids that BPF makes of a clock, an address and seeds, without asking for random numbers."""

from __future__ import annotations

import ctypes
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pure_c import INCLUDE, compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[int, int, int, int], tuple[bytes, int]]

WORDS = st.integers(0, 2**64 - 1)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Give what returns trace id and span id for two seeds, a time and a goroutine."""
    library = compiled(
        tmp_path_factory.mktemp("ids"),
        "trace.h",
        f'#include "{INCLUDE / "ids.h"}"\n'
        "u64 make(u64 high, u64 low, u64 now, u64 g, u64 *ids)"
        "{ struct trace_context root; id_of_trace(high, low, now, g, &root);"
        " ids[0] = root.trace_id[0]; ids[1] = root.trace_id[1]; ids[2] = root.flags;"
        " return id_of(high, low, now, g); }\n"
        "u64 parse(struct traceparent_text *text, u64 length, struct trace_context *context)"
        "{ return traceparent_parse(text, length, context); }",
    )
    library.make.restype = ctypes.c_uint64
    library.make.argtypes = (*[ctypes.c_uint64] * 4, ctypes.c_void_p)

    def made(high: int, low: int, now: int, g: int) -> tuple[bytes, int]:
        ids = (ctypes.c_uint64 * 3)(1, 1, 1)
        span_id = library.make(high, low, now, g, ids)
        assert ids[2] == 0
        return bytes(ids)[:16], span_id

    return made


@given(WORDS, WORDS, WORDS, WORDS)
def test_no_id_is_zero(make: Make, high: int, low: int, now: int, g: int) -> None:
    """Zeros are invalid."""
    trace_id, span_id = make(high, low, now, g)
    assert any(trace_id)
    assert span_id


def test_neighbours_share_nothing(make: Make) -> None:
    """Next nanoseconds, next goroutines, another process: all ids differ, and each bit is set in about half of them."""
    seeds = [(0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179), (0x9B05688C2B3E6C1F, 0x510E527FADE682D1)]
    made = [
        make(high, low, 10**15 + now, 0xC000_0061_C0 + 448 * g)
        for (high, low), now, g in itertools.product(seeds, range(101), range(101))
    ]
    traces, spans = zip(*made, strict=True)
    for ids in (traces, [trace[:8] for trace in traces], [trace[8:] for trace in traces], spans):
        assert len(set(ids)) == len(made)
    for bit in range(128):
        share = sum(int.from_bytes(trace, "little") >> bit & 1 for trace in traces) / len(made)
        assert 0.47 < share < 0.53
