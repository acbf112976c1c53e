"""Struct member offsets from DWARF, where a binary still has it: the second opinion beside the runtime's type metadata.

Go puts every type into one compilation unit, named ``runtime``, with the types' names inline
(cmd/internal/dwarf/dwarf.go). So the units are skipped by their lengths until that one, the wanted name is searched
in its bytes, and pyelftools decodes just the entries of that struct. DWARF 4 (Go <= 1.24) and 5, plain and
zlib-compressed sections. Walking all entries instead costs ten seconds and 450 MB on a large program.
"""

from __future__ import annotations

import inspect
import io
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otel_goprobe.gobinary.elf import Elf, Section

_COMPRESSED_ZLIB = 1
_COMPRESSION_HEADER = struct.Struct("<IIQQ")
_CHUNK_BYTES = 1 << 20
_MAX_RATIO = 64
"""Inflated bytes per stored byte that are believed; Go's own sections have 2 to 4."""
_TOP_ENTRY_BYTES = 64
_MAX_UNITS = 1 << 20
_MAX_PLACES = 64
_MAX_MEMBERS = 1 << 12


@dataclass(frozen=True, slots=True)
class Layout:
    """A struct as DWARF describes it."""

    size: int
    offsets: Mapping[str, int]


class Dwarf:
    """The debugging information of an executable; `struct` answers None wherever something is missing or damaged."""

    def __init__(self, elf: Elf) -> None:
        self._elf = elf

    @property
    def present(self) -> bool:
        """Whether the executable has sections of it that can be read."""
        return ".debug_info" in self._elf.sections and ".debug_abbrev" in self._elf.sections

    def struct(self, name: str) -> Layout | None:
        """The struct type with Go's full name, such as ``net/http.Request``."""
        unit = self._type_unit
        if unit is None:
            return None
        place = unit.body.find(wanted := name.encode() + b"\0")
        for _ in range(_MAX_PLACES):
            if place < 0:
                break
            # An entry is an abbreviation code, one or two bytes, and its attributes, of which the name is the first.
            for code_bytes in (1, 2):
                layout = unit.struct_at(place - code_bytes, name)
                if layout:
                    return layout
            place = unit.body.find(wanted, place + 1)
        return None

    @cached_property
    def _type_unit(self) -> _Unit | None:
        if not self.present:
            return None
        try:
            for body in _units(_chunks(self._elf, self._elf.sections[".debug_info"])):
                unit = _Unit(body, b"".join(_chunks(self._elf, self._elf.sections[".debug_abbrev"])))
                if unit.holds_types:
                    return unit
        except (ValueError, IndexError, struct.error, zlib.error):
            return None
        return None


