"""What the agent uses where it adds durations up and exports no span. ``python -m benchmarks.metrics``, as root.

The target (go/server) answers wrk; the agent exports metrics over OTLP each second, sixty times as often as by default.
Each way of running it is given by CPU per 100,000 requests, by what the target pays beside a round without an agent,
and by memory. Rounds alternate; medians are given.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.loads import Load
from benchmarks.machine import OTHER_CPUS, give, in_words, machine, table
from benchmarks.modes import CACHE
from benchmarks.processes import Lines, Running, Server, cpu_ns, memory_mib, wait_until
from benchmarks.programs import ENVIRONMENT
from benchmarks.receivers import receiving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.receivers import Receiver

LOAD = Load("/small", connections=32)
ATTACH_WITHIN_S = 60.0
EXPONENTIAL = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION=base2_exponential_bucket_histogram"
INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL=1000"

WAYS: dict[str, tuple[str, ...] | None] = {
    "no agent": None,
    "metrics, no spans": ("--exporter", "none", "--metrics-exporter", "otlp"),
    "the same, exponential": (EXPONENTIAL, "--exporter", "none", "--metrics-exporter", "otlp"),
    "metrics, --sample 0": ("--sample", "0", "--metrics-exporter", "otlp"),
    "metrics and all spans": ("--metrics-exporter", "otlp"),
    "all spans": (),
}
"""Flags; what has a ``=`` is a variable."""


@contextlib.contextmanager
def agent(server: Server, receiver: Receiver, words: tuple[str, ...]) -> Iterator[int]:
    """Run the agent, attached, until the block ends; gives its process id."""
    unset = [f"-u{key}" for key in ENVIRONMENT if key.startswith("OTEL_") and key != CACHE]
    variables = [INTERVAL, *(word for word in words if "=" in word)]
    flags = [word for word in words if "=" not in word]
    command = [sys.executable, "-m", "otel_goprobe", "run", "--pid", str(server.pid), "--service", "bench"]
    command += ["--endpoint", receiver.endpoint, *flags]
    with Running(["env", *unset, *variables, *command], stderr=subprocess.PIPE) as running:
        assert running.process.stderr
        lines = Lines(running.process.stderr)
        wait_until(lambda: bool(lines.first("attached")) or running.process.poll() is not None, ATTACH_WITHIN_S)
        if not lines.first("attached"):
            raise SystemExit(f"the agent didn't attach:\n{lines.text()}")
        yield running.pid
        if running.stop(signal.SIGINT):
            raise SystemExit(f"the agent didn't end well:\n{lines.text()}")


def measure(server: Server, receiver: Receiver, words: tuple[str, ...] | None, seconds: float) -> dict[str, float]:
    """Return what one way costs."""
    with contextlib.ExitStack() as stack:
        pid = None if words is None else stack.enter_context(agent(server, receiver, words))
        LOAD.run(server, 1.0)
        before = cpu_ns(pid) if pid else 0
        found = LOAD.run(server, seconds)
        requests = found["requests"]
        cost = {"requests_per_s": found["requests_per_s"], "target_cpu_us": found["target_cpu_us"]}
        if pid:
            cost["agent_s_per_100k"] = (cpu_ns(pid) - before) / 1e9 / requests * 100_000
            cost["rss_mib"] = memory_mib(pid)["now"]
        return cost


def text(results: dict[str, Any]) -> str:
    """Return the table."""
    summary: dict[str, dict[str, float]] = results["summary"]
    without = summary["no agent"]["target_cpu_us"]
    rows = [
        [
            way,
            f"{cost['requests_per_s']:,.0f}",
            f"{cost['target_cpu_us'] - without:+.2f}" if way != "no agent" else "",
            f"{cost['agent_s_per_100k']:.3f}" if "agent_s_per_100k" in cost else "",
            f"{cost['rss_mib']:.1f}" if "rss_mib" in cost else "",
        ]
        for way, cost in summary.items()
    ]
    header = ["", "requests/s", "target, µs a request", "agent, s per 100,000 requests", "agent, MiB"]
    return f"{in_words(results['machine'])}\n\n{table(header, rows)}"


def main() -> None:
    """Answer the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="[%(default)s]")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each way in each round [%(default)s]")
    parser.add_argument("--json", default="", metavar="FILE", help="write the results there")
    parser.add_argument("--into", default="", metavar="FILE", help="write the table into this document's block")
    options = parser.parse_args()
    os.sched_setaffinity(0, OTHER_CPUS)
    results: dict[str, Any] = {"machine": machine(), "rounds": []}
    with receiving(real=False) as receiver, Server() as server:
        for number in range(options.rounds):
            ways = list(WAYS)[:: -1 if number % 2 else 1]
            results["rounds"].append({way: measure(server, receiver, WAYS[way], options.seconds) for way in ways})
    first = results["rounds"][0]
    results["summary"] = {
        way: {key: statistics.median(each[way][key] for each in results["rounds"]) for key in first[way]}
        for way in WAYS
    }
    give(results, {"metrics": text(results)}, json_path=options.json, document=options.into)


if __name__ == "__main__":
    main()
