"""What a span costs the agent from 100 to 100,000 a second, of one service and of 100. ``python -m benchmarks.scale``.

As root. Spans come through real probes and real rings: go/producer has net/http serve requests that take no socket and
no client, so that one core makes as many as the agent has to take. Each number of services is one run of the agent:
rate after rate, then the highest one while the agent is stopped (SIGSTOP), which shows that a full ring costs the
targets nothing but the spans, and that those are counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import modes
from benchmarks.machine import OTHER_CPUS, TARGET_CPU, give, in_words, machine, table
from benchmarks.processes import TEMPORARY, Lines, Running, SharedCounter, cpu_ns, memory_mib, wait_until
from benchmarks.programs import ENVIRONMENT, bench_program
from benchmarks.receivers import receiving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.receivers import Receiver

RATES = (100, 1_000, 10_000, 50_000, 100_000)
SERVICES = (1, 100)
WARM_S = 1.0
SETTLE_S = 2.0
"""Behind the last request: more than the agent keeps a record or a batch at any rate."""
STOPPED = "agent stopped"


class Producer(Running):
    """A service: go/producer, on the targets' core."""

    def __init__(self) -> None:
        self.counter = SharedCounter()
        super().__init__([bench_program("producer"), "-counter", self.counter.path], cpus=[TARGET_CPU])
        self.line()


class Producers:
    """So many services."""

    def __init__(self, each: Sequence[Producer]) -> None:
        self._each = each
        self.pids = [one.pid for one in each]

    def produce(self, rate: int) -> None:
        """Make so many requests a second, all together, from now on."""
        for one in self._each:
            one.tell(str(rate / len(self._each)))

    @property
    def requests(self) -> int:
        """How many there have been."""
        return sum(one.counter.value for one in self._each)


@contextlib.contextmanager
def agent(producers: Producers, receiver: Receiver, summary: str) -> Iterator[Running]:
    """Run an agent that is attached to all of them."""
    command = [sys.executable, "-m", "otel_goprobe", "run", "--endpoint", receiver.endpoint, "--summary-json", summary]
    command += [word for pid in producers.pids for word in ("--service", f"scale-{pid}=pid:{pid}")]
    unset = [f"-u{key}" for key in ENVIRONMENT if key.startswith("OTEL_") and key != modes.CACHE]
    with Running(["env", *unset, *command], stderr=subprocess.PIPE) as running:
        assert running.process.stderr
        lines = Lines(running.process.stderr)
        if not wait_until(lambda: lines.text().count("attached pid=") == len(producers.pids), modes.ATTACH_WITHIN_S):
            raise SystemExit(f"the agent didn't attach to all:\n{lines.text()}")
        yield running


def measure(receiver: Receiver, services: int, rates: Sequence[int], seconds: float) -> dict[str, Any]:
    """Return by rate what the agent used, and what became of all spans."""
    with contextlib.ExitStack() as stack, tempfile.NamedTemporaryFile(prefix=TEMPORARY) as summary:
        producers = Producers([stack.enter_context(Producer()) for _ in range(services)])
        alone = _step(producers, rates[-1], seconds)
        received = receiver.spans()
        running = stack.enter_context(agent(producers, receiver, summary.name))
        before = producers.requests
        steps = {f"{rate:,}": _step(producers, rate, seconds, running.pid) for rate in rates}
        running.process.send_signal(signal.SIGSTOP)
        steps[STOPPED] = _step(producers, rates[-1], seconds)
        running.process.send_signal(signal.SIGCONT)
        time.sleep(SETTLE_S)
        requests = producers.requests - before
        running.stop(signal.SIGINT)
        ended = json.loads(Path(summary.name).read_text())
        return {
            "alone_per_s": alone["requests_per_s"],
            "steps": steps,
            "requests": requests,
            "received": receiver.spans() - received,
            "dropped": ended["dropped"],
        }


def _step(producers: Producers, rate: int, seconds: float, pid: int = 0) -> dict[str, float]:
    producers.produce(rate)
    time.sleep(WARM_S)
    requests, cpu, began = producers.requests, cpu_ns(pid) if pid else 0, time.monotonic()
    time.sleep(seconds)
    requests, elapsed = producers.requests - requests, time.monotonic() - began
    found = {"requests_per_s": requests / elapsed}
    if pid:
        used_ns = cpu_ns(pid) - cpu
        found |= {"us_a_span": used_ns / 1e3 / requests, "share": used_ns / 1e9 / elapsed}
        found["rss_mib"] = memory_mib(pid)["now"]
    producers.produce(0)
    time.sleep(SETTLE_S)
    return found


def text(results: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    parts = [f"{in_words(results['machine'])} Spans go to: {results['receiver']}."]
    for services, found in results["services"].items():
        rows = [
            [
                asked,
                f"{one['requests_per_s']:,.0f}",
                f"{one['us_a_span']:.2f}" if "us_a_span" in one else "",
                f"{one['share']:.2%}" if "share" in one else "",
                f"{one['rss_mib']:.1f}" if "rss_mib" in one else "",
            ]
            for asked, one in found["steps"].items()
        ]
        header = [
            f"{services} service{'s' * (services > 1)}, asked for",
            "requests/s",
            "agent µs a span",
            "of a core",
            "RSS, MiB",
        ]
        lost = ", ".join(f"{reason} {count:,}" for reason, count in found["dropped"].items()) or "nothing"
        parts.append(table(header, rows))
        parts.append(
            f"{found['alone_per_s']:,.0f} requests/s without an agent at the highest rate; {found['requests']:,}"
            f" requests in all, {found['received']:,} spans received; dropped: {lost}."
        )
    return "\n\n".join(parts)


def main() -> None:
    """Answer the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each step [%(default)s]")
    parser.add_argument("--services", type=int, nargs="*", default=SERVICES, metavar="N", help="[%(default)s]")
    parser.add_argument("--rates", type=int, nargs="*", default=RATES, metavar="N", help="[%(default)s]")
    parser.add_argument("--receiver", choices=("collector", "discard"), default="collector", help="[%(default)s]")
    parser.add_argument("--json", default="", metavar="FILE", help="write the results there")
    parser.add_argument("--into", default="", metavar="FILE", help="write the tables into this document's block")
    options = parser.parse_args()
    os.sched_setaffinity(0, OTHER_CPUS)
    results: dict[str, Any] = {"machine": machine(), "services": {}}
    with receiving(real=options.receiver == "collector") as receiver:
        results["receiver"] = receiver.what
        for services in options.services:
            print(f"{time.strftime('%H:%M:%S')} {services} services", file=sys.stderr, flush=True)
            results["services"][services] = measure(receiver, services, options.rates, options.seconds)
    give(results, {"scale": text(results)}, json_path=options.json, document=options.into)


if __name__ == "__main__":
    main()
