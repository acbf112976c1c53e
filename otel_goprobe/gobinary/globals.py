"""Addresses of the runtime's variables in a stripped program, by the one instruction that must refer to each.

They are in no table that a stripped program keeps; `GoBinary.variable` asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otel_goprobe.gobinary.instructions import Code, Instruction


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a variable's address is taken."""

    function: str
    addresses: Callable[[Code], Iterator[int]]


_GOID_BATCH = 16
"""runtime/proc.go, _GoidCacheBatch: the same in Go 1.19 to 1.27."""


def _added_batch(code: Code) -> Iterator[int]:
    """Address in ``mov $16, %value``, ``lea address(%rip), %place``, ``lock xadd %value, (%place)``."""
    instructions = code.instructions
    for loading, taking, adding in zip(instructions, instructions[1:], instructions[2:], strict=False):
        place = _rip_relative(taking)
        # f0 REX.W 0f c1 /r with a memory operand that has no displacement
        if place is None or len(adding.content) != 5 or adding.content[0] != 0xF0:
            continue
        prefix, modrm = adding.content[1], adding.content[4]
        if prefix & 0xF8 != 0x48 or adding.content[2:4] != b"\x0f\xc1" or modrm >> 6:
            continue
        base, value = (prefix & 1) << 3 | modrm & 7, (prefix & 4) << 1 | modrm >> 3 & 7
        taken = (taking.content[0] & 4) << 1 | taking.content[2] >> 3 & 7
        move = (b"\x41" if value > 7 else b"") + bytes([0xB8 | value & 7]) + _GOID_BATCH.to_bytes(4, "little")
        if base == taken and loading.content == move:
            yield place


def _rip_relative(instruction: Instruction) -> int | None:
    """The address that a ``lea`` computes from its own: REX.W 8d /r with mod 0 and base 5."""
    content = instruction.content
    if len(content) != 7 or content[0] & 0xF8 != 0x48 or content[1] != 0x8D or content[2] & 0xC7 != 0x05:
        return None
    return instruction.end + int.from_bytes(content[3:], "little", signed=True)


REFERENCES = {
    # runtime/proc.go, newproc1: pp.goidcache = sched.goidgen.Add(_GoidCacheBatch); goidgen is the first field of schedt
    # (runtime/runtime2.go). Without optimisation that is a call, and the address isn't found.
    "runtime.sched": Reference("runtime.newproc1", _added_batch),
}
"""Variable -> how its address is found; x86-64 only."""


def read_variable(name: str, code: Callable[[str], Code | None], writable: Callable[[int], bool]) -> int | None:
    """The address of a variable; None if it isn't among REFERENCES, or not just one place that fits was found.

    Args:
        name: such as ``runtime.sched``.
        code: function name -> its code.
        writable: whether an address is in the program's variables.
    """
    reference = REFERENCES.get(name)
    body = code(reference.function) if reference else None
    if reference is None or body is None:
        return None
    found = {address for address in reference.addresses(body) if address % 8 == 0 and writable(address)}
    return found.pop() if len(found) == 1 else None
