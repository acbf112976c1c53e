"""What a hit costs the target, by the kind of instruction under the probe, and from it what lists of hits cost.

``python -m benchmarks.sites``, as root; overhead.py calls `measure` and `text` too. A Go program (go/sites) calls
functions that begin with one kind of instruction each, on one thread, without a probe and with an empty program there;
the thread's CPU time is compared. Which hits a request makes is counted on go/server, not assumed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import empty
from benchmarks.machine import TARGET_CPU, give, in_words, machine, table
from benchmarks.processes import Running, Server
from benchmarks.programs import bench_program
from otel_goprobe import config, gobinary
from otel_goprobe.model import Cost, Site
from otel_goprobe.plans import Plans

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otel_goprobe import kernel
    from otel_goprobe.gobinary import GoBinary
    from otel_goprobe.model import Plan


@dataclass(frozen=True, slots=True)
class Kind:
    """Where probes go for one line of the table."""

    function: str
    """Of go/sites."""
    places: tuple[tuple[int, int], ...]
    """Offset in the function and length, of each instruction that carries a probe."""
    cost: Cost
    """What Linux does with such an instruction: arch/x86/kernel/uprobes.c, `arch_uprobe_analyze_insn`."""


KINDS: Mapping[str, Kind] = {
    "push %rbp": Kind("push", ((0, 1),), Cost.EMULATED),
    "conditional jump": Kind("jcc", ((0, 2),), Cost.EMULATED),
    "jmp": Kind("jmp", ((0, 2),), Cost.EMULATED),
    "call rel32": Kind("call", ((0, 5),), Cost.EMULATED),
    "nop of 5 bytes": Kind("nop", ((0, 5),), Cost.EMULATED),
    "cmp (stack check, first byte)": Kind("cmp", ((0, 4),), Cost.STEPPED),
    "mov": Kind("mov", ((0, 3),), Cost.STEPPED),
    "sub $n,%rsp (first byte)": Kind("sub", ((0, 4),), Cost.STEPPED),
    "lea (first byte, large frame)": Kind("lea", ((0, 5),), Cost.STEPPED),
    "ret": Kind("ret", ((0, 1),), Cost.STEPPED),
    "push %rbp + ret": Kind("push", ((0, 1), (2, 1)), Cost.STEPPED),
    "cmp + ret": Kind("cmp", ((0, 4), (4, 1)), Cost.STEPPED),
}

PEERS: Mapping[str, Mapping[str, float]] = {
    "opentelemetry-go-instrumentation v0.24": {"cmp (stack check, first byte)": 3, "ret": 3},
    "OBI v0.5.0": {"cmp (stack check, first byte)": 6, "ret": 5},
}
"""Hits a request of net/http: 6 and 11, counted in November 2026 on a virtual machine with Linux 6.18 and Go 1.26.
Both attach to the first byte of functions and to every RET; how the hits divide between the two was not counted."""

COUNTED_REQUESTS = 101
STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")


@contextlib.contextmanager
def program_statistics() -> Iterator[None]:
    """Let the kernel count and time the runs of BPF programs, which itself costs some 20 ns a run."""
    before = STATISTICS.read_text()
    STATISTICS.write_text("1")
    try:
        yield
    finally:
        STATISTICS.write_text(before)


def runs(pid: int | str, descriptor: int) -> tuple[int, int]:
    """Return how often a BPF program ran and the ns it took, since the statistics were first switched on."""
    text = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text()
    found = dict(re.findall(r"^(\w+):\t(\d+)$", text, re.MULTILINE))
    return int(found["run_cnt"]), int(found["run_time_ns"])


def tag(pid: int | str, descriptor: int) -> str:
    """Return what the kernel names a BPF program by: the SHA of its instructions, without descriptors of maps."""
    text = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text()
    return next(line.split()[1] for line in text.splitlines() if line.startswith("prog_tag:"))


def _sites(binary: GoBinary, kind: Kind) -> tuple[Site, ...]:
    name = f"main.{kind.function}"
    start = binary.functions([name])[name].address
    return tuple(
        Site(name, start + at, binary.file_offset(start + at), binary.read(start + at, size), kind.cost, "by name")
        for at, size in kind.places
    )


def measure(seconds: float, repetitions: int) -> dict[str, Any]:
    """Return ns a hit, by kind.

    Args:
        seconds: of calls, for each kind and repetition, about.
        repetitions: of which the median is taken.
    """
    path = bench_program("sites")
    results: dict[str, Any] = {}
    with (
        gobinary.open_binary(path) as binary,
        empty.loaded() as program,
        Running([path], cpus=[TARGET_CPU]) as caller,
    ):
        caller.line()

        def ns_per_call(function: str, calls: int) -> float:
            caller.tell(f"{function} {calls}")
            return int(caller.line()) / calls

        for name, kind in KINDS.items():
            without = statistics.median(ns_per_call(kind.function, 100_000) for _ in range(repetitions))
            with empty.attached(program, caller.pid, _sites(binary, kind)):
                calls = max(100, int(seconds * 1e9 / ns_per_call(kind.function, 1000)))
                with_probe = [ns_per_call(kind.function, calls) for _ in range(repetitions)]
            results[name] = {
                "class": kind.cost.value,
                "ns": round(statistics.median(with_probe) - without),
                "lowest": round(min(with_probe) - without),
                "highest": round(max(with_probe) - without),
            }
    return results


def kind_of(content: bytes) -> str:
    """Return the kind, of `KINDS`, that an instruction is like."""
    first = content[0]
    if first == 0x0F and 0x80 <= content[1] <= 0x8F:
        return "conditional jump"
    known = {0x55: "push %rbp", 0xE8: "call rel32", 0xE9: "jmp", 0xEB: "jmp", 0xC3: "ret"}
    known |= dict.fromkeys(range(0x70, 0x80), "conditional jump")
    without_prefix = content[1] if 0x40 <= first <= 0x4F else first
    known |= dict.fromkeys((0x39, 0x3B), "cmp (stack check, first byte)") if first not in known else {}
    return known.get(first, known.get(without_prefix, "mov"))


def plan_of_server(path: Path) -> Plan:
    """Return what the agent attaches to go/server, unless options ask for more."""
    with path.open("rb") as file:
        return Plans(config.from_environment_and_flags(config.Flags(), {})).of(file.fileno())


def hits_a_request(server: Server, plan: Plan) -> dict[str, dict[str, Any]]:
    """Count, by BPF program of the plan, how often its sites are hit by a request on a kept-alive connection."""
    counted: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack, program_statistics():
        programs: dict[str, kernel.Program] = {}
        for probe in plan.probes:
            programs[probe.program] = stack.enter_context(empty.loaded())
            stack.enter_context(empty.attached(programs[probe.program], server.pid, probe.sites))
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        for _ in range(COUNTED_REQUESTS):
            connection.request("GET", "/small")
            connection.getresponse().read()
        for probe in plan.probes:
            count, _ = runs("self", programs[probe.program].descriptors["empty"])
            kinds = sorted({kind_of(site.expected) for site in probe.sites})
            counted[probe.program] = {"hits": round(count / COUNTED_REQUESTS, 2), "kind": ", ".join(kinds)}
        connection.close()
    return counted


def predictions(kinds: Mapping[str, Any], ours: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return hits and µs a request of empty programs, for us and for the peers."""
    lists: dict[str, dict[str, float]] = {"otel-goprobe": {}}
    for probe in ours.values():
        if probe["hits"]:
            lists["otel-goprobe"][probe["kind"]] = lists["otel-goprobe"].get(probe["kind"], 0) + probe["hits"]
    lists |= {name: dict(hits) for name, hits in PEERS.items()}
    return {
        name: {
            "hits": sum(hits.values()),
            "us": round(sum(count * kinds[kind]["ns"] for kind, count in hits.items()) / 1e3, 2),
        }
        for name, hits in lists.items()
    }


