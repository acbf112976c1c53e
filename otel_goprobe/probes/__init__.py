"""One declaration per instrumented library; base.py explains what they are made of."""

from otel_goprobe.probes.registry import (
    DROPS,
    MAX_SLOTS,
    SHARED_MAP,
    counters,
    kinds,
    libraries,
    observations,
    options,
    unit,
)
from otel_goprobe.probes.selection import LibraryOutcome, consider, plan_of, select

__all__ = [
    "DROPS",
    "MAX_SLOTS",
    "SHARED_MAP",
    "LibraryOutcome",
    "consider",
    "counters",
    "kinds",
    "libraries",
    "observations",
    "options",
    "plan_of",
    "select",
    "unit",
]
