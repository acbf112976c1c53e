"""An executable -> its plan, in a process of its own; plancache.py makes an `Analysis`.

The disassembler and the tables of a large program take tens of megabytes, which a process that has allocated them
doesn't give back, and the agent lives long. As long as it has one thread, the process is forked, and imports what it
needs while the agent does the same; later it is a new one, which reads the executable from stdin. Either writes
the plan, as JSON, to a pipe.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from otel_goprobe import children
from otel_goprobe.errors import GoprobeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from otel_goprobe.model import Plan

log = logging.getLogger(__name__)


class Analysis:
    """The analysis of one executable, begun when this is made if the process may be forked, else by `plan`.

    Args:
        path: opens the executable until `plan` has been called.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._answer = _forked(path) if threading.active_count() == 1 else None

    def plan(self) -> Plan:
        """Wait for the plan; where the other process gives none, analyse in this one, so that it tells why.

        Raises:
            BinaryError: as `gobinary.open_binary`.
        """
        from otel_goprobe.model import Plan  # noqa: PLC0415 - what begins an analysis doesn't wait for it

        try:
            return msgspec.json.decode(self._answer() if self._answer else _spawned(self._path), type=Plan)
        except (OSError, subprocess.CalledProcessError, msgspec.MsgspecError) as error:
            log.debug("%s is analysed in the agent's process: %s", self._path, error)
            return analyse(self._path)


def _forked(path: str) -> Callable[[], bytes] | None:
    """Begin in a copy of this process; return what waits for its answer, None where there can be no copy."""
    reader, writer = os.pipe()
    try:
        child = os.fork()
    except OSError as error:
        os.close(reader)
        os.close(writer)
        log.debug("no process to analyse %s in: %s", path, error)
        return None
    if child == 0:
        _be_forked(path, writer)
    os.close(writer)

    def answer() -> bytes:
        with os.fdopen(reader, "rb") as pipe:
            given = pipe.read()
        os.waitpid(child, 0)
        return given

    return answer


def _be_forked(path: str, writer: int) -> NoReturn:
    """Answer, and end without anything that this process does at its end."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        with os.fdopen(writer, "wb") as answer:
            answer.write(msgspec.json.encode(analyse(path)))
    finally:
        os._exit(0)


def _spawned(path: str) -> bytes:
    """Analyse in a new process; return its answer."""
    with Path(path).open("rb") as executable:
        command = children.command(__name__)
        return subprocess.run(command, stdin=executable, capture_output=True, check=True).stdout


def analyse(path: str) -> Plan:
    """Analyse an executable here.

    Raises:
        BinaryError: as `gobinary.open_binary`.
    """
    # What disassembles and what is known of libraries, which nobody needs for a plan that is in the cache.
    from otel_goprobe import gobinary, probes  # noqa: PLC0415

    with gobinary.open_binary(path) as binary:
        return probes.select(binary)


def main() -> None:
    """Be the child."""
    try:
        sys.stdout.buffer.write(msgspec.json.encode(analyse("/proc/self/fd/0")))
    except GoprobeError as error:
        sys.exit(str(error))
