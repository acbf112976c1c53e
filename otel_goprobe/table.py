"""A tool's rows -> a table on the terminal, drawn anew each second, or lines of JSON at the end; the agent has it."""

from __future__ import annotations

import json
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
    from collections.abc import Mapping, Sequence

    from otel_goprobe.config import Live
    from otel_goprobe.model import AttributeValue
    from otel_goprobe.tooling import Tools
    from otel_goprobe.tools.base import Column, Row

_WIDTH_WITHOUT_TERMINAL = 200
_FOLDED_TO = 16
"""Characters at the least of a column of texts that are longer."""
_BETWEEN = 2
"""Between columns."""
_NOTHING = {"", "0", "0 B"}


class Table:
    """The rows of the tool that `live` names.

    Args:
        tools: which has them.
        live: how they are shown, and how long.
        out: where to; stdout by default.
    """

    def __init__(self, tools: Tools, live: Live, out: TextIO | None = None) -> None:
        self._tools = tools
        self._live = live
        self._tool = declared.tool(live.tool)
        self._out = out or sys.stdout
        self._console = Console(file=self._out, width=None if self._out.isatty() else _WIDTH_WITHOUT_TERMINAL)
        self._screen: Screen | None = None
        self._until: float | None = None

    @property
    def over(self) -> bool:
        """Whether the time that was asked for has passed since this was asked first: once targets are attached."""
        if self._live.seconds is None:
            return False
        if self._until is None:
            self._until = time.monotonic() + self._live.seconds
        return time.monotonic() >= self._until

    def show(self) -> None:
        """Draw what there is now, on a terminal."""
        if self._live.json_rows or not self._out.isatty():
            return
        if self._screen is None:
            self._screen = Screen(console=self._console, auto_refresh=False)
            self._screen.start()
        self._screen.update(self._drawn(), refresh=True)

    def close(self) -> None:
        """Show what there is at the end."""
        if self._screen:
            self._screen.update(self._drawn(), refresh=True)
            self._screen.stop()
        elif self._live.json_rows:
            for row in self._rows():
                self._out.write(json.dumps(row) + "\n")
        else:
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
        rows = self._rows()
        shown = [
            {column.key: _text(column, row.get(column.key)) for column in self._tool.columns}
            for row in rows[: self._live.limit]
        ]
        columns = self._fitting(shown)
        drawn = Drawn(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            narrow = column.numeric or _widest(column, shown) <= _FOLDED_TO
            drawn.add_column(
                column.title, justify="right" if column.numeric else "left", overflow="fold", no_wrap=narrow
            )
        for cells in shown:
            drawn.add_row(*(Text(cells[column.key]) for column in columns))
        left_out = [column.title for column in self._tool.columns if column not in columns]
        left = len(rows) - self._live.limit
        captions = [f"{left} more rows (--limit)"] if left > 0 else []
        captions += [f"no room for {', '.join(left_out)}"] if left_out else []
        drawn.caption = "; ".join(captions) or None
        return drawn

    def _fitting(self, shown: Sequence[Mapping[str, str]]) -> list[Column]:
        """Return the columns that there is width for: of the spare ones first those without anything go."""
        sort = self._live.sort or self._tool.sort
        columns = list(self._tool.columns)
        empty = {column.key for column in columns if all(cells[column.key] in _NOTHING for cells in shown)}
        spare = [column for column in columns if column.key != sort and (column.spare or column.key in empty)]
        spare.sort(key=lambda column: (column.key not in empty, -column.spare))
        for column in spare:
            widths = [_widest(each, shown) for each in columns]
            folded = [
                width if each.numeric else min(width, _FOLDED_TO) for each, width in zip(columns, widths, strict=True)
            ]
            if sum(folded) + _BETWEEN * (len(columns) - 1) <= self._console.width:
                break
            columns.remove(column)
        return columns


def _widest(column: Column, shown: Sequence[Mapping[str, str]]) -> int:
    return max(len(column.title), *(len(cells[column.key]) for cells in shown)) if shown else len(column.title)


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
