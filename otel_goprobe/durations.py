"""The kernel's histograms of durations and its requests in flight -> metrics, whenever a `Reader` collects.

The kernel counts from the moment a target is attached (bpf/include/red.h). Each exporter has a reader of its own: what
one is told as delta is the difference to its last collection. Series whose attributes are the same to a reader, such as
those of two patterns with one path, are one. Made by meter.py.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from otel_goprobe import probes
from otel_goprobe.exemplars import Attributes, Exemplars
from otel_goprobe.model import HistogramPoint, Metric, SumPoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy.typing as npt

    from otel_goprobe.config import Config
    from otel_goprobe.kernel import Program
    from otel_goprobe.model import AttributeValue, SpanColumns
    from otel_goprobe.probes.base import Active, Conversion, Duration

_SERIES_MAPS = ("red_durations", "red_overflow")
_CHUNK = probes.RED_CHUNK
SCALE, BIAS = 3, 240
"""EXPONENTIAL_SCALE and EXPONENTIAL_BIAS of bpf/include/exponential.h."""
MAX_BUCKETS = 160
"""Of a point of an exponential histogram: MaxSize's default in the SDK specification ("Base2 Exponential Bucket
Histogram Aggregation"). Where they aren't enough, pairs are merged and the scale falls."""


@dataclass(frozen=True, slots=True)
class _Series:
    """What has been counted for one combination of attributes, in the kernel's buckets from `first` on."""

    first: int
    counts: npt.NDArray[np.uint64]
    sum_ns: int

    def plus(self, other: _Series) -> _Series:
        first = min(self.first, other.first)
        counts = np.zeros(max(one.first + len(one.counts) for one in (self, other)) - first, np.uint64)
        for one in (self, other):
            counts[one.first - first :][: len(one.counts)] += one.counts
        return _Series(first, counts, self.sum_ns + other.sum_ns)

    def minus(self, before: _Series) -> _Series:
        """Return what came since `before`, an older state of this series."""
        counts = self.counts.copy()
        counts[before.first - self.first :][: len(before.counts)] -= before.counts
        return _Series(self.first, counts, self.sum_ns - before.sum_ns)


@dataclass(slots=True)
class _Slot:
    """One target, as long as it is attached."""

    resource: Mapping[str, AttributeValue]
    began_unix_ns: int
    active: set[tuple[str, Attributes]] = field(default_factory=set)
    """By the metric and attributes: what has been seen in flight; it is told even when it has become none."""


