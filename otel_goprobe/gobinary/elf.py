"""A 64-bit little-endian ELF executable, mapped: segments, sections, notes and the bytes behind an address.

Everything else in this package reads the file through `Elf`. Nothing large is copied and nothing beyond the headers
is looked at until it is asked for. Numbers in a header may lie: every read is checked against the file, every loop
has a bound.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from otel_goprobe.errors import BinaryError, NotGoError, UnsupportedBinaryError

MACHINES = {62: "x86_64", 183: "aarch64"}
"""e_machine (elf.h: EM_X86_64, EM_AARCH64) -> the name `uname -m` has for it."""
_RELATIVE = {"x86_64": 8, "aarch64": 1027}
"""R_X86_64_RELATIVE and R_AARCH64_RELATIVE (elf.h)."""
_PT_LOAD, _PT_DYNAMIC, _PT_NOTE = 1, 2, 4
_PF_WRITABLE = 2
_ET_EXEC, _ET_DYN = 2, 3
_DT_RELA, _DT_RELASZ = 7, 8
_SHF_COMPRESSED = 0x800
_SHT_NOBITS = 8
_NOTE_GO_BUILD_ID, _NOTE_GNU_BUILD_ID = (b"Go\0\0", 4), (b"GNU\0", 3)
_MAX_HITS = 256
"""Hits of a magic number that are followed up before a search gives up; an honest file has one or two."""
_MAX_NAME_BYTES = 256

Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Segment:
    """A PT_LOAD: `size` bytes of the file at `offset` are seen at `address`."""

    offset: int
    address: int
    size: int
    writable: bool
    memory_size: int
    """Bytes that the process sees: zeroes follow those of the file."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section header."""

    name: str
    address: int
    offset: int
    size: int
    compressed: bool


