"""Where a thread of a Go program keeps its goroutine's g: an offset from the thread pointer; for tools/registry.py.

The runtime's assembly loads it (``get_tls``, ``g(CX)`` in runtime/asm_amd64.s), so the offset stands in its code; in a
position-independent program it is what the linker puts into the one variable that this code reads. Stripped programs
have both.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_goprobe.gobinary.binary import GoBinary

_DIRECT = re.compile(rb"\x64[\x48\x4c]\x8b[\x04\x0c\x14\x1c\x24\x2c\x34\x3c]\x25(.{4})", re.DOTALL)
"""``mov %fs:offset, %register``: 64, REX.W, 8b /r with a SIB byte of neither base nor index, 4 bytes of offset."""
_IMMEDIATE = re.compile(rb"\x48\xc7([\xc0-\xc7])(.{4})\x64[\x48\x4c]\x8b", re.DOTALL)
"""``mov $offset, %register`` (what a linker makes of a load from the GOT), then the load from ``%fs:(%register)``."""

FUNCTIONS = ("runtime.mcall", "runtime.systemstack", "runtime.morestack", "runtime.asmcgocall", "runtime.gogo")
"""Those that load or store it: src/runtime/asm_amd64.s, Go 1.19 to 1.27."""


def g_offset(binary: GoBinary) -> int | None:
    """Return the offset of g from the thread pointer, negative on x86-64; None if it can't be told, as on arm64.

    Raises:
        UnsupportedBinaryError: the executable is damaged.
    """
    if binary.machine != "x86_64":
        return None
    found = binary.functions(FUNCTIONS)
    for function in (found[name] for name in FUNCTIONS if name in found):
        content = binary.read(function.address, function.size)
        for pattern, group in ((_DIRECT, 1), (_IMMEDIATE, 2)):
            match = pattern.search(content)
            if match:
                offset = int.from_bytes(match[group], "little", signed=True)
                if offset < 0 and offset % 8 == 0:
                    return offset
    return None