class Durations:
    """Reads what the kernel adds up; any thread may, and it knows nothing that a lock doesn't guard.

    Args:
        program: the loaded core unit.
        conversion: for names of Go types.
        config: exponential or not, exemplars, how many series.
    """

    def __init__(self, program: Program, conversion: Conversion, config: Config) -> None:
        self._program = program
        self._conversion = conversion
        self.is_exponential = config.metrics.exponential
        self._texts: dict[int, bytes] = {}
        self._readers: list[Reader] = []
        self.slots: dict[int, _Slot] = {}
        self.exemplars = Exemplars(config.metrics.exemplars, config.max_series, exponential=self.is_exponential)
        self.lock = threading.Lock()
        self._closed = False

    def reader(self, *, delta: bool = False, again: bool = False) -> Reader:
        """Return a reader that has been told nothing yet; see `Reader` for the arguments."""
        reader = Reader(self, delta=delta, again=again)
        with self.lock:
            self._readers.append(reader)
        return reader

    def begin(self, slot: int, resource: Mapping[str, AttributeValue]) -> None:
        """Count for a target that is about to be attached."""
        with self.lock:
            self.slots[slot] = _Slot(resource, time.time_ns())

    def end(self, slot: int) -> None:
        """Keep what a detached target has counted for each reader's next collection, and empty its slot."""
        with self.lock:
            if slot not in self.slots:
                return
            counted = list(self.counted(only=slot))
            for reader in self._readers:
                reader.retire(slot, counted)
            self.exemplars.forget(slot)
            del self.slots[slot]
            self._forget(slot)

    def close(self) -> None:
        """Read the kernel's maps no more: who asks from now on is told nothing."""
        with self.lock:
            self._closed = True

    def see(self, columns: SpanColumns) -> None:
        """Look for exemplars in spans that are about to be exported."""
        with self.lock:
            self.exemplars.see(columns)

    def counted(self, only: int | None = None) -> Iterator[tuple[int, int, Attributes, _Series]]:
        """Yield slot, kind, attributes and state of each series, of one slot or of all."""
        found: dict[tuple[int, int, Attributes], _Series] = {}
        for name in () if self._closed else _SERIES_MAPS:
            keys, values = self._read(name, "red_key", "red_series")
            of_slot = np.isin(keys["slot"], list(self.slots) if only is None else [only])
            for kind, (_, duration) in probes.durations().items():
                rows = np.flatnonzero(of_slot & (keys["kind"] == kind))
                for text in ("text", "other_text"):
                    self._learn_texts(keys[text][rows].tolist())
                buckets = _CHUNK if self.is_exponential else len(duration.bounds_s) + 1
                attributes = duration.attributes(keys[rows], self._texts, self._conversion)
                for row, told in zip(rows.tolist(), attributes, strict=True):
                    first = int(keys["chunk"][row]) * _CHUNK
                    series = _Series(first, values["buckets"][row][:buckets], int(values["sum_ns"][row]))
                    key = int(keys["slot"][row]), kind, _comparable(told)
                    found[key] = found[key].plus(series) if key in found else series
        for (slot, kind, comparable), series in found.items():
            yield slot, kind, comparable, series

    def active(self, stems: Iterable[str], active: Active) -> Iterable[SumPoint]:
        """Yield how many are running, of libraries that have this metric."""
        if self._closed:
            return
        running: dict[tuple[int, Attributes], int] = {}
        for stem in stems:
            keys, values = self._read(f"{stem}_inflight", "goroutine_key", f"{stem}_in_flight")
            busy = values["start_ns"] != 0  # the others are of connections that wait for their next request
            keys, values = keys[busy], values[busy]
            for slot, told in zip(keys["slot"].tolist(), active.attributes(values), strict=True):
                key = slot, _comparable(told)
                running[key] = running.get(key, 0) + 1
                if slot in self.slots:
                    self.slots[slot].active.add((active.name, key[1]))
        for slot, target in self.slots.items():
            for name, attributes in sorted(target.active, key=str):
                if name == active.name:
                    count = running.get((slot, attributes), 0)
                    yield SumPoint(target.resource, dict(attributes), target.began_unix_ns, count)

    def _read(self, name: str, key: str, value: str) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
        keys, values = self._program.maps[name].items()
        return np.frombuffer(keys, self._program.dtype(key)), np.frombuffer(values, self._program.dtype(value))

    def _learn_texts(self, ids: list[int]) -> None:
        for number in {*ids} - {*self._texts, 0}:
            text = self._program.maps["red_texts"].lookup(number.to_bytes(8, "little"))
            if text is not None:
                self._texts[number] = text.rstrip(b"\0")

    def _forget(self, slot: int) -> None:
        """Delete a slot's series, and the texts that no series holds any more."""
        for name in _SERIES_MAPS:
            for key in self._program.maps[name].keys():  # noqa: SIM118 - a map of the kernel, which can't be iterated
                if np.frombuffer(key, self._program.dtype("red_key"))["slot"][0] == slot:
                    self._program.maps[name].delete(key)
        texts, used = self._program.maps["red_texts"], self._used_texts()
        unused = {key: texts.lookup(key) for key in texts.keys() if key not in used}  # noqa: SIM118 - as above
        for key in unused:
            texts.delete(key)
            self._texts.pop(int.from_bytes(key, "little"), None)
        for key in self._used_texts() & unused.keys():  # another target has met it meanwhile
            texts.update(key, unused[key] or bytes(texts.value_bytes))

    def _used_texts(self) -> set[bytes]:
        keys, _ = self._read("red_durations", "red_key", "red_series")
        return {number.to_bytes(8, "little") for name in ("text", "other_text") for number in keys[name].tolist()}


