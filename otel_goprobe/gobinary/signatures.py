"""A function's arguments and results: names and types from DWARF, places from Go's register ABI; for `GoBinary`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_goprobe.gobinary.abi import Location, assign

if TYPE_CHECKING:
    from otel_goprobe.gobinary.dwarf import Dwarf, Parameter

_BLANKS_LISTED = 22
"""Minor version from which DWARF has arguments without a name too, as ``~p0`` (seen: 1.21.13 hasn't, 1.22.10 has)."""


@dataclass(frozen=True, slots=True)
class Variable:
    """An argument, a receiver or a result."""

    name: str
    """As in the source; ``~p0``, ``~r0`` where it has none there."""
    type_name: str
    """As DWARF spells it, with full package paths: ``*net/http.Request``, ``uint8`` for byte."""
    size: int
    """Bytes."""
    location: Location | None
    """None where it can't be told for certain."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes and gives, in the order of its declaration, its receiver first."""

    arguments: tuple[Variable, ...]
    results: tuple[Variable, ...]


def read_signature(dwarf: Dwarf, name: str, width: int, machine: str, go_minor: int) -> Signature | None:
    """The signature of a function.

    Args:
        dwarf: of its executable.
        name: in Go's own spelling.
        width: of its arguments on the stack and their spill room, as the function table has it.
        machine: ``x86_64`` or ``aarch64``.
        go_minor: minor version of its Go.

    Returns:
        None without DWARF, or where that doesn't tell. Without locations where what DWARF lists doesn't take up
        `width`: it leaves out arguments that have no name, up to Go 1.21, and assembler functions take theirs
        otherwise.
    """
    found = next(filter(None, (dwarf.parameters(name, package) for package in _packages(name))), None)
    if not found:
        return None
    arguments, results = ([each for each in found if each.result is result] for result in (False, True))
    assigned = assign([each.shape for each in arguments], [each.shape for each in results], machine)
    certain = assigned.width == width and (go_minor >= _BLANKS_LISTED or not assigned.padded)
    return Signature(
        _variables(arguments, assigned.arguments if certain else ()),
        _variables(results, assigned.results if certain else ()),
    )


def _variables(parameters: list[Parameter], locations: tuple[Location, ...]) -> tuple[Variable, ...]:
    places = locations or (None,) * len(parameters)
    return tuple(
        Variable(each.name, each.type_name, each.shape.size, place)
        for each, place in zip(parameters, places, strict=True)
    )


def _packages(function: str) -> tuple[str, ...]:
    """Import path of ``net/http`` in ``net/http.(*conn).serve``; dots of its last element are written ``%2e``."""
    path = function.partition("[")[0]
    head, slash, last = path.rpartition("/")
    package = head + slash + last.partition(".")[0]
    plain = package.replace("%2e", ".")
    return (package,) if plain == package else (plain, package)
