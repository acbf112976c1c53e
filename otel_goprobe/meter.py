"""The exporters of metrics and what each reads; agent.py has one where OTEL_METRICS_EXPORTER names any."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

from otel_goprobe import export
from otel_goprobe.durations import Durations
from otel_goprobe.service_graph import ServiceGraph

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_goprobe.config import Config
    from otel_goprobe.conversion import Converter
    from otel_goprobe.durations import Reader
    from otel_goprobe.kernel import Program
    from otel_goprobe.model import Metric

EXEMPLARS_EVERY_S = 1.0
"""Spans are looked at for exemplars: one batch of each kind."""


class Meter:
    """Counts from the start; exports from `open` on.

    Args:
        program: the loaded core unit.
        converter: for names of Go types; it shows the spans that it converts.
        config: which exporters, and how.
    """

    def __init__(self, program: Program, converter: Converter, config: Config) -> None:
        self.durations = Durations(program, converter, config)
        converter.show(lambda columns, _: self.durations.see(columns), EXEMPLARS_EVERY_S)
        self.of_tools: Callable[[], list[Metric]] = list
        """Gives what tools have counted."""
        self.graph = ServiceGraph() if config.service_graph else None
        if self.graph:
            converter.show(self.graph.see, 0.0)
        self._config = config.metrics
        self._pushed: list[tuple[Reader, export.MetricsExporter]] = []
        self._served: list[export.PrometheusServer] = []

    def open(self) -> None:
        """Make the exporters, which imports what they need.

        Raises:
            UsageError: an endpoint, a certificate or a port can't be used.
        """
        for name in self._config.exporters:
            if name == "prometheus":
                reader = self.durations.reader(again=True)
                self._served.append(export.serve_prometheus(self._config, functools.partial(self._of, reader)))
            else:
                reader = self.durations.reader(delta=self._config.delta and name == "otlp")
                self._pushed.append((reader, export.make_metrics_exporter(name, self._config)))

    def _of(self, reader: Reader) -> list[Metric]:
        return reader.collect() + (self.graph.collect() if self.graph else []) + self.of_tools()

    def collect(self) -> None:
        """Hand what the kernel has added up to those exporters that don't ask for it."""
        for reader, exporter in self._pushed:
            metrics = self._of(reader)
            if metrics:
                exporter.submit(metrics, time.time_ns())

    def close(self, timeout_s: float) -> None:
        """Deliver what is queued, within `timeout_s`, and stop serving."""
        self.durations.close()
        for server in self._served:
            server.close()
        until = time.monotonic() + timeout_s
        for _, exporter in self._pushed:
            exporter.close(max(until - time.monotonic(), 0.2))
