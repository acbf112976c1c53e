"""Spans -> bytes of OTLP ``ExportTraceServiceRequest`` messages; called by conversion.py after each drain.

The one mapping from columns to a span, in two steps. `Encoder.shapes` writes what spans have in common: name, status
and attributes; the agent keeps these bytes as long as spans of the kind keep coming. `Encoder.requests` puts the ids
and times of each span, laid out as one fixed block by numpy, behind the bytes of its shape (protobuf leaves the order
of fields free) and joins it all. What both cost a span is in docs/overhead.md.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from otel_goprobe import __version__
from otel_goprobe.export.wire import FIXED32, FIXED64, LENGTH, VARINT, key_value, message, tag, text, varint
from otel_goprobe.model import Booleans, Integers, Occurrences, SpanColumns, SpanKind, StringLists, Strings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from otel_goprobe.model import AttributeValue, Links

SCHEMA_URL = "https://opentelemetry.io/schemas/1.43.0"
"""Of the semantic conventions that the attribute names are from; `opentelemetry.semconv.schemas.Schemas.V1_43_0`."""

MAX_REQUEST_BYTES = 4_000_000
"""A gRPC server accepts 4 MiB a message unless told otherwise (grpc-go `defaultServerMaxReceiveMessageSize`)."""

# trace.proto, SpanFlags; the low byte is W3C's trace flags.
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200

_STATUS_ERROR = message(15, tag(3, VARINT) + b"\x02")

_OWN = np.dtype(
    [
        ("trace_id_tag", "V2"),
        ("trace_id", "u1", 16),
        ("span_id_tag", "V2"),
        ("span_id", "u1", 8),
        ("start_tag", "V1"),
        ("start", "<u8"),
        ("end_tag", "V1"),
        ("end", "<u8"),
        ("parent_tag", "V2"),
        ("parent", "u1", 8),
    ]
)
"""The part of a span that is its own, without padding."""
_LINK = np.dtype(
    [
        ("link_tag", "V2"),
        ("trace_id_tag", "V2"),
        ("trace_id", "u1", 16),
        ("span_id_tag", "V2"),
        ("span_id", "u1", 8),
        ("flags_tag", "V1"),
        ("flags", "<u4"),
    ]
)
"""One of ``Span.links``, without padding."""
_LINK_TAGS = {
    "link_tag": tag(13, LENGTH) + bytes((_LINK.itemsize - 2,)),
    "trace_id_tag": tag(1, LENGTH) + b"\x10",
    "span_id_tag": tag(2, LENGTH) + b"\x08",
    "flags_tag": tag(6, FIXED32),
}
_ROOT_BYTES = _OWN.itemsize - 10
"""Of that part without the parent."""
_TAGS = {
    "trace_id_tag": tag(1, LENGTH) + b"\x10",
    "span_id_tag": tag(2, LENGTH) + b"\x08",
    "start_tag": tag(7, FIXED64),
    "end_tag": tag(8, FIXED64),
    "parent_tag": tag(4, LENGTH) + b"\x08",
}

_SPAN_HEADS = tuple(tag(2, LENGTH) + varint(size) for size in range(2048))
"""``ScopeSpans.spans`` and the length, by length."""

_encoded_value = functools.lru_cache(4096, typed=True)(functools.partial(key_value, 9))

_FEW = 64
"""Up to so many spans, looking for alike ones costs more than it saves."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, made odd (Knuth, The Art of Computer Programming 3, 6.4)."""

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
        self._names, self._trace_states = _Beginnings(5), _Beginnings(3)
        self._beginnings: dict[str, _Beginnings] = {}
        self._resources: dict[int, tuple[Mapping[str, AttributeValue], bytes]] = {}

    def encode(self, columns: SpanColumns, resources: Mapping[int, Mapping[str, AttributeValue]]) -> list[Encoded]:
        """Encode all rows of `columns`, each as if no other were like it; arguments and result as of `requests`."""
        occurrences = Occurrences(
            slot=columns.slot,
            trace_id=columns.trace_id,
            span_id=columns.span_id,
            parent_span_id=columns.parent_span_id,
            start_unix_ns=columns.start_unix_ns,
            end_unix_ns=columns.end_unix_ns,
            links=columns.links,
        )
        shapes = self.shapes(columns, None if columns.links is None else columns.links.counts)
        return self.requests(columns.scope, occurrences, shapes, np.arange(len(columns)), resources)

    def shapes(self, columns: SpanColumns, links: npt.NDArray[np.integer] | None = None) -> list[bytes]:
        """Encode what a span says besides ids, times and links, for each row of `columns`.

        Args:
            columns: n rows.
            links: shape (n,), how many links each span will have; None for none.

        Returns:
            The beginning of a ``ScopeSpans.spans`` field, of which ids and times are the end. Of the parent only its
            being there counts.
        """
        count = len(columns)
        if not count:
            return []
        parts = [_texts(columns.name, self._names)]
        if (columns.trace_state.codes >= 0).any():
            parts.append(_texts(columns.trace_state, self._trace_states))
        for key, column in columns.attributes.items():
            if isinstance(column, Strings):
                parts.append(_texts(column, self._beginnings_of(key), self._limit))
            elif isinstance(column, StringLists):
                parts.append(_lists(column, key, self._limit))
            else:
                parts.append(_values(column, key))
        if columns.error.any():
            parts.append(_Part(columns.error.astype(np.intp), [b"", _STATUS_ERROR], 2))
        has_parent = np.asarray(columns.parent_span_id.any(axis=1))
        parts.append(_kind_and_flags(columns, has_parent))
        few = count if count <= _FEW else count // 8
        own = [part for part in parts if part.distinct > few]
        own.append(_combined([part for part in parts if part.distinct <= few], count))
        bodies = own[0].rows() if len(own) == 1 else map(b"".join, zip(*(part.rows() for part in own), strict=True))
        own_bytes = np.where(has_parent, _OWN.itemsize, _ROOT_BYTES)
        if links is not None:
            own_bytes += _LINK.itemsize * links.astype(np.intp)
        return [_span_head(len(body) + size) + body for body, size in zip(bodies, own_bytes.tolist(), strict=True)]

    def requests(
        self,
        scope: str,
        occurrences: Occurrences,
        shapes: Sequence[bytes],
        codes: npt.NDArray[np.intp],
        resources: Mapping[int, Mapping[str, AttributeValue]],
    ) -> list[Encoded]:
        """Encode spans, grouped by slot, in their order within a slot.

        Args:
            scope: of all of them.
            occurrences: n spans; the arrays are read, not kept.
            shapes: of `shapes`.
            codes: shape (n,), index into `shapes`: which of them each span has.
            resources: slot -> resource attributes. A slot that isn't in it gets ``service.name=unknown_service:go``,
                the specification's fallback, rather than being lost.

        Returns:
            As many requests as the limits demand; none for no spans. Their `spans` sum to n.
        """
        count = len(occurrences)
        if not count:
            return []
        slots = occurrences.slot
        pieces, sizes = _pieces(occurrences, shapes, codes)
        if (slots[1:] < slots[:-1]).any():
            order = np.argsort(slots, kind="stable")
            slots, sizes = slots[order], sizes[order]
            pieces = [piece for row in order.tolist() for piece in pieces[2 * row : 2 * row + 2]]
        encoded_scope = message(1, text(1, scope) + text(2, __version__))
        borders = [0, *(np.flatnonzero(slots[1:] != slots[:-1]) + 1).tolist()]
        requests = []
        for first, last in self._batches(sizes):
            parts: list[bytes] = []
            runs = [first, *(border for border in borders if first < border < last), last]
            for a, b in pairwise(runs):
                attributes = resources.get(int(slots[a]), _UNKNOWN_SERVICE)
                resource = self._resource(int(slots[a]), attributes)
                parts += _resource_spans(resource, encoded_scope, pieces[2 * a : 2 * b], int(sizes[a:b].sum()))
            requests.append(Encoded(b"".join(parts), last - first))
        return requests

    def _batches(self, sizes: npt.NDArray[np.intp]) -> Iterator[tuple[int, int]]:
        """Cut spans of these sizes, in bytes, into half-open ranges that keep both limits."""
        ends = np.cumsum(sizes)
        first = sent_bytes = 0
        while first < len(sizes):
            fitting = int(np.searchsorted(ends, sent_bytes + self._max_bytes, "right"))
            last = max(first + 1, min(fitting, first + self._max_spans))
            yield first, last
            first, sent_bytes = last, int(ends[last - 1])

    def _resource(self, slot: int, attributes: Mapping[str, AttributeValue]) -> bytes:
        """Encode ``ResourceSpans.resource``; a slot that got another mapping is encoded anew."""
        known, encoded = self._resources.get(slot, (None, b""))
        if known is not attributes:
            encoded = message(1, b"".join(key_value(1, key, value) for key, value in attributes.items()))
            self._resources[slot] = (attributes, encoded)
        return encoded

    def _beginnings_of(self, key: str) -> _Beginnings:
        if key not in self._beginnings:
            self._beginnings[key] = _Beginnings(9, key)
        return self._beginnings[key]


