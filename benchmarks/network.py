"""What ``network`` costs a client that dials as fast as it can, one that keeps its connections, and everybody else.

``make bench-network``. The client (go/connections) has a core of its own; its peer, the agent and this process share
the others. Rounds alternate between no agent, ``otel-goprobe network``, ``run`` and ``run --with network``; none
exports anything. A third process, which nobody watches, makes system calls: the tracepoint is the whole machine's.
What the BPF programs take is measured in runs of their own, because that itself costs some 20 ns a run.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.machine import OTHER_CPUS, TARGET_CPU, give, in_words, machine, table
from benchmarks.processes import Lines, Running, cpu_ns, wait_until
from benchmarks.programs import bench_program
from benchmarks.propagation import counted
from benchmarks.receivers import discarded
from benchmarks.sites import program_statistics, tag
from otel_goprobe import config, kernel, probes, tools
from otel_goprobe.tools import registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MODES: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "network": ("network",),
    "run": ("run",),
    "run --with network": ("run", "--with", "network"),
}
LOADS = {"dial": 10_007, "request": 20_011}
"""What the client does, and how often."""
CALLS = {"getppid": 100_003, "read": 100_003}
REPETITIONS = 20
"""Of system calls, of which the fastest counts: what others do meanwhile isn't theirs."""
ATTACH_S = 60.0
SETTLE_S = 1.2
"""Until the agent has taken what a load left in its rings: it reads them at least each second."""

Round = dict[str, dict[str, float]]
"""Of one mode: by load ``per_s``, ``client_us`` and ``agent_us``; by system call ``ns``."""


class Client(Running):
    """The client, or the one that nobody watches."""

    def __init__(self, *arguments: str, cpus: list[int]) -> None:
        super().__init__([bench_program("connections"), *arguments], cpus=cpus)
        self.line()

    def ask(self, kind: str, count: int) -> str:
        """Have it do something so often; return what it says."""
        self.tell(f"{kind} {count}")
        return self.line()


@contextlib.contextmanager
def agent(pid: int, mode: str) -> Iterator[int]:
    """Attach an agent whose spans are thrown away; its pid, 0 without one."""
    if mode == "none":
        yield 0
        return
    subcommand, *flags = MODES[mode]
    command = [sys.executable, "-m", "otel_goprobe", subcommand, "--pid", str(pid), *flags]
    with contextlib.ExitStack() as stack:
        if subcommand == "run":
            command += stack.enter_context(discarded())
        running = stack.enter_context(Running(command, stderr=subprocess.PIPE))
        assert running.process.stdout
        assert running.process.stderr
        Lines(running.process.stdout)
        said = Lines(running.process.stderr)
        if not wait_until(lambda: said.first("attached") is not None, ATTACH_S):
            raise SystemExit(f"the agent didn't attach:\n{said.text()}")
        yield running.pid
    lost = [line for _, line in said.lines if line.startswith("network: ")]
    if lost:
        raise SystemExit(f"the agent lost something: {lost}")


