"""What ``go version -m`` prints, from an executable's ``.go.buildinfo``; tells a Go program from any other.

Layout: cmd/link/internal/ld/data.go (buildinfo) and debug/buildinfo/buildinfo.go: the magic, the pointer size, and
flags. Bit 1 says that two length-prefixed strings follow at byte 32 (Go 1.18): the version, and the module text between
two 16-byte marks. Before, the addresses of two Go strings with the same content follow at byte 16.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from otel_goprobe.errors import NotGoError, UnsupportedBinaryError
from otel_goprobe.model import BuildInfo, Module

if TYPE_CHECKING:
    from otel_goprobe.gobinary.elf import Elf

_MAGIC = b"\xff Go buildinf:"
_ALIGNMENT = 16
_INLINE_STRINGS = 2
_MARK_BYTES = 16
_MAX_TEXT_BYTES = 1 << 20
OLDEST = 18
"""Minor version of the oldest Go whose tables this package reads."""
OLDEST_TRACED = 19
"""Minor version of the oldest Go whose programs probes may be placed in."""


def minor_version(go_version: str) -> int | None:
    """26 of ``go1.26.8`` or ``devel go1.26-8a2f3c``; None where the string has no such number."""
    found = re.search(r"\bgo1\.(\d{1,4})", go_version)
    return int(found[1]) if found else None


def read_build_info(elf: Elf) -> BuildInfo:
    """The build info of an executable.

    Raises:
        NotGoError: it has none.
        UnsupportedBinaryError: it is packed.
    """
    place = _find(elf)
    data = elf.data
    if data[place + 15] & _INLINE_STRINGS:
        version, behind = _string(data[place + 32 : place + 32 + 4096], 0, place + 32)
        text, _ = _string(data[behind : behind + 10 + _MAX_TEXT_BYTES], 0, behind)
    else:
        version, text = (_pointed(elf, elf.address(place) + at) for at in (16, 24))
    # The marks are there so that the text can be found in a memory dump.
    if len(text) >= 2 * _MARK_BYTES + 1 and text[-_MARK_BYTES - 1 : -_MARK_BYTES] == b"\n":
        text = text[_MARK_BYTES:-_MARK_BYTES]
    return _parse(version.decode("utf-8", "replace"), text.decode("utf-8", "replace"))


def _find(elf: Elf) -> int:
    section = elf.sections.get(".go.buildinfo")
    if section and elf.data[section.offset : section.offset + len(_MAGIC)] == _MAGIC:
        return section.offset
    for segment in sorted(elf.segments, key=lambda each: not each.writable):
        hits = elf.search(_MAGIC, _ALIGNMENT, segment)
        if hits:
            return hits[0]
    # The packer's own mark, in its loader header at the front of the file (upx: src/stub/src/include/header.S).
    if elf.data.find(b"UPX!", 0, 4096) >= 0:
        raise UnsupportedBinaryError(
            f"{elf.path} is packed with UPX", "unpack it with `upx -d`; the tables that tracing needs are compressed"
        )
    raise NotGoError(f"{elf.path} is not a Go program (it has no Go build info)")


def _pointed(elf: Elf, address: int) -> bytes:
    """The Go string whose address is at `address`; empty where there is none, or it isn't in the file."""
    try:
        header = elf.pointer(address)
        return elf.read(elf.pointer(header), min(elf.u64(header + 8), _MAX_TEXT_BYTES))
    except ValueError:
        return b""


def _string(data: bytes, place: int, base: int) -> tuple[bytes, int]:
    """The string behind a varint length at `place` of `data`, and where in the file the next one starts."""
    length = shift = 0
    while True:
        byte = data[place]
        place += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if length > len(data) - place:
        raise ValueError("a string of the build info is longer than the file")
    return data[place : place + length], base + place + length


def _parse(go_version: str, text: str) -> BuildInfo:
    path, main = "", None
    dependencies: list[Module] = []
    settings: dict[str, str] = {}
    for line in text.split("\n"):
        kind, *columns = line.split("\t")
        if kind == "path" and columns:
            path = columns[0]
        elif kind == "mod" and len(columns) >= 2:
            main = Module(columns[0], columns[1])
        elif kind == "dep" and len(columns) >= 2:
            dependencies.append(Module(columns[0], columns[1]))
        elif kind == "=>" and len(columns) >= 2:
            if dependencies:
                dependencies[-1] = Module(dependencies[-1].path, columns[1])
            elif main:
                main = Module(main.path, columns[1])
        elif kind == "build" and columns:
            key, _, value = columns[0].partition("=")
            settings[key] = _unquoted(value)
    return BuildInfo(go_version, path, main, tuple(dependencies), settings)


def _unquoted(value: str) -> str:
    """A value with spaces or quotes in it is written as a Go string literal (runtime/debug/mod.go, quoteValue)."""
    if len(value) < 2 or value[0] != value[-1] or value[0] not in '"`':
        return value
    if value[0] == "`":
        return value[1:-1]
    return re.sub(r"\\(.)", lambda escaped: {"t": "\t", "n": "\n"}.get(escaped[1], escaped[1]), value[1:-1])
