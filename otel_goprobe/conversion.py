"""Records of a drain -> encoded requests; the agent's loop calls `Converter.convert` with what each ring gave.

What a span says besides ids and times is made of a record by its library's declaration and the encoder, and kept: of
spans like ones that came before only ids and times are converted.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from otel_goprobe import export, probes
from otel_goprobe.model import Strings
from otel_goprobe.spans import Alike, Clock, fetch_links, matching, take_occurrences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

    from otel_goprobe.config import Config
    from otel_goprobe.kernel import Program
    from otel_goprobe.model import AttributeValue, Event, Links, SpanColumns
    from otel_goprobe.probes.base import Library
    from otel_goprobe.telemetry import Telemetry

    Resources = Mapping[int, Mapping[str, AttributeValue]]

MAX_SHAPES = 4096
"""Kept of each kind of records, some 600 bytes each; beyond it all are made anew."""


class Converter:
    """Converts the records of all libraries; it is what they know as `probes.base.Conversion`.

    Args:
        program: the loaded core unit, for the layouts of records.
        config: for options, limits and excluded routes.
        telemetry: counts what the user excluded.
        type_name: as `probes.base.Conversion` has it.
    """

    def __init__(
        self, program: Program, config: Config, telemetry: Telemetry, type_name: Callable[[int, int], str]
    ) -> None:
        self.clock = Clock()
        self.options = frozenset(name for name in probes.options() if config.has(name))
        self.names = config.library_names
        self._program = program
        self._type_name = type_name
        self._observers: list[tuple[Callable[[SpanColumns, Resources], None], float]] = []
        self.events_of: Callable[[npt.NDArray[np.uint8]], dict[int, list[Event]]] = lambda _: {}
        """Given ids of spans, shape (n, 8), that observers have just seen: row -> events of that span. A tool's."""
        self._excluded_routes = config.exclude_routes
        self._telemetry = telemetry
        self._encoder = export.Encoder(
            config.batch.max_batch_spans, attribute_value_length_limit=config.attribute_value_length_limit
        )
        self._of_struct: dict[tuple[int, int], _OfStruct] = {}

    def type_name(self, slot: int, address: int) -> str:
        """See `probes.base.Conversion`."""
        return self._type_name(slot, address)

    def show(self, see: Callable[[SpanColumns, Resources], None], every_s: float) -> None:
        """Give columns of all spans of a batch, and the resources, to `see`.

        Args:
            see: takes them before they are exported.
            every_s: at most so often for each kind of records, since these columns are made for it alone; 0: every
                batch. Several such functions have a time each.
        """
        self._observers.append((see, every_s))

    def forget(self) -> None:
        """Hear that a slot is to be used for another target, whose types have other names."""
        for one in self._of_struct.values():
            one.shapes.clear()

    def convert(self, size: int, records: npt.NDArray[np.void], resources: Resources) -> Iterator[export.Encoded]:
        """Convert records of one ring.

        Args:
            size: of a record, bytes.
            records: shape (n,) of ``V<size>``, of any libraries.
            resources: attributes of the targets, by slot.
        """
        kinds = records.view(np.uint16).reshape(len(records), -1)[:, 0]
        for kind, library in probes.kinds().items():
            wanted = kinds == kind
            if wanted.any():
                of_kind = records if wanted.all() else records[wanted]
                yield from self._convert(self._struct(kind, library, size), of_kind, resources)

    def _struct(self, kind: int, library: Library, size: int) -> _OfStruct:
        if (kind, size) not in self._of_struct:
            name = next(name for name in library.records if name.endswith(f"_record_{size}"))
            dtype = self._program.dtype(name)
            self._of_struct[kind, size] = _OfStruct(library, dtype, self._program.dtype("span_header"))
        return self._of_struct[kind, size]

    def _convert(
        self,
        struct: _OfStruct,
        raw: npt.NDArray[np.void],
        resources: Resources,
    ) -> list[export.Encoded]:
        records = raw.view(struct.dtype)
        links = self._links(records) if "span_links" in self.options else None
        found = struct.alike.sorted(records)
        if len(struct.shapes) + len(found.keys) > MAX_SHAPES:
            struct.shapes.clear()
        new = [number for number, key in enumerate(found.keys) if key not in struct.shapes]
        if new:
            first = records[found.first_rows[new]]
            columns = struct.library.columns(first, self)
            keys = (found.keys[number] for number in new)
            made = self._encoder.shapes(columns, first["fixed"]["header"]["links"])
            struct.shapes.update(zip(keys, made, strict=True))
            for number in np.flatnonzero(self._excluded(columns)).tolist():
                struct.shapes[found.keys[new[number]]] = b""
        shapes, codes = [struct.shapes[key] for key in found.keys], found.codes
        occurrences = struct.alike.occurrences(records, self.clock)
        if links:
            occurrences = replace(occurrences, links=links)
        if self._excluded_routes:
            kept = np.array([bool(shape) for shape in shapes])[codes]
            self._telemetry.dropped("excluded_route", int(np.count_nonzero(~kept)))
            records, occurrences, codes = records[kept], take_occurrences(occurrences, kept), codes[kept]
        if len(codes):
            self._observe(struct, records, resources)
            for number, events in self.events_of(occurrences.span_id).items():
                shapes.append(export.with_events(shapes[codes[number]], events))
                codes[number] = len(shapes) - 1
        scope = f"otel-goprobe/{struct.library.import_path}"
        return self._encoder.requests(scope, occurrences, shapes, codes, resources)

    def _links(self, records: npt.NDArray[np.void]) -> Links | None:
        """Fetch what spans are linked to, where records say that there is something."""
        of_spans = self._program.maps["span_links"]

        def take(key: bytes) -> bytes | None:
            found = of_spans.lookup(key)
            of_spans.delete(key)
            return found

        layouts = self._program.dtype("goroutine_key"), self._program.dtype("received_items")
        return fetch_links(records["fixed"]["header"], *layouts, take)

    def _observe(self, struct: _OfStruct, records: npt.NDArray[np.void], resources: Resources) -> None:
        now = time.monotonic()
        due = [(see, every_s) for see, every_s in self._observers if now >= struct.see_at.get(see, now)]
        if due:
            columns = struct.library.columns(records, self)
            for see, every_s in due:
                struct.see_at[see] = now + every_s
                see(columns, resources)

    def _excluded(self, columns: SpanColumns) -> npt.NDArray[np.bool_]:
        if not self._excluded_routes:
            return np.zeros(len(columns), np.bool_)
        texts = (columns.attributes.get(key) for key in ("http.route", "url.path"))
        return matching([text for text in texts if isinstance(text, Strings)], self._excluded_routes)


class _OfStruct:
    """What is kept for one C struct of records."""

    def __init__(self, library: Library, dtype: np.dtype[np.void], header: np.dtype[np.void]) -> None:
        self.library = library
        self.see_at: dict[Callable[[SpanColumns, Resources], None], float] = {}
        """When who looks at columns is to get some again."""
        self.dtype = dtype
        self.alike = Alike(dtype, header)
        self.shapes: dict[bytes, bytes] = {}
        """What records of a kind have in common, encoded, by `Kinds.keys`; empty where the user excluded it."""