class _Beginnings(dict[int, bytes]):
    """What stands before the text of a field, by the text's length in bytes."""

    def __init__(self, field: int, key: str | None = None) -> None:
        super().__init__()
        self._tag = tag(field, LENGTH)
        self._key = None if key is None else text(1, key)

    def __missing__(self, size: int) -> bytes:
        if self._key is None:
            made = self._tag + varint(size)
        else:
            string = tag(1, LENGTH) + varint(size)
            value = tag(2, LENGTH) + varint(len(string) + size) + string
            made = self._tag + varint(len(self._key) + len(value) + size) + self._key + value
        self[size] = made
        return made


@dataclass(frozen=True, slots=True)
class _Part:
    """One field of all rows."""

    codes: npt.NDArray[np.integer]
    """Shape (n,): index into `pieces`."""
    pieces: list[bytes]
    """Its encodings; -1 gives the last one, which is empty."""
    distinct: int
    """How many of them are used."""

    def rows(self) -> list[bytes]:
        """Return one element a row."""
        return list(map(self.pieces.__getitem__, self.codes.tolist()))


def _texts(column: Strings, beginnings: _Beginnings, limit: int | None = None) -> _Part:
    """Encode the table's entries that a row uses, each once."""
    used = np.zeros(len(column.table) + 1, np.bool_)
    used[column.codes] = True
    pieces = [b""] * len(used)
    codes = np.flatnonzero(used[:-1]).tolist()
    for code in codes:
        value = column.table[code][:limit].encode("utf-8", "replace")
        pieces[code] = beginnings[len(value)] + value
    return _Part(column.codes, pieces, len(codes))