def text(results: Mapping[str, Any]) -> str:
    """Return both tables as Markdown."""
    kinds = table(
        ["instruction under the probe", "the kernel", "ns a hit", "lowest", "highest"],
        [
            [kind, each["class"], *(f"{each[column]:,}" for column in ("ns", "lowest", "highest"))]
            for kind, each in results["kinds"].items()
        ],
    )
    lists = table(
        ["list of hits of an HTTP request", "hits", "µs of empty programs"],
        [[name, f"{each['hits']:g}", f"{each['us']:.1f}"] for name, each in results["predictions"].items()],
    )
    ours = "; ".join(
        f"`{program}` {each['hits']:g} ({each['kind']})" for program, each in results["hits_a_request"].items()
    )
    return f"{kinds}\n\nCounted hits of otel-goprobe, a request: {ours}.\n\n{lists}"


def run(seconds: float, repetitions: int) -> dict[str, Any]:
    """Measure, count and predict."""
    kinds = measure(seconds, repetitions)
    with Server() as server:
        time.sleep(0.1)
        ours = hits_a_request(server, plan_of_server(server.path))
    return {"kinds": kinds, "hits_a_request": ours, "predictions": predictions(kinds, ours)}


def main() -> None:
    """Answer the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="of which the median is taken [%(default)s]")
    parser.add_argument("--seconds", type=float, default=0.2, help="of calls, each repetition [%(default)s]")
    parser.add_argument("--json", default="", metavar="FILE", help="write the results there")
    parser.add_argument("--into", default="", metavar="FILE", help="write the tables into this document's block")
    options = parser.parse_args()
    described = machine()
    results = {"machine": described, **run(options.seconds, options.repetitions)}
    blocks = {"sites": f"{in_words(described)}\n\n{text(results)}"}
    give(results, blocks, json_path=options.json, document=options.into)


if __name__ == "__main__":
    main()
