"""DWARF, where a binary still has it: struct members, a second opinion beside the type metadata, and signatures.

Go puts every type into one compilation unit, named ``runtime``, and every function into that of its package, with the
names inline (cmd/internal/dwarf/dwarf.go). So the units are skipped by their lengths until that one, the wanted name is
searched in its bytes, and pyelftools decodes just the entries of that struct or function. DWARF 4 (Go <= 1.24) and 5,
plain and zlib-compressed sections. Walking all entries instead costs ten seconds and 450 MB on a large program.
"""

from __future__ import annotations

import inspect
import io
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from otel_goprobe.gobinary.abi import Shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otel_goprobe.gobinary.elf import Elf, Section

_COMPRESSED_ZLIB = 1
_COMPRESSION_HEADER = struct.Struct("<IIQQ")
_CHUNK_BYTES = 1 << 20
_MAX_RATIO = 64
"""Inflated bytes per stored byte that are believed; Go's own sections have 2 to 4."""
_TOP_ENTRY_BYTES = 16
_MAX_UNITS = 1 << 20
_MAX_PLACES = 64
_MAX_MEMBERS = 1 << 12
_MAX_DEPTH = 16
_COMPLEX_FLOAT, _FLOAT = 3, 4
"""DW_ATE_complex_float, DW_ATE_float."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A struct as DWARF describes it."""

    size: int
    offsets: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument, a receiver or a result."""

    name: str
    """As in the source; a result without one is ``~r0``."""
    result: bool
    type_name: str
    shape: Shape


class Dwarf:
    """The debugging information of an executable; `struct` answers None wherever something is missing or damaged."""

    def __init__(self, elf: Elf) -> None:
        self._elf = elf
        self._last: tuple[str, bytes, _Unit | None] | None = None

    @property
    def present(self) -> bool:
        """Whether the executable has sections of it that can be read."""
        return ".debug_info" in self._elf.sections and ".debug_abbrev" in self._elf.sections

    def struct(self, name: str) -> Layout | None:
        """The struct type with Go's full name, such as ``net/http.Request``."""
        unit = self._type_unit
        if unit is None:
            return None
        for place in unit.places_of(name):
            layout = unit.struct_at(place, name)
            if layout:
                return layout
        return None

    def parameters(self, function: str, package: str) -> tuple[Parameter, ...] | None:
        """Arguments, receiver first, and results of a function in the order of their declaration; None if not told."""
        unit, types = self._unit(package), self._type_unit
        if unit is None or types is None:
            return None
        for place in unit.places_of(function):
            entries = unit.parameters_at(place, function)
            if entries is not None:
                shapes = [types.shape_at(reference - types.offset) for _, _, reference in entries]
                return (
                    tuple(
                        Parameter(name, result, *shape)
                        for (name, result, _), shape in zip(entries, shapes, strict=True)
                        if shape
                    )
                    if all(shapes)
                    else None
                )
        return None

    @cached_property
    def _type_unit(self) -> _Unit | None:
        # runtime.g is in every Go program.
        return self._unit("runtime", b"runtime.g\0")

    def _unit(self, name: str, content: bytes = b"") -> _Unit | None:
        """The first unit with this name that holds `content`; the one last asked for is kept."""
        if not self.present:
            return None
        if self._last is None or self._last[:2] != (name, content):
            self._last = name, content, self._read_unit(name.encode(), content)
        return self._last[2]

    def _section(self, name: str) -> bytes:
        return b"".join(_chunks(self._elf, self._elf.sections[name])) if name in self._elf.sections else b""

    def _read_unit(self, name: bytes, content: bytes) -> _Unit | None:
        try:
            for offset, body in _units(_chunks(self._elf, self._elf.sections[".debug_info"]), name):
                if content in body:
                    return _Unit(offset, body, self._section(".debug_abbrev"), self._section(".debug_addr"))
        except (ValueError, IndexError, struct.error, zlib.error):
            return None
        return None


