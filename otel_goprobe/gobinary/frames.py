"""The functions that an instruction stands for, inlined ones too, each with its file and line; for `GoBinary.frames`.

Layout: runtime/symtabinl.go, inlineUnwinder: an instruction's index into its function's inline tree names the innermost
inlined call; each entry holds, behind its name, the offset in the function at which the next outer one stands.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_goprobe.gobinary.lines import read_line

if TYPE_CHECKING:
    from otel_goprobe.gobinary.elf import Elf
    from otel_goprobe.gobinary.moduledata import Module
    from otel_goprobe.gobinary.pclntab import FunctionTable

_MAX_DEPTH = 64
"""Of calls inlined into one another; a tree that goes deeper is a ring."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One call on a stack."""

    function: str
    """In Go's own spelling; of C code the symbol."""
    file: str = ""
    """As the compiler was given it; empty where that isn't known."""
    line: int = 0
    inlined: bool = False
    """Its code is part of the next outer frame's function."""


def read_frames(elf: Elf, functions: FunctionTable, module: Module, address: int) -> tuple[Frame, ...]:
    """Return the calls that the instruction at an address belongs to, innermost first.

    Returns:
        None of them where no function is.

    Raises:
        ValueError, IndexError, struct.error: a table is damaged.
    """
    text_offset = module.text_offset(address)
    row = functions.row_at(text_offset)
    if row is None:
        return ()
    start = text_offset - functions.within(row, text_offset)
    tree = functions.inline_tree(row)
    indexes = functions.inline_indexes(row) if tree is not None else []  # assembly has neither
    frames: list[Frame] = []
    within = text_offset - start
    for _ in range(_MAX_DEPTH):
        index = next((value for end, value in indexes if within < end), -1)
        source = read_line(elf, functions, start + within)
        file, line = (source.file, source.line) if source else ("", 0)
        if index < 0 or tree is None:
            return (*frames, Frame(functions.name_of(row), file, line))
        call = module.funcdata + tree + index * functions.layout.call_bytes + functions.layout.call_name
        name, within = struct.unpack("<ii", elf.read(call, 8))
        frames.append(Frame(functions.name_at(name), file, line, inlined=True))
    raise ValueError("an inline tree has no root")
