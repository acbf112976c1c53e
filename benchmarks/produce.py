"""The agent's pipeline behind the ring buffer, alone, over the records of real requests: at its limit, and at rates.

For encode.py. The records are read once from go/server, through the agent's own programs; then turn after turn of them
goes through what the agent does with a drain: conversion, queue, transport. The exporter's thread has a clock of its
own, so that its CPU and the loop's are told apart.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.loads import Load
from benchmarks.machine import table
from benchmarks.probed import probed
from benchmarks.processes import Server, wait_until
from benchmarks.receivers import receiving
from benchmarks.sample import RESOURCE
from otel_goprobe import agent, config, export, pace
from otel_goprobe.conversion import Converter
from otel_goprobe.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from benchmarks.receivers import Receiver
    from otel_goprobe.kernel import Program

BATCHES = (50, 500, 2000, 8192)
"""Records a drain."""
RATES = (100, 1_000, 10_000, 100_000)
SERVICES = (1, 100)

SIZE = 256
"""Of the records, bytes; their texts decide which ring a record goes to."""
RECORD_S = 1.0


@contextlib.contextmanager
def recorded() -> Iterator[tuple[Program, npt.NDArray[np.void], float]]:
    """Record requests for a second.

    Yields:
        The program whose layouts the records have, the records, shape (n,) of ``V256``, and µs a record to read them
        from the ring.
    """
    with Server() as server, probed(server.pid) as (program, rings):
        Load("/small").run(server, RECORD_S)
        began = time.thread_time_ns()
        records = rings[SIZE].drain()
        read_us = (time.thread_time_ns() - began) / 1e3 / max(len(records), 1)
        if not len(records):
            raise SystemExit("the requests left no records")
        yield program, records, read_us


def _settings(**flags: Any) -> config.Config:
    return config.from_environment_and_flags(config.Flags(**flags), variables={})


class Pipeline:
    """Converter and exporter, as the agent has them.

    Args:
        program: for the layouts of records.
        endpoint: of the receiver.
    """

    def __init__(self, program: Program, endpoint: str) -> None:
        settings = _settings(endpoint=endpoint, exporter="otlp", every=True)
        self.telemetry = Telemetry()
        self._converter = Converter(program, settings, self.telemetry, lambda slot, address: f"{slot} {address:#x}")
        self._resources = {slot: {**RESOURCE, "service.name": f"bench-{slot}"} for slot in range(max(SERVICES))}
        self.exporter = export.make_exporter(settings, self.telemetry)
        self.loop_ns = 0

    def turn(self, records: npt.NDArray[np.void]) -> None:
        """Take one drain's records through it."""
        began = time.thread_time_ns()
        self._converter.clock.recalibrate()
        for first in range(0, len(records), agent.DRAIN_RECORDS):
            some = records[first : first + agent.DRAIN_RECORDS]
            for request in self._converter.convert(SIZE, some, self._resources):
                self.exporter.submit(request)
        self.loop_ns += time.thread_time_ns() - began


class Turns:
    """Drains of so many records each, of so many services.

    Args:
        program: for the layout of the records.
        records: where they are taken from.
        count: of a drain.
        services: among which they are spread evenly.
    """

    def __init__(self, program: Program, records: npt.NDArray[np.void], count: int, services: int) -> None:
        generator = np.random.default_rng(7)
        self._turns = []
        for _ in range(8):
            turn = records[generator.integers(0, len(records), count)]
            header = np.ndarray(turn.shape, program.dtype("span_header"), turn, strides=turn.strides)
            header["slot"] = generator.integers(0, services, count)
            for name in ("trace_id", "span_id"):
                header[name] = generator.integers(1, 2**63, header[name].shape, np.uint64)
            self._turns.append(turn)
        self._next = 0

    def next(self) -> npt.NDArray[np.void]:
        """Return the next one."""
        self._next = (self._next + 1) % len(self._turns)
        return self._turns[self._next]


