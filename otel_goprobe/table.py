"""A tool's rows -> a table on the terminal, drawn anew each second, or lines of JSON at the end; the agent has it."""

from __future__ import annotations

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
    from otel_goprobe.config import Config
    from otel_goprobe.model import AttributeValue
    from otel_goprobe.tooling import Tools
    from otel_goprobe.tools.base import Column, Row

log = logging.getLogger(__name__)

_WIDTH_WITHOUT_TERMINAL = 200


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
        self._until = time.monotonic() + live.seconds if live.seconds is not None else None

    @property
    def over(self) -> bool:
        """Whether the time that was asked for has passed, or nothing can come any more."""
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
        drawn = Drawn(box=None, pad_edge=False, header_style="bold")
        for column in self._tool.columns:
            drawn.add_column(column.title, justify="right" if column.numeric else "left", overflow="fold")
        for row in rows[: self._live.limit]:
            drawn.add_row(*(Text(_text(column, row.get(column.key))) for column in self._tool.columns))
        left = len(rows) - self._live.limit
        drawn.caption = f"{left} more" if left > 0 else None
        return drawn


def _number(value: AttributeValue | None) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _text(column: Column, value: AttributeValue | None) -> str:
    if value is None:
        return ""
    if column.unit == "s" and isinstance(value, (int, float)):
        return f"{value * 1e3:.1f}ms" if value < 1 else f"{value:.1f}s"
    if column.unit == "B" and isinstance(value, int):
        for unit in ("B", "KiB", "MiB", "GiB"):
            if value < 10240 or unit == "GiB":
                return f"{value} {unit}"
            value //= 1024
    return printable(str(value))
