"""What tracing costs a Go server, and what the agent itself uses. ``python -m benchmarks.overhead``, as root.

The target (go/server) has a core of its own, load, agent and receiver share the others. Rounds alternate between

- ``none``: nothing is attached,
- ``empty``: empty programs at the very sites that the agent uses, the least that probes there can cost,
- ``unsent``: the agent's probes, whose records are read and thrown away (wrk only),
- ``fed``: the empty programs, and a receiver that gets a span, encoded beforehand, for every request (wrk only),
- ``agent``: the agent, exporting every request to the receiver,

in turning order; a ratio compares two modes of one round, and the median of the rounds is given. Behind the rounds:
the agent idle, at 100 requests/s, and a minute as fast as wrk can, in which the spans received are compared with the
requests that the target counted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks import modes, sites
from benchmarks.loads import Load
from benchmarks.machine import OTHER_CPUS, give, machine
from benchmarks.processes import Server, cpu_ns
from benchmarks.receivers import receiving
from benchmarks.report import summarise, text

if TYPE_CHECKING:
    from benchmarks.receivers import Receiver
    from otel_goprobe.model import Plan

LOADS = (
    Load("/small"),
    Load("/json"),
    Load("/sleep"),
    Load("/small", rate=5000),
    Load("/json", rate=1000),
)
"""20 bytes; 10 KiB of JSON, encoded for each answer; an answer after 2 ms."""

MODES = ("none", "empty", "unsent", "fed", "agent")
FASTEST_ONLY = ("unsent", "fed")
"""Modes that are not measured at vegeta's rates."""
SLOW_RATE = Load("/small", rate=100)
FASTEST = Load("/small", connections=32)
WARM_UP_S = 1.0


class Bench:
    """One run of the benchmark."""

    def __init__(self, server: Server, receiver: Receiver, plan: Plan, seconds: float) -> None:
        self.server = server
        self.receiver = receiver
        self.plan = plan
        self.seconds = seconds
        self.cells: list[dict[str, Any]] = []
        self.agents: list[dict[str, Any]] = []
        self.programs: dict[str, dict[str, float]] = {}

    def round(self, number: int, *, last: bool) -> None:
        """Go through all modes; every second round backwards."""
        for mode in MODES[:: -1 if number % 2 else 1]:
            say(f"round {number + 1}: {mode}")
            with contextlib.ExitStack() as stack:
                agent = stack.enter_context(modes.agent(self.server, self.receiver)) if mode == "agent" else None
                if mode in ("empty", "fed"):
                    stack.enter_context(modes.empty_programs(self.server, self.plan))
                if mode == "unsent":
                    stack.enter_context(modes.unsent(self.server))
                if mode == "fed":
                    stack.enter_context(modes.fed(self.server, self.receiver))
                for load in LOADS:
                    if mode not in FASTEST_ONLY or not load.rate:
                        where = {"round": number, "mode": mode, "load": str(load)}
                        self.cells.append(where | self.cell(load, self.seconds, agent))
                if agent:
                    if last:
                        self.programs = agent.program_costs(Load("/small"), self.seconds)
                    self.agents.append(agent.stop())

    def cell(self, load: Load, seconds: float, agent: modes.Agent | None) -> dict[str, Any]:
        """Measure one load in the mode that is on."""
        receiver_cpu = cpu_ns(self.receiver.pid)
        agent_cpu = agent.cpu_ns if agent else 0
        began = time.monotonic()
        found = load.run(self.server, seconds)
        time.sleep(modes.SETTLE_S)
        elapsed = time.monotonic() - began
        found["receiver_share"] = (cpu_ns(self.receiver.pid) - receiver_cpu) / 1e9 / elapsed
        if agent:
            used_ns = agent.cpu_ns - agent_cpu
            found |= {"agent_cpu_us": used_ns / 1e3 / found["requests"], "agent_share": used_ns / 1e9 / elapsed}
        return found

    def long(self, idle_s: float, soak_s: float) -> dict[str, Any]:
        """Measure the agent idle, at 100 requests/s and at the highest rate."""
        with modes.agent(self.server, self.receiver) as agent:
            time.sleep(2.0)
            say(f"idle for {idle_s:g} s")
            before, began = agent.cpu_ns, time.monotonic()
            time.sleep(idle_s)
            idle = (agent.cpu_ns - before) / 1e9 / (time.monotonic() - began)
            say(f"{SLOW_RATE} for {idle_s:g} s")
            slow = self._of(SLOW_RATE, idle_s, agent)
            say(f"as fast as it goes for {soak_s:g} s")
            soak = self._of(FASTEST, soak_s, agent)
            return {"idle_share": idle, "slow": slow, "soak": soak, "agent": agent.stop()}

    def _of(self, load: Load, seconds: float, agent: modes.Agent) -> dict[str, Any]:
        requests, spans = agent.counts()
        found = self.cell(load, seconds, agent)
        requests_after, spans_after = agent.counts()
        return found | {"requests": requests_after - requests, "spans_received": spans_after - spans}


def say(what: str) -> None:
    """Tell on stderr how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def main() -> None:
    """Answer the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="[%(default)s]")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load in each mode [%(default)s]")
    parser.add_argument("--quick", action="store_true", help="one round of a second each: does it work?")
    parser.add_argument("--receiver", choices=("collector", "discard"), default="collector", help="[%(default)s]")
    parser.add_argument("--json", default="", metavar="FILE", help="write the results there")
    parser.add_argument("--into", default="", metavar="FILE", help="write the tables into this document's block")
    options = parser.parse_args()
    rounds, seconds, idle_s, soak_s = options.rounds, options.seconds, 20.0, 60.0
    if options.quick:
        rounds, seconds, idle_s, soak_s = 1, 1.0, 3.0, 5.0
    os.sched_setaffinity(0, OTHER_CPUS)
    results: dict[str, Any] = {"machine": machine(), "rounds": rounds, "seconds": seconds, "soak_s": soak_s}
    say("sites")
    results["sites"] = sites.run(0.05 if options.quick else 0.2, 1 if options.quick else 5)
    with receiving(real=options.receiver == "collector") as receiver, Server() as server:
        results["receiver"] = receiver.what
        bench = Bench(server, receiver, sites.plan_of_server(server.path), seconds)
        Load("/small").run(server, WARM_UP_S)
        for number in range(rounds):
            bench.round(number, last=number == rounds - 1)
        results["long"] = bench.long(idle_s, soak_s)
    results |= {"cells": bench.cells, "agents": bench.agents, "programs": bench.programs}
    results["summary"] = summarise(results)
    give(
        results,
        {"overhead": text(results), "sites": sites.text(results["sites"])},
        json_path=options.json,
        document=options.into,
    )


if __name__ == "__main__":
    main()