class Reader:
    """What one exporter is told.

    Args:
        durations: what is read.
        delta: whether histograms hold what came since the last collection.
        again: whether exemplars are told again until there are newer ones, rather than once.
    """

    def __init__(self, durations: Durations, *, delta: bool, again: bool) -> None:
        self._durations = durations
        self._delta = delta
        self._again = again
        self._told: dict[tuple[int, int, Attributes], _Series] = {}
        """By slot, kind and attributes: as of the last collection."""
        self._since: dict[int, int] = {}
        """By slot, Unix time in ns of the last collection."""
        self._exemplars_told = 0
        self._retired: dict[int, list[HistogramPoint]] = {}
        """By kind: last points of targets that are gone."""

    def collect(self) -> list[Metric]:
        """Return the metrics of every library that has something to tell."""
        with self._durations.lock:
            now = time.time_ns()
            points, self._retired = self._retired, {}
            for slot, kind, attributes, series in self._durations.counted():
                points.setdefault(kind, []).extend(self._point(slot, kind, attributes, series))
            self._since = dict.fromkeys(self._durations.slots, now)
            self._exemplars_told = self._durations.exemplars.came
            metrics: dict[str, Metric] = {}
            together: dict[str, list[HistogramPoint]] = {}
            """By the metric's name: two libraries, such as a protocol's versions, may have one."""
            for kind, (library, duration) in probes.durations().items():
                scope = f"otel-goprobe/{library.import_path}"
                of_metric = together.setdefault(duration.name, [])
                of_metric += points.get(kind, [])
                metrics[duration.name] = self._metric(scope, duration, of_metric)
            for name, (scope, active, stems) in _actives().items():
                running = tuple(self._durations.active(stems, active))
                metrics[name] = Metric(scope, active.name, active.unit, active.description, running)
        return [metric for metric in metrics.values() if metric.points]

    def retire(self, slot: int, counted: Iterable[tuple[int, int, Attributes, _Series]]) -> None:
        """Keep a target's last points until the next collection; the lock is held."""
        for _, kind, attributes, series in counted:
            self._retired.setdefault(kind, []).extend(self._point(slot, kind, attributes, series))
        self._since.pop(slot, None)
        for key in [key for key in self._told if key[0] == slot]:
            del self._told[key]

    def _metric(self, scope: str, duration: Duration, points: list[HistogramPoint]) -> Metric:
        return Metric(scope, duration.name, "s", duration.description, tuple(points), duration.bounds_s, self._delta)

    def _point(self, slot: int, kind: int, attributes: Attributes, series: _Series) -> Iterator[HistogramPoint]:
        """Yield the series' point, where it counts something."""
        target = self._durations.slots[slot]
        start, new = target.began_unix_ns, series
        if self._delta:
            key = slot, kind, attributes
            start = self._since.get(slot, start)
            new = series.minus(self._told[key]) if key in self._told else series
            self._told[key] = series
        if not new.counts.any():
            return
        behind = 0 if self._again else self._exemplars_told
        metric = probes.durations()[kind][1].name
        exemplars = self._durations.exemplars.of(slot, metric, attributes, behind, start)
        counts, scale, offset = new.counts, None, 0
        if self._durations.is_exponential:
            counts, scale, offset = exponential(new.first - BIAS, new.counts)
        yield HistogramPoint(
            target.resource,
            dict(attributes),
            start,
            tuple(counts.tolist()),
            new.sum_ns / 1e9,
            exemplars,
            scale,
            offset,
        )


def _actives() -> dict[str, tuple[str, Active, list[str]]]:
    """Return, by the metric's name, its scope, what it says, and the stems of the libraries that have it."""
    found: dict[str, tuple[str, Active, list[str]]] = {}
    for library, duration in probes.durations().values():
        if duration.active:
            scope = f"otel-goprobe/{library.import_path}"
            found.setdefault(duration.active.name, (scope, duration.active, []))[2].append(library.stem)
    return found


def exponential(index: int, counts: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint64], int, int]:
    """Trim buckets of `SCALE` and, while there are more than `MAX_BUCKETS`, merge pairs.

    Args:
        index: OTLP's, of the first of `counts`.
        counts: shape (n,), one above 0 at least.

    Returns:
        Counts, scale, and index of the first one.
    """
    scale = SCALE
    while True:
        filled = np.flatnonzero(counts)
        counts, index = counts[filled[0] : filled[-1] + 1], index + int(filled[0])
        if len(counts) <= MAX_BUCKETS:
            return counts, scale, index
        padded = np.zeros(index % 2 + len(counts) + (index + len(counts)) % 2, np.uint64)
        padded[index % 2 :][: len(counts)] = counts
        counts, index, scale = padded.reshape(-1, 2).sum(axis=1, dtype=np.uint64), index // 2, scale - 1


def _comparable(attributes: Mapping[str, AttributeValue]) -> Attributes:
    return tuple(sorted(attributes.items()))
