"""Records and columns of spans, metrics, and what tools see."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

AttributeValue = str | bool | int | float | Sequence[str]
"""What an OTLP attribute may hold here."""


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Records of one kind and one size class, as one drain of a ring gave them."""

    struct: str
    """Name of the C struct: ``http_server_record_256``."""
    records: npt.NDArray[np.void]
    """Shape (n,), the dtype that the compiled struct has."""


@dataclass(frozen=True, slots=True)
class Strings:
    """A column of strings, each distinct one stored once."""

    codes: npt.NDArray[np.int32]
    """Shape (n,): index into `table`, or -1 where the span has no value."""
    table: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StringLists:
    """The same of lists of strings."""

    codes: npt.NDArray[np.int32]
    table: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Integers:
    """A column of signed integers."""

    values: npt.NDArray[np.int64]
    """Shape (n,)."""
    present: npt.NDArray[np.bool_]
    """Shape (n,): False where the span has no value."""


@dataclass(frozen=True, slots=True)
class Booleans:
    """A column of truth values."""

    values: npt.NDArray[np.bool_]
    """Shape (n,)."""
    present: npt.NDArray[np.bool_]
    """Shape (n,): False where the span has no value."""


Column = Strings | StringLists | Integers | Booleans


class SpanKind(enum.IntEnum):
    """OTLP's ``Span.SpanKind``."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


@dataclass(frozen=True, slots=True)
class Links:
    """Spans that others are linked to: OTLP's ``Span.links``, without attributes."""

    counts: npt.NDArray[np.intp]
    """Shape (n,): how many each of n spans has."""
    trace_id: npt.NDArray[np.uint8]
    """Shape (m, 16), m the sum of `counts`: those of the first span, of the second and so on."""
    span_id: npt.NDArray[np.uint8]
    """Shape (m, 8)."""
    trace_flags: npt.NDArray[np.uint8]
    """Shape (m,): W3C's, of the spans linked to."""


@dataclass(frozen=True, slots=True)
class Occurrences:
    """What differs in each of several spans of one scope; every array has n rows."""

    slot: npt.NDArray[np.uint16]
    """Which target; the exporter maps it to a resource."""
    trace_id: npt.NDArray[np.uint8]
    """Shape (n, 16)."""
    span_id: npt.NDArray[np.uint8]
    """Shape (n, 8)."""
    parent_span_id: npt.NDArray[np.uint8]
    """Shape (n, 8); all zero for a root."""
    start_unix_ns: npt.NDArray[np.uint64]
    end_unix_ns: npt.NDArray[np.uint64]
    links: Links | None = None
    """None where no span has any."""

    def __len__(self) -> int:
        return len(self.slot)


@dataclass(frozen=True, slots=True)
class SpanColumns:
    """Spans of one instrumentation scope and kind, a column each; every array has n rows."""

    scope: str
    """``otel-goprobe/<import path>``."""
    kind: SpanKind
    slot: npt.NDArray[np.uint16]
    """Which target; the exporter maps it to a resource."""
    trace_id: npt.NDArray[np.uint8]
    """Shape (n, 16)."""
    span_id: npt.NDArray[np.uint8]
    """Shape (n, 8)."""
    parent_span_id: npt.NDArray[np.uint8]
    """Shape (n, 8); all zero for a root."""
    trace_flags: npt.NDArray[np.uint8]
    """W3C's: 1 sampled, 2 random trace id."""
    trace_state: Strings
    """W3C's tracestate, as the parent sent it."""
    start_unix_ns: npt.NDArray[np.uint64]
    end_unix_ns: npt.NDArray[np.uint64]
    name: Strings
    """No -1 in its codes."""
    error: npt.NDArray[np.bool_]
    """Status ERROR, else UNSET."""
    attributes: Mapping[str, Column]
    links: Links | None = None
    """None where no span has any."""

    def __len__(self) -> int:
        return len(self.slot)


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A span that a histogram's point counts."""

    unix_ns: int
    """Its end."""
    value_s: float
    trace_id: bytes
    span_id: bytes


@dataclass(frozen=True, slots=True)
class HistogramPoint:
    """A histogram of durations of one target and one combination of attributes."""

    resource: Mapping[str, AttributeValue]
    attributes: Mapping[str, AttributeValue]
    start_unix_ns: int
    """What came since then is counted."""
    counts: tuple[int, ...]
    """One for each of `Metric.bounds`, and one for what is above; exponential: one for each bucket from `offset` on."""
    sum_s: float
    exemplars: tuple[Exemplar, ...] = ()
    scale: int | None = None
    """OTLP's, of an exponential histogram; else None."""
    offset: int = 0
    """OTLP's index of the first of `counts`, of an exponential histogram."""


@dataclass(frozen=True, slots=True)
class SumPoint:
    """How many of something there are."""

    resource: Mapping[str, AttributeValue]
    attributes: Mapping[str, AttributeValue]
    start_unix_ns: int
    value: int


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of all targets: histograms, or sums."""

    scope: str
    name: str
    unit: str
    description: str
    points: tuple[HistogramPoint | SumPoint, ...]
    bounds: tuple[float, ...] = ()
    """Inclusive upper bounds, ascending."""
    delta: bool = False
    """`HistogramPoint.start_unix_ns` is when the last export was made."""
    monotonic: bool = False
    """Of sums: they never fall."""


@dataclass(frozen=True, slots=True)
class OwnSpan:
    """That an event is told of by a span of its own, too: a child of the event's, with its attributes and its start."""

    name: str
    kind: SpanKind
    end_unix_ns: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a target: an event of the span that was active, else a log record."""

    slot: int
    unix_ns: int
    name: str
    """Of the event, such as ``file.open``."""
    body: str
    """A sentence for people."""
    attributes: Mapping[str, AttributeValue]
    trace_id: bytes = b""
    """16 bytes; empty, as `span_id` (8 bytes) is, where no span was active."""
    span_id: bytes = b""
    sampled: bool = False
    """Whether that span is to be exported, so that it can carry the event."""
    warning: bool = False
    """Always a log record, of severity WARN."""
    span: OwnSpan | None = None
