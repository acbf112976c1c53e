"""Batches of records -> columns of spans: clock, strings, names. Called by the libraries' declarations."""

from otel_goprobe.spans.alike import Alike
from otel_goprobe.spans.captured import captured
from otel_goprobe.spans.clock import Clock
from otel_goprobe.spans.columns import combine, derive, dictionary, matching, take, take_occurrences
from otel_goprobe.spans.links import fetch_links
from otel_goprobe.spans.recorded import SAMPLED_LATE, recorded
from otel_goprobe.spans.trace_state import trace_state_of

__all__ = [
    "SAMPLED_LATE",
    "Alike",
    "Clock",
    "captured",
    "combine",
    "derive",
    "dictionary",
    "fetch_links",
    "matching",
    "recorded",
    "take",
    "take_occurrences",
    "trace_state_of",
]
