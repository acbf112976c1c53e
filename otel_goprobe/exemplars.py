"""Spans on their way to the exporter -> exemplars of the histograms that count them; asked by durations.py.

Made here, of spans that are there anyway, so that they cost the target nothing. Of each bucket of each series the
newest span is kept, as the SDK's `AlignedHistogramBucketExemplarReservoir` does; of an exponential histogram, of each
power of two. Who calls `see` decides how often; it looks at a bounded number of spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from otel_goprobe import probes
from otel_goprobe.model import Exemplar, Integers, StringLists, Strings

if TYPE_CHECKING:
    import numpy.typing as npt

    from otel_goprobe.config import ExemplarFilter
    from otel_goprobe.model import AttributeValue, SpanColumns
    from otel_goprobe.probes.base import Duration

Attributes = tuple[tuple[str, "AttributeValue"], ...]
"""Sorted by their names, so that they can be compared; no value is a sequence."""

MOST_SPANS = 1024
"""That a call of `see` looks at: the last ones."""
MOST = 20
"""Exemplars of a point of an exponential histogram: the size of the reservoir that the SDK specification ("Exemplar
defaults") gives it."""
_SAMPLED = 1
"""W3C's trace flag."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""As in spans/columns.py."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """An exemplar, and when it came: the number of the call of `see`."""

    exemplar: Exemplar
    came: int


class Exemplars:
    """The newest span of each bucket.

    Args:
        which: OTEL_METRICS_EXEMPLAR_FILTER.
        max_series: series of which exemplars are kept.
        exponential: whether buckets are those of exponential histograms.
    """

    def __init__(self, which: ExemplarFilter, max_series: int, *, exponential: bool) -> None:
        self._which = which
        self._max_series = max_series
        self._exponential = exponential
        self._durations = {
            (f"otel-goprobe/{library.import_path}", duration.span_kind): duration
            for library, duration in probes.durations().values()
        }
        self._names = {duration.name: duration.span_attributes for duration in self._durations.values()}
        self._kept: dict[tuple[int, str, Attributes], dict[int, _Kept]] = {}
        """By slot, name of the metric and attributes, then by bucket."""
        self.came = 0
        """Calls of `see`."""

    def see(self, columns: SpanColumns) -> None:
        """Take the newest of these spans in each bucket."""
        duration = self._durations.get((columns.scope, columns.kind))
        if not duration or self._which == "always_off":
            return
        rows = np.arange(max(len(columns) - MOST_SPANS, 0), len(columns))
        if self._which == "trace_based":
            rows = rows[columns.trace_flags[rows] & _SAMPLED != 0]
        self.came += 1
        if len(rows):
            self._take(duration, columns, rows[np.argsort(columns.end_unix_ns[rows], kind="stable")])

    def _take(self, duration: Duration, columns: SpanColumns, rows: npt.NDArray[np.intp]) -> None:
        spent_ns = columns.end_unix_ns[rows] - columns.start_unix_ns[rows]
        if self._exponential:
            buckets = np.frexp(spent_ns.astype(np.float64))[1].astype(np.int64)
        else:
            bounds_ns = np.array([round(bound * 1e9) for bound in duration.bounds_s], np.uint64)
            buckets = np.searchsorted(bounds_ns, spent_ns, "left")
        names = [name for name in duration.span_attributes if name in columns.attributes]
        for index in _newest(columns, names, rows, buckets).tolist():
            row = int(rows[index])
            key = int(columns.slot[row]), duration.name, _attributes(columns, names, row)
            if key not in self._kept and len(self._kept) >= self._max_series:
                continue
            exemplar = Exemplar(
                int(columns.end_unix_ns[row]),
                int(spent_ns[index]) / 1e9,
                columns.trace_id[row].tobytes(),
                columns.span_id[row].tobytes(),
            )
            self._kept.setdefault(key, {})[int(buckets[index])] = _Kept(exemplar, self.came)

    def of(
        self, slot: int, metric: str, attributes: Attributes, behind: int, since_unix_ns: int
    ) -> tuple[Exemplar, ...]:
        """Return those of one series.

        Args:
            slot: the target's.
            metric: its name.
            attributes: of the series; those that spans haven't got, such as a client's url.scheme, are left aside.
            behind: only what came behind this number of calls of `see`.
            since_unix_ns: only spans that ended since then.
        """
        of_spans = tuple(pair for pair in attributes if pair[0] in self._names[metric])
        kept = [one for one in self._kept.get((slot, metric, of_spans), {}).values() if one.came > behind]
        exemplars = [one.exemplar for one in kept if one.exemplar.unix_ns >= since_unix_ns]
        if self._exponential:
            exemplars = sorted(exemplars, key=lambda exemplar: exemplar.unix_ns)[-MOST:]
        return tuple(sorted(exemplars, key=lambda exemplar: exemplar.value_s))

    def forget(self, slot: int) -> None:
        """Let go of a target's."""
        for key in [key for key in self._kept if key[0] == slot]:
            del self._kept[key]


def _newest(
    columns: SpanColumns, names: list[str], rows: npt.NDArray[np.intp], buckets: npt.NDArray[np.int64]
) -> npt.NDArray[np.intp]:
    """Return, for each bucket of each series, the index into `rows`, ordered by their ends, of the last span.

    Series are told apart by a number mixed from what they hold; two that come to the same number lose an exemplar.
    """
    told_apart: list[npt.NDArray[np.integer]] = [columns.slot[rows], buckets]
    for name in names:
        column = columns.attributes[name]
        if isinstance(column, (Strings, StringLists)):
            told_apart.append(column.codes[rows])
        else:
            told_apart.append(np.where(column.present[rows], column.values[rows].astype(np.int64), -1))
    mixed = np.zeros(len(rows), np.uint64)
    for values in told_apart:
        mixed = (mixed ^ mixed >> np.uint64(29)) * _MIX + values.astype(np.int64).view(np.uint64)
    _, from_the_end = np.unique(mixed[::-1], return_index=True)
    return len(rows) - 1 - from_the_end


def _attributes(columns: SpanColumns, names: list[str], row: int) -> Attributes:
    found: list[tuple[str, AttributeValue]] = []
    for name in names:
        column = columns.attributes[name]
        if isinstance(column, (Strings, StringLists)):
            if column.codes[row] >= 0:
                found.append((name, column.table[column.codes[row]]))
        elif column.present[row]:
            value = column.values[row]
            found.append((name, int(value) if isinstance(column, Integers) else bool(value)))
    return tuple(sorted(found))
