"""One declaration per instrumented library; base.py explains what they are made of."""

from otel_goprobe.probes.propagation import possible, unreached
from otel_goprobe.probes.registry import (
    ID_SEEDS,
    MAX_SLOTS,
    RED_CHUNK,
    counters,
    drops,
    durations,
    kinds,
    libraries,
    observations,
    options,
    unit,
    warnings,
    wire_unit,
)
from otel_goprobe.probes.selection import LibraryOutcome, consider, plan_of, select

__all__ = [
    "ID_SEEDS",
    "MAX_SLOTS",
    "RED_CHUNK",
    "LibraryOutcome",
    "consider",
    "counters",
    "drops",
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
    "warnings",
    "wire_unit",
]
