"""What headers on the wire cost the client that sends them, between two network namespaces.

``make bench-wire``. The client (tests/go/wire) has a core of its own; server, agent and this process share the others.
Rounds alternate between no agent, ``--propagation local``, which does nothing on such connections, and ``--propagation
wire``. What the BPF programs take is measured in runs of their own, because that itself costs some 20 ns a run.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goprograms import go_binary
from networks import Hosts

from benchmarks.machine import OTHER_CPUS, TARGET_CPU, give, in_words, machine, table
from benchmarks.processes import Lines, Running, cpu_ns, wait_until
from benchmarks.receivers import discarded
from benchmarks.sites import program_statistics

if TYPE_CHECKING:
    from collections.abc import Iterator

MODES = ("none", "local", "wire")
ATTACH_S = 60.0
SK_MSG, SOCK_OPS = 16, 13
"""enum bpf_prog_type."""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that the client sends, 8 at once."""

    kind: str
    count: int
    body_bytes: int


LOADS = {
    "GET": Load("get", 20_011, 0),
    "GET, a connection each": Load("close", 5003, 0),
    "POST of 1 MiB": Load("post", 1009, 2**20),
}


class Client(Running):
    """The client in the near namespace."""

    def __init__(self, hosts: Hosts, server: str) -> None:
        command = ["nsenter", f"--net=/run/netns/{hosts.near}", go_binary("wire"), "client", f"http://{server}"]
        super().__init__(command, cpus=[TARGET_CPU])
        while self.line() != "ready":
            pass

    def send(self, load: Load) -> tuple[float, float]:
        """Return requests/s, and the client's CPU time in µs a request."""
        cpu, began = cpu_ns(self.pid), time.monotonic()
        self.tell(f"{load.kind} {load.count} {load.body_bytes} 8")
        while (line := self.line()) != "done":
            if '"status":200' not in line:
                raise SystemExit(f"a request failed: {line}")
        seconds = time.monotonic() - began
        return load.count / seconds, (cpu_ns(self.pid) - cpu) / 1e3 / load.count


@contextlib.contextmanager
def agent(pid: int, mode: str) -> Iterator[int]:
    """Attach an agent whose spans are thrown away; its pid, 0 without one."""
    if mode == "none":
        yield 0
        return
    command = [sys.executable, "-m", "otel_goprobe", "run", "--pid", str(pid), "--propagation", mode]
    with discarded() as flags, Running([*command, *flags], stderr=subprocess.PIPE) as running:
        assert running.process.stderr
        said = Lines(running.process.stderr)
        if not wait_until(lambda: said.first("attached") is not None, ATTACH_S):
            raise SystemExit(f"the agent didn't attach:\n{said.text()}")
        yield running.pid


def program_runs(pid: int, kind: int) -> tuple[int, int]:
    """Return how often the BPF program of a type that a process holds ran, and the ns it took."""
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        text = path.read_text()
        found = dict(re.findall(r"^(\w+):\t(\d+)$", text, re.MULTILINE))
        if found.get("prog_type") == str(kind) and "run_cnt" in found:
            return int(found["run_cnt"]), int(found["run_time_ns"])
    raise SystemExit(f"process {pid} holds no BPF program of type {kind}")


def rounds(client: Client, count: int) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return by load and mode what `Client.send` gave, a value each round."""
    results: dict[str, dict[str, list[tuple[float, float]]]] = {name: {mode: [] for mode in MODES} for name in LOADS}
    for number in range(count):
        for mode in MODES if number % 2 == 0 else MODES[::-1]:
            with agent(client.pid, mode):
                for name, load in LOADS.items():
                    results[name][mode].append(client.send(load))
    return results


def programs(client: Client) -> dict[str, float]:
    """Return the ns of each BPF program's kinds of runs."""
    with program_statistics(), agent(client.pid, "wire") as pid:

        def during(name: str, kind: int) -> tuple[int, int]:
            before = program_runs(pid, kind)
            client.send(LOADS[name])
            after = program_runs(pid, kind)
            return after[0] - before[0], after[1] - before[1]

        runs, ns = during("GET", SK_MSG)
        head_ns = ns / runs
        connects, connect_ns = during("GET, a connection each", SOCK_OPS)
        body_runs, body_ns = during("POST of 1 MiB", SK_MSG)
        others = body_runs - LOADS["POST of 1 MiB"].count
        return {
            "head": round(head_ns),
            "pass": round((body_ns - head_ns * LOADS["POST of 1 MiB"].count) / others),
            "passes": round(others / LOADS["POST of 1 MiB"].count, 1),
            "sock_ops": round(connect_ns / connects),
            "ops": round(connects / LOADS["GET, a connection each"].count, 1),
        }


def text(results: dict[str, Any]) -> str:
    """Return both tables as Markdown."""
    rows = []
    for name, modes in results["loads"].items():
        for mode in MODES:
            per_s, cpu_us = (statistics.median(values) for values in zip(*modes[mode], strict=True))
            kept = statistics.median(a[0] / b[0] for a, b in zip(modes[mode], modes["none"], strict=True))
            more = statistics.median(a[1] - b[1] for a, b in zip(modes[mode], modes["none"], strict=True))
            rows.append([f"{name}, {mode}", f"{per_s:,.0f}", f"{kept:.2f}", f"{cpu_us:.1f}", f"{more:+.1f}"])
    header = ["", "requests/s", "kept", "client µs/request", "more than none"]
    ns = results["programs"]
    kinds = table(
        ["BPF program", "ns a run"],
        [
            ["sk_msg, a request's head, its header inserted", f"{ns['head']:,}"],
            [f"sk_msg, anything else (a POST of 1 MiB has {ns['passes']:g})", f"{ns['pass']:,}"],
            [f"sock_ops (a connection has {ns['ops']:g})", f"{ns['sock_ops']:,}"],
        ],
    )
    return f"{table(header, rows)}\n\n{kinds}"


def main() -> None:
    """Answer the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of which medians are taken [%(default)s]")
    parser.add_argument("--json", default="", metavar="FILE", help="write the results there")
    parser.add_argument("--into", default="", metavar="FILE", help="write the tables into this document's block")
    options = parser.parse_args()
    described = machine()
    with Hosts("-bench") as hosts:
        command = ["nsenter", f"--net=/run/netns/{hosts.far}", go_binary("wire"), "server", f"{hosts.FAR_IPV4}:0"]
        with Running(command, cpus=OTHER_CPUS) as server:
            assert server.process.stdout
            address = server.line().split()[1]
            Lines(server.process.stdout)
            with Client(hosts, address) as client:
                for load in LOADS.values():
                    client.send(load)
                results = {"machine": described, "loads": rounds(client, options.rounds), "programs": programs(client)}
    blocks = {"wire": f"{in_words(described)} Medians of {options.rounds} rounds.\n\n{text(results)}"}
    give(results, blocks, json_path=options.json, document=options.into)


if __name__ == "__main__":
    main()
