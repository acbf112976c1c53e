"""The agent's own BPF programs, driven without the agent around them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from goprograms import go_binary
from harness.client import Connection, page
from harness.target import Target

from otel_goprobe import config, gobinary, kernel, probes, tools
from otel_goprobe.commands import doctor
from otel_goprobe.tools import registry
from otel_goprobe.tools.base import Tracepoint

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

SLOT = 3
INSTRUCTIONS = 250_000
"""A quarter of what the verifier walks before it gives up (BPF_COMPLEXITY_LIMIT_INSNS): room for older kernels."""


@pytest.fixture
def cache_dir() -> Path:
    """Give the cache that agents use here."""
    return config.cache_dir()


def test_every_program_is_far_from_the_verifiers_limit(cache_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The unit loads, and its programs' sizes are printed."""
    with kernel.load(probes.unit(kernel.bpf_folder()), cache_dir=cache_dir) as program, capsys.disabled():
        print(f"\ninstructions walked: {program.verified_instructions}")
        assert max(program.verified_instructions.values()) < INSTRUCTIONS


def test_so_are_those_of_tools(cache_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each tool's unit loads beside the core, its tracepoints attach, and its programs' sizes are printed."""
    sources = kernel.bpf_folder()
    with kernel.load(probes.unit(sources), cache_dir=cache_dir, lazily=True) as core, capsys.disabled():
        for stem in tools.stems():
            tool = tools.tool(stem)
            with (
                kernel.load(registry.unit(tool, sources), cache_dir=cache_dir, maps=core.maps) as program,
                kernel.attach_tracepoints(program) as tracepoints,
            ):
                print(f"\n{stem}: instructions walked: {program.verified_instructions}")
                assert max(program.verified_instructions.values()) < INSTRUCTIONS
                assert (len(tracepoints), tracepoints.skipped) == (len(tool.tracepoints), ())


def test_a_tracepoint_of_a_tool_that_the_kernel_lacks() -> None:
    """The doctor counts it and says what is missing; one that is required is a failure."""
    opens = tools.tool("opens")
    assert doctor.tool_check(opens).found == "1 of 1 tracepoints are there"
    for required, state in ((False, "warn"), (True, "fail")):
        lacking = replace(
            opens, tracepoints=(*opens.tracepoints, Tracepoint("opens_exit", "no_such_event", required=required))
        )
        check = doctor.tool_check(lacking)
        assert (check.state, check.found) == (state, "1 of 2 tracepoints are there; no_such_event not")


def test_a_request_whose_end_was_missed_is_counted(cache_dir: Path) -> None:
    """With starts alone, each request but the last on its goroutine is found abandoned by the next."""
    names = probes.counters()
    with (
        Target(go_binary("http_server")) as server,
        kernel.load(probes.unit(kernel.bpf_folder()), cache_dir=cache_dir) as program,
    ):
        exe = f"/proc/{server.pid}/exe"
        with gobinary.open_binary(exe) as binary:
            plan = probes.select(binary)
        starts = tuple(probe for probe in plan.probes if probe.program.endswith("request_start"))
        row = np.zeros(1, program.dtype("target"))
        for member, value in plan.values.items():
            row[member] = value
        row["active"] = 1
        row["sampling_bound"] = 1 << 63  # every root
        program.maps["targets"].update(kernel.u32(SLOT), row.tobytes())
        with kernel.attach(program, replace(plan, probes=starts), pid=server.pid, exe_path=exe, slot=SLOT):
            connection = Connection(server.port)
            for _ in range(5):
                assert connection.ask(page("/ok")).status == 200
        counted = dict(zip(names, program.maps["counters"].sums(SLOT, 1).tolist(), strict=True))
        assert (counted["started"], counted["abandoned"]) == (5, 4)
        assert len(list(program.maps["http_server_inflight"].keys())) == 1
