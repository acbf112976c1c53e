"""The runtime's type metadata: struct fields, type names and itabs of any Go executable, stripped or not.

Every type that is ever allocated on the heap or put into an interface has a descriptor. Layout (internal/abi/type.go,
iface.go; before 1.21 runtime/type.go; the same from Go 1.18 to 1.27): Type is 48 bytes {Size 0, Hash u32 16, TFlag u8
20, Align u8 21, Kind u8 23, Str i32 40}, then what the kind needs. `Str` and package paths are offsets from
moduledata.types to {flags u8, varint length, bytes}.

`GoBinary` asks it for what probes name. A descriptor that breaks an invariant (alignment, order, size, printable
names) raises ValueError: a layout that isn't understood must never give an offset.
"""

from __future__ import annotations

import bisect
import re
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_goprobe.gobinary.elf import Elf
    from otel_goprobe.gobinary.moduledata import Module

_TYPE_BYTES = 48
_ARRAY, _CHAN, _FUNC, _INTERFACE, _MAP, _POINTER, _SLICE, _STRING, _STRUCT, _LAST_KIND = (
    17,
    18,
    19,
    20,
    21,
    22,
    23,
    24,
    25,
    26,
)
_KIND_MASK = 31
_UNCOMMON, _EXTRA_STAR, _NAMED = 1, 2, 4
_KNOWN_FLAGS = 0x3F
"""TFlagUncommon to TFlagDirectIface (32, Go 1.26)."""
_FIELD_BYTES = 24
_ITAB_BYTES = 24
_MAX_FIELDS = 1 << 12
_MAX_NAME_BYTES = 1 << 12
_MAX_POINTERS = 1 << 19
_MAX_DEPTH = 8
Addresses = npt.NDArray[np.uint64]
_VERSION_ELEMENT = re.compile(r"v[0-9]+")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a struct."""

    name: str
    offset: int
    """Bytes from the struct's start."""
    size: int
    type_name: str
    """In Go's spelling with full package paths: ``*net/url.URL``."""
    type_address: int


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct type."""

    name: str
    """With its full package path: ``net/http.Request``."""
    size: int
    fields: Mapping[str, Field]
    """In declaration order; blank fields are left out."""


class Types:
    """Type descriptors of an executable.

    Args:
        elf: the file.
        module: its moduledata.
        go_minor: minor version of its Go, which decides how long a map's descriptor is and how an offset is written.
    """

    def __init__(self, elf: Elf, module: Module, go_minor: int) -> None:
        self._elf = elf
        self._module = module
        self._go_minor = go_minor
        self._structs: dict[str, Struct | None] = {}
        self._pointers_to: dict[int, int] = {}
        self._start = elf.file_offset(module.types)
        segment = elf.segment(module.types)
        if module.types_end > segment.address + segment.size:
            raise ValueError("the type metadata is cut off")
        self._end = self._start + module.types_end - module.types

    # --- descriptors -------------------------------------------------------------------------------------------------

    def _place(self, address: int) -> int:
        """File offset of the descriptor at `address`, checked."""
        place = address - self._module.types + self._start
        if address % 8 or not self._start < place <= self._end - _TYPE_BYTES:
            raise ValueError(f"{address:#x} is not a type")
        data = self._elf.data
        flags, align, field_align, kind = (
            data[place + 20],
            data[place + 21],
            data[place + 22],
            data[place + 23] & _KIND_MASK,
        )
        if flags & ~_KNOWN_FLAGS or not 0 < kind <= _LAST_KIND or {align, field_align} - {1, 2, 4, 8, 16}:
            raise ValueError(f"{address:#x} is not a type")
        return place

    def _kind(self, place: int) -> int:
        return self._elf.data[place + 23] & _KIND_MASK

    def _text(self, place: int) -> str:
        """The name record at file offset `place`."""
        data = self._elf.data
        length, start = data[place + 1], place + 2
        if length >= 0x80:
            length, start = length & 0x7F | data[place + 2] << 7, place + 3
        text = data[start : start + length].decode()
        if len(text) > _MAX_NAME_BYTES or data[place] > 15 or not text.isprintable():
            raise ValueError("a name of the type metadata is not text")
        return text

    def _name_at(self, offset: int) -> str:
        if not 0 <= offset < self._end - self._start:
            raise ValueError("a name of the type metadata is outside it")
        return self._text(self._start + offset)

    def _string(self, place: int) -> str:
        """As reflect prints the type: packages by name, not by path."""
        (offset,) = struct.unpack_from("<i", self._elf.data, place + 40)
        text = self._name_at(offset)
        if self._elf.data[place + 20] & _EXTRA_STAR:
            if not text.startswith("*"):
                raise ValueError("a type's name lacks its star")
            text = text[1:]
        if not text:
            raise ValueError("a type has no name")
        return text

    def _package(self, place: int) -> str:
        """Import path of the package that declares a named type; empty for predeclared ones."""
        if not self._elf.data[place + 20] & _UNCOMMON:
            return ""
        (offset,) = struct.unpack_from("<i", self._elf.data, place + self._descriptor_bytes(self._kind(place)))
        return self._name_at(offset) if offset else ""

    def _descriptor_bytes(self, kind: int) -> int:
        """Bytes of a descriptor without its UncommonType, which follows."""
        if kind in (_STRUCT, _INTERFACE):
            return 80
        if kind in (_POINTER, _FUNC, _SLICE):
            return 56
        if kind == _MAP:
            # internal/abi/map_noswiss.go, map_swiss.go (Go 1.24), map.go (1.27: strides and offsets were added)
            return 88 if self._go_minor < 24 else 112 if self._go_minor < 27 else 136
        return {_ARRAY: 72, _CHAN: 64}.get(kind, _TYPE_BYTES)

    def _element(self, place: int) -> int:
        return self._elf.pointer(self._elf.address(place + _TYPE_BYTES))

    def name(self, address: int) -> str:
        """Go's spelling of the type at `address`; a named type, or what a pointer points to, with its package path.

        Raises:
            ValueError, IndexError, struct.error: there is no type descriptor.
        """
        for depth in range(_MAX_DEPTH):
            place = self._place(address)
            text = self._string(place)
            if self._elf.data[place + 20] & _NAMED:
                package = self._package(place)
                return "*" * depth + (f"{package}.{_base_name(text)}" if package else text)
            if self._kind(place) != _POINTER:
                return "*" * depth + text
            address = self._element(place)
        raise ValueError("a pointer type has no end")

    # --- structs -----------------------------------------------------------------------------------------------------

    def find(self, name: str) -> tuple[int, ...]:
        """Addresses of the types with a name such as ``net/http.Request``, found through the pointer type ``*T``."""
        path, base = _split(name)
        found = self._elements([f"*{package}.{base}" for package in _package_names(path)], name)
        if not found and "." in path.partition("/")[0]:
            # The package of a module outside the standard library may be named unlike its path.
            found = self._elements(sorted(self._pointers_by_base.get(base, ())), name)
        return found

    def _elements(self, texts: Sequence[str], name: str) -> tuple[int, ...]:
        pointers = self._pointers
        found = []
        for text in texts:
            index = bisect.bisect_left(pointers, text.encode(), key=self._sort_key)
            for pointer in pointers[index : index + _MAX_DEPTH]:
                if self._sort_key(pointer) != text.encode():
                    break
                element = self._element(self._start + int(pointer))
                if self.name(element) == name and element not in found:
                    found.append(element)
                    self._pointers_to[element] = self._elf.address(self._start + int(pointer))
        return tuple(found)

    def _sort_key(self, offset: int) -> bytes:
        return self._string(self._start + int(offset)).encode()

    @cached_property
    def _pointers_by_base(self) -> dict[str, set[str]]:
        """``Node`` -> {``*yaml.Node``, …}, over all pointer types: for packages whose name can't be guessed."""
        strings: dict[str, set[str]] = {}
        for offset in self._pointers:
            text = self._string(self._start + int(offset))
            if text.startswith("*"):
                strings.setdefault(_base_name(text), set()).add(text)
        return strings

    @cached_property
    def _pointers(self) -> Sequence[int]:
        """Offsets from the metadata's start of pointer types (up to Go 1.26 other unnamed ones too), by string."""
        links = self._module.type_links
        if links is not None:
            if links.count > _MAX_POINTERS:
                raise ValueError("there are too many types")
            table: npt.NDArray[np.int32] = self._elf.words(  # type: ignore[assignment] # a view of i4
                self._elf.file_offset(links.address), links.count, "<i4"
            )
            return table  # type: ignore[return-value] # an array is a sequence in all that is used of it
        # Go 1.27: the descriptors lie back to back from 8 on, first those that were in typelinks, so pointers first.
        data = self._elf.data
        offsets: list[int] = []
        place, end = self._start + 8, min(self._start + self._module.described, self._end) - 56
        while place <= end and len(offsets) < _MAX_POINTERS and data[place + 23] & _KIND_MASK == _POINTER:
            offsets.append(place - self._start)
            # An UncommonType is 16 bytes and its methods 16 each; their number is its second field.
            place += 72 + 16 * (data[place + 60] | data[place + 61] << 8) if data[place + 20] & _UNCOMMON else 56
        return offsets

    def struct(self, name: str) -> Struct | None:
        """The struct type with a full package path and name; None if the program has none, or several (local types)."""
        if name not in self._structs:
            found = [address for address in self.find(name) if self._kind(self._place(address)) == _STRUCT]
            self._structs[name] = self._struct(name, found[0]) if len(found) == 1 else None
        return self._structs[name]

    def struct_at(self, address: int) -> Struct | None:
        """The struct type whose descriptor is at `address`; None if it is of another kind."""
        return self._struct(self.name(address), address) if self._kind(self._place(address)) == _STRUCT else None

    def _struct(self, name: str, address: int) -> Struct:
        size = self._elf.u64(address)
        first, count = self._elf.pointer(address + 56), self._elf.u64(address + 64)
        if count > _MAX_FIELDS:
            raise ValueError(f"{name} has too many fields")
        fields: dict[str, Field] = {}
        end = 0
        for place in range(first, first + _FIELD_BYTES * count, _FIELD_BYTES):
            field = self._field(place)
            align = self._elf.data[self._place(field.type_address) + 22]
            if field.offset < end or field.offset % align or field.offset + field.size > size:
                raise ValueError(f"the fields of {name} make no sense")
            end = field.offset + field.size
            if field.name != "_":
                fields[field.name] = field
        return Struct(name, size, fields)

    def _field(self, address: int) -> Field:
        name = self._text(self._elf.file_offset(self._elf.pointer(address)))
        kind = self._elf.pointer(address + 8)
        if not name:
            raise ValueError("a field has no name")
        self._place(kind)
        offset = self._elf.u64(address + 16)
        if self._go_minor < 19:  # runtime/type.go of 1.18: offsetAnon, bit 0 says that the field is embedded
            offset >>= 1
        return Field(name, offset, self._elf.u64(kind), self.name(kind), kind)

    def address(self, name: str) -> int | None:
        """Address of what describes a named type, or a pointer to one (``*net.TCPConn``); None if there is none."""
        found = self.find(name.removeprefix("*"))
        if len(found) != 1:
            return None
        return self._pointers_to[found[0]] if name.startswith("*") else found[0]

    # --- itabs -------------------------------------------------------------------------------------------------------

    def itab(self, concrete: str, interface: str) -> int | None:
        """Address of the itab that the linker made for a concrete type in an interface, both with full package path."""
        stars = len(concrete) - len(concrete.lstrip("*"))
        if stars > 1:
            return None
        wanted = self.find(concrete[stars:])
        if stars:
            wanted = tuple(self._pointers_to[element] for element in wanted)
        addresses, interfaces, concretes = self._itabs
        for index in np.flatnonzero(np.isin(concretes, np.array(wanted, np.uint64))):
            if self.name(int(interfaces[index])) == interface:
                return int(addresses[index])
        return None

    @cached_property
    def _itabs(self) -> tuple[Addresses, Addresses, Addresses]:
        """Address, interface type and concrete type of every itab in the file (internal/abi/iface.go: ITab)."""
        pointer, module = self._elf.pointer, self._module
        if module.itab_links is not None:
            links = module.itab_links
            if links.count > len(self._elf.data) // (_ITAB_BYTES + 8):
                raise ValueError("there are too many itabs")
            places = self._elf.pointers(
                np.arange(links.count, dtype=np.uint64) * np.uint64(8) + np.uint64(links.address)
            )
        else:
            # Go 1.27: back to back, each with room for its interface's methods, at least one.
            found: list[int] = []
            methods: dict[int, int] = {}
            place, end = (
                (0, 0) if module.itabs is None else (module.itabs.address, module.itabs.address + module.itabs.count)
            )
            while place + _ITAB_BYTES <= end:
                interface = pointer(place)
                if interface not in methods:
                    methods[interface] = self._elf.u64(interface + 64)
                found.append(place)
                place += _ITAB_BYTES + 8 * max(methods[interface], 1)
            places = np.array(found, np.uint64)
        return places, self._elf.pointers(places), self._elf.pointers(places + np.uint64(8))


def _split(name: str) -> tuple[str, str]:
    """``gopkg.in/yaml.v3.Node`` -> its package path and its name; a generic type's arguments stay with the name."""
    head, bracket, arguments = name.partition("[")
    path, _, base = head.rpartition(".")
    return path, base + bracket + arguments


def _base_name(text: str) -> str:
    """``Request`` of ``http.Request``."""
    return _split(text)[1]


def _package_names(path: str) -> list[str]:
    """What the package at an import path is probably called, best guess first."""
    elements = path.split("/")
    last = elements[-1]
    names = [last]
    if _VERSION_ELEMENT.fullmatch(last) and len(elements) > 1:
        names.insert(0, elements[-2])
    for name in list(names):
        plain = re.sub(r"\.v[0-9]+$|^go-|-go$|\.go$", "", name)
        names += [each for each in (plain, plain.replace("-", "_"), plain.replace("-", "")) if each not in names]
    return names
