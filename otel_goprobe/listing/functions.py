"""A glob and a Go executable -> its functions, inlined ones too, with their places and costs; called by find.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_goprobe.errors import BinaryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_goprobe.gobinary import Function, GoBinary, Location, Variable
    from otel_goprobe.model import Site
    from otel_goprobe.specs import Glob

_MANY = 1000
"""Functions up to which it is said what they were inlined into, and what they take and give."""


def all_names(binary: GoBinary) -> list[str]:
    """Return the names of all functions, in order, those that are only inlined among them."""
    return sorted(set(binary.function_names(inlined=True)))


def matching(binary: GoBinary, glob: Glob) -> list[str]:
    """Return those that match."""
    return [name for name in all_names(binary) if glob.matches(name)]


def described(binary: GoBinary, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return an object for each body of these functions, and one for each function that has none.

    Their keys: ``name``; ``line``, file and line of its start; ``size`` in bytes; ``entry``, its file offset;
    ``inlined_into``, functions that hold copies, with their lines, null where too many are asked for; ``arguments``
    and ``results``, null without DWARF; of the start of a call ``address``, ``file_offset``, ``bytes``, ``cost`` and
    ``reason``; ``ends`` likewise, a list, and ``end_reason`` why they can't be told, empty where they are proven.
    """
    few = len(names) <= _MANY
    bodies = binary.bodies(names)
    holders = binary.inlined(names) if few else {}
    places = _places(binary, {holder for each in holders.values() for holder in each})
    found = []
    for name in names:
        inlined = sorted(f"{holder} ({places[holder]})" for holder in holders.get(name, ())) if few else None
        found += [_body(binary, body, inlined, few=few) for body in bodies.get(name, ())]
        if name not in bodies:
            found.append({"name": name, **_WITHOUT_BODY, "inlined_into": inlined})
    return found


_WITHOUT_BODY: dict[str, Any] = {
    **dict.fromkeys(("line", "size", "entry", "address", "file_offset", "bytes", "cost", "arguments", "results")),
    "reason": "only inlined: there is no code of its own",
    "ends": [],
    "end_reason": "only inlined: there is no code of its own",
}


def _places(binary: GoBinary, names: set[str]) -> dict[str, str]:
    bodies = binary.bodies(names)
    return {name: line_of(binary, bodies[name][0].address) if name in bodies else "" for name in names}


def _body(binary: GoBinary, body: Function, inlined: list[str] | None, *, few: bool) -> dict[str, Any]:
    return {
        "name": body.name,
        "size": body.size,
        "line": line_of(binary, body.address),
        "entry": binary.file_offset(body.address),
        "inlined_into": inlined,
        **(_signature(binary, body) if few else {"arguments": None, "results": None}),
        **_start(binary, body),
        **_ends(binary, body),
    }


def _start(binary: GoBinary, function: Function) -> dict[str, Any]:
    try:
        return _site(binary.start_site(function))
    except BinaryError as error:
        nothing = dict.fromkeys(("address", "file_offset", "bytes", "cost"))
        return {**nothing, "reason": error.message}


def _ends(binary: GoBinary, function: Function) -> dict[str, Any]:
    try:
        sites = binary.return_sites(function)
    except BinaryError as error:
        return {"ends": [], "end_reason": error.message}
    return {"ends": [_site(site) for site in sites], "end_reason": "" if sites else "it never returns"}


def _site(site: Site) -> dict[str, Any]:
    return {
        "address": site.address,
        "file_offset": site.file_offset,
        "bytes": site.expected.hex(),
        "cost": str(site.cost),
        "reason": site.reason,
    }


def line_of(binary: GoBinary, address: int) -> str:
    """Return ``file:line`` of an instruction, or an empty text."""
    try:
        source = binary.line(address)
    except BinaryError:
        return ""
    return f"{source.file}:{source.line}" if source else ""


def _signature(binary: GoBinary, function: Function) -> dict[str, Any]:
    signature = binary.signature(function)
    if signature is None:
        return {"arguments": None, "results": None}
    registers = binary.argument_registers
    return {
        "arguments": [_variable(each, registers) for each in signature.arguments],
        "results": [_variable(each, registers) for each in signature.results],
    }


def _variable(variable: Variable, registers: Sequence[str]) -> dict[str, Any]:
    return {
        "name": variable.name,
        "type": variable.type_name,
        "size": variable.size,
        "location": _location(variable.location, registers),
    }


def _location(location: Location | None, registers: Sequence[str]) -> str:
    """``ax bx``, ``f1`` for the first floating-point register, ``stack+16``, or ``?``."""
    if location is None:
        return "?"
    if location.stack_offset is not None:
        return f"stack+{location.stack_offset}"
    integers = [registers[number - 1] for number in location.integers]
    return " ".join([*integers, *(f"f{number}" for number in location.floats)])