def _lists(column: StringLists, key: str, limit: int | None) -> _Part:
    """Encode the table's lists."""
    cut = (tuple(value[:limit] for value in values) for values in column.table)
    return _Part(column.codes, [*(key_value(9, key, values) for values in cut), b""], len(column.table))


def _values(column: Integers | Booleans, key: str) -> _Part:
    """Encode each distinct value once."""
    distinct, codes = np.unique(column.values, return_inverse=True)
    pieces = [_encoded_value(key, value) for value in distinct.tolist()]
    return _Part(np.where(column.present, codes, -1), [*pieces, b""], len(pieces))


def _kind_and_flags(columns: SpanColumns, has_parent: npt.NDArray[np.bool_]) -> _Part:
    """Encode the kind, and the flags that tell whether the parent, if any, came over the wire."""
    flags = columns.trace_flags.astype(np.uint32) | _HAS_IS_REMOTE
    if columns.kind in (SpanKind.SERVER, SpanKind.CONSUMER):
        flags[has_parent] |= _IS_REMOTE
    kind = tag(6, VARINT) + varint(columns.kind)
    distinct, codes = np.unique(flags, return_inverse=True)
    pieces = [kind + tag(16, FIXED32) + value.to_bytes(4, "little") for value in distinct.tolist()]
    return _Part(codes, pieces, len(pieces))


