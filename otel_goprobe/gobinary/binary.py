"""`GoBinary`: all that probes want to know of a Go executable, from its file alone; `probes` and `discovery` call it.

Everything is read when it is first asked for. The file comes from a stranger, so this is also the place where
whatever goes wrong while its tables are read becomes one sentence: no method raises anything but a `BinaryError`.
"""

from __future__ import annotations

import functools
import os
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

from otel_goprobe.errors import UnsupportedBinaryError
from otel_goprobe.gobinary import sites
from otel_goprobe.gobinary.buildinfo import OLDEST, OLDEST_TRACED, minor_version
from otel_goprobe.gobinary.dwarf import Dwarf
from otel_goprobe.gobinary.elf import Elf
from otel_goprobe.gobinary.frames import Frame, read_frames
from otel_goprobe.gobinary.globals import read_variable
from otel_goprobe.gobinary.identity import Telling, read_identity
from otel_goprobe.gobinary.inlines import InlineTrees
from otel_goprobe.gobinary.instructions import Code
from otel_goprobe.gobinary.lines import SourceLine, read_line
from otel_goprobe.gobinary.machines import COSTS, MACHINES
from otel_goprobe.gobinary.moduledata import read_module
from otel_goprobe.gobinary.pclntab import Function, FunctionTable
from otel_goprobe.gobinary.signatures import Signature, read_signature
from otel_goprobe.gobinary.types import Struct, Types
from otel_goprobe.model import BuildInfo, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType


_P = ParamSpec("_P")
_R = TypeVar("_R")
_NEWEST_LAYOUT = 1 << 10
"""Taken as the minor version where the build info has none that can be read: a devel toolchain."""
_MAX_FUNCTION_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class FieldOffset:
    """Where a field is in its struct."""

    offset: int
    """Bytes from the start of the outermost struct."""
    size: int
    type_name: str
    source: str
    """``types``, or ``dwarf+types`` where both were there and agree."""


def _damage_told(
    method: Callable[Concatenate[GoBinary, _P], _R],
) -> Callable[Concatenate[GoBinary, _P], _R]:
    @functools.wraps(method)
    def wrapped(binary: GoBinary, /, *arguments: _P.args, **options: _P.kwargs) -> _R:
        with Telling(binary.path):
            return method(binary, *arguments, **options)

    return wrapped


