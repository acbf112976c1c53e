"""Damages Go executables at random and asks gobinary everything of each: an answer or a BinaryError, in bounded time.

    python tests/fuzz/gobinary_fuzz.py -n 100000 -s 1 PROGRAM…

The damage is done where the tables are that gobinary reads; most of a file is code that nothing looks at. A program is
changed in memory, a handful of places at a time, and put back. The unit tests run 2,000 of the same mutations.
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from otel_goprobe import gobinary
from otel_goprobe.errors import BinaryError
from otel_goprobe.gobinary.elf import Elf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otel_goprobe.gobinary.pclntab import FunctionTable

Answer = TypeVar("Answer")

LIMIT_SECONDS = 2.0
"""Of CPU, for all questions together."""
ALLOCATOR_BYTES = 4 << 20
"""By which the interpreter's resident memory goes up and down on its own, as its allocator gives pages back: the same
mutation adds 3 MB or 7 to a process, by what went before."""
NAMES = ["main.main", "main.say", "runtime.gopanic", "runtime.newproc1", "runtime.goexit1"]
PROBED = ["main.main", "main.say", "runtime.gopanic", "runtime.goexit1"]
STRUCTS = ["runtime.g", "runtime.m", "main.loud"]
HOSTILE = [0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, -1, -8]
MAX_CHANGES = 6
SPLICE_BYTES = 64


class BrokenPromiseError(AssertionError):
    """Something else than an answer or a BinaryError came out, or too late, or it took too much memory."""


def ask_everything(path: str | Path) -> bool:
    """Ask all that probes and people ask; return whether the file could be opened at all.

    Raises:
        BrokenPromiseError: it took longer than LIMIT_SECONDS, or the sentence of an error isn't one.
    """
    start = time.process_time()
    opened = False
    try:
        with gobinary.open_binary(path) as binary:
            opened = True
            for question in _questions(binary):
                tried(question)
            for function in (tried(partial(binary.functions, PROBED)) or {}).values():
                for question in _questions_of(binary, function):
                    tried(question)
    except BinaryError as error:
        if str(path) not in error.message or "\n" in error.message:
            raise BrokenPromiseError(error.message) from error
    taken = time.process_time() - start
    if taken > LIMIT_SECONDS:
        raise BrokenPromiseError(f"{taken:.1f} s")
    return opened


def _questions(binary: gobinary.GoBinary) -> list[Callable[[], object]]:
    return [
        lambda: binary.has_dwarf,
        lambda: binary.untraceable,
        lambda: binary.inlined([*NAMES, "runtime.goready", "runtime.acquirem"]),
        lambda: binary.struct("runtime.g"),
        lambda: binary.struct("example.com/go-nothing/v2.Thing"),
        lambda: binary.field("runtime.g", "stack.hi"),
        lambda: binary.field("runtime.m", "curg"),
        lambda: binary.itab("*main.loud", "main.speaker"),
        lambda: [binary.type_name(binary._module.types + at) for at in range(0, 512, 8)],
        lambda: len(binary.function_names()),
        lambda: binary.variable("runtime.sched"),
        lambda: binary.line(binary._module.text + 1),
    ]


def _questions_of(binary: gobinary.GoBinary, function: gobinary.Function) -> list[Callable[[], object]]:
    return [
        partial(binary.start_site, function),
        partial(binary.return_sites, function),
        partial(binary.calls, function, function),
        partial(binary.result_sites, function, function),
        partial(binary.signature, function),
        partial(binary.line, function.address),
    ]


def tried(question: Callable[[], Answer]) -> Answer | None:
    """Ask, and take a BinaryError for no answer."""
    try:
        return question()
    except BinaryError:
        return None


# --- damage ----------------------------------------------------------------------------------------------------------


def regions(path: Path) -> list[tuple[int, int]]:
    """Return file offsets, from and to, of the tables that are read."""
    elf = Elf(path)
    with gobinary.open_binary(path) as binary:
        table, module, offset = binary._table, binary._module, elf.file_offset
        functions = binary.functions(NAMES).values()
        types = [binary._types.find(name)[0] for name in STRUCTS if binary._types.find(name)]
        spans = [
            (0, 1024),
            (table.file_offset, table.file_offset + 128),
            (table._names_span[0], table._names_span[0] + 4096),
            (table.units_offset, table.units_offset + 1024),
            (table.files_offset, table.files_offset + 1024),
            (table._pc_tables, table._pc_tables + 4096),
            *(
                (table._pc_tables + at, table._pc_tables + at + 32)
                for each in functions
                for at in pc_tables(table, each)
            ),
            (offset(table.functions_address), offset(table.functions_address) + 8 * table.count),
            (offset(module.types), offset(module.types) + 4096),
            (offset(module.funcdata), offset(module.funcdata) + 4096),
            *((offset(place), offset(place) + 400) for place in elf.places_of_pointer(table.address)),
            *((at, at + 80) for at in (offset(table.functions_address) + 4 * each.record for each in functions)),
            *((offset(each), offset(each) + 80) for each in types),
            *((offset(each.address), offset(each.address) + min(each.size, 256)) for each in functions),
        ]
    headers = int.from_bytes(elf.data[40:48], "little")
    spans.append((headers, headers + 64 * len(elf.sections)))
    for name in (".go.buildinfo", ".go.module", ".note.go.buildid", ".itablink", ".typelink"):
        if name in elf.sections:
            section = elf.sections[name]
            spans.append((section.offset, section.offset + min(section.size, 4096)))
    debugging = [section for name, section in elf.sections.items() if name.startswith((".debug_", ".zdebug_"))]
    spans += [(section.offset, section.offset + section.size) for section in debugging]
    elf.close()
    return [span for span in spans if span[0] < span[1]]


def pc_tables(table: FunctionTable, function: gobinary.Function) -> tuple[int, ...]:
    """Return where pcsp, pcfile and pcln of a function are."""
    return tuple(int(word) for word in table._words[function.record + 4 : function.record + 7])


@dataclass
class Victim:
    """A program in memory, changed and put back."""

    path: Path
    content: bytes = field(init=False)
    regions: list[tuple[int, int]] = field(init=False)
    file: int = field(init=False)

    def __post_init__(self) -> None:
        self.content = self.path.read_bytes()
        self.regions = regions(self.path)
        self.file = os.memfd_create(self.path.name, os.MFD_CLOEXEC)
        os.pwrite(self.file, self.content, 0)

    @property
    def name(self) -> str:
        """What opens it."""
        return f"/proc/self/fd/{self.file}"

    @contextmanager
    def damaged(self, dice: random.Random) -> Iterator[str]:
        """Change some places, or cut the file off; put it back afterwards."""
        changes: list[tuple[int, bytes]] = []
        if dice.random() < 0.1:
            os.ftruncate(self.file, dice.randrange(len(self.content)))
        else:
            changes = [self._change(dice) for _ in range(dice.randint(1, MAX_CHANGES))]
        for at, value in changes:
            os.pwrite(self.file, value, at)
        try:
            yield self.name
        finally:
            if not changes:
                os.pwrite(self.file, self.content, 0)
            for at, value in changes:
                os.pwrite(self.file, self.content[at : at + len(value)], at)

    def _change(self, dice: random.Random) -> tuple[int, bytes]:
        start, end = dice.choice(self.regions)
        at = dice.randrange(start, end)
        kind = dice.randrange(5)
        if kind == 0:
            value = bytes([self.content[at] ^ 1 << dice.randrange(8)])
        elif kind == 1:
            width = dice.choice([1, 2, 4, 8])
            at -= at % width
            value = (dice.choice(HOSTILE) & (1 << 8 * width) - 1).to_bytes(width, "little")
        elif kind == 2:
            # a word from elsewhere in the same table: pointers that lead in circles, lengths of something else
            at -= at % 8
            other = dice.randrange(start, end) & ~7
            value = self.content[other : other + 8]
        elif kind == 3:
            other_start, other_end = dice.choice(self.regions)
            other = dice.randrange(other_start, other_end)
            value = self.content[other : min(other + dice.randint(1, SPLICE_BYTES), other_end)]
        else:
            at -= at % 4
            (number,) = struct.unpack_from("<I", self.content.ljust(at + 4, b"\0"), at)
            value = struct.pack("<I", number + dice.choice([-8, -4, -1, 1, 4, 8, 16, 4096]) & 0xFFFFFFFF)
        return at, value[: len(self.content) - at]


@dataclass
class Figures:
    """What a run gave."""

    mutations: int = 0
    opened: int = 0
    """Of which gobinary could still read the headers."""
    slowest_seconds: float = 0.0
    most_bytes: int = 0
    """Resident memory that one mutation added at its peak."""


def run(victims: list[Victim], count: int, seed: int, *, memory: bool = False) -> Figures:
    """Damage the victims in turn.

    Raises:
        BrokenPromiseError: with the mutation's number, which `seed` and the programs make again.
    """
    figures = Figures()
    for victim in victims:
        ask_everything(victim.name)  # imports and caches
    for number in range(count):
        victim = victims[number % len(victims)]
        before = _peak_from_now() if memory else 0
        start = time.process_time()
        try:
            with victim.damaged(random.Random(f"{seed}/{number}")) as path:  # noqa: S311 - has to be the same again
                figures.opened += ask_everything(path)
        except BaseException as error:
            raise BrokenPromiseError(f"seed {seed}, mutation {number} of {victim.path}: {error!r}") from error
        figures.mutations += 1
        figures.slowest_seconds = max(figures.slowest_seconds, time.process_time() - start)
        if memory:
            added = _status("VmHWM") - before
            figures.most_bytes = max(figures.most_bytes, added)
            if added > 2 * len(victim.content) + ALLOCATOR_BYTES:
                raise BrokenPromiseError(f"seed {seed}, mutation {number} of {victim.path}: {added} bytes")
    return figures


def _status(name: str) -> int:
    """Return a line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def _peak_from_now() -> int:
    """Let VmHWM start again from what is resident now, and return that (man 5 proc, clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fuzz otel_goprobe.gobinary.")
    parser.add_argument("-n", "--count", type=int, default=2000)
    parser.add_argument("-s", "--seed", type=int, default=1)
    parser.add_argument("programs", nargs="+", type=Path)
    arguments = parser.parse_args()
    began = time.monotonic()
    found = run([Victim(path) for path in arguments.programs], arguments.count, arguments.seed, memory=True)
    print(f"{found}, {time.monotonic() - began:.0f} s", file=sys.stderr)
