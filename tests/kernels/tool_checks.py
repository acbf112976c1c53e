"""Checks of tools: their programs load, their tables equal what Go programs count themselves; `checks` lists them."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import test_network
import test_opens
from harness.agent import Agent
from harness.target import Output, Target

from kernels.guest import ATTACH_S, STOP_S, Guest
from otel_goprobe import kernel, probes, tools
from otel_goprobe.tools import registry

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAMS = ("opens", "network")
"""Of tests/go."""


def accepted(guest: Guest) -> str:
    """Each tool's programs pass the verifier and reach their tracepoints; how many instructions it walked at most."""
    found = []
    with kernel.load(probes.unit(kernel.bpf_folder()), cache_dir=guest.cache, lazily=True) as core:
        for stem in tools.stems():
            unit = registry.unit(tools.tool(stem), kernel.bpf_folder())
            with kernel.load(unit, cache_dir=guest.cache, maps=core.maps) as program:
                kernel.attach_tracepoints(program).close()
                found.append(f"{stem}: {max(program.verified_instructions.values())} instructions")
    return "; ".join(found)


def opens(guest: Guest) -> str:
    """Rows by function, line, route, path and error are the program's own counts."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a", "b"):
            Path(folder, name).touch()
        with Target(guest.tools["opens"], "-folder", folder) as target:
            rows, truth = _rows(guest, "opens", target.pid, lambda: _work(target))
        seen = test_opens.counted(rows, folder)
    assert seen == truth, f"{seen} instead of {truth}"
    return f"{truth.total()} of {truth.total()}"


def _work(target: Target) -> Any:
    test_opens.work(target)
    return test_opens.truth(target)


def network(guest: Guest) -> str:
    """Ten kinds of connections: destinations, functions, outcomes and bytes are the service's own counts."""
    exe = guest.tools["network"]
    with tempfile.TemporaryDirectory() as folder:
        peers = subprocess.Popen([exe, "peers", folder], stdout=subprocess.PIPE, text=True)
        service = None
        try:
            service = test_network.Service(exe, Output(peers.stdout).wait_for("^ready ").removeprefix("ready "))
            rows, truth = _rows(guest, "network", service.pid, lambda: _connect(service))
        finally:
            for process in (peers, *([service.process] if service else [])):
                process.kill()
                process.wait()
    seen = test_network.destinations(rows)
    assert seen == truth, f"{seen} instead of {truth}"
    opened = sum(each["Opened"] for each in truth.values())
    failed = sum(sum(each["Failed"].values()) for each in truth.values())
    return f"{len(truth)} destinations, {opened} connections, {failed} failures, bytes: all as counted"


def _connect(service: test_network.Service) -> dict[str, Any]:
    service.work()
    service.ask(f"short?n={test_network.SHORT}")
    return service.truth


def _rows(guest: Guest, stem: str, pid: int, work: Callable[[], Any]) -> tuple[list[dict[str, Any]], Any]:
    """Run a tool while a program works: the tool's rows, and what the program says."""
    with Agent("--pid", str(pid), "--json", environment=guest.environment, subcommand=stem) as agent:
        agent.stderr.wait_for("^attached", timeout_s=ATTACH_S)
        truth = work()
        outcome = agent.stop(timeout_s=STOP_S)
    assert outcome.code == 0, outcome
    assert "lost" not in outcome.stderr, outcome
    return [json.loads(line) for line in outcome.stdout.splitlines()], truth
