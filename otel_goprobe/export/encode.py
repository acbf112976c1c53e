"""`SpanColumns` -> bytes of OTLP ``ExportTraceServiceRequest`` messages; called by the agent after each drain.

The one mapping from columns to a span. A column becomes a list of n pre-encoded pieces: one piece per distinct value,
made once, picked by its code; what differs in each span (ids and times) is laid out as one fixed block by numpy. A
span is the join of its row. HTTP server spans of 12 attributes, 8192 at once, Python 3.11 on one core: 1.6 µs a span
with 64 distinct paths and ports, 4.1 µs where each span has its own; 50 at once: 5.7 µs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from otel_goprobe import __version__
from otel_goprobe.export.wire import FIXED32, FIXED64, LENGTH, VARINT, key_value, message, tag, text, varint
from otel_goprobe.model import Booleans, Integers, SpanColumns, SpanKind, Strings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

    from otel_goprobe.model import AttributeValue

SCHEMA_URL = "https://opentelemetry.io/schemas/1.43.0"
"""Of the semantic conventions that the attribute names are from; `opentelemetry.semconv.schemas.Schemas.V1_43_0`."""

MAX_REQUEST_BYTES = 4_000_000
"""A gRPC server accepts 4 MiB a message unless told otherwise (grpc-go `defaultServerMaxReceiveMessageSize`)."""

# trace.proto, SpanFlags; the low byte is W3C's trace flags.
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200

_TRACE_ID = tag(1, LENGTH) + b"\x10"
_SPAN_ID = tag(2, LENGTH) + b"\x08"
_PARENT_SPAN_ID = tag(4, LENGTH) + b"\x08"
_STATUS_ERROR = message(15, tag(3, VARINT) + b"\x02")

_FIXED = np.dtype(
    [
        ("trace_id_tag", "V2"),
        ("trace_id", "u1", 16),
        ("span_id_tag", "V2"),
        ("span_id", "u1", 8),
        ("kind_tag", "V1"),
        ("kind", "u1"),
        ("start_tag", "V1"),
        ("start", "<u8"),
        ("end_tag", "V1"),
        ("end", "<u8"),
        ("flags_tag", "V2"),
        ("flags", "<u4"),
    ]
)
"""The part of a span that every span has, without padding: `_FIXED.itemsize` bytes."""

_PARENT = np.dtype([("tag", "V2"), ("span_id", "u1", 8)])

_SPAN_HEADS = tuple(tag(2, LENGTH) + varint(size) for size in range(2048))
"""``ScopeSpans.spans`` and the length, by length."""

_UNKNOWN_SERVICE: Mapping[str, AttributeValue] = {"service.name": "unknown_service:go"}


@dataclass(frozen=True, slots=True)
class Encoded:
    """One ``ExportTraceServiceRequest``. Two of them, one behind the other, are one as well (protobuf merges them)."""

    data: bytes
    spans: int


class Encoder:
    """Encodes batches of spans, remembering the resources it has seen. Not thread-safe.

    Args:
        max_batch_spans: spans per request, at most.
        max_batch_bytes: bytes per request, at most, unless a single span is longer.
        attribute_value_length_limit: characters of a string attribute that are kept; None keeps all.
    """

    def __init__(
        self,
        max_batch_spans: int = 8192,
        max_batch_bytes: int = MAX_REQUEST_BYTES,
        attribute_value_length_limit: int | None = None,
    ) -> None:
        self._max_spans = max(max_batch_spans, 1)
        self._max_bytes = max_batch_bytes
        self._limit = attribute_value_length_limit
        self._resources: dict[int, tuple[Mapping[str, AttributeValue], bytes]] = {}

    def encode(self, columns: SpanColumns, resources: Mapping[int, Mapping[str, AttributeValue]]) -> list[Encoded]:
        """Encode all rows of `columns`, grouped by slot, in their order within a slot.

        Args:
            columns: n spans; the arrays are read, not kept.
            resources: slot -> resource attributes. A slot that isn't in it gets ``service.name=unknown_service:go``,
                the specification's fallback, rather than being lost.

        Returns:
            As many requests as the limits demand; none for no spans. Their `spans` sum to n.
        """
        if not len(columns):
            return []
        order = np.argsort(columns.slot, kind="stable")
        slots = columns.slot[order]
        spans = [_span_field(body) for body in map(b"".join, zip(*self._pieces(columns), strict=True))]
        if (np.diff(order) != 1).any():
            spans = [spans[row] for row in order.tolist()]
        scope = message(1, text(1, columns.scope) + text(2, __version__))
        borders = [0, *(np.flatnonzero(np.diff(slots)) + 1).tolist()]
        requests = []
        for first, last in self._batches(spans):
            runs = [first, *(border for border in borders if first < border < last), last]
            data = b"".join(
                self._resource_spans(int(slots[a]), resources, scope, b"".join(spans[a:b])) for a, b in pairwise(runs)
            )
            requests.append(Encoded(data, last - first))
        return requests

    def _batches(self, spans: list[bytes]) -> Iterator[tuple[int, int]]:
        """Cut the spans into half-open ranges that keep both limits."""
        ends = np.cumsum([len(span) for span in spans])
        first = sent_bytes = 0
        while first < len(spans):
            fitting = int(np.searchsorted(ends, sent_bytes + self._max_bytes, "right"))
            last = max(first + 1, min(fitting, first + self._max_spans))
            yield first, last
            first, sent_bytes = last, int(ends[last - 1])

    def _resource_spans(
        self, slot: int, resources: Mapping[int, Mapping[str, AttributeValue]], scope: bytes, spans: bytes
    ) -> bytes:
        schema_url = text(3, SCHEMA_URL)
        scope_spans = message(2, scope + spans + schema_url)
        return message(1, self._resource(slot, resources.get(slot, _UNKNOWN_SERVICE)) + scope_spans + schema_url)

    def _resource(self, slot: int, attributes: Mapping[str, AttributeValue]) -> bytes:
        """Encode ``ResourceSpans.resource``; a slot that got another mapping is encoded anew."""
        known, encoded = self._resources.get(slot, (None, b""))
        if known is not attributes:
            encoded = message(1, b"".join(key_value(1, key, value) for key, value in attributes.items()))
            self._resources[slot] = (attributes, encoded)
        return encoded

    def _pieces(self, columns: SpanColumns) -> list[list[bytes]]:
        """Return for each part of a span its bytes, one element a row; absent is ``b""``."""
        has_parent = np.asarray(columns.parent_span_id.any(axis=1))
        parts = [_fixed(columns, has_parent), _picked(columns.name, lambda name: text(5, name))]
        if has_parent.any():
            parts.append(_parents(columns, has_parent))
        if (columns.trace_state.codes >= 0).any():
            parts.append(_picked(columns.trace_state, lambda state: text(3, state)))
        for key, column in columns.attributes.items():
            if isinstance(column, Strings):
                parts.append(_picked(column, partial(self._string_attribute, key)))
            else:
                parts.append(_values(key, column))
        if columns.error.any():
            parts.append([_STATUS_ERROR if error else b"" for error in columns.error.tolist()])
        return parts

    def _string_attribute(self, key: str, value: str) -> bytes:
        return key_value(9, key, value[: self._limit])


def _span_field(body: bytes) -> bytes:
    size = len(body)
    return (_SPAN_HEADS[size] if size < len(_SPAN_HEADS) else tag(2, LENGTH) + varint(size)) + body


def _fixed(columns: SpanColumns, has_parent: npt.NDArray[np.bool_]) -> list[bytes]:
    block = np.empty(len(columns), _FIXED)
    block["trace_id_tag"] = np.void(_TRACE_ID)
    block["trace_id"] = columns.trace_id
    block["span_id_tag"] = np.void(_SPAN_ID)
    block["span_id"] = columns.span_id
    block["kind_tag"] = np.void(tag(6, VARINT))
    block["kind"] = columns.kind
    block["start_tag"] = np.void(tag(7, FIXED64))
    block["start"] = columns.start_unix_ns
    block["end_tag"] = np.void(tag(8, FIXED64))
    block["end"] = columns.end_unix_ns
    block["flags_tag"] = np.void(tag(16, FIXED32))
    block["flags"] = columns.trace_flags.astype(np.uint32) | _HAS_IS_REMOTE
    if columns.kind in (SpanKind.SERVER, SpanKind.CONSUMER):  # their parent, if any, came over the wire
        block["flags"][has_parent] |= _IS_REMOTE
    return block.view(f"V{_FIXED.itemsize}").tolist()


def _parents(columns: SpanColumns, has_parent: npt.NDArray[np.bool_]) -> list[bytes]:
    block = np.empty(len(columns), _PARENT)
    block["tag"] = np.void(_PARENT_SPAN_ID)
    block["span_id"] = columns.parent_span_id
    fields = block.view(f"V{_PARENT.itemsize}").tolist()
    return [field if present else b"" for field, present in zip(fields, has_parent.tolist(), strict=True)]


def _picked(column: Strings, encode: Callable[[str], bytes]) -> list[bytes]:
    """Encode the table's entries that a row uses, each once; the piece behind the last one is for code -1."""
    used = np.zeros(len(column.table) + 1, np.bool_)
    used[column.codes] = True
    pieces = [b""] * len(used)
    for code in np.flatnonzero(used[:-1]).tolist():
        pieces[code] = encode(column.table[code])
    return list(map(pieces.__getitem__, column.codes.tolist()))


def _values(key: str, column: Integers | Booleans) -> list[bytes]:
    """Encode each distinct value once."""
    distinct, codes = np.unique(column.values, return_inverse=True)
    pieces = [key_value(9, key, value) for value in distinct.tolist()]
    pieces.append(b"")
    return list(map(pieces.__getitem__, np.where(column.present, codes, -1).tolist()))
