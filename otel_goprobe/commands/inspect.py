"""``otel-goprobe inspect``: an executable -> what would be instrumented in it, what not, and why; called by cli.py."""

from __future__ import annotations

import fnmatch
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from otel_goprobe.errors import BinaryError, TargetGoneError
from otel_goprobe.log import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_goprobe.gobinary import Function, GoBinary, Location, Variable
    from otel_goprobe.model import Site
    from otel_goprobe.probes import LibraryOutcome

FORMAT = 1
"""Of the JSON: grows when a key goes or changes its meaning, not when one is added."""
_MANY = 1000
"""Functions up to which it is said what they were inlined into, and what they take and give."""


@click.command("inspect", short_help="Say what would be instrumented in a Go program, and why.")
@click.argument("what", metavar="BINARY|PID")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--functions", metavar="GLOB", help="List the functions whose names match, with their site: 'main.*'.")
@click.option("--struct", "structs", multiple=True, metavar="NAME", help="Show a struct's layout: net/http.Request.")
def command(*, what: str, as_json: bool, functions: str | None, structs: tuple[str, ...]) -> int:
    """Say what would be instrumented in a Go program, what not, and why.

    \b
    Examples
      otel-goprobe inspect ./shop
      sudo otel-goprobe inspect 1234
      otel-goprobe inspect ./shop --functions 'main.*' --struct net/http.Request
    """  # noqa: D301 - \b is click's mark for a block that keeps its lines
    from otel_goprobe import gobinary, probes  # noqa: PLC0415 - --help doesn't wait for numpy

    began = time.perf_counter()
    place = _place(what)
    with gobinary.open_binary(place["path"]) as binary:
        outcomes = probes.consider(binary)
        report: dict[str, Any] = {
            "format": FORMAT,
            **place,
            **_identity(binary),
            "libraries": [_library(binary, outcome) for outcome in outcomes],
            "propagation": probes.possible(outcomes),
            "structs": [_struct(binary, name) for name in structs],
        }
        if functions is not None:
            report["functions"] = _functions(binary, functions)
        report["milliseconds"] = round((time.perf_counter() - began) * 1e3, 1)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0


# --- the report ------------------------------------------------------------------------------------------------------


def _place(what: str) -> dict[str, Any]:
    """What opens the executable; of a process also its number and the path in its own mount namespace.

    Raises:
        TargetGoneError: there is no such process.
        BinaryError: it has no executable, or not one that may be looked at.
    """
    if not what.isdecimal() or Path(what).exists():
        return {"path": what, "pid": None, "exe": None}
    process = Path("/proc", what)
    try:
        return {"path": str(process / "exe"), "pid": int(what), "exe": str((process / "exe").readlink())}
    except PermissionError as error:
        raise BinaryError(f"the executable of process {what} may not be looked at", "use sudo") from error
    except OSError as error:
        if process.exists():
            raise BinaryError(f"process {what} has no executable: it is a thread of the kernel") from error
        raise TargetGoneError(f"there is no process {what}", "`otel-goprobe list` shows those of Go") from error


def _identity(binary: GoBinary) -> dict[str, Any]:
    build = binary.build_info
    return {
        "go_version": build.go_version,
        "package": build.path,
        "module": {"path": build.main.path, "version": build.main.version} if build.main else None,
        "dependencies": {module.path: module.version for module in build.dependencies},
        "settings": dict(build.settings),
        "build_id": binary.build_id,
        "machine": binary.machine,
        "pie": binary.pie,
        "stripped": binary.stripped,
        "dwarf": binary.has_dwarf,
    }


def _library(binary: GoBinary, outcome: LibraryOutcome) -> dict[str, Any]:
    replaced = {hook.hook.unless for hook in outcome.hooks if hook.hook.unless}
    return {
        "library": outcome.library.label,
        "instrumented": not outcome.refused,
        "reason": outcome.refused,
        "probes": [
            {
                "role": hook.hook.role.name.lower(),
                "program": hook.way.program if hook.way else "",
                "sites": [{**_site(site), "line": _line(binary, site.address)} for site in hook.sites],
                "without_it": hook.hook.lost,
                "reason": hook.reason if hook.way is None else "",
                "passed_over": [reason for _, reason in hook.rejected] if hook.way else [],
            }
            for hook in outcome.hooks
            if hook.hook.option not in replaced  # the same place, with another program
        ],
        "values": [
            {"name": fact.fact.member, "of": fact.fact.of, "value": fact.value if fact.source else None}
            | {"source": fact.source, "reason": fact.reason}
            for fact in outcome.facts
        ],
    }


def _site(site: Site) -> dict[str, Any]:
    return {
        "function": site.function,
        "address": site.address,
        "file_offset": site.file_offset,
        "bytes": site.expected.hex(),
        "cost": str(site.cost),
        "reason": site.reason,
    }


def _line(binary: GoBinary, address: int) -> str:
    try:
        source = binary.line(address)
    except BinaryError:
        return ""
    return f"{source.file}:{source.line}" if source else ""