def _combined(parts: list[_Part], count: int) -> _Part:
    """Join several parts into one, each combination that occurs once."""
    first_rows, codes = _combinations([part.codes for part in parts], count)
    columns = [map(part.pieces.__getitem__, part.codes[first_rows].tolist()) for part in parts]
    joined = list(map(b"".join, zip(*columns, strict=True))) if columns else [b""] * count
    return _Part(codes, joined, len(first_rows))


def _combinations(
    columns: list[npt.NDArray[np.integer]], count: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Find the rows that are alike in all columns.

    Returns:
        A row of each combination, and for each of the `count` rows which combination it is.
    """
    everyone = np.arange(count)
    if count <= _FEW or not columns:
        return everyone, everyone
    mixed = np.zeros(count, np.uint64)
    for column in columns:
        mixed += column.astype(np.uint64)
        mixed *= _MIX
        mixed ^= mixed >> np.uint64(29)
    _, first_rows, codes = np.unique(mixed, return_index=True, return_inverse=True)
    alike = first_rows[codes]
    if all(np.array_equal(column, column[alike]) for column in columns):
        return first_rows, codes
    return everyone, everyone  # two combinations were mixed into one number


def _span_head(size: int) -> bytes:
    return _SPAN_HEADS[size] if size < len(_SPAN_HEADS) else tag(2, LENGTH) + varint(size)


def _pieces(
    occurrences: Occurrences, shapes: Sequence[bytes], codes: npt.NDArray[np.intp]
) -> tuple[list[bytes], npt.NDArray[np.intp]]:
    """Return two pieces for each span, the shape's and its own, and how many bytes both are."""
    block = np.empty(len(occurrences), _OWN)
    for name, encoded in _TAGS.items():
        block[name] = np.void(encoded)
    block["trace_id"] = occurrences.trace_id
    block["span_id"] = occurrences.span_id
    block["start"] = occurrences.start_unix_ns
    block["end"] = occurrences.end_unix_ns
    block["parent"] = occurrences.parent_span_id
    own: list[bytes] = block.view(f"V{_OWN.itemsize}").tolist()
    has_parent = np.asarray(occurrences.parent_span_id.any(axis=1))
    for row in np.flatnonzero(~has_parent).tolist():
        own[row] = own[row][:_ROOT_BYTES]
    own_bytes = np.where(has_parent, _OWN.itemsize, _ROOT_BYTES)
    if occurrences.links is not None:
        ends = np.cumsum(occurrences.links.counts)
        links = _links(occurrences.links)
        for row in np.flatnonzero(occurrences.links.counts).tolist():
            own[row] += links[ends[row] - occurrences.links.counts[row] : ends[row]].tobytes()
        own_bytes += _LINK.itemsize * occurrences.links.counts
    pieces = [b""] * (2 * len(own))
    pieces[::2] = map(shapes.__getitem__, codes.tolist())
    pieces[1::2] = own
    sizes = np.fromiter(map(len, shapes), np.intp, len(shapes))[codes]
    return pieces, sizes + own_bytes


def _links(links: Links) -> npt.NDArray[np.void]:
    block = np.empty(len(links.span_id), _LINK)
    for name, its_tag in _LINK_TAGS.items():
        block[name] = np.void(its_tag)
    block["trace_id"] = links.trace_id
    block["span_id"] = links.span_id
    block["flags"] = links.trace_flags.astype(np.uint32) | _HAS_IS_REMOTE
    return block


def _resource_spans(resource: bytes, scope: bytes, spans: list[bytes], spans_bytes: int) -> list[bytes]:
    """Return the pieces of one ``ResourceSpans``; `spans` are copied once, by the join of the whole request."""
    schema_url = text(3, SCHEMA_URL)
    scope_spans_bytes = len(scope) + spans_bytes + len(schema_url)
    scope_spans_head = tag(2, LENGTH) + varint(scope_spans_bytes)
    size = len(resource) + len(scope_spans_head) + scope_spans_bytes + len(schema_url)
    return [tag(1, LENGTH) + varint(size), resource, scope_spans_head, scope, *spans, schema_url, schema_url]
