"""Batches of records -> columns of spans: clock, strings, names. Called by the libraries' declarations."""

from otel_goprobe.spans.clock import Clock
from otel_goprobe.spans.columns import combine, derive, dictionary, matching, take

__all__ = ["Clock", "combine", "derive", "dictionary", "matching", "take"]
