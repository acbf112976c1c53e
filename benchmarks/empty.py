"""Programs that do nothing at chosen sites: the floor of what a probe costs. Called by sites.py and overhead.py."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from otel_goprobe import config, kernel
from otel_goprobe.model import Plan, ProbePlan, Unit, UnitProgram

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_goprobe.model import Site

UNIT = Unit(
    name="empty",
    header="",
    sources=(Path(__file__).parent / "bpf/empty.bpf.c",),
    programs=(UnitProgram("empty"),),
    structs=(),
)


@contextlib.contextmanager
def loaded() -> Iterator[kernel.Program]:
    """Load the empty program; it is sleepable where the agent's programs are."""
    with kernel.load(UNIT, cache_dir=config.cache_dir()) as program:
        yield program


def attached(program: kernel.Program, pid: int, sites: tuple[Site, ...]) -> kernel.Attachment:
    """Put the empty program on each site, by one link; close it to detach."""
    plan = Plan((ProbePlan("empty", "", sites),), {})
    return kernel.attach(program, plan, pid=pid, exe_path=f"/proc/{pid}/exe", slot=0)