def once(client: Client, unwatched: Client, mode: str) -> Round:
    """Return what one round measured in one mode."""
    found: Round = {}
    with agent(client.pid, mode) as pid:
        for kind, count in LOADS.items():
            client.ask(kind, count // 10)
            time.sleep(SETTLE_S)
            own, agents, began = cpu_ns(client.pid), cpu_ns(pid) if pid else 0, time.monotonic()
            client.ask(kind, count)
            seconds, used_ns = time.monotonic() - began, cpu_ns(client.pid) - own
            time.sleep(SETTLE_S)
            found[kind] = {
                "per_s": count / seconds,
                "client_us": used_ns / 1e3 / count,
                "agent_us": (cpu_ns(pid) - agents) / 1e3 / count if pid else 0.0,
            }
        for kind, count in CALLS.items():
            found[kind] = {"ns": min(float(unwatched.ask(kind, count)) for _ in range(REPETITIONS))}
    return found


def names_by_tag() -> dict[str, str]:
    """Return the names of the tool's programs by what the kernel calls them."""
    folder, cache = kernel.bpf_folder(), config.cache_dir()
    with kernel.load(probes.unit(folder), cache_dir=cache, lazily=True) as core:
        unit = registry.unit(tools.tool("network"), folder)
        with kernel.load(unit, cache_dir=cache, maps=core.maps) as program:
            return {tag("self", descriptor): name for name, descriptor in program.descriptors.items()}


def programs(client: Client) -> dict[str, dict[str, tuple[float, float]]]:
    """Return by load and BPF program the runs and the ns that each connection or request takes, of both ends."""
    names = names_by_tag()
    found = {}
    with program_statistics(), agent(client.pid, "run --with network") as pid:
        for kind, count in LOADS.items():
            before = counted(pid, names)
            client.ask(kind, count)
            after = counted(pid, names)
            found[kind] = {
                name: ((runs - before[name][0]) / count, (ns - before[name][1]) / count)
                for name, (runs, ns) in after.items()
            }
    return found


def text(rounds: list[dict[str, Round]], spent: Mapping[str, Mapping[str, tuple[float, float]]]) -> str:
    """Return the tables as Markdown."""

    def median(mode: str, kind: str, key: str) -> float:
        return statistics.median(one[mode][kind][key] for one in rounds)

    def than_none(mode: str, kind: str, key: str, *, ratio: bool) -> float:
        pairs = ((one[mode][kind][key], one["none"][kind][key]) for one in rounds)
        return statistics.median(a / b if ratio else a - b for a, b in pairs)

    lines = []
    for kind, title in (("dial", "connections"), ("request", "requests, kept connections")):
        for mode in MODES:
            agents = f"{median(mode, kind, 'agent_us') / 10:.2f}" if mode != "none" else ""
            lines.append(
                [
                    f"{title}, {mode}",
                    f"{median(mode, kind, 'per_s'):,.0f}",
                    f"{than_none(mode, kind, 'per_s', ratio=True):.2f}",
                    f"{median(mode, kind, 'client_us'):.1f}",
                    f"{than_none(mode, kind, 'client_us', ratio=False):+.1f}",
                    agents,
                ]
            )
    header = ["", "per s", "kept", "client µs each", "more than none", "agent s per 100,000"]
    calls = [
        [f"{kind}, {mode}", f"{median(mode, kind, 'ns'):.0f}", f"{than_none(mode, kind, 'ns', ratio=False):+.0f}"]
        for kind in CALLS
        for mode in MODES
    ]
    ran = [
        [
            f"`{name}`",
            *(text for kind in LOADS for text in (f"{spent[kind][name][0]:.1f}", f"{spent[kind][name][1]:,.0f}")),
        ]
        for name in spent["dial"]
    ]
    sums = [sum(ns for _, ns in spent[kind].values()) for kind in LOADS]
    ran.append(["all", "", f"{sums[0]:,.0f}", "", f"{sums[1]:,.0f}"])
    return "\n\n".join(
        [
            table(header, lines),
            table(["a process that nobody watches", "ns a system call", "more than none"], calls),
            table(["BPF program", "runs a connection", "ns", "runs a request", "ns"], ran),
        ]
    )


def main() -> None:
    """Answer the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of which medians are taken [%(default)s]")
    parser.add_argument("--json", default="", metavar="FILE", help="write the results there")
    parser.add_argument("--into", default="", metavar="FILE", help="write the tables into this document's block")
    options = parser.parse_args()
    described = machine()
    rounds: list[dict[str, Round]] = []
    with Running([bench_program("connections"), "peer"], cpus=OTHER_CPUS) as peer:
        addresses = peer.line().split()
        with (
            Client("client", *addresses, cpus=[TARGET_CPU]) as client,
            Client("calls", cpus=[TARGET_CPU]) as unwatched,
        ):
            for number in range(options.rounds):
                order = list(MODES)[:: -1 if number % 2 else 1]
                rounds.append({mode: once(client, unwatched, mode) for mode in order})
            spent = programs(client)
    results: dict[str, Any] = {"machine": described, "rounds": rounds, "programs": spent}
    block = f"{in_words(described)} Medians of {options.rounds} rounds.\n\n{text(rounds, spent)}"
    give(results, {"network": block}, json_path=options.json, document=options.into)


if __name__ == "__main__":
    main()
