"""BPF's clock -> wall clock.

`bpf_ktime_get_ns` is CLOCK_MONOTONIC. The distance to the wall clock is measured anew for every batch, so that neither
a step of the wall clock nor its slewing (at most 500 ppm, adjtimex(2)) adds up: a span is converted at most a drain
interval after its end, both its times by one distance, which keeps its duration exact.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

_TRIES = 5


def wall_minus_monotonic_ns() -> int:
    """Return CLOCK_REALTIME - CLOCK_MONOTONIC in ns, from the least disturbed of a few readings."""
    best_width, best = 1 << 62, 0
    for _ in range(_TRIES):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        if after - before < best_width:
            best_width, best = after - before, wall - (before + after) // 2
    return best


class Clock:
    """Converts times of one batch; make a new one, or `recalibrate`, for each."""

    def __init__(self) -> None:
        self.offset_ns = wall_minus_monotonic_ns()

    def recalibrate(self) -> None:
        """Measure the distance to the wall clock anew."""
        self.offset_ns = wall_minus_monotonic_ns()

    def unix_ns(self, monotonic_ns: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Return Unix times in ns; shape and dtype as given."""
        return (monotonic_ns.astype(np.int64) + self.offset_ns).astype(np.uint64)
