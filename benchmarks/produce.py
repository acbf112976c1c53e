"""The agent's pipeline behind the ring buffer, alone and at its limit, over the records of real requests.

For encode.py. The records are read once from go/server, by the agent's own programs; then each turn gives them new ids
and times and takes them through what the agent does: columns, encoding, queue, transport. The exporter's thread has its
own clock, so that both its CPU and the loop's are told apart.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.loads import Load
from benchmarks.machine import table
from benchmarks.processes import Server, wait_until
from benchmarks.receivers import receiving
from benchmarks.sample import RESOURCE
from benchmarks.sites import plan_of_server
from otel_goprobe import config, export, kernel, probes
from otel_goprobe.spans import Clock
from otel_goprobe.telemetry import Telemetry

if TYPE_CHECKING:
    import numpy.typing as npt

    from benchmarks.receivers import Receiver
    from otel_goprobe.model import SpanColumns
    from otel_goprobe.probes.base import Library

BATCHES = (50, 500, 2500, 8192)
"""Records a drain: 100 ms at 500, 5,000, 25,000 and 82,000 requests/s."""

RING_BYTES = 4 * 2**20
RECORD_S = 1.0


@dataclass
class Conversion:
    """What a library's `columns` may ask for."""

    clock: Clock
    options: frozenset[str] = frozenset()

    def type_name(self, slot: int, address: int) -> str:
        """No handler panics here."""
        raise LookupError(f"slot {slot}, address {address:#x}")


def recorded(size: int = 256) -> tuple[Library, npt.NDArray[np.void], float]:
    """Record requests for a second.

    Args:
        size: of the records, bytes.

    Returns:
        Whose records they are, the records, and µs a record to read them from the ring.
    """
    sizes = dict.fromkeys(("ring_256", "ring_1024"), RING_BYTES)
    with (
        Server() as server,
        kernel.load(probes.unit(kernel.bpf_folder()), cache_dir=config.cache_dir(), sizes=sizes) as program,
    ):
        plan = plan_of_server(server.path)
        row = np.zeros(1, program.dtype("target"))
        for member, value in plan.values.items():
            row[member] = value
        row["active"] = 1
        program.maps["targets"].update(bytes(4), row.tobytes())
        (kind, library), *_ = probes.kinds().items()
        with (
            contextlib.closing(kernel.Ring(program.maps[f"ring_{size}"], np.dtype(f"V{size}"))) as ring,
            kernel.attach(program, plan, pid=server.pid, exe_path=f"/proc/{server.pid}/exe", slot=0),
        ):
            Load("/small").run(server, RECORD_S)
            began = time.thread_time_ns()
            raw = ring.drain()
            read_us = (time.thread_time_ns() - began) / 1e3 / max(len(raw), 1)
        if not len(raw) or (raw.view(np.uint16).reshape(len(raw), -1)[:, 0] != kind).any():
            raise SystemExit("the requests left no records of the kind that was expected")
        return library, raw.view(program.dtype(f"{library.stem}_record_{size}")), read_us


class Pipeline:
    """Columns, encoder and exporter, as the agent has them.

    Args:
        library: whose records come.
        endpoint: of the receiver.
    """

    def __init__(self, library: Library, endpoint: str) -> None:
        self._library = library
        self._conversion = Conversion(Clock())
        self._encoder = export.Encoder()
        self.telemetry = Telemetry()
        settings = config.from_environment_and_flags(
            config.Flags(exporter="otlp", endpoint=endpoint, every=True), variables={}
        )
        self.exporter = export.make_exporter(settings, self.telemetry)
        self.ns = {"columns": 0, "encode": 0, "submit": 0}

    def turn(self, records: npt.NDArray[np.void]) -> None:
        """Take one drain's records through it."""
        clocks = [time.thread_time_ns()]
        self._conversion.clock.recalibrate()
        columns: SpanColumns = self._library.columns(records, self._conversion)
        clocks.append(time.thread_time_ns())
        requests = self._encoder.encode(columns, {0: RESOURCE})
        clocks.append(time.thread_time_ns())
        for request in requests:
            self.exporter.submit(request)
        clocks.append(time.thread_time_ns())
        for stage, began, ended in zip(self.ns, clocks, clocks[1:], strict=False):
            self.ns[stage] += ended - began


def run(seconds: float, *, real: bool) -> dict[str, Any]:
    """Drive the pipeline as fast as it goes, so long for each batch size.

    Args:
        seconds: for each.
        real: to a Collector; else to the process that discards.
    """
    library, records, read_us = recorded()
    generator = np.random.default_rng(7)
    results: dict[str, Any] = {"records": len(records), "read_us": read_us, "batches": {}}
    with receiving(real=real) as receiver:
        results["receiver"] = receiver.what
        for size in BATCHES:
            turns = [records[generator.integers(0, len(records), size)] for _ in range(16)]
            results["batches"][size] = _limit(Pipeline(library, receiver.endpoint), receiver, turns, seconds)
    return results


def _limit(pipeline: Pipeline, receiver: Receiver, turns: list[npt.NDArray[np.void]], seconds: float) -> dict[str, Any]:
    """Take `turns` through the pipeline, again and again, for so long."""
    came = receiver.spans()
    pipeline.turn(turns[0])
    pipeline.ns = dict.fromkeys(pipeline.ns, 0)
    began, cpu, count = time.monotonic(), time.process_time_ns(), 0
    while time.monotonic() - began < seconds:
        for turn in turns:
            pipeline.turn(turn)
            count += len(turn)
    pipeline.exporter.flush(30.0)
    elapsed = time.monotonic() - began
    stages = {stage: ns / 1e3 / count for stage, ns in pipeline.ns.items()}
    total = (time.process_time_ns() - cpu) / 1e3 / count
    pipeline.exporter.close(5.0)
    snapshot = pipeline.telemetry.snapshot()
    wait_until(lambda: receiver.spans() - came >= snapshot.exported, 5.0)
    return {
        **stages,
        "send": total - sum(stages.values()),
        "total_us": total,
        "spans_per_s": count / elapsed,
        "exported": snapshot.exported,
        "received": receiver.spans() - came,
        "dropped": snapshot.dropped,
    }


def text(results: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    stages = ("columns", "encode", "submit", "send", "total_us")
    rows = [
        [
            f"{size:,}",
            *(f"{one[stage]:.2f}" for stage in stages),
            f"{one['spans_per_s']:,.0f}",
            f"{one['received'] / max(one['exported'], 1):.3f}",
            ", ".join(f"{reason} {count:,}" for reason, count in one["dropped"].items()),
        ]
        for size, one in results["batches"].items()
    ]
    header = ["records a drain", *stages[:-1], "all, µs a span", "spans/s", "received of exported", "dropped"]
    return (
        f"µs of CPU a span, over {results['records']:,} records of real requests; reading them from the ring"
        f" {results['read_us']:.2f}; spans go to: {results['receiver']}.\n\n{table(header, rows)}"
    )
