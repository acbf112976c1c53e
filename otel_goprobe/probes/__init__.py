"""One declaration per instrumented library; base.py explains what they are made of."""

from otel_goprobe.probes.propagation import possible, unreached
from otel_goprobe.probes.registry import (
    DROPS,
    ID_SEEDS,
    MAX_SLOTS,
    RED_CHUNK,
    SHARED_MAP,
    counters,
    durations,
    kinds,
    libraries,
    observations,
    options,
    unit,
    wire_unit,
)
from otel_goprobe.probes.selection import LibraryOutcome, consider, plan_of, select

__all__ = [
    "DROPS",
    "ID_SEEDS",
    "MAX_SLOTS",
    "RED_CHUNK",
    "SHARED_MAP",
    "LibraryOutcome",
    "consider",
    "counters",
    "durations",
    "kinds",
    "libraries",
    "observations",
    "options",
    "plan_of",
    "possible",
    "select",
    "unit",
    "unreached",
    "wire_unit",
]
