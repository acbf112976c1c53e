"""Spans of a call's both ends -> how services call each other, as metrics; fed and collected by meter.py.

A client span whose server span came too is a call from one service to another: the same rule, and the same names of
metrics, as those of the Collector's servicegraph connector and of Tempo's metrics generator. A client span without one
after `WAIT_S` is a call of a "virtual node", named by its server.address; a server span without a parent one by "user".
Only sampled spans are counted, and only those of this agent: for services of several agents the connector behind them
sees more.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from opentelemetry.semconv.attributes import server_attributes

from otel_goprobe.model import HistogramPoint, Metric, SpanKind, Strings, SumPoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy.typing as npt

    from otel_goprobe.model import AttributeValue, SpanColumns

BOUNDS_S: Final = (0.002, 0.004, 0.006, 0.008, 0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.4, 2.0, 5.0, 10.0, 15.0)
"""Inclusive upper bounds, seconds: the default of the Collector's connector, `latency_histogram_buckets`."""

WAIT_S: Final = 10.0
"""How long the other end of a call is waited for."""

MAX_WAITING: Final = 65536
"""Spans that wait for their other end; older ones are then taken for calls of or by a virtual node."""

MAX_NAMES: Final = 1024
"""Services and addresses; what comes behind them is called `_OTHER`."""

SCOPE: Final = "otel-goprobe/service-graph"

_OTHER = "_OTHER"
_USER = "user"
"""The connector's name for whoever calls a service that starts a trace."""

_RESOURCE: Final[Mapping[str, AttributeValue]] = {"service.name": "otel-goprobe"}
"""Of these metrics: they are of no single service."""

_ENDS: Final[Mapping[SpanKind, str]] = {SpanKind.CLIENT: "client", SpanKind.SERVER: "server"}

_HALF = np.dtype(
    [
        ("client_span_id", "<u8"),
        ("trace_id", "<u8"),
        ("service", "<i4"),
        ("other", "<i4"),
        ("ns", "<u8"),
        ("failed", "?"),
        ("seen_s", "<f8"),
    ]
)
"""One end of a call: `service` is its own, `other` what stands in for the other end; codes of their names."""


@dataclass(slots=True)
class _Edge:
    """What has been counted for one pair of services."""

    calls: int = 0
    failed: int = 0
    counts: dict[SpanKind, npt.NDArray[np.int64]] = field(
        default_factory=lambda: {kind: np.zeros(len(BOUNDS_S) + 1, np.int64) for kind in _ENDS}
    )
    sums_ns: Counter[SpanKind] = field(default_factory=Counter)


