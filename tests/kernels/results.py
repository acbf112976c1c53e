"""What one check found on one kernel: written inside the virtual machine, read outside by the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

PREEMPTION = "Preemption"
ATTACH_WAY = "Uprobes attached by"
"""Checks whose answers differ between kernels."""

State = Literal["yes", "lacks", "failed"]


class Result(msgspec.Struct, frozen=True):
    """One line of a machine's results."""

    check: str
    state: State
    """``lacks``: the kernel hasn't got it, and the agent does without."""
    found: str
    """For the table; short."""
    detail: str = ""
    """Of a failure: the traceback; else what the table doesn't say."""
    seconds: float = 0.0


def read(path: Path) -> dict[str, Result]:
    """Return the results of a machine by check, in their order; none where it wrote none."""
    if not path.exists():
        return {}
    lines = path.read_bytes().splitlines()
    return {result.check: result for result in (msgspec.json.decode(line, type=Result) for line in lines)}


def append(path: Path, result: Result) -> None:
    """Add a result, at once: the machine may not live to write the next."""
    with path.open("ab") as file:
        file.write(msgspec.json.encode(result) + b"\n")
