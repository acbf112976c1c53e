"""The kernel's histograms of durations and its requests in flight -> metrics, a list each time agent.py collects.

The kernel counts from the moment a target is attached (bpf/include/red.h); what is asked for as delta is the difference
to the last collection. Series whose attributes are the same to a reader, such as those of two patterns with one path,
are one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from otel_goprobe import probes
from otel_goprobe.model import HistogramPoint, Metric, SumPoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from otel_goprobe.kernel import Program
    from otel_goprobe.model import AttributeValue
    from otel_goprobe.probes.base import Conversion, Library

Attributes = tuple[tuple[str, "AttributeValue"], ...]
"""In a form that can be compared; no value is a sequence."""

_SERIES_MAPS = ("red_durations", "red_overflow")


@dataclass(slots=True)
class _Series:
    """What has been counted for one combination of attributes."""

    counts: npt.NDArray[np.uint64]
    sum_ns: int

    def add(self, counts: npt.NDArray[np.uint64], sum_ns: int) -> None:
        self.counts = self.counts + counts
        self.sum_ns += sum_ns


@dataclass(slots=True)
class _Slot:
    """One target, as long as it is attached."""

    resource: Mapping[str, AttributeValue]
    began_unix_ns: int
    exported_unix_ns: int
    exported: dict[tuple[int, Attributes], _Series] = field(default_factory=dict)
    """By kind and attributes: as of the last collection."""
    active: set[tuple[int, Attributes]] = field(default_factory=set)
    """What has been seen in flight; it is told even when it has become none."""


class Durations:
    """Reads what the kernel adds up.

    Args:
        program: the loaded core unit.
        conversion: for names of Go types.
        delta: whether histograms hold what came since the last collection.
    """

    def __init__(self, program: Program, conversion: Conversion, *, delta: bool) -> None:
        self._program = program
        self._conversion = conversion
        self._delta = delta
        self._texts: dict[int, bytes] = {}
        self._slots: dict[int, _Slot] = {}
        self._retired: dict[int, list[HistogramPoint]] = {}
        """By kind: last points of targets that are gone."""

    def begin(self, slot: int, resource: Mapping[str, AttributeValue]) -> None:
        """Count for a target that is about to be attached."""
        now = time.time_ns()
        self._slots[slot] = _Slot(resource, now, now)

    def end(self, slot: int) -> None:
        """Keep what a detached target has counted for the next collection, and empty its slot."""
        if slot not in self._slots:
            return
        now = time.time_ns()
        for kind, library in probes.kinds().items():
            self._retired.setdefault(kind, []).extend(self._histograms(kind, library, now, only=slot))
        for name in _SERIES_MAPS:
            for key in self._program.maps[name].keys():  # noqa: SIM118 - a map of the kernel, which can't be iterated
                if np.frombuffer(key, self._program.dtype("red_key"))["slot"][0] == slot:
                    self._program.maps[name].delete(key)
        del self._slots[slot]

    def collect(self) -> list[Metric]:
        """Return the metrics of every library that has something to tell."""
        now = time.time_ns()
        metrics = []
        for kind, library in probes.kinds().items():
            duration, scope = library.duration, f"otel-goprobe/{library.import_path}"
            points = self._histograms(kind, library, now) + self._retired.pop(kind, [])
            metrics.append(
                Metric(scope, duration.name, "s", duration.description, tuple(points), duration.bounds_s, self._delta)
            )
            active = tuple(self._active(kind, library)) if duration.active_name else ()
            metrics.append(
                Metric(scope, duration.active_name, duration.active_unit, duration.active_description, active)
            )
        return [metric for metric in metrics if metric.points]

    def _histograms(self, kind: int, library: Library, now: int, only: int | None = None) -> list[HistogramPoint]:
        buckets = len(library.duration.bounds_s) + 1
        found: dict[int, dict[tuple[int, Attributes], _Series]] = {}
        for name in _SERIES_MAPS:
            keys, values = self._read(name, "red_key", "red_series")
            rows = np.flatnonzero(keys["kind"] == kind)
            self._learn_texts(keys["text"][rows].tolist())
            attributes = library.duration.attributes(keys[rows], self._texts, self._conversion)
            for row, told in zip(rows.tolist(), attributes, strict=True):
                of_slot = found.setdefault(int(keys["slot"][row]), {})
                series = of_slot.setdefault((kind, _comparable(told)), _Series(np.zeros(buckets, np.uint64), 0))
                series.add(values["buckets"][row][:buckets], int(values["sum_ns"][row]))
        points = []
        for slot, target in self._slots.items():
            if only is not None and slot != only:
                continue
            for key, series in found.get(slot, {}).items():
                before = target.exported.get(key) if self._delta else None
                counts = series.counts - before.counts if before else series.counts
                if counts.any():
                    points.append(
                        HistogramPoint(
                            target.resource,
                            dict(key[1]),
                            target.exported_unix_ns if self._delta else target.began_unix_ns,
                            tuple(counts.tolist()),
                            (series.sum_ns - (before.sum_ns if before else 0)) / 1e9,
                        )
                    )
                target.exported[key] = series
            target.exported_unix_ns = now
        return points

    def _active(self, kind: int, library: Library) -> Iterable[SumPoint]:
        keys, values = self._read(f"{library.stem}_inflight", "goroutine_key", f"{library.stem}_in_flight")
        running: dict[tuple[int, Attributes], int] = {}
        for slot, told in zip(keys["slot"].tolist(), library.duration.active_attributes(values), strict=True):
            key = slot, _comparable(told)
            running[key] = running.get(key, 0) + 1
            if slot in self._slots:
                self._slots[slot].active.add((kind, key[1]))
        for slot, target in self._slots.items():
            for of_kind, attributes in sorted(target.active, key=str):
                if of_kind == kind:
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


def _comparable(attributes: Mapping[str, AttributeValue]) -> Attributes:
    return tuple(sorted(attributes.items()))