def _struct(binary: GoBinary, name: str) -> dict[str, Any]:
    found = binary.struct(name)
    if found is None:
        return {"struct": name, "reason": "no such type in the program; write its package's whole import path"}
    fields = []
    for field in found.fields.values():
        known = binary.field(name, field.name)
        fields.append(
            {"name": field.name, "offset": field.offset, "size": field.size, "type": field.type_name}
            | {"source": known.source if known else ""}
        )
    return {"struct": found.name, "size": found.size, "fields": fields}


def _functions(binary: GoBinary, glob: str) -> list[dict[str, Any]]:
    names = sorted({name for name in binary.function_names() if fnmatch.fnmatchcase(name, glob)})
    few = len(names) <= _MANY
    inlined = binary.inlined(names) if few else {}
    bodies = binary.bodies(names)
    return [
        {
            "name": name,
            "size": body.size,
            "line": _line(binary, body.address),
            "inlined_into": sorted(inlined.get(name, ())) if few else None,
            **(_signature(binary, body) if few else {"arguments": None, "results": None}),
            **_start(binary, body),
        }
        for name in names
        for body in bodies.get(name, ())
    ]


def _start(binary: GoBinary, function: Function) -> dict[str, Any]:
    try:
        site = _site(binary.start_site(function))
    except BinaryError as error:
        nothing = dict.fromkeys(("address", "file_offset", "bytes", "cost"))
        return {**nothing, "reason": error.message}
    return {key: value for key, value in site.items() if key != "function"}


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


# --- for people ------------------------------------------------------------------------------------------------------


def _print(report: dict[str, Any]) -> None:
    traits = [report["machine"], "PIE" if report["pie"] else "", "stripped" if report["stripped"] else ""]
    traits += ["DWARF" if report["dwarf"] else "no DWARF", f"{len(report['dependencies'])} dependencies"]
    module = report["module"]
    path = report["exe"] or report["path"]
    click.echo(f"{printable(path)}: {report['go_version']}, {', '.join(filter(None, traits))}")
    click.echo(
        f"main package {printable(report['package'])}" + (f" of {module['path']} {module['version']}" if module else "")
    )
    for library in report["libraries"]:
        _print_library(library)
    click.echo(
        "\npropagation: " + "; ".join(f"{way}: {reason or 'yes'}" for way, reason in report["propagation"].items())
    )
    for struct in report["structs"]:
        _print_struct(struct)
    if "functions" in report:
        _print_functions(report["functions"])
    click.echo(f"\n{report['milliseconds']} ms")


def _print_library(library: dict[str, Any]) -> None:
    click.echo(
        f"\n{library['library']}: " + ("instrumented" if library["instrumented"] else f"no: {library['reason']}")
    )
    rows = []
    for probe in library["probes"]:
        rows += [
            (probe["role"], site["function"], f"{site['file_offset']:#x}", site["cost"], site["reason"])
            for site in probe["sites"]
        ]
        if not probe["sites"]:
            rows.append((probe["role"], f"none, so without {probe['without_it']}", "", "", probe["reason"]))
        rows += [("", "", "", "", f"passed over: {reason}") for reason in probe["passed_over"]]
    _print_rows(("  PROBE", "FUNCTION", "FILE OFFSET", "COST", "WHY"), [("  " + row[0], *row[1:]) for row in rows])
    values = [
        (f"  {value['of']}", "-" if value["value"] is None else hex(value["value"]), value["source"] or value["reason"])
        for value in library["values"]
    ]
    click.echo()
    _print_rows(("  NEEDS", "VALUE", "SOURCE"), values)


def _print_struct(struct: dict[str, Any]) -> None:
    if "fields" not in struct:
        click.echo(f"\n{printable(struct['struct'])}: {struct['reason']}")
        return
    click.echo(f"\n{struct['struct']}, {struct['size']} bytes")
    rows = [(f"  {f['offset']}", str(f["size"]), f["name"], f["type"], f["source"]) for f in struct["fields"]]
    _print_rows(("  OFFSET", "SIZE", "FIELD", "TYPE", "SOURCE"), rows)


def _print_functions(functions: Sequence[dict[str, Any]]) -> None:
    click.echo(f"\n{len(functions)} functions match")
    rows = [
        (
            f"  {f['name']}{_in_words(f)}",
            "-" if f["file_offset"] is None else f"{f['file_offset']:#x}",
            f["cost"] or "none",
            f["reason"],
            "?" if f["inlined_into"] is None else ", ".join(f["inlined_into"]) or "-",
            f["line"],
        )
        for f in functions
    ]
    if rows:
        _print_rows(("  FUNCTION", "FILE OFFSET", "COST", "WHY", "INLINED INTO", "LINE"), rows)


def _in_words(function: dict[str, Any]) -> str:
    """``(c *net/http.conn: ax) (bool: ax)``, where it is known."""
    if function["arguments"] is None:
        return ""
    arguments = ", ".join(f"{each['name']} {each['type']}: {each['location']}" for each in function["arguments"])
    results = ", ".join(f"{each['type']}: {each['location']}" for each in function["results"])
    return f"({arguments})" + (f" ({results})" if results else "")


def _print_rows(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as their widest cell; nothing is cut off."""
    table = [header, *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
