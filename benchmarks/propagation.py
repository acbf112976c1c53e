"""What each way to a span's parent costs the target: hits and ns of BPF programs a request. ``make bench-propagation``.

The target (go/hop) answers 20 bytes, asks itself over a kept or a new connection, or starts a goroutine. Its requests
are counted by itself, runs and ns of each program by the kernel, which adds some 20 ns a run. Rounds go through the
agent's options in turning order; a difference compares options or requests of one round.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import OTHER_CPUS, TARGET_CPU, give, in_words, machine, table
from benchmarks.processes import Lines, Running, SharedCounter, wait_until
from benchmarks.programs import bench_program, need
from benchmarks.receivers import discarded
from benchmarks.sites import program_statistics, runs, tag
from otel_goprobe import config, kernel, probes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ATTACH_S = 60.0
CONNECTIONS = 8
HEADER = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "none": ("--propagation", "none"),
    "read": ("--propagation", "read"),
    "local": ("--propagation", "local"),
    "lineage": ("--propagation", "local", "--lineage"),
}
"""Of the agent; what it does by itself is ``local``."""

LOADS: Mapping[str, tuple[str, ...]] = {
    "small": ("/small",),
    "header": ("/small", "-H", HEADER),
    "close": ("/small", "-H", "Connection: close"),
    "call": ("/call",),
    "connect": ("/connect",),
    "go": ("/go",),
}
"""A path, and what wrk sends besides."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a request: hits and ns of BPF programs."""

    hits: float
    ns: float

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.hits - other.hits, self.ns - other.ns)


Costs = dict[str, Cost]
"""By the library that the programs are of: ``http_server``, ``http_client``."""
LIBRARIES = ("http_server", "http_client")


class Hop(Running):
    """The target, on a core of its own where there are two or more."""

    def __init__(self) -> None:
        self.counter = SharedCounter()
        super().__init__([bench_program("hop"), "-counter", self.counter.path], cpus=[TARGET_CPU])
        self.port = int(self.line())

    def ask(self, load: str, seconds: int) -> int:
        """Ask as fast as it answers; return the number of requests."""
        path, *flags = LOADS[load]
        before = self.counter.value
        command = ["taskset", "-c", ",".join(map(str, OTHER_CPUS)), need("wrk", "wrk"), "-t1", f"-c{CONNECTIONS}"]
        url = f"http://127.0.0.1:{self.port}{path}"
        subprocess.run([*command, f"-d{seconds}s", *flags, url], stdout=subprocess.DEVNULL, check=True)
        return self.counter.value - before


def names_by_tag() -> dict[str, str]:
    """Return the names of the agent's programs by what the kernel calls them."""
    with kernel.load(probes.unit(kernel.bpf_folder()), cache_dir=config.cache_dir()) as program:
        return {tag("self", descriptor): name for name, descriptor in program.descriptors.items()}


@contextlib.contextmanager
def agent(hop: Hop, option: str) -> Iterator[int]:
    """Attach an agent whose spans are thrown away; yield its pid."""
    command = [sys.executable, "-m", "otel_goprobe", "run", "--pid", str(hop.pid), *OPTIONS[option]]
    with discarded() as flags, Running([*command, *flags], stderr=subprocess.PIPE) as running:
        assert running.process.stderr
        said = Lines(running.process.stderr)
        if not wait_until(lambda: said.first("attached") is not None, ATTACH_S):
            raise SystemExit(f"the agent didn't attach:\n{said.text()}")
        yield running.pid


def counted(pid: int, names: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Return runs and ns so far of the programs that an agent holds."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        if str(path.readlink()) == "anon_inode:bpf-prog":
            name = names.get(tag(pid, int(path.name)))
            if name:
                found[name] = runs(pid, int(path.name))
    return found


def measure(hop: Hop, option: str, seconds: int, names: Mapping[str, str]) -> dict[str, Costs]:
    """Return by load and library what a request costs."""
    results = {}
    with program_statistics(), agent(hop, option) as pid:
        hop.ask("call", 1)
        for load in LOADS:
            before = counted(pid, names)
            requests = hop.ask(load, seconds)
            time.sleep(0.05)
            spent = {
                name: (after[0] - before[name][0], after[1] - before[name][1])
                for name, after in counted(pid, names).items()
            }
            results[load] = {
                library: Cost(
                    sum(hits for name, (hits, _) in spent.items() if name.startswith(library)) / requests,
                    sum(ns for name, (_, ns) in spent.items() if name.startswith(library)) / requests,
                )
                for library in LIBRARIES
            }
    return results


def rows(one: Mapping[str, Mapping[str, Costs]]) -> dict[str, Cost]:
    """Return the lines of the table, of what one round measured by option, load and library."""
    server = {option: {load: costs["http_server"] for load, costs in loads.items()} for option, loads in one.items()}
    client = {option: {load: costs["http_client"] for load, costs in loads.items()} for option, loads in one.items()}
    lineage = client["lineage"]["go"]
    started = lineage.hits or 1
    return {
        "a server's request, `none`": server["none"]["small"],
        "`read`, without a header": server["read"]["small"],
        "`read`, with a traceparent": server["read"]["header"],
        "`local`, from elsewhere": server["local"]["small"],
        "`local`, sent by a traced client": server["local"]["call"] - server["local"]["small"],
        "a server's first request of a connection, `none`": server["none"]["close"],
        "the same, `local`": server["local"]["close"],
        "a client's call, `none`": client["none"]["call"],
        "a client's call, `read`": client["read"]["call"],
        "a client's call, `local`": client["local"]["call"],
        "the same over a new connection": client["local"]["connect"],
        "`--lineage`: a goroutine that is started": Cost(1, lineage.ns / started),
    }


def text(measured: list[dict[str, dict[str, Costs]]]) -> str:
    """Return the table as Markdown."""
    by_round = [rows(one) for one in measured]
    lines = []
    for what in by_round[0]:
        hits, ns = (statistics.median(getattr(one[what], key) for one in by_round) for key in ("hits", "ns"))
        lines.append([what, f"{hits:.1f}", f"{ns:,.0f}"])
    return table(["", "hits", "ns of BPF"], lines)


def main() -> None:
    """Answer the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of which medians are taken [%(default)s]")
    parser.add_argument("--seconds", type=int, default=1, help="of each load with each option [%(default)s]")
    parser.add_argument("--json", default="", metavar="FILE", help="write the results there")
    parser.add_argument("--into", default="", metavar="FILE", help="write the table into this document's block")
    options = parser.parse_args()
    described = machine()
    measured: list[dict[str, dict[str, Costs]]] = []
    names = names_by_tag()
    with Hop() as hop:
        for number in range(options.rounds):
            order = list(OPTIONS)[:: -1 if number % 2 else 1]
            measured.append({option: measure(hop, option, options.seconds, names) for option in order})
    results: dict[str, Any] = {
        "machine": described,
        "rounds": [
            {
                option: {
                    load: {library: [cost.hits, cost.ns] for library, cost in costs.items()}
                    for load, costs in loads.items()
                }
                for option, loads in one.items()
            }
            for one in measured
        ],
    }
    block = f"{in_words(described)} Medians of {options.rounds} rounds.\n\n{text(measured)}"
    give(results, {"propagation": block}, json_path=options.json, document=options.into)


if __name__ == "__main__":
    main()
