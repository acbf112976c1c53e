"""The machines whose code is understood, by the name that `Elf.machine` has; for binary.py and listing/files.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_goprobe.errors import UnsupportedBinaryError
from otel_goprobe.gobinary import aarch64, x86_64
from otel_goprobe.gobinary.instructions import Code

if TYPE_CHECKING:
    from otel_goprobe.gobinary.instructions import InstructionSet
    from otel_goprobe.model import Cost

MACHINES: dict[str, InstructionSet] = {"x86_64": x86_64.X8664(), "aarch64": aarch64.AArch64()}
COSTS = {"x86_64": x86_64.cost, "aarch64": aarch64.cost}


def instruction_cost(machine: str, content: bytes) -> Cost:
    """What the kernel does with the instruction that `content` begins with, of any language's code.

    Raises:
        UnsupportedBinaryError: it isn't code.
    """
    for size in range(1, len(content) + 1):
        try:
            return Code("code", 0, content[:size], MACHINES[machine]).instructions[0].cost
        except UnsupportedBinaryError:
            continue
    raise UnsupportedBinaryError("no instruction begins there")
