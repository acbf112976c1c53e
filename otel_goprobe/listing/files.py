"""ELF files -> their functions by symbol, and their marks for tracers (USDT); called by find.py."""

from __future__ import annotations

import re
import struct
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel_goprobe import gobinary
from otel_goprobe.errors import BinaryError, UsageError
from otel_goprobe.gobinary.elf import Elf
from otel_goprobe.gobinary.identity import Telling
from otel_goprobe.stacks import Symbols, mappings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otel_goprobe.specs import Glob
    from otel_goprobe.stacks import Symbol

_MAX_INSTRUCTION = 15
"""Bytes, on x86-64."""
_PLACES = struct.Struct("<QQQ")
"""Of a mark's note: its address, the address of the section .stapsdt.base as it was linked, its semaphore or 0."""
_OPERAND = re.compile(r"(-?)(\d+)f?@(.+)")


def opened_as(path: str, pid: int | None) -> str:
    """Return what opens a file that a spec names; without a slash it is one that the process has mapped, like ``libc``.

    Raises:
        UsageError: there is none.
    """
    if "/" not in path and pid:
        of_process = mapped(pid)
        known = [shown for shown in of_process if _is_called(Path(shown).name, path)]
        if known:
            return of_process[known[0]]
    seen = Path(f"/proc/{pid}/root{path}") if pid and path.startswith("/") else Path(path)
    if seen.is_file():
        return str(seen)
    whose = f"process {pid} has" if pid else "there is"
    raise UsageError(
        f"{whose} no file {path}", "write its whole path, or with a pid the name of a mapped library: libc"
    )


def _is_called(name: str, wanted: str) -> bool:
    """Whether ``libc.so.6`` is meant by ``libc``."""
    return name == wanted or name.startswith((f"{wanted}.so", f"{wanted}-"))


def mapped(pid: int) -> dict[str, str]:
    """Return the files whose code a process has mapped: as it names them -> what opens them here."""
    with suppress(OSError):
        found = mappings(Path(f"/proc/{pid}/maps").read_text())
        exe = str(Path(f"/proc/{pid}/exe").readlink()).removesuffix(" (deleted)")
        paths = dict.fromkeys(each.path for each in found if each.path.startswith("/"))
        return {path: f"/proc/{pid}/exe" if path == exe else f"/proc/{pid}/root{path}" for path in paths}
    return {}


# --- symbols ---------------------------------------------------------------------------------------------------------


def symbols(path: str) -> list[Symbol]:
    """Return the functions that a file's symbol tables name, in order of their names.

    Raises:
        BinaryError: it is no ELF file of a 64-bit machine, or is damaged.
    """
    with Telling(path):
        return Symbols(path).functions()


def described_symbols(path: str, chosen: Sequence[Symbol]) -> list[dict[str, Any]]:
    """Return for each ``name``, ``size``, ``address``, ``file_offset``, and the ``cost`` of its first instruction."""
    with Telling(path), closing(Elf(path)) as elf:
        return [
            {
                "name": each.name,
                "size": each.size,
                "address": each.address,
                "file_offset": elf.file_offset(each.address),
            }
            | {"cost": _cost(elf, each.address)}
            for each in chosen
        ]


def _cost(elf: Elf, address: int) -> str | None:
    """What a probe on an instruction costs; None where that isn't known."""
    with suppress(BinaryError, ValueError):
        segment = elf.segment(address)
        size = min(_MAX_INSTRUCTION, segment.address + segment.size - address)
        return str(gobinary.instruction_cost(elf.machine, elf.read(address, size)))
    return None


def why_no_return_probe(path: str, name: Glob) -> str:
    """Return why a kernel's uretprobe can't be on functions of a file that match; empty where it can."""
    try:
        with gobinary.open_binary(path) as binary:
            go = next((each for each in binary.function_names() if name.matches(each)), "")
    except BinaryError:
        return ""
    if not go:
        return ""
    return (
        f"{go} is Go code, on which a uretprobe is refused: it replaces return addresses on the stack, which Go's"
        f" runtime reads when it copies a stack, and then ends the process; go:{name} is probed at its returns"
    )


def remedy_without_symbols(path: str) -> str:
    """Return what else can be asked of a stripped Go program; else nothing."""
    try:
        gobinary.identify(path)
    except BinaryError:
        return ""
    return ": it is a stripped Go program; go:NAME finds its functions all the same"


# --- marks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """One place that a program's source marks, by the macros of sys/sdt.h."""

    path: str
    provider: str
    name: str
    address: int
    file_offset: int
    semaphore: int
    """Address of a counter that a tracer has to raise while it looks; 0: there is none."""
    arguments: str
    """Such as ``8@%rdi -4@$1``."""
    cost: str | None


def marks(path: str, shown: str) -> list[Mark]:
    """Return the marks of a file; none where it is no ELF file.

    Args:
        path: what opens it.
        shown: as users name it.
    """
    from elftools.common.exceptions import ELFError  # noqa: PLC0415 - 30 ms that other specs need not pay
    from elftools.construct import ConstructError  # noqa: PLC0415

    try:
        with closing(Elf(path)) as elf:
            return [_mark(elf, shown, base, note) for base, note in _notes(path)]
    except (BinaryError, ELFError, ConstructError, ValueError, struct.error):
        return []


def _notes(path: str) -> Iterator[tuple[int, bytes]]:
    """Give the description of each note, with the address that .stapsdt.base has: a prelinked file has moved."""
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415 - as above
    from elftools.elf.sections import NoteSection  # noqa: PLC0415

    with Path(path).open("rb") as stream:
        file = ELFFile(stream)
        section, base = file.get_section_by_name(".note.stapsdt"), file.get_section_by_name(".stapsdt.base")
        if not isinstance(section, NoteSection):
            return
        for note in section.iter_notes():
            if note["n_name"] == "stapsdt":
                yield base["sh_addr"] if base else 0, note["n_descdata"]


def _mark(elf: Elf, shown: str, base: int, note: bytes) -> Mark:
    address, linked_base, semaphore = _PLACES.unpack_from(note)
    moved = base - linked_base if base and linked_base else 0
    provider, name, arguments = (part.decode("utf-8", "replace") for part in note[_PLACES.size :].split(b"\0")[:3])
    address += moved
    return Mark(
        path=shown,
        provider=provider,
        name=name,
        address=address,
        file_offset=elf.file_offset(address),
        semaphore=semaphore + moved if semaphore else 0,
        arguments=arguments,
        cost=_cost(elf, address),
    )


def described_marks(chosen: Sequence[Mark]) -> list[dict[str, Any]]:
    """Return for each its members, ``semaphore`` null where there is none, each argument's size, sign and place."""
    return [
        {
            "path": each.path,
            "provider": each.provider,
            "name": each.name,
            "address": each.address,
            "file_offset": each.file_offset,
            "semaphore": each.semaphore or None,
            "arguments": [_argument(text) for text in each.arguments.split()],
            "cost": each.cost,
        }
        for each in chosen
    ]


def _argument(text: str) -> dict[str, Any]:
    """Read ``-4@%eax``; one without a size is as wide as a word."""
    found = _OPERAND.fullmatch(text)
    if found is None:
        return {"size": 8, "signed": False, "place": text}
    return {"size": int(found[2]), "signed": bool(found[1]), "place": found[3]}
