"""``otel-goprobe list``: the Go processes that discovery sees -> a table, or JSON; called by cli.py."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from otel_goprobe.log import printable

if TYPE_CHECKING:
    from otel_goprobe.model import GoProcess

_COLUMNS = ("PID", "EXECUTABLE", "GO", "MODULE", "VERSION", "PORTS", "STRIPPED", "INSTRUMENTABLE")


@click.command("list", short_help="List the Go processes in sight.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def command(*, as_json: bool) -> int:
    """List the Go processes in sight: what they are, where they listen, whether they can be instrumented.

    \b
    Examples
      sudo otel-goprobe list
      sudo otel-goprobe list --json | jq '.[] | select(.instrumentable).pid'
    """  # noqa: D301 - \b is click's mark for a block that keeps its lines
    from otel_goprobe.discovery.processes import list_go_processes  # noqa: PLC0415 - --help doesn't wait for psutil

    processes = list_go_processes()
    if as_json:
        click.echo(json.dumps([_as_json(process) for process in processes], indent=2))
    elif not processes:
        click.echo("no Go process in sight")
    elif sys.stdout.isatty():
        _print_table([_row(process) for process in processes])
    else:
        _print_plain([_row(process) for process in processes])
    if os.geteuid() != 0:
        click.echo("note: not root, so the processes of other users may be invisible; use sudo", err=True)
    return 0


def _module(process: GoProcess) -> tuple[str, str]:
    """Path and version of the main module; the main package where the program was built outside any."""
    main = process.build.main
    return (main.path, main.version) if main else (process.build.path, "")


def _row(process: GoProcess) -> tuple[str, ...]:
    cells = (
        str(process.pid),
        process.exe,
        process.build.go_version,
        *_module(process),
        ",".join(map(str, process.ports)),
        "yes" if process.stripped else "no",
        f"no: {process.unsupported}" if process.unsupported else "yes",
    )
    return tuple(printable(cell) or "-" for cell in cells)


def _as_json(process: GoProcess) -> dict[str, object]:
    module, version = _module(process)
    return {
        "pid": process.pid,
        "exe": process.exe,
        "go_version": process.build.go_version,
        "module": module,
        "module_version": version,
        "ports": list(process.ports),
        "stripped": process.stripped,
        "instrumentable": not process.unsupported,
        "reason": process.unsupported,
    }


def _print_plain(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as their widest cell; nothing is cut off."""
    table = [_COLUMNS, *rows]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_table(rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column, overflow="fold", min_width=4 if column in {"EXECUTABLE", "MODULE"} else len(column))
    for row in rows:
        style = "" if row[-1] == "yes" else "dim"
        table.add_row(*(Text(cell, style=style) for cell in row))
    Console(highlight=False).print(table)
