"""A tool's rows -> a table on the terminal, drawn anew each second, or lines of JSON at the end; the agent has it."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.live import Live as Screen
from rich.table import Table as Drawn
from rich.text import Text

from otel_goprobe import tools as declared
from otel_goprobe.log import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_goprobe.config import Config
    from otel_goprobe.model import AttributeValue
    from otel_goprobe.tooling import Tools
    from otel_goprobe.tools.base import Column, Row

log = logging.getLogger(__name__)

_WIDTH_WITHOUT_TERMINAL = 200
_GAP = 2
"""Between two columns."""
_FOLDED = 12
"""Width down to which texts are folded on a narrow terminal."""


class Table:
    """The rows of the tool that the run is to show.

    Args:
        tools: which has them.
        config: how they are shown, and how long; whose they are.
        out: where to; stdout by default.

    Raises:
        ValueError: `config` names no tool to show.
    """

    def __init__(self, tools: Tools, config: Config, out: TextIO | None = None) -> None:
        if (live := config.live) is None:
            raise ValueError("no tool is to be shown")
        self._tools = tools
        self._live = live
        self._only_pids = config.selection.only_pids
        self._alone = not config.command
        self._tool = declared.tool(live.tool)
        self._out = out or sys.stdout
        self._console = Console(file=self._out, width=None if self._out.isatty() else _WIDTH_WITHOUT_TERMINAL)
        self._screen: Screen | None = None
        self._until: float | None = None

    @property
    def over(self) -> bool:
        """Whether the time that was asked for has passed, since this was asked first: once targets are attached."""
        if self._until is None and self._live.seconds is not None:
            self._until = time.monotonic() + self._live.seconds
        return (self._until is not None and time.monotonic() >= self._until) or self._deserted

    @property
    def _deserted(self) -> bool:
        return self._only_pids and self._tools.deserted

    def show(self) -> None:
        """Draw what there is now, on a terminal that isn't the command's that was started."""
        if self._live.json_rows or not self._out.isatty() or not self._alone:
            return
        if self._screen is None:
            self._screen = Screen(console=self._console, auto_refresh=False)
            self._screen.start()
        self._screen.update(self._drawn(), refresh=True)

    def close(self) -> None:
        """Show what there is at the end."""
        if self._deserted:
            log.info("what --pid names has ended: the table holds all of it")
        if self._screen:
            self._screen.update(self._drawn(), refresh=True)
            self._screen.stop()
        with contextlib.suppress(BrokenPipeError):  # cli.py finds it, too: the run has to be ended in order
            if not self._screen and self._live.json_rows:
                for row in self._rows():
                    self._out.write(json.dumps(row) + "\n")
            elif not self._screen:
                self._console.print(self._drawn())
            self._out.flush()

    def _rows(self) -> list[Row]:
        sort = self._live.sort or self._tool.sort
        numeric = {column.key: column.numeric for column in self._tool.columns}
        rows = sorted(self._tools.rows(self._tool.stem), key=lambda row: [str(value) for value in row.values()])
        if numeric.get(sort):
            return sorted(rows, key=lambda row: -_number(row.get(sort)))
        return sorted(rows, key=lambda row: str(row.get(sort) or ""))

    def _drawn(self) -> Drawn:
        rows, columns = self._rows(), self._tool.columns
        shown, notes = rows[: self._live.limit], []
        if self._out.isatty():
            columns, left_out = fitting(columns, shown, self._live.sort or self._tool.sort, self._console.width)
            if left_out:
                notes.append(f"no room for {', '.join(column.title for column in left_out)}: --json has all")
        drawn = Drawn(box=None, pad_edge=False, header_style="bold", caption_justify="left")
        for column in columns:
            drawn.add_column(column.title, justify="right" if column.numeric else "left", overflow="fold")
        for row in shown:
            drawn.add_row(*(Text(_text(column, row.get(column.key))) for column in columns))
        if len(rows) > len(shown):
            notes.insert(0, f"{len(rows) - len(shown)} more rows: --limit")
        drawn.caption = "; ".join(notes) or None
        return drawn


def fitting(
    columns: Sequence[Column], rows: Sequence[Row], sort: str, width: int
) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    """Choose what a terminal has room for: no column that is empty, then one less at the right until the others fit.

    Args:
        columns: all.
        rows: that are shown.
        sort: key of a column that is always shown; the first one is, too.
        width: of the terminal.

    Returns:
        Columns to show, and those that aren't empty for which there is no room.
    """
    needed = {column.key: _width(column, rows) for column in columns}
    always = {columns[0].key, sort}
    shown = [each for each in columns if each.key in always or any(row.get(each.key) for row in rows)]
    left_out: list[Column] = []
    while sum(needed[each.key] + _GAP for each in shown) - _GAP > width:
        last = next((each for each in reversed(shown) if each.key not in always), None)
        if last is None:
            break
        shown.remove(last)
        left_out.insert(0, last)
    return tuple(shown), tuple(left_out)


def _width(column: Column, rows: Sequence[Row]) -> int:
    """Of a column: texts are folded, numbers are not."""
    longest = max((len(_text(column, row.get(column.key))) for row in rows), default=0)
    return max(len(column.title), longest if column.numeric else min(longest, _FOLDED))


def _number(value: AttributeValue | None) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _text(column: Column, value: AttributeValue | None) -> str:
    if value is None:
        return ""
    if column.unit == "s" and isinstance(value, (int, float)):
        return f"{value * 1e6:.0f}us" if value < 1e-3 else f"{value * 1e3:.1f}ms" if value < 1 else f"{value:.1f}s"
    if column.unit == "B" and isinstance(value, int):
        for unit in ("B", "KiB", "MiB", "GiB"):
            if value < 10240 or unit == "GiB":
                return f"{value} {unit}"
            value //= 1024
    return printable(str(value))
