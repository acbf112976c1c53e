"""runtime.firstmoduledata: where the executable's text, type metadata and inline trees are.

Found by the one pointer it certainly holds, the function table's, and confirmed by three more. Offsets
(runtime/symtab.go, moduledata) are equal from Go 1.20 to 1.27 up to `types`, which was 16 bytes earlier before 1.20
(covctrs came in). What follows has three layouts, told apart by their values, not by a version: Go <= 1.25, 1.26
(epclntab came in), and >= 1.27 (lengths instead of ends, no typelinks and itablinks).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_goprobe.errors import UnsupportedBinaryError

if TYPE_CHECKING:
    from otel_goprobe.gobinary.elf import Elf
    from otel_goprobe.gobinary.pclntab import FunctionTable

_NAMES, _FUNCTIONS, _FUNCTIONS_LENGTH, _TEXT, _TEXT_END, _TYPES = 8, 104, 136, 176, 184, 296
_MAX_TEXT_SECTIONS = 1 << 12


@dataclass(frozen=True, slots=True)
class Span:
    """`count` elements from `address` on: a Go slice."""

    address: int
    count: int


@dataclass(frozen=True, slots=True)
class TextSection:
    """Offsets `start` to `end` from the text's start are at `address` on. A linker may have had to split the text."""

    start: int
    end: int
    address: int


@dataclass(frozen=True, slots=True)
class Module:
    """The executable's moduledata."""

    text: int
    text_end: int
    types: int
    types_end: int
    funcdata: int
    """What offsets of funcdata are relative to: ``go:func.*``."""
    type_links: Span | None
    """int32 offsets from `types`, sorted by the type's string; None since Go 1.27."""
    itab_links: Span | None
    """*itab; None since Go 1.27."""
    described: int
    """Go 1.27: bytes of type descriptors from `types` on, else 0."""
    itabs: Span | None
    """Go 1.27: the itabs themselves; `count` is in bytes. None before."""
    text_sections: tuple[TextSection, ...]

    def text_address(self, offset: int) -> int:
        """The address of the instruction at `offset` from the text's start."""
        for section in self.text_sections:
            if section.start <= offset < section.end:
                return section.address + offset - section.start
        return self.text + offset

    def text_offset(self, address: int) -> int:
        """The inverse of `text_address`."""
        for section in self.text_sections:
            if 0 <= address - section.address < section.end - section.start:
                return address - section.address + section.start
        return address - self.text


def read_module(elf: Elf, functions: FunctionTable) -> Module:
    """The moduledata that belongs to `functions`.

    Raises:
        UnsupportedBinaryError: there is none.
        ValueError, struct.error: it is damaged.
    """
    section = elf.sections.get(".go.module")
    candidates = [section.address] if section else []
    for candidate in (*candidates, *elf.places_of_pointer(functions.address)):
        if _belongs(elf, functions, candidate):
            return _read(elf, candidate, 0 if functions.layout.coverage_counters else -16)
    raise UnsupportedBinaryError(
        f"{elf.path} has no Go module data that fits its function table", "it may be packed, or built as a plugin"
    )


def _belongs(elf: Elf, functions: FunctionTable, address: int) -> bool:
    try:
        return (
            elf.pointer(address) == functions.address
            and elf.pointer(address + _NAMES) == functions.names_address
            and elf.pointer(address + _FUNCTIONS) == functions.functions_address
            and elf.u64(address + _FUNCTIONS_LENGTH) == functions.count + 1
            and 0 < elf.pointer(address + _TEXT) <= elf.pointer(address + _TEXT_END)
        )
    except ValueError:
        return False


def _read(elf: Elf, address: int, shift: int) -> Module:
    def word(offset: int) -> int:
        return elf.pointer(address + offset + (shift if offset >= _TYPES else 0))

    text, text_end, types = word(_TEXT), word(_TEXT_END), word(_TYPES)
    type_links = itab_links = itabs = None
    described = 0
    if word(304) < types:  # a length where older ones have an address: Go 1.27
        described, types_end, funcdata, sections = word(304), word(312), word(344), 360
        itabs = Span(types + word(320), word(328))
    else:
        types_end, funcdata = word(304), word(320)
        # Up to 1.25 the slice of text sections is at 328; its length and capacity are equal and small, 1.26 has an
        # address there.
        sections = 328 if word(336) == word(344) and word(336) < _MAX_TEXT_SECTIONS else 336
        type_links = Span(word(sections + 24), word(sections + 32))
        itab_links = Span(word(sections + 48), word(sections + 56))
    if not types < types_end or described > types_end - types:
        raise ValueError("the module data makes no sense")
    elf.read(types, 1)
    elf.read(types_end - 1, 1)
    elf.read(text, 1)
    return Module(
        text,
        text_end,
        types,
        types_end,
        funcdata,
        type_links,
        itab_links,
        described,
        itabs,
        _text_sections(elf, word(sections), word(sections + 8)),
    )


def _text_sections(elf: Elf, address: int, count: int) -> tuple[TextSection, ...]:
    if count <= 1:
        return ()
    if count > _MAX_TEXT_SECTIONS:
        raise ValueError("the module data makes no sense")
    return tuple(
        TextSection(elf.u64(place), elf.u64(place + 8), elf.pointer(place + 16))
        for place in range(address, address + 24 * count, 24)
    )
