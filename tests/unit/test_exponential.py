"""The kernel's buckets of exponential histograms against OTLP's formula, and what a point makes of them."""

from __future__ import annotations

import ctypes
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pure_c import INCLUDE, compiled

from otel_goprobe.durations import BIAS, MAX_BUCKETS, SCALE, exponential
from otel_goprobe.probes import RED_CHUNK

SECOND = 10**9
MOST_NS = 2**62 - 1


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Give the function of exponential.h."""
    library = compiled(
        tmp_path_factory.mktemp("exponential"),
        "exponential.h",
        "u32 bucket(u64 ns) { return exponential_bucket(ns); }",
    )
    library.bucket.argtypes, library.bucket.restype = (ctypes.c_uint64,), ctypes.c_uint32
    return library


def holds(index: int, ns: int, scale: int = SCALE) -> bool:
    """Whether ``base^index < value <= base^(index + 1)``, base being 2^(2^-scale): exactly, by its powers."""
    power = 2**scale
    value = Fraction(ns, SECOND) ** power
    return Fraction(2) ** index < value <= Fraction(2) ** (index + 1)


EVERY = st.integers(1, MOST_NS) | st.integers(0, 61).flatmap(lambda bits: st.integers(1, 2 << bits))


@given(EVERY)
@example(1)
@example(SECOND)
@example(SECOND + 1)
@example(MOST_NS)
def test_the_formula(kernel: ctypes.CDLL, ns: int) -> None:
    """A duration lies in the bucket that OTLP's definition gives it."""
    assert holds(kernel.bucket(min(ns, MOST_NS)) - BIAS, min(ns, MOST_NS))


@pytest.mark.parametrize("octave", range(-29, 32))
def test_bounds_are_inclusive_upper_ones(kernel: ctypes.CDLL, octave: int) -> None:
    """At each of the 8 bounds of each power of two: the last ns below belongs to it, the next one doesn't."""
    for step in range(8):
        index = 8 * octave + step
        last = int(SECOND * 2.0 ** ((index + 1) / 8))
        for ns in range(max(last - 2, 1), last + 3):
            assert holds(kernel.bucket(ns) - BIAS, ns)


def test_powers_of_two_of_a_second(kernel: ctypes.CDLL) -> None:
    """2^n seconds are the upper bound of bucket 8n - 1, itself included."""
    for power in range(31):
        assert kernel.bucket(SECOND << power) - BIAS == 8 * power - 1
        assert kernel.bucket((SECOND << power) + 1) - BIAS == 8 * power


def test_out_of_range(kernel: ctypes.CDLL) -> None:
    """What can't be told falls into the outermost buckets, all of which a key can name."""
    assert kernel.bucket(0) == kernel.bucket(1) == 0
    assert kernel.bucket(2**64 - 1) == kernel.bucket(MOST_NS) < RED_CHUNK * 256


def test_the_c_constants_are_pythons() -> None:
    """Both numbers stand in both languages, and the constants are the powers that they claim to be."""
    text = (INCLUDE / "exponential.h").read_text()
    assert f"#define EXPONENTIAL_SCALE {SCALE}\n" in text
    assert f"#define EXPONENTIAL_BIAS {BIAS}\n" in text
    second, *bounds = (int(constant, 16) for constant in re.findall("0x[0-9a-f]+", text))
    assert second == SECOND << 32
    assert len(bounds) == 7
    for step, bound in enumerate(bounds, start=1):
        assert bound**8 <= 2**step * second**8 < (bound + 1) ** 8


@given(st.integers(-BIAS, 250), st.lists(st.integers(0, 3), min_size=1, max_size=500).filter(any))
def test_a_points_buckets(index: int, counts: list[int]) -> None:
    """Trimmed, not more than there may be, and each count within the bucket of the coarser scale that holds its own."""
    told, scale, offset = exponential(index, np.array(counts, np.uint64))
    assert len(told) <= MAX_BUCKETS
    assert (told[0], told[-1]) > (0, 0)
    expected: dict[int, int] = {}
    for at, count in enumerate(counts, start=index):
        expected[at >> (SCALE - scale)] = expected.get(at >> (SCALE - scale), 0) + count
    assert {offset + at: count for at, count in enumerate(told.tolist()) if count} == {
        at: count for at, count in expected.items() if count
    }
    if scale < SCALE:
        finer = {at >> (SCALE - scale - 1) for at, count in enumerate(counts, start=index) if count}
        assert max(finer) - min(finer) + 1 > MAX_BUCKETS
