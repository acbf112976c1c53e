"""What every library's record has, `struct span_header` of bpf/include/span.h -> the same columns of all spans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otel_goprobe.model import Booleans, SpanColumns, SpanKind, Strings
from otel_goprobe.spans.columns import derive, dictionary
from otel_goprobe.spans.trace_state import trace_state_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from otel_goprobe.model import Column
    from otel_goprobe.spans.clock import Clock

SAMPLED_LATE = "goprobe.sampled.late"
"""Our own attribute: true on a span that the sampler left out and that was kept for what became of it."""


def recorded(
    records: npt.NDArray[np.void],
    clock: Clock,
    *,
    import_path: str,
    kind: SpanKind,
    name: Strings,
    error: npt.NDArray[np.bool_],
    attributes: Mapping[str, Column],
) -> SpanColumns:
    """Return the spans of records: ids, flags and times of their headers, with what the library made of the rest.

    Args:
        records: shape (n,); ``fixed.header`` is a ``span_header``. Where they have a ``tracestate`` of
            ``fixed.tracestate_bytes`` bytes, it is the spans'.
        clock: of the times.
        import_path: of the library, which the scope is named after.
        kind: of all of them.
        name: of n rows.
        error: shape (n,).
        attributes: columns of n rows, to which ``goprobe.sampled.late`` comes.
    """
    fixed = records["fixed"]
    header = fixed["header"]
    trace_state = Strings(np.full(len(records), -1, np.int32), ())
    if "tracestate" in (records.dtype.names or ()):
        trace_state = derive(*dictionary(records["tracestate"], fixed["tracestate_bytes"]), trace_state_of)
    late = header["late"] != 0
    return SpanColumns(
        scope=f"otel-goprobe/{import_path}",
        kind=kind,
        slot=header["slot"].astype(np.uint16),
        trace_id=_bytes(header["trace_id"], 16),
        span_id=_bytes(header["span_id"], 8),
        parent_span_id=_bytes(header["parent_span_id"], 8),
        trace_flags=header["trace_flags"].astype(np.uint8),
        trace_state=trace_state,
        start_unix_ns=clock.unix_ns(header["start_ns"]),
        end_unix_ns=clock.unix_ns(header["end_ns"]),
        name=name,
        error=error,
        attributes={**attributes, SAMPLED_LATE: Booleans(late, late)} if late.any() else attributes,
    )


def _bytes(ids: npt.NDArray[np.uint64], width: int) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(ids).view(np.uint8).reshape(len(ids), width)