class Elf:
    """An executable file, mapped read-only.

    A file that is truncated by another while it is mapped kills the reader with SIGBUS; the kernel refuses that for a
    file that runs.

    Args:
        path: the file; ``/proc/PID/exe`` is one too.

    Raises:
        BinaryError: it can't be opened or read.
        NotGoError: it isn't an ELF executable.
        UnsupportedBinaryError: it is a 32-bit or big-endian one, or for a machine that isn't known.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.data = _mapped(self.path)
        self.addends_in_file = True
        self._read_header()

    def close(self) -> None:
        """Unmap the file, at the latest when the last array that views it is gone."""
        self.__dict__.pop("_relocations", None)
        try:
            self.data.close()
        except BufferError:
            return

    def _read_header(self) -> None:
        data, path = self.data, self.path
        if data[:4] != b"\x7fELF":
            raise NotGoError(f"{path} is not an ELF executable")
        if data[4] != 2:
            raise UnsupportedBinaryError(f"{path} is a 32-bit executable", "only 64-bit Go programs can be traced")
        if data[5] != 1:
            raise UnsupportedBinaryError(
                f"{path} is a big-endian executable", "only x86-64 and arm64 Go programs can be traced"
            )
        kind, machine = struct.unpack_from("<HH", data, 16)
        if kind not in (_ET_EXEC, _ET_DYN):
            raise NotGoError(f"{path} is an ELF file, but not an executable")
        if machine not in MACHINES:
            raise UnsupportedBinaryError(
                f"{path} is for a machine that is not known (e_machine {machine})",
                "only x86-64 and arm64 Go programs can be traced",
            )
        self.machine = MACHINES[machine]
        self.position_independent = kind == _ET_DYN
        self.segments: list[Segment] = []
        self._notes: list[tuple[int, int]] = []
        self._dynamic: tuple[int, int] | None = None
        table_offset, entry_size, entries = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
        for index in range(entries):
            kind, flags, offset, address, _, size, memory = struct.unpack_from(
                "<IIQQQQQ", data, table_offset + index * entry_size
            )
            size = min(size, max(len(data) - offset, 0))
            if kind == _PT_LOAD and size:
                self.segments.append(Segment(offset, address, size, bool(flags & _PF_WRITABLE), memory))
            elif kind == _PT_NOTE:
                self._notes.append((offset, size))
            elif kind == _PT_DYNAMIC:
                self._dynamic = offset, size

    # --- addresses ---------------------------------------------------------------------------------------------------

    def segment(self, address: int) -> Segment:
        """The PT_LOAD whose file bytes `address` is among.

        Raises:
            ValueError: none.
        """
        for segment in self.segments:
            if 0 <= address - segment.address < segment.size:
                return segment
        raise ValueError(f"address {address:#x} is not in the file")

    def writable(self, address: int) -> bool:
        """Whether the process may write at `address`, in the file or behind its end (.bss)."""
        return any(each.writable and 0 <= address - each.address < each.memory_size for each in self.segments)

    def file_offset(self, address: int) -> int:
        """Where in the file the byte at `address` is; ValueError if it isn't there."""
        segment = self.segment(address)
        return address - segment.address + segment.offset

    def address(self, file_offset: int) -> int:
        """The address at which the byte at `file_offset` is seen; ValueError if it is never loaded."""
        for segment in self.segments:
            if 0 <= file_offset - segment.offset < segment.size:
                return file_offset - segment.offset + segment.address
        raise ValueError(f"offset {file_offset:#x} is not loaded")

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at `address`; ValueError if not all of them are in one PT_LOAD."""
        segment = self.segment(address)
        start = address - segment.address
        if size < 0 or start + size > segment.size:
            raise ValueError(f"{size} bytes at {address:#x} are not in the file")
        return self.data[segment.offset + start : segment.offset + start + size]

    def words(self, file_offset: int, count: int, dtype: str) -> npt.NDArray[np.unsignedinteger]:
        """`count` numbers at `file_offset` as a view of the file; ValueError beyond its end."""
        if file_offset < 0 or count < 0:
            raise ValueError("negative offset or count")
        return np.frombuffer(self.data, dtype, count, file_offset)

    def release(self, file_offset: int, size: int) -> None:
        """Take a range that was read once out of this process's memory; reading it again brings it back."""
        start = -(-file_offset // mmap.PAGESIZE) * mmap.PAGESIZE
        end = min(file_offset + size, len(self.data)) // mmap.PAGESIZE * mmap.PAGESIZE
        if 0 <= start < end:
            self.data.madvise(mmap.MADV_DONTNEED, start, end - start)

    def u64(self, address: int) -> int:
        """The 8-byte number at `address`."""
        return int.from_bytes(self.read(address, 8), "little")

    def pointer(self, address: int) -> int:
        """The address, before any load bias, that the pointer at `address` holds.

        Go's linker, GNU ld and gold leave the addend in a PIE's file; for a linker that leaves 0 there it is looked
        up in ``.rela``.
        """
        value = self.u64(address)
        if value or self.addends_in_file:
            return value
        places, values = self._relocations
        index = int(np.searchsorted(places, address))
        return int(values[index]) if index < len(places) and int(places[index]) == address else 0

    def pointers(self, addresses: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """What `pointer` gives for each of `addresses`, multiples of 8; ValueError if one isn't in the file."""
        content = np.frombuffer(self.data, "<u8", len(self.data) // 8)
        values = np.zeros(len(addresses), np.uint64)
        known = np.zeros(len(addresses), bool)
        for segment in self.segments:
            # Below the segment's start the difference wraps around, to more than any size.
            distance = addresses - np.uint64(segment.address)
            inside = distance < max(segment.size - 7, 0)
            places = distance[inside] + np.uint64(segment.offset)
            if (places & np.uint64(7)).any():
                raise ValueError("a pointer is not aligned")
            values[inside] = content[places >> np.uint64(3)]
            known |= inside
        if not known.all():
            raise ValueError(f"address {int(addresses[~known][0]):#x} is not in the file")
        if not self.addends_in_file and len(self._relocations[0]):
            relocated, targets = self._relocations
            index = np.minimum(np.searchsorted(relocated, addresses), len(relocated) - 1)
            values = np.where((values == 0) & (relocated[index] == addresses), targets[index], values)
        return values

    @cached_property
    def _relocations(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """R_*_RELATIVE entries: where, ascending, and the address that belongs there. Go's linker doesn't sort them."""
        nothing = np.empty(0, np.uint64)
        if self._dynamic is None:
            return nothing, nothing
        offset, size = self._dynamic
        tags = self.words(offset, size // 16 * 2, "<u8").reshape(-1, 2)
        table = {int(tag): int(value) for tag, value in tags[: _MAX_HITS * 2]}
        count = table.get(_DT_RELASZ, 0) // 24
        if not count:
            return nothing, nothing
        entries = self.words(self.file_offset(table[_DT_RELA]), count * 3, "<u8").reshape(-1, 3)
        entries = entries[(entries[:, 1] & 0xFFFFFFFF) == _RELATIVE[self.machine]]
        order = np.argsort(entries[:, 0], kind="stable")
        return entries[order, 0], entries[order, 2]

    def places_of_pointer(self, target: int) -> list[int]:
        """Addresses in writable memory that hold the 8-byte aligned pointer `target`; at most 256 of them."""
        found = [
            self.address(hit)
            for segment in self.segments
            if segment.writable
            for hit in self.search(target.to_bytes(8, "little"), 8, segment)
        ]
        if not found and self.position_independent:
            places, values = self._relocations
            found = [int(place) for place in places[values == target][:_MAX_HITS]]
            self.addends_in_file = not found
        return found

    def search(self, pattern: bytes, alignment: int, segment: Segment) -> list[int]:
        """File offsets in `segment`, multiples of `alignment`, where `pattern` stands; at most 256 of them."""
        hits: list[int] = []
        end = segment.offset + segment.size
        place = self.data.find(pattern, segment.offset, end)
        for _ in range(_MAX_HITS * 16):
            if place < 0 or len(hits) == _MAX_HITS:
                break
            if place % alignment == 0:
                hits.append(place)
            place = self.data.find(pattern, place + 1, end)
        return hits

    # --- sections and notes ------------------------------------------------------------------------------------------

    @cached_property
    def sections(self) -> dict[str, Section]:
        """Section headers by name; empty where they are gone or don't make sense."""
        data = self.data
        (table,) = struct.unpack_from("<Q", data, 40)
        entry_size, count, names_index = struct.unpack_from("<HHH", data, 58)
        if not table or entry_size < 64 or table + entry_size * count > len(data) or names_index >= count:
            return {}
        headers = [struct.unpack_from("<IIQQQQ", data, table + index * entry_size) for index in range(count)]
        names_offset = headers[names_index][4]
        sections: dict[str, Section] = {}
        for name_offset, kind, flags, address, offset, size in headers:
            start = names_offset + name_offset
            end = data.find(b"\0", start, start + _MAX_NAME_BYTES)
            if end < 0 or kind == _SHT_NOBITS or offset + size > len(data):
                continue
            name = data[start:end].decode("latin-1")
            sections.setdefault(name, Section(name, address, offset, size, bool(flags & _SHF_COMPRESSED)))
        return sections

    def symbol(self, name: str) -> int | None:
        """The address of a symbol; None if the file has no symbol table, or not that symbol."""
        table, strings = self.sections.get(".symtab"), self.sections.get(".strtab")
        if table is None or strings is None:
            return None
        place = self.data.find(f"\0{name}\0".encode(), strings.offset, strings.offset + strings.size)
        if place < 0:
            return None
        # Elf64_Sym: u32 st_name, 4 bytes, u64 st_value, u64 st_size
        rows = self.words(table.offset, table.size // 24 * 6, "<u4").reshape(-1, 6)
        (found,) = np.nonzero(rows[:, 0] == place + 1 - strings.offset)
        return int(rows[found[0], 2]) | int(rows[found[0], 3]) << 32 if len(found) else None

    @cached_property
    def build_id(self) -> str:
        """The Go build id, else the GNU one in hexadecimal, else empty."""
        found: dict[tuple[bytes, int], bytes] = {}
        for offset, size in self._notes[:16]:
            place, end = offset, offset + size
            for _ in range(16):
                if place + 16 > end:
                    break
                name_size, content_size, kind = struct.unpack_from("<III", self.data, place)
                content = place + 12 + (name_size + 3 & ~3)
                if content_size > 4096 or content + content_size > end:
                    break
                key = (self.data[place + 12 : place + 12 + min(name_size, 8)], kind)
                found[key] = self.data[content : content + content_size]
                place = content + (content_size + 3 & ~3)
        if _NOTE_GO_BUILD_ID in found:
            return found[_NOTE_GO_BUILD_ID].decode("latin-1")
        return found.get(_NOTE_GNU_BUILD_ID, b"").hex()


def _mapped(path: str) -> mmap.mmap:
    try:
        # Without O_NONBLOCK the open of a named pipe waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise BinaryError(f"{path} can't be opened ({_reason(error)})") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size < 64:
            raise NotGoError(f"{path} is not an ELF executable")
        return mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
    except (OSError, ValueError) as error:
        raise BinaryError(f"{path} can't be read ({_reason(error)})") from error
    finally:
        os.close(descriptor)


def _reason(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