class GoBinary:
    """A Go executable of Go 1.18 or newer, for x86-64 or arm64. A context manager; `open_binary` makes it.

    Addresses are those of the file, before any load bias. Names are in Go's own spelling, with full package paths:
    ``net/http.(*conn).serve``, ``net/http.Request``. Every method raises `UnsupportedBinaryError` if the tables it
    needs are damaged.
    """

    def __init__(self, elf: Elf) -> None:
        self._elf = elf
        self.path = elf.path
        with Telling(self.path):
            self.identity = read_identity(elf)
            minor = minor_version(self.build_info.go_version)
            if minor is not None and minor < OLDEST:
                raise UnsupportedBinaryError(
                    f"{self.path} was built with {self.build_info.go_version}", f"Go 1.{OLDEST} or newer is needed"
                )
            self._go_minor = _NEWEST_LAYOUT if minor is None else minor
            self._table = FunctionTable(elf)
            self._module = read_module(elf, self._table)
            self._inline_trees = InlineTrees(elf, self._table, self._module.funcdata)
            self._inlined: dict[str, frozenset[str]] = {}
            self._dwarf = Dwarf(elf)
            self._code_now: Code | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unmap the file; nothing can be asked afterwards."""
        for part in ("_table", "_module", "_types", "_dwarf", "_inline_trees"):
            self.__dict__.pop(part, None)
        self._elf.close()

    # --- what it is --------------------------------------------------------------------------------------------------

    @property
    def build_info(self) -> BuildInfo:
        """Go version, main module, dependencies, build settings."""
        return self.identity.build_info

    @property
    def machine(self) -> str:
        """``x86_64`` or ``aarch64``."""
        return self.identity.machine

    @property
    def pie(self) -> bool:
        """Whether it is loaded at an address of the kernel's choice."""
        return self.identity.pie

    @property
    def stripped(self) -> bool:
        """Whether it lacks ``.symtab``."""
        return self.identity.stripped

    @property
    def build_id(self) -> str:
        """Go's build id, else GNU's in hexadecimal, else empty."""
        return self.identity.build_id

    @property
    def has_dwarf(self) -> bool:
        """Whether there is debugging information."""
        return self._dwarf.present

    @property
    def argument_registers(self) -> tuple[str, ...]:
        """What holds integer arguments and results, in order: ``ax``, ``bx`` …, or ``x0``, ``x1`` …."""
        return MACHINES[self.machine].argument_names

    @property
    def untraceable(self) -> str:
        """Why no probe may be attached to it, though it can be read; empty where one may.

        Go 1.18 is left out because it is untested: no release of it gets fixes since February 2023.
        """
        return "" if self._go_minor >= OLDEST_TRACED else f"Go 1.{OLDEST_TRACED} or newer is needed to attach"

    @_damage_told
    def file_offset(self, address: int) -> int:
        """Where in the file the byte at `address` is."""
        return self._elf.file_offset(address)

    @_damage_told
    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at `address`."""
        return self._elf.read(address, size)

    # --- functions ---------------------------------------------------------------------------------------------------

    @_damage_told
    def bodies(self, names: Iterable[str]) -> dict[str, tuple[Function, ...]]:
        """Every function that bears one of `names`, ascending by address; a name that none has is left out.

        A name has several bodies where a generic function was instantiated more than once. An ABI wrapper isn't one
        of them.
        """
        return self._table.find(names, self._module.text_address)

    def functions(self, names: Iterable[str]) -> dict[str, Function]:
        """The function with each of `names`; left out are names that none has, or several have (see `bodies`)."""
        return {name: found[0] for name, found in self.bodies(names).items() if len(found) == 1}

    @_damage_told
    def function_names(self, *, inlined: bool = False) -> list[str]:
        """The name of every function in the program; with `inlined`, of those too that have no code of their own."""
        return self._table.every_name() if inlined else self._table.all_names()

    @_damage_told
    def inlined(self, names: Iterable[str]) -> dict[str, frozenset[str]]:
        """For each of `names` that was inlined: the functions that hold a copy; a probe on it misses those calls."""
        asked = list(names)
        unknown = [name for name in asked if name not in self._inlined]
        if unknown:
            holders = self._inline_trees.holders(unknown)
            self._inlined.update((name, holders.get(name, frozenset())) for name in unknown)
        return {name: self._inlined[name] for name in asked if self._inlined[name]}

    @_damage_told
    def line(self, address: int) -> SourceLine | None:
        """File and line of the instruction at `address`; None where no function is."""
        return read_line(self._elf, self._table, self._module.text_offset(address))

    @_damage_told
    def frames(self, file_offset: int) -> tuple[Frame, ...]:
        """The calls that the instruction at `file_offset` belongs to, innermost first; none where no function is."""
        return read_frames(self._elf, self._table, self._module, self._elf.address(file_offset))

    @_damage_told
    def signature(self, function: Function) -> Signature | None:
        """Names, types and places of a function's arguments and results; None without DWARF."""
        width = self._table.argument_bytes(function)
        return read_signature(self._dwarf, function.name, width, self.machine, self._go_minor)

    @_damage_told
    def variable(self, name: str) -> int | None:
        """The address of a variable of the program; None if it isn't known.

        Without symbols that is ``runtime.sched`` only, in x86-64 programs, by the code that refers to it.
        """
        known = self._elf.symbol(name)
        if known is not None or self.machine != "x86_64":
            return known

        def code(function: str) -> Code | None:
            found = self.functions([function]).get(function)
            return self._code(found) if found else None

        return read_variable(name, code, self._elf.writable)

    # --- types -------------------------------------------------------------------------------------------------------

    @cached_property
    def _types(self) -> Types:
        return Types(self._elf, self._module, self._go_minor)

    @_damage_told
    def struct(self, name: str) -> Struct | None:
        """The struct type with this name, from the type metadata; None if the program has no such type, or several."""
        return self._types.struct(name)

    @_damage_told
    def field(self, struct_name: str, path: str) -> FieldOffset | None:
        """Where a field is in its struct; None if there is none.

        Args:
            struct_name: such as ``runtime.g``.
            path: the field's name, or names with dots between, each but the last a struct held by value: ``stack.hi``.

        Raises:
            UnsupportedBinaryError: DWARF and the type metadata don't agree on it, so neither is believed.
        """
        struct_type = self._types.struct(struct_name)
        offset, sources = 0, {"types"}
        names = path.split(".")
        for index, name in enumerate(names):
            if struct_type is None or name not in struct_type.fields:
                return None
            field = struct_type.fields[name]
            layout = self._dwarf.struct(struct_type.name)
            if layout is not None:
                sources.add("dwarf")
                if layout.offsets.get(name) != field.offset or layout.size != struct_type.size:
                    raise UnsupportedBinaryError(
                        f"{struct_type.name}.{name} of {self.path} is at {field.offset} of {struct_type.size} bytes "
                        f"by the type metadata, but at {layout.offsets.get(name)} of {layout.size} by the DWARF"
                    )
            offset += field.offset
            if index == len(names) - 1:
                return FieldOffset(offset, field.size, field.type_name, "+".join(sorted(sources)))
            struct_type = self._types.struct_at(field.type_address)
        return None

    @property
    def read_only_end(self) -> int:
        """Address of the first segment that can be written to; 0 where code or constants lie behind it."""
        writable = [segment.address for segment in self._elf.segments if segment.writable]
        fixed = [segment.address + segment.size for segment in self._elf.segments if not segment.writable]
        return min(writable) if writable and max(fixed, default=0) <= min(writable) else 0

    @_damage_told
    def itab(self, concrete: str, interface: str) -> int | None:
        """Address of the itab of a concrete type (``*net/http.response``) for an interface; None if there is none."""
        return self._types.itab(concrete, interface)

    @_damage_told
    def type_address(self, name: str) -> int | None:
        """Address of what describes a named type (``net/http.Request``), or a pointer to one; None if there is none."""
        return self._types.address(name)

    def type_name(self, address: int) -> str | None:
        """Go's spelling of the type described at `address`, such as ``*errors.errorString``; None if none is there."""
        with Telling(self.path):
            types = self._types
        try:
            return types.name(address)
        except (ValueError, IndexError, OverflowError, struct.error):
            return None

    # --- sites -------------------------------------------------------------------------------------------------------

    @_damage_told
    def start_site(self, function: Function, arguments: Sequence[int] = sites.ALL_ARGUMENTS) -> Site:
        """Where a call of the function begins: the cheapest instruction that every call passes just once.

        Args:
            function: any.
            arguments: numbers of the arguments, from 1, that must still be in their registers there.
        """
        code, frame_change = self._code(function), self._table.first_frame_change(function)
        return self._site(function, *sites.start(code, frame_change, arguments))

    @_damage_told
    def return_sites(self, function: Function) -> tuple[Site, ...]:
        """Every way out of the function but a panic: its returns and tail jumps.

        Raises:
            UnsupportedBinaryError: the ends can't be told.
        """
        return tuple(self._site(function, *each) for each in sites.returns(self._code(function)))

    @_damage_told
    def calls(self, function: Function, callee: Function) -> tuple[int, ...]:
        """Addresses in `function` of its direct calls of, and tail jumps to, `callee`."""
        return sites.calls(self._code(function), callee.address)

    @_damage_told
    def call_sites_in_turn(self, caller: Function, first: Function, second: Function) -> tuple[tuple[Site, ...], ...]:
        """The calls of `first` that no call of `second` comes behind, and those of `second` that do come behind one."""
        found = sites.calls_in_turn(self._code(caller), first.address, second.address)
        return tuple(tuple(self._site(caller, *each) for each in places) for places in found)

    @_damage_told
    def call_sites(self, caller: Function, callee: Function) -> tuple[Site, ...]:
        """The calls of `callee` in `caller`, arguments in their registers; none where one of them is a tail jump."""
        found = sites.call_places(self._code(caller), callee.address)
        return tuple(self._site(caller, *each) for each in found)

    @_damage_told
    def result_sites(
        self, caller: Function, callee: Function, results: Sequence[int] = (1, 2, 3, 4)
    ) -> tuple[Site, ...]:
        """Behind each direct call of `callee`, the emulated instruction that finds its results still in registers.

        Args:
            caller: where the calls are.
            callee: what is called.
            results: their numbers, from 1; a string is two, an interface too.

        Returns:
            A site for each call; nothing if one of the calls has no such place (use the callee's `return_sites`).
        """
        resumed = self._table.deferreturn(caller)
        entries = () if resumed is None else (caller.address + resumed,)
        found = sites.results(self._code(caller), callee.address, results, entries)
        return tuple(self._site(caller, *each) for each in found)

    @_damage_told
    def error_test(self, caller: Function, callee: Function, error: int = 2) -> tuple[Site, tuple[Site, ...]] | None:
        """Where `caller` asks whether its one call of `callee` failed, and its returns behind anything but success.

        See `sites.error_test`.
        """
        found = sites.error_test(self._code(caller), callee.address, error)
        if found is None:
            return None
        return self._site(caller, *found[0]), tuple(self._site(caller, *each) for each in found[1])

    def _code(self, function: Function) -> Code:
        if function.size > _MAX_FUNCTION_BYTES:
            raise ValueError(f"{function.name} is too long")
        if self._code_now is None or (self._code_now.name, self._code_now.address) != (function.name, function.address):
            content = self._elf.read(function.address, function.size)
            self._code_now = Code(function.name, function.address, content, MACHINES[self.machine])
        return self._code_now

    def _site(self, function: Function, address: int, content: bytes, reason: str) -> Site:
        cost = COSTS[self.machine](content)
        return Site(function.name, address, self._elf.file_offset(address), content, cost, reason)


def open_binary(path: str | os.PathLike[str]) -> GoBinary:
    """A Go executable, opened for reading; ``/proc/PID/exe`` is a good path.

    Raises:
        BinaryError: the file can't be opened or read.
        NotGoError: it isn't an ELF executable, or not one that Go built.
        UnsupportedBinaryError: it is of Go 1.17 or older, 32-bit, big-endian, for another machine, packed, or damaged.
    """
    elf = _open(path)
    try:
        return GoBinary(elf)
    except BaseException:
        elf.close()
        raise


def _open(path: str | os.PathLike[str]) -> Elf:
    with Telling(os.fspath(path)):
        return Elf(path)
