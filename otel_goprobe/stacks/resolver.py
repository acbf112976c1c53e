"""`Stacks`: the program counters of one process, as a tool's records hold them -> frames; made by tooling.py."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_goprobe import gobinary
from otel_goprobe.errors import BinaryError
from otel_goprobe.gobinary import Frame, GoBinary
from otel_goprobe.stacks.symbols import Symbols

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otel_goprobe.gobinary.elf import Segment

_MAX_KEPT = 1 << 16
"""Program counters whose frames are kept; a program has about as many places that call something."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """An executable range of a process's memory."""

    start: int
    end: int
    offset: int
    """Of its first byte in the file."""
    path: str


def mappings(text: str) -> tuple[Mapping, ...]:
    """Return the executable ranges that ``/proc/PID/maps`` names (Documentation/filesystems/proc.rst)."""
    found = []
    for line in text.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) < 5 or "x" not in fields[1]:
            continue
        start, _, end = fields[0].partition("-")
        path = fields[5].removesuffix(" (deleted)") if len(fields) > 5 else ""
        found.append(Mapping(int(start, 16), int(end, 16), int(fields[2], 16), path))
    return tuple(found)


class Stacks:
    """Frames of one process's program counters.

    Args:
        maps: gives what ``/proc/PID/maps`` holds, or raises OSError: the process has ended; asked again when an address
            is in no range that is known.
        executable: a path of the process's executable as this process can open it.
        exe: the same as the maps name it.
        root: what goes before the path of another file of the process: ``/proc/PID/root``.
    """

    def __init__(self, maps: Callable[[], str], executable: str, exe: str, root: str = "") -> None:
        self._maps = maps
        self._executable = executable
        self._exe = exe
        self._root = root
        self._ranges: tuple[Mapping, ...] = ()
        self._go: GoBinary | None = None
        self._symbols: dict[str, Symbols | None] = {}
        self._kept: dict[int, tuple[Frame, ...]] = {}

    def look(self) -> None:
        """Remember where the process has its code, as long as it is there to be asked; after its exec."""
        if not self._ranges:
            self._ranges = self._read()

    def _read(self) -> tuple[Mapping, ...]:
        try:
            return mappings(self._maps())
        except OSError:  # it has ended
            return self._ranges

    def frames(self, pcs: Sequence[int]) -> tuple[Frame, ...]:
        """Return the calls of a stack, innermost first.

        Args:
            pcs: innermost first, the first being an instruction that is executed, the others return addresses.
        """
        places = [pc if number == 0 else pc - 1 for number, pc in enumerate(pcs)]
        return tuple(frame for place in places for frame in self._at(place))

    def _at(self, pc: int) -> tuple[Frame, ...]:
        if pc not in self._kept:
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            self._kept[pc] = self._resolve(pc)
        return self._kept[pc]

    def _range(self, pc: int) -> Mapping | None:
        for _ in range(2):
            for each in self._ranges:
                if each.start <= pc < each.end:
                    return each
            self._ranges = self._read() or self._ranges
        return None

    def _linked(self, pc: int) -> Mapping | None:
        """Where the linker put it: so it was loaded, unless position independent; for a process that has ended."""
        binary = self._binary()
        try:
            return None if binary.pie else Mapping(pc, pc + 1, binary.file_offset(pc), self._exe)
        except BinaryError:
            return None

    def _resolve(self, pc: int) -> tuple[Frame, ...]:
        mapped = self._range(pc) or self._linked(pc)
        if mapped is None:
            return (Frame(f"{pc:#x}"),)
        offset = pc - mapped.start + mapped.offset
        try:
            if mapped.path == self._exe:
                frames = self._go_frames(offset)
                if frames:
                    return frames
            return (Frame(self._symbol(mapped.path, offset) or _place(mapped.path, offset)),)
        except (BinaryError, ValueError, IndexError, struct.error):
            return (Frame(_place(mapped.path, offset)),)

    def _go_frames(self, offset: int) -> tuple[Frame, ...]:
        return self._binary().frames(offset)

    def _binary(self) -> GoBinary:
        if self._go is None:
            self._go = gobinary.open_binary(self._executable)
        return self._go

    def _symbol(self, path: str, offset: int) -> str:
        if path not in self._symbols:
            self._symbols[path] = None
            if path.startswith("/"):
                self._symbols[path] = Symbols(self._executable if path == self._exe else f"{self._root}{path}")
        symbols = self._symbols[path]
        address = _address(symbols.segments, offset) if symbols else None
        return symbols.function(address) if symbols and address is not None else ""

    def close(self) -> None:
        """Unmap the executable."""
        if self._go:
            self._go.close()


def _address(segments: Iterable[Segment], offset: int) -> int | None:
    for segment in segments:
        if 0 <= offset - segment.offset < segment.size:
            return offset - segment.offset + segment.address
    return None


def _place(path: str, offset: int) -> str:
    return f"{path.rpartition('/')[2] or 'memory'}+{offset:#x}"