class _Unit:
    """One compilation unit, cut out of its section, so that pyelftools sees a section with nothing else in it."""

    def __init__(self, body: bytes, abbreviations: bytes) -> None:
        self.body = body
        self._abbreviations = abbreviations

    @property
    def holds_types(self) -> bool:
        # runtime.g is in every Go program.
        return b"runtime.g\0" in self.body

    @cached_property
    def _struct_codes(self) -> tuple[Any, frozenset[int]]:
        """The unit as pyelftools has it, and the abbreviation codes of structs with members and an inline name."""
        from elftools.dwarf.dwarfinfo import (  # noqa: PLC0415 - 30 ms that stripped binaries need not pay
            DebugSectionDescriptor,
            DwarfConfig,
            DWARFInfo,
        )

        def section(name: str, content: bytes) -> Any:
            return DebugSectionDescriptor(io.BytesIO(content), name, 0, len(content), 0)

        sections = dict.fromkeys(each for each in inspect.signature(DWARFInfo).parameters if each.endswith("_sec"))
        sections["debug_info_sec"] = section(".debug_info", self.body)
        sections["debug_abbrev_sec"] = section(".debug_abbrev", self._abbreviations)
        unit = DWARFInfo(DwarfConfig(True, "x64", 8), **sections).get_CU_at(0)  # byte order is all that it uses of this
        table = unit.get_abbrev_table()
        return unit, frozenset(
            code
            for code, declaration in table._abbrev_map.items()  # noqa: SLF001 - the only way to list the codes
            if declaration["tag"] == "DW_TAG_structure_type"
            and declaration["children_flag"] == "DW_CHILDREN_yes"
            and declaration["attr_spec"]
            and (declaration["attr_spec"][0].name, declaration["attr_spec"][0].form) == ("DW_AT_name", "DW_FORM_string")
        )

    def struct_at(self, place: int, name: str) -> Layout | None:
        """The struct whose entry starts at `place` of the body, if one does."""
        try:
            unit, codes = self._struct_codes
            code = _uleb(self.body, place)
            if code not in codes:
                return None
            entry = unit.get_DIE_from_refaddr(place)
            if entry.tag != "DW_TAG_structure_type" or entry.attributes["DW_AT_name"].value != name.encode():
                return None
            offsets: dict[str, int] = {}
            for count, member in enumerate(entry.iter_children()):
                if member.tag != "DW_TAG_member" or count > _MAX_MEMBERS:
                    return None
                offsets[member.attributes["DW_AT_name"].value.decode()] = int(
                    member.attributes["DW_AT_data_member_location"].value
                )
            return Layout(int(entry.attributes["DW_AT_byte_size"].value), offsets)
        except Exception:  # noqa: BLE001 - pyelftools raises what it likes on damaged entries; the type metadata stands alone then
            return None


def _uleb(data: bytes, place: int) -> int:
    value = 0
    for shift in range(0, 35, 7):
        value |= (data[place] & 0x7F) << shift
        if data[place] < 0x80:
            return value
        place += 1
    raise ValueError("a number is too long")


def _chunks(elf: Elf, section: Section) -> Iterator[bytes]:
    """The content of a section, inflated where need be."""
    end = section.offset + section.size
    if not section.compressed:
        for place in range(section.offset, end, _CHUNK_BYTES):
            yield elf.data[place : min(place + _CHUNK_BYTES, end)]
        return
    kind, _, size, _ = _COMPRESSION_HEADER.unpack_from(elf.data, section.offset)
    if kind != _COMPRESSED_ZLIB or size > section.size * _MAX_RATIO:
        raise ValueError("the section's compression is not known")
    stream = zlib.decompressobj()
    for place in range(section.offset + _COMPRESSION_HEADER.size, end, _CHUNK_BYTES // 4):
        pending = elf.data[place : min(place + _CHUNK_BYTES // 4, end)]
        while pending and size > 0:
            content = stream.decompress(pending, _CHUNK_BYTES)
            size -= len(content)
            yield content
            pending = stream.unconsumed_tail


def _units(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The units named ``runtime``, header included, one at a time; the others are passed over."""
    stream = _Stream(chunks)
    for _ in range(_MAX_UNITS):
        header = stream.take(4)
        if len(header) < 4:
            return
        (length,) = struct.unpack("<I", header)
        start = stream.take(min(length, _TOP_ENTRY_BYTES))
        # The top entry follows 7 bytes of header, 8 in DWARF 5: a one or two byte code, then its name.
        if b"runtime\0" in start[7:19]:
            yield header + start + stream.take(length - len(start))
        else:
            stream.skip(length - len(start))


class _Stream:
    """Bytes taken from chunks in order; holds one chunk and what was asked for."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = memoryview(b"")

    def take(self, size: int) -> bytes:
        parts = []
        while size > 0:
            if not self._chunk:
                self._chunk = memoryview(next(self._chunks, b""))
                if not self._chunk:
                    break
            parts.append(self._chunk[:size])
            self._chunk = self._chunk[size:]
            size -= len(parts[-1])
        return b"".join(parts)

    def skip(self, size: int) -> None:
        while size > 0:
            if not self._chunk:
                self._chunk = memoryview(next(self._chunks, b""))
                if not self._chunk:
                    return
            skipped = min(size, len(self._chunk))
            self._chunk = self._chunk[skipped:]
            size -= skipped