class ServiceGraph:
    """Counts calls between services, from when it is made on; any thread may collect.

    Args:
        wait_s: how long the other end of a call is waited for.
    """

    def __init__(self, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._began_unix_ns = time.time_ns()
        self._codes: dict[str, int] = {_OTHER: 0, _USER: 1}
        self._waiting: dict[SpanKind, list[npt.NDArray[np.void]]] = {kind: [] for kind in _ENDS}
        self._edges: dict[tuple[int, int, bool], _Edge] = {}
        self._unpaired: Counter[int] = Counter()

    def see(self, columns: SpanColumns, services: Mapping[int, Mapping[str, AttributeValue]]) -> None:
        """Remember the spans of a batch until their other ends come; `services`: slot -> resource attributes."""
        if columns.kind not in _ENDS or not len(columns):
            return
        slots, rows = np.unique(columns.slot, return_inverse=True)
        names = [self._code(str(services.get(int(slot), {}).get("service.name", _OTHER))) for slot in slots]
        halves = np.zeros(len(columns), _HALF)
        of_client = columns.kind == SpanKind.CLIENT
        halves["client_span_id"] = (columns.span_id if of_client else columns.parent_span_id).view("<u8").ravel()
        halves["trace_id"] = np.ascontiguousarray(columns.trace_id[:, 8:]).view("<u8").ravel()
        halves["service"] = np.array(names, np.int32)[rows]
        halves["ns"] = columns.end_unix_ns - columns.start_unix_ns
        halves["failed"] = columns.error
        halves["seen_s"] = time.monotonic()
        if of_client:
            halves["other"] = self._addresses(columns)
        else:
            roots = halves["client_span_id"] == 0
            with self._lock:
                users = np.full(roots.sum(), self._codes[_USER])
                self._count(users, halves["service"][roots], {columns.kind: halves[roots]}, virtual=True)
            halves = halves[~roots]
        with self._lock:
            self._waiting[columns.kind].append(halves)
            if sum(map(len, self._waiting[columns.kind])) > MAX_WAITING:
                self._pair(0.0)

    def collect(self) -> list[Metric]:
        """Return what has been counted since the beginning."""
        with self._lock:
            self._pair(self._wait_s)
            return self._metrics()

    def _metrics(self) -> list[Metric]:
        names = list(self._codes)
        edges = [(_labels(names, key), edge) for key, edge in self._edges.items()]
        calls = tuple(self._sum(labels, edge.calls) for labels, edge in edges)
        failed = tuple(self._sum(labels, edge.failed) for labels, edge in edges)
        unpaired = tuple(self._sum({"service": names[code]}, count) for code, count in self._unpaired.items())
        metrics = [
            _total("request", "Calls from one service to another.", calls),
            _total("request_failed", "Calls of which an end has status ERROR.", failed),
            _total("unpaired_spans", "Server spans whose client span wasn't seen here.", unpaired),
        ]
        metrics += [
            Metric(
                SCOPE,
                f"traces_service_graph_request_{end}_seconds",
                "s",
                f"How long calls took, as the {end} saw them.",
                tuple(self._histograms(edges, kind)),
                BOUNDS_S,
            )
            for kind, end in _ENDS.items()
        ]
        return [metric for metric in metrics if metric.points]

    def _code(self, name: str) -> int:
        """Return the number of a name; that of `_OTHER` where there are too many."""
        if name not in self._codes and len(self._codes) >= MAX_NAMES:
            name = _OTHER
        return self._codes.setdefault(name, len(self._codes))

    def _addresses(self, columns: SpanColumns) -> npt.NDArray[np.int32]:
        column = columns.attributes.get(server_attributes.SERVER_ADDRESS)
        if not isinstance(column, Strings):
            return np.zeros(len(columns), np.int32)
        used = np.unique(column.codes[column.codes >= 0])
        codes = np.zeros(len(column.table) + 1, np.int32)  # the last, of code -1, stays `_OTHER`
        codes[used] = [self._code(column.table[code]) for code in used.tolist()]
        return codes[column.codes]

    def _pair(self, wait_s: float) -> None:
        """Count the calls of which both ends have come; and those whose other end hasn't come within `wait_s`."""
        ends = {kind: np.concatenate([np.zeros(0, _HALF), *halves]) for kind, halves in self._waiting.items()}
        clients, servers = ends[SpanKind.CLIENT], ends[SpanKind.SERVER]
        _, client_rows, server_rows = np.intersect1d(
            clients["client_span_id"], servers["client_span_id"], return_indices=True
        )
        alike = clients["trace_id"][client_rows] == servers["trace_id"][server_rows]
        rows = {SpanKind.CLIENT: client_rows[alike], SpanKind.SERVER: server_rows[alike]}
        pairs = {kind: ends[kind][rows[kind]] for kind in _ENDS}
        self._count(pairs[SpanKind.CLIENT]["service"], pairs[SpanKind.SERVER]["service"], pairs)
        before = time.monotonic() - wait_s
        for kind, halves in ends.items():
            left = np.delete(halves, rows[kind])
            late = left["seen_s"] <= before
            self._waiting[kind] = [left[~late]]
            if kind == SpanKind.CLIENT:
                self._count(left["service"][late], left["other"][late], {kind: left[late]}, virtual=True)
            else:
                self._unpaired.update(left["service"][late].tolist())

    def _count(
        self,
        clients: npt.NDArray[np.integer],
        servers: npt.NDArray[np.integer],
        ends: Mapping[SpanKind, npt.NDArray[np.void]],
        *,
        virtual: bool = False,
    ) -> None:
        """Count calls, a row each: who calls, who answers (codes), and those of their ends that are known."""
        pairs, which = np.unique(np.stack([clients, servers], axis=1), axis=0, return_inverse=True)
        for number, (client, server) in enumerate(pairs.tolist()):
            rows = which.ravel() == number
            edge = self._edges.setdefault((client, server, virtual), _Edge())
            edge.calls += int(rows.sum())
            edge.failed += int(np.logical_or.reduce([halves["failed"][rows] for halves in ends.values()]).sum())
            for kind, halves in ends.items():
                buckets = np.searchsorted(BOUNDS_S, halves["ns"][rows] / 1e9)
                edge.counts[kind] += np.bincount(buckets, minlength=len(BOUNDS_S) + 1)
                edge.sums_ns[kind] += int(halves["ns"][rows].sum())

    def _sum(self, attributes: Mapping[str, AttributeValue], value: int) -> SumPoint:
        return SumPoint(_RESOURCE, attributes, self._began_unix_ns, value)

    def _histograms(
        self, edges: Iterable[tuple[dict[str, AttributeValue], _Edge]], kind: SpanKind
    ) -> Iterator[HistogramPoint]:
        for labels, edge in edges:
            if edge.counts[kind].any():
                counts = tuple(edge.counts[kind].tolist())
                yield HistogramPoint(_RESOURCE, labels, self._began_unix_ns, counts, edge.sums_ns[kind] / 1e9)


def _total(what: str, description: str, points: tuple[SumPoint, ...]) -> Metric:
    return Metric(SCOPE, f"traces_service_graph_{what}_total", "1", description, points, monotonic=True)


def _labels(names: list[str], key: tuple[int, int, bool]) -> dict[str, AttributeValue]:
    client, server, virtual = key
    return {
        "client": names[client],
        "server": names[server],
        "connection_type": "virtual_node" if virtual else "",
    }
