"""File and line of an instruction, from the function table: in every Go executable, stripped or not; for `GoBinary`.

Layout: runtime/symtab.go, funcline1 and funcfile; the file is an index into the compilation unit's part of cutab,
which gives an offset into filetab. Where a call was inlined, both are those of the inlined function's source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_goprobe.gobinary.elf import Elf
    from otel_goprobe.gobinary.pclntab import FunctionTable

_MAX_FILE_NAME_BYTES = 1 << 12


@dataclass(frozen=True, slots=True)
class SourceLine:
    """Where an instruction comes from."""

    function: str
    """The function whose code it is in; what was inlined into it goes by this name as well."""
    file: str
    """As the compiler was given it: absolute, or beginning with the module path with ``-trimpath``."""
    line: int


def read_line(elf: Elf, functions: FunctionTable, text_offset: int) -> SourceLine | None:
    """The source of the instruction at an offset from the text's start; None of padding, and outside all functions.

    Raises:
        ValueError, IndexError, struct.error: a table is damaged.
    """
    row = functions.row_at(text_offset)
    if row is None:
        return None
    within, (file_table, line_table, unit) = functions.within(row, text_offset), functions.line_tables(row)
    index, line = (_value(functions, row, table, within) for table in (file_table, line_table))
    if index < 0 or line <= 0:
        return None
    (offset,) = elf.words(functions.units_offset + 4 * (unit + index), 1, "<u4")
    place = functions.files_offset + int(offset)
    end = elf.data.find(b"\0", place, place + _MAX_FILE_NAME_BYTES)
    if end < 0:
        raise ValueError("the name of a source file has no end")
    return SourceLine(functions.name_of(row), elf.data[place:end].decode("utf-8", "replace"), line)


def _value(functions: FunctionTable, row: int, table: int, within: int) -> int:
    return next((value for end, value in functions.row_ranges(row, table) if within < end), -1)
