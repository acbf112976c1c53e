"""The functions of a file by its symbol tables: for C code, which no Go table knows; resolver.py and listing/ ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from otel_goprobe.gobinary.elf import Elf

if TYPE_CHECKING:
    import os

_TABLES = ((".symtab", ".strtab"), (".dynsym", ".dynstr"))
_FUNCTION = 2
"""STT_FUNC, the low four bits of st_info."""
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
"""Elf64_Sym."""
_MAX_NAME_BYTES = 1 << 12


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function by its symbol."""

    name: str
    address: int
    """In the file, before any load bias."""
    size: int
    """Bytes."""


class Symbols:
    """Symbols of one file.

    Raises:
        BinaryError: it can't be read, or is no ELF file for this kind of machine.
        ValueError, struct.error: it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        elf = Elf(path)
        try:
            self._tables = [found for names in _TABLES if (found := _functions(elf, *names))]
            self.segments = tuple(elf.segments)
        finally:
            elf.close()

    def functions(self) -> list[Symbol]:
        """Return every function that has a symbol, each name and address once, in order of names."""
        found = {
            Symbol(name, address, end - address)
            for addresses, ends, names in self._tables
            for address, end, name in zip(addresses.tolist(), ends.tolist(), names, strict=True)
        }
        return sorted(found, key=lambda symbol: (symbol.name, symbol.address))

    def function(self, address: int) -> str:
        """Return the function that an address of the file is in, or an empty text."""
        for addresses, ends, names in self._tables:
            row = int(np.searchsorted(addresses, address, "right")) - 1
            if row >= 0 and address < int(ends[row]):
                return names[row]
        return ""


def _functions(elf: Elf, table_name: str, strings_name: str) -> tuple[np.ndarray, np.ndarray, list[str]] | None:
    table, strings = elf.sections.get(table_name), elf.sections.get(strings_name)
    if table is None or strings is None:
        return None
    rows = np.frombuffer(elf.data, _SYMBOL, table.size // _SYMBOL.itemsize, table.offset)
    rows = rows[(rows["info"] & 15 == _FUNCTION) & (rows["size"] > 0)]
    rows = rows[np.argsort(rows["value"], kind="stable")].copy()
    text = elf.data[strings.offset : strings.offset + strings.size]
    names = [text[at : text.find(b"\0", at, at + _MAX_NAME_BYTES)].decode("utf-8", "replace") for at in rows["name"]]
    return (rows["value"], rows["value"] + rows["size"], names) if len(rows) else None
