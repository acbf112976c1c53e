"""What the agent itself uses: idle, at fixed rates, as fast as wrk can. ``python -m benchmarks.rates``, as root.

The target (go/server) has a core of its own; agent, load and a process that counts spans and discards them share the
others. Each way of running the agent is one run: idle, then rate after rate, then wrk; its CPU is that of the process's
clock, whatever thread used it, and its memory is read at the end of each step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks import modes
from benchmarks.loads import Load
from benchmarks.machine import OTHER_CPUS, give, in_words, machine, table
from benchmarks.processes import Server, memory_mib
from benchmarks.receivers import CollectorReceiver, Receiver, receiving

if TYPE_CHECKING:
    from collections.abc import Sequence

RATES = (100, 1_000, 5_000, 10_000, 20_000)
FASTEST = Load("/small", connections=32)
WAYS: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "SDK's OTEL_BSP_*": (
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=512",
        "OTEL_BSP_MAX_QUEUE_SIZE=2048",
        "OTEL_BSP_SCHEDULE_DELAY=5000",
    ),
    "gRPC": ("--protocol", "grpc"),
}
"""Flags and variables of the agent. The second has the defaults of the specification ("Batch LogRecord/Span Processor"
in sdk-environment-variables.md), which an SDK uses."""
IDLE = "idle"
GIVEN_BACK_S = 6.0
"""Behind the last step: within `agent.TRIM_EVERY_S` the agent gives free memory back."""
QUIET_S = 2.0
"""Behind an attach, before anything is measured."""


def measure(
    server: Server, receiver: Receiver, words: Sequence[str], rates: Sequence[int], seconds: float
) -> dict[str, dict[str, float]]:
    """Return by step what one run of the agent used."""
    if "grpc" in words and isinstance(receiver, CollectorReceiver):
        words = [*words, "--endpoint", receiver.grpc_endpoint]
    agent = modes.Agent(server, receiver, words=words)
    steps: dict[str, dict[str, float]] = {}
    try:
        time.sleep(QUIET_S)
        began, cpu = time.monotonic(), agent.cpu_ns
        time.sleep(seconds)
        idle = {"share": (agent.cpu_ns - cpu) / 1e9 / (time.monotonic() - began)}
        steps[IDLE] = idle | {"rss_mib": memory_mib(agent.pid)["now"]}
        for load in (*(Load("/small", rate=rate) for rate in rates), FASTEST):
            steps[f"{load.rate:,}/s" if load.rate else "wrk"] = _step(server, agent, load, seconds)
        time.sleep(GIVEN_BACK_S)
        steps["idle again"] = {"rss_mib": memory_mib(agent.pid)["now"]}
    finally:
        ended = agent.stop()
    steps["all"] = {
        "lost": sum(ended["dropped"].values()),
        "attached_s": ended["attached_s"],
        "first_span_s": ended["first_span_s"],
        "rss_mib_max": ended["rss_mib"]["max"],
    }
    return steps


def _step(server: Server, agent: modes.Agent, load: Load, seconds: float) -> dict[str, float]:
    cpu, began = agent.cpu_ns, time.monotonic()
    found = load.run(server, seconds)
    time.sleep(modes.SETTLE_S)
    used_ns, elapsed = agent.cpu_ns - cpu, time.monotonic() - began
    return {
        "rate": found["requests_per_s"],
        "us_a_span": used_ns / 1e3 / found["requests"],
        "share": used_ns / 1e9 / elapsed,
        "rss_mib": memory_mib(agent.pid)["now"],
    }


def median(runs: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the medians of several runs, by step and figure."""
    return {
        step: {key: statistics.median(run[step][key] for run in runs) for key in figures}
        for step, figures in runs[0].items()
    }


def text(results: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    parts = [f"{in_words(results['machine'])} Spans go to: {results['receiver']}."]
    for way, steps in results["ways"].items():
        rows = [
            [
                step,
                f"{one['rate']:,.0f}" if "rate" in one else "",
                f"{one['us_a_span']:.2f}" if "us_a_span" in one else "",
                f"{one['share']:.2%}" if "share" in one else "",
                f"{one['rss_mib']:.1f}",
            ]
            for step, one in steps.items()
            if step != "all"
        ]
        ended = steps["all"]
        header = [f"{way}, {ended['lost']:,.0f} spans lost", "spans/s", "agent µs a span", "of a core", "RSS, MiB"]
        parts.append(table(header, rows))
    return "\n\n".join(parts)


def main() -> None:
    """Answer the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each step [%(default)s]")
    parser.add_argument("--runs", type=int, default=1, help="of each way, of which the medians are given [%(default)s]")
    parser.add_argument("--rates", type=int, nargs="*", default=RATES, metavar="N", help="[%(default)s]")
    parser.add_argument("--ways", nargs="*", choices=tuple(WAYS), default=tuple(WAYS), help="[%(choices)s]")
    parser.add_argument("--receiver", choices=("collector", "discard"), default="collector", help="[%(default)s]")
    parser.add_argument("--json", default="", metavar="FILE", help="write the results there")
    parser.add_argument("--into", default="", metavar="FILE", help="write the tables into this document's block")
    options = parser.parse_args()
    os.sched_setaffinity(0, OTHER_CPUS)
    results: dict[str, Any] = {"machine": machine(), "ways": {}}
    with receiving(real=options.receiver == "collector") as receiver, Server() as server:
        results["receiver"] = receiver.what
        for way in options.ways:
            print(f"{time.strftime('%H:%M:%S')} {way}", file=sys.stderr, flush=True)
            runs = [measure(server, receiver, WAYS[way], options.rates, options.seconds) for _ in range(options.runs)]
            results["ways"][way] = median(runs)
    give(results, {"rates": text(results)}, json_path=options.json, document=options.into)


if __name__ == "__main__":
    main()