class _Unit:
    """One compilation unit, cut out of its section, so that pyelftools sees a section with nothing else in it."""

    def __init__(self, offset: int, body: bytes, abbreviations: bytes, addresses: bytes) -> None:
        self.offset = offset
        self.body = body
        self._abbreviations = abbreviations
        self._addresses = addresses

    def places_of(self, name: str) -> Iterator[int]:
        """Where an entry with this name may start: the name is the first attribute, behind a one or two byte code."""
        wanted = name.encode() + b"\0"
        place = self.body.find(wanted)
        for _ in range(_MAX_PLACES):
            if place < 0:
                return
            yield place - 1
            yield place - 2
            place = self.body.find(wanted, place + 1)

    @cached_property
    def _parsed(self) -> tuple[Any, Mapping[str, frozenset[int]]]:
        """The unit as pyelftools has it, and by tag the abbreviation codes of entries with an inline name."""
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
        sections["debug_addr_sec"] = section(".debug_addr", self._addresses)
        unit = DWARFInfo(DwarfConfig(True, "x64", 8), **sections).get_CU_at(0)  # byte order is all that it uses of this
        table = unit.get_abbrev_table()
        codes: dict[str, set[int]] = {}
        for code, declaration in table._abbrev_map.items():  # noqa: SLF001 - the only way to list the codes
            attributes = declaration["attr_spec"]
            if attributes and (attributes[0].name, attributes[0].form) == ("DW_AT_name", "DW_FORM_string"):
                codes.setdefault(declaration["tag"], set()).add(code)
        return unit, {tag: frozenset(found) for tag, found in codes.items()}

    def _entry(self, place: int, name: str, tag: str) -> Any:
        """The entry that starts at `place`, if it has this name and tag."""
        unit, codes = self._parsed
        if _uleb(self.body, place) not in codes.get(tag, ()):
            return None
        entry = unit.get_DIE_from_refaddr(place)
        return entry if entry.tag == tag and entry.attributes["DW_AT_name"].value == name.encode() else None

    def struct_at(self, place: int, name: str) -> Layout | None:
        """The struct whose entry starts at `place` of the body, if one does."""
        try:
            entry = self._entry(place, name, "DW_TAG_structure_type")
            if entry is None or not entry.has_children:
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

    def parameters_at(self, place: int, name: str) -> list[tuple[str, bool, int]] | None:
        """Name, whether it is a result, and offset of the type in the section, of what a function declares."""
        try:
            entry = self._entry(place, name, "DW_TAG_subprogram")
            if entry is None:
                return None
            found: dict[tuple[str, bool, int], tuple[str, bool, int]] = {}
            for count, child in enumerate(entry.iter_children() if entry.has_children else ()):
                if count > _MAX_MEMBERS:
                    return None
                if child.tag == "DW_TAG_formal_parameter":
                    values = {key: attribute.value for key, attribute in child.attributes.items()}
                    one = (
                        values["DW_AT_name"].decode(),
                        bool(values.get("DW_AT_variable_parameter")),
                        int(values["DW_AT_type"]),
                    )
                    # Up to Go 1.25 a result without a name stands there twice.
                    found[(*one[:2], count if one[0] == "_" else 0)] = one
        except Exception:  # noqa: BLE001 - as in struct_at
            return None
        return list(found.values())

    def shape_at(self, place: int) -> tuple[str, Shape] | None:
        """Name and shape of the type whose entry is at `place` of the body."""
        try:
            unit, _ = self._parsed
            entry = unit.get_DIE_from_refaddr(place)
            return entry.attributes["DW_AT_name"].value.decode(), self._shape(entry, _MAX_DEPTH)
        except Exception:  # noqa: BLE001 - as in struct_at
            return None

    def _shape(self, entry: Any, depth: int) -> Shape:
        if not depth:
            raise ValueError("a type has no end")
        values = {key: attribute.value for key, attribute in entry.attributes.items()}
        unit, _ = self._parsed

        def of(reference: int) -> Shape:
            return self._shape(unit.get_DIE_from_refaddr(reference - self.offset), depth - 1)

        size = int(values.get("DW_AT_byte_size", 8))
        if entry.tag == "DW_TAG_typedef":
            return of(values["DW_AT_type"])
        if entry.tag == "DW_TAG_structure_type":
            members = [child for child in entry.iter_children() if child.tag == "DW_TAG_member"]
            if len(members) > _MAX_MEMBERS:
                raise ValueError("a struct has too many members")
            parts = tuple(of(child.attributes["DW_AT_type"].value) for child in members)
            return Shape(size, max([1, *(part.align for part in parts)]), parts=parts)
        if entry.tag == "DW_TAG_array_type":
            (span,) = entry.iter_children()
            element = of(values["DW_AT_type"])
            count = int(span.attributes["DW_AT_count"].value)
            return Shape(size, element.align, parts=(element,) * min(count, 1), array=count > 1)
        if entry.tag == "DW_TAG_base_type":
            encoding = values["DW_AT_encoding"]
            if encoding == _COMPLEX_FLOAT:
                part = Shape(size // 2, size // 2, floating=True)
                return Shape(size, size // 2, parts=(part, part))
            return Shape(size, min(max(size, 1), 8), floating=encoding == _FLOAT)
        if entry.tag in {"DW_TAG_pointer_type", "DW_TAG_subroutine_type", "DW_TAG_unspecified_type"}:
            return Shape(8, 8)
        raise ValueError(f"{entry.tag} is not known")


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


def _units(chunks: Iterator[bytes], name: bytes) -> Iterator[tuple[int, bytes]]:
    """Offset and content, header included, of the units with this name; the others are passed over."""
    stream, offset = _Stream(chunks), 0
    for _ in range(_MAX_UNITS):
        header = stream.take(4)
        if len(header) < 4:
            return
        (length,) = struct.unpack("<I", header)
        start = stream.take(min(length, _TOP_ENTRY_BYTES + len(name)))
        # The top entry follows 7 bytes of header, 8 in DWARF 5: a one or two byte code, then its name.
        if 7 < start.find(name + b"\0") <= 10:
            yield offset, header + start + stream.take(length - len(start))
        else:
            stream.skip(length - len(start))
        offset += 4 + length


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
