"""``otel-goprobe inspect``: an executable -> what would be instrumented in it, what not, and why; called by cli.py."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from otel_goprobe import specs
from otel_goprobe.errors import BinaryError, NotGoError, TargetGoneError
from otel_goprobe.log import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_goprobe.gobinary import GoBinary
    from otel_goprobe.model import Site
    from otel_goprobe.probes import LibraryOutcome

FORMAT = 1
"""Of the JSON: grows when a key goes or changes its meaning, not when one is added."""
_HOLDERS = 3
"""Functions that hold inlined copies, of which so many are shown."""


@click.command("inspect", short_help="Say what would be instrumented in a Go program, and why; list functions.")
@click.argument("what", metavar="[BINARY|PID]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--at",
    "at",
    multiple=True,
    metavar="SPEC",
    callback=lambda _context, _option, values: tuple(map(specs.parse, values)),
    help="List what SPEC finds, instead (repeatable): 'main.*', uprobe:PATH:SYMBOL, usdt:PROVIDER:NAME,"
    " tracepoint:CATEGORY:NAME, kprobe:NAME.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, metavar="N", help="Matches of a SPEC to list."
)
@click.option("--struct", "structs", multiple=True, metavar="NAME", help="Show a struct's layout: net/http.Request.")
def command(
    *, what: str | None, as_json: bool, at: tuple[specs.Spec, ...], limit: int, structs: tuple[str, ...]
) -> int:
    """Say what would be instrumented in a Go program, what not, and why; or list where probes could be.

    \b
    In a SPEC * stands for any text, ? for a character; the star of (* is a pointer's.
    START and ENDS: what a probe costs; "emulated" is cheap, "single-stepped" isn't.

    \b
    Examples
      otel-goprobe inspect ./shop
      sudo otel-goprobe inspect 1234
      otel-goprobe inspect ./shop --struct net/http.Request
      otel-goprobe inspect ./shop --at 'main.*' --at 'net/http.(*conn).*'
      sudo otel-goprobe inspect 1234 --at 'uprobe:libc:get*info' --at 'usdt:*:*'
      sudo otel-goprobe inspect --at 'tracepoint:tcp:*'
    """  # noqa: D301 - \b is click's mark for a block that keeps its lines
    if what is None and not at:
        raise click.UsageError("name a program by its path or its pid, or what to list with --at")
    from otel_goprobe import gobinary, listing  # noqa: PLC0415 - --help doesn't wait for numpy

    began = time.perf_counter()
    report: dict[str, Any] = {"format": FORMAT}
    with contextlib.ExitStack() as stack:
        subject = listing.Subject()
        if what is not None:
            place = _place(what)
            report |= place
            try:
                binary = stack.enter_context(gobinary.open_binary(place["path"]))
                report |= _program(binary, structs)
                subject = listing.Subject(binary, place["pid"])
            except NotGoError:
                if structs or not at or any(isinstance(spec, specs.Functions) for spec in at):
                    raise
                subject = listing.Subject(None, place["pid"])
        if at:
            report["at"] = [listing.find(spec, subject, limit) for spec in at]
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


def _program(binary: GoBinary, structs: Sequence[str]) -> dict[str, Any]:
    from otel_goprobe import probes  # noqa: PLC0415 - as above

    outcomes = probes.consider(binary)
    return {
        **_identity(binary),
        "libraries": [_library(binary, outcome) for outcome in outcomes],
        "propagation": probes.possible(outcomes),
        "structs": [_struct(binary, name) for name in structs],
    }


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
                "sites": [{**_site(site), "line": _line_of(binary, site.address)} for site in hook.sites],
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


def _line_of(binary: GoBinary, address: int) -> str:
    from otel_goprobe.listing.functions import line_of  # noqa: PLC0415 - as above

    return line_of(binary, address)


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


# --- for people ------------------------------------------------------------------------------------------------------


def _print(report: dict[str, Any]) -> None:
    if "go_version" in report:
        _print_identity(report)
    if "libraries" in report and "at" not in report:
        for library in report["libraries"]:
            _print_library(library)
        possible = "; ".join(f"{way}: {reason or 'yes'}" for way, reason in report["propagation"].items())
        click.echo(f"\npropagation: {possible}")
    for struct in report.get("structs", ()):
        _print_struct(struct)
    for finding in report.get("at", ()):
        _print_finding(finding)
    click.echo(f"\n{report['milliseconds']} ms")


def _print_identity(report: dict[str, Any]) -> None:
    traits = [report["machine"], "PIE" if report["pie"] else "", "stripped" if report["stripped"] else ""]
    traits += ["DWARF" if report["dwarf"] else "no DWARF", f"{len(report['dependencies'])} dependencies"]
    module = report["module"]
    path = report["exe"] or report["path"]
    click.echo(f"{printable(path)}: {report['go_version']}, {', '.join(filter(None, traits))}")
    click.echo(
        f"main package {printable(report['package'])}" + (f" of {module['path']} {module['version']}" if module else "")
    )


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


def _print_finding(finding: dict[str, Any]) -> None:
    """One spec: what it finds, or why nothing."""
    count, listed, kind = finding["count"], len(finding["found"]), finding["kind"]
    click.echo(f"\n{printable(finding['at'])}: {count} {kind}{'s' * (count != 1)}")
    if finding["reason"]:
        click.echo(f"  {printable(finding['reason'])}")
    if finding["nearest"]:
        click.echo("  nearest: " + ", ".join(printable(name) for name in finding["nearest"]))
    if listed:
        header, row = _COLUMNS[kind]
        rows = [row(each) for each in finding["found"]]
        _print_rows(tuple("  " * (not number) + title for number, title in enumerate(header)), rows)
    if listed < count:
        click.echo(f"  {count - listed} more: --limit {count} lists all")


def _function_row(function: dict[str, Any]) -> tuple[str, ...]:
    """Its cells; the last has a second line, with its place in the source and what else is to be said."""
    holders = function["inlined_into"] or ()
    some = ", ".join(holders[:_HOLDERS]) + (f" and {len(holders) - _HOLDERS} more" if len(holders) > _HOLDERS else "")
    notes = [function["line"]] if function["line"] else []
    if function["size"] is None:
        notes.append(f"only inlined, into {some}" if holders else "only inlined")
    else:
        notes += [f"no start: {function['reason']}"] if function["cost"] is None else []
        notes += [f"no end: {function['end_reason']}"] if function["end_reason"] else []
        notes += [f"a probe misses the calls inlined into {some}"] if holders else []
    name = f"{function['name']}{_in_words(function)}"
    ends = _ends(function["ends"])
    return f"  {_offset(function['entry'])}", function["cost"] or "none", ends, f"{name}\n  {'; '.join(notes)}"


def _offset(offset: int | None) -> str:
    return "-" if offset is None else f"{offset:#x}"


def _ends(sites: Sequence[dict[str, Any]]) -> str:
    """``2 single-stepped``; none where the ends aren't proven."""
    costs = Counter(site["cost"] for site in sites)
    return ", ".join(f"{count} {cost}" for cost, count in costs.items()) or "none"


def _symbol_row(symbol: dict[str, Any]) -> tuple[str, ...]:
    return f"  {symbol['name']}", _offset(symbol["file_offset"]), str(symbol["size"]), symbol["cost"] or "?"


def _mark_row(mark: dict[str, Any]) -> tuple[str, ...]:
    arguments = " ".join(f"{'-' * each['signed']}{each['size']}@{each['place']}" for each in mark["arguments"])
    semaphore = _offset(mark["semaphore"])
    name = f"  {mark['provider']}:{mark['name']}"
    return name, _offset(mark["file_offset"]), mark["cost"] or "?", semaphore, arguments or "-", mark["path"]


def _tracepoint_row(tracepoint: dict[str, Any]) -> tuple[str, ...]:
    fields = ", ".join(f"{each['type']} {each['name']}" for each in tracepoint["fields"])
    return f"  {tracepoint['category']}:{tracepoint['name']}", fields or "-"


_COLUMNS: Final[dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], tuple[str, ...]]]]] = {
    "function": (("ENTRY", "START", "ENDS", "FUNCTION"), _function_row),
    "symbol": (("SYMBOL", "FILE OFFSET", "SIZE", "COST"), _symbol_row),
    "mark": (("MARK", "FILE OFFSET", "COST", "SEMAPHORE", "ARGUMENTS", "FILE"), _mark_row),
    "tracepoint": (("TRACEPOINT", "FIELDS"), _tracepoint_row),
    "kernel function": (("FUNCTION",), lambda function: (f"  {function['name']}",)),
}
"""By kind of finding: titles, and a finding -> its cells."""


def _in_words(function: dict[str, Any]) -> str:
    """``(c *net/http.conn: ax) (bool: ax)``, where it is known."""
    if function["arguments"] is None:
        return ""
    arguments = ", ".join(f"{each['name']} {each['type']}: {each['location']}" for each in function["arguments"])
    results = ", ".join(f"{each['type']}: {each['location']}" for each in function["results"])
    return f"({arguments})" + (f" ({results})" if results else "")


def _print_rows(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as their widest cell, but for the last, which may have several lines; nothing is cut off."""
    table = [header, *(tuple("\n".join(map(printable, cell.split("\n"))) for cell in row) for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)][:-1]
    for *cells, last in table:
        before = "".join(f"{cell.ljust(width)}  " for cell, width in zip(cells, widths, strict=True))
        click.echo(before + last.replace("\n", f"\n{' ' * len(before)}"))
