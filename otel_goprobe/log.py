"""What is logged under ``otel_goprobe`` -> lines on stderr; set up by cli.py.

A message of level info stands as it is, so that it begins with ``attached`` or ``detached``; others begin with their
level.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_goprobe.config import LogLevel

LOGGER: Final = logging.getLogger("otel_goprobe")
_LEVELS: Final = {
    "none": logging.CRITICAL + 1,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
_PREFIXES: Final = {logging.DEBUG: "debug: ", logging.WARNING: "warning: ", logging.ERROR: "error: "}
_STYLES: Final = {logging.DEBUG: "dim", logging.WARNING: "yellow", logging.ERROR: "red"}


class _Lines(logging.Handler):
    """Writes a record as one line to the stderr of the moment; coloured where that is a terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        line = _PREFIXES.get(record.levelno, "") + indented(record.getMessage())
        if record.exc_info:
            line += "\n" + logging.Formatter().formatException(record.exc_info)
        try:
            if sys.stderr.isatty():
                from rich.console import Console  # noqa: PLC0415 - 30 ms that only a terminal needs
                from rich.text import Text  # noqa: PLC0415

                text = Text(line, style=_STYLES.get(record.levelno, ""))
                Console(stderr=True, soft_wrap=True, highlight=False).print(text)
            else:
                sys.stderr.write(line + "\n")
                sys.stderr.flush()
        except (OSError, ValueError):
            """Nobody reads stderr any more, which must not stop the agent."""


def set_up(level: LogLevel) -> None:
    """Send lines of `level` and above to stderr; called again, it changes the level."""
    LOGGER.setLevel(_LEVELS[level])
    LOGGER.propagate = False
    if not any(isinstance(handler, _Lines) for handler in LOGGER.handlers):
        LOGGER.addHandler(_Lines())


def printable(text: str) -> str:
    """`text` with control characters escaped: names of processes and files must not steer a terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def indented(text: str) -> str:
    """`text` made printable; lines after the first are indented, so that none can pass for a message of its own."""
    return "\n  ".join(printable(line) for line in text.splitlines())