def run(seconds: float, *, real: bool) -> dict[str, Any]:
    """Drive the pipeline as fast as it goes, by batch size, and at fixed rates, by number of services.

    Args:
        seconds: for each.
        real: to a Collector; else to the process that discards.
    """
    with recorded() as (program, records, read_us), receiving(real=real) as receiver:
        results: dict[str, Any] = {"records": len(records), "read_us": read_us, "receiver": receiver.what}
        results["batches"] = {
            size: _drive(Pipeline(program, receiver.endpoint), receiver, Turns(program, records, size, 1), 0, seconds)
            for size in BATCHES
        }
        results["rates"] = {}
        for services in SERVICES:
            for rate in RATES:
                interval = _interval_s(rate)
                turns = Turns(program, records, max(round(rate * interval), 1), services)
                found = _drive(Pipeline(program, receiver.endpoint), receiver, turns, interval, seconds)
                results["rates"][f"{rate:,} spans/s, {services} services"] = found
    return results


def _interval_s(rate: int) -> float:
    """Return how long the agent would wait between two drains at so many spans a second."""
    ring = config.Flags().ring_bytes / (SIZE + 8)
    if rate * pace.LONGEST_INTERVAL_S < pace.FEW * ring:
        return min(pace.FEW * ring / rate, pace.FEW_EVERY_S)
    return min(max(pace.WANTED_FILL * ring / rate, pace.SHORTEST_INTERVAL_S), pace.LONGEST_INTERVAL_S)


def _drive(pipeline: Pipeline, receiver: Receiver, turns: Turns, interval_s: float, seconds: float) -> dict[str, Any]:
    """Take `turns` through the pipeline for so long, one each `interval_s`."""
    came = receiver.spans()
    pipeline.turn(turns.next())
    pipeline.loop_ns = count = 0
    began, cpu = time.monotonic(), time.process_time_ns()
    next_at = began
    while time.monotonic() - began < seconds:
        turn = turns.next()
        pipeline.turn(turn)
        count += len(turn)
        next_at += interval_s
        if interval_s:
            time.sleep(max(next_at - time.monotonic(), 0))
    elapsed = time.monotonic() - began
    pipeline.exporter.flush(30.0)
    total_ns = time.process_time_ns() - cpu
    pipeline.exporter.close(5.0)
    snapshot = pipeline.telemetry.snapshot()
    wait_until(lambda: receiver.spans() - came >= snapshot.exported, 5.0)
    return {
        "loop_us": pipeline.loop_ns / 1e3 / count,
        "send_us": (total_ns - pipeline.loop_ns) / 1e3 / count,
        "total_us": total_ns / 1e3 / count,
        "share": total_ns / 1e9 / elapsed,
        "spans_per_s": count / elapsed,
        "exported": snapshot.exported,
        "received": receiver.spans() - came,
        "dropped": snapshot.dropped,
    }


def text(results: dict[str, Any]) -> str:
    """Return both tables as Markdown."""
    header = ["conversion", "sending", "all, µs a span", "of a core", "spans/s", "received of exported", "dropped"]
    at_limit = table(
        ["records a drain", *header], [[f"{size:,}", *_row(one)] for size, one in results["batches"].items()]
    )
    at_rates = table(["rate", *header], [[rate, *_row(one)] for rate, one in results["rates"].items()])
    return (
        f"µs of CPU a span, over {results['records']:,} records of real requests; reading them from the ring"
        f" {results['read_us']:.2f}; spans go to: {results['receiver']}. As fast as it goes:\n\n{at_limit}\n\n"
        f"At fixed rates:\n\n{at_rates}"
    )


def _row(one: dict[str, Any]) -> list[str]:
    return [
        *(f"{one[stage]:.2f}" for stage in ("loop_us", "send_us", "total_us")),
        f"{one['share']:.2%}",
        f"{one['spans_per_s']:,.0f}",
        f"{one['received'] / max(one['exported'], 1):.3f}",
        ", ".join(f"{reason} {count:,}" for reason, count in one["dropped"].items()),
    ]
