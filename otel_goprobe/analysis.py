"""An executable -> its plan, in a process of its own; plancache.py makes an `Analysis`.

The disassembler and the tables of a large program take tens of megabytes, which a process that has allocated them
doesn't give back, and the agent lives long. As long as it has one thread, the process is forked, and imports what it
needs while the agent does the same; later it is a new one, which reads the executable from stdin. Either writes JSON
to a pipe: a line with the programs that are probably wanted, so that their verification needn't wait, then the plan.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from otel_goprobe import children
from otel_goprobe.errors import GoprobeError

if TYPE_CHECKING:
    from typing import NoReturn

    from otel_goprobe.gobinary import GoBinary
    from otel_goprobe.model import Plan

log = logging.getLogger(__name__)


class OutlinedProbe(msgspec.Struct, frozen=True):
    """Of a `ProbePlan` what tells whether a run loads its program."""

    program: str
    option: str
    unless: str


class Analysis:
    """The analysis of one executable, begun when this is made if the process may be forked, else by `plan`.

    Args:
        path: opens the executable until `plan` has been called.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._child = _Forked.of(path) if threading.active_count() == 1 else None

    def likely(self) -> tuple[OutlinedProbe, ...]:
        """Wait for what can be said of the plan before it is made; nothing where no other process has begun."""
        return self._child.likely() if self._child else ()

    def plan(self) -> Plan:
        """Wait for the plan; where the other process gives none, analyse in this one, so that it tells why.

        Raises:
            BinaryError: as `gobinary.open_binary`.
        """
        from otel_goprobe.model import Plan  # noqa: PLC0415 - what begins an analysis doesn't wait for it

        try:
            return msgspec.json.decode(self._child.plan() if self._child else _spawned(self._path), type=Plan)
        except (OSError, subprocess.CalledProcessError, msgspec.MsgspecError) as error:
            log.debug("%s is analysed in the agent's process: %s", self._path, error)
            return analyse(self._path)


class _Forked:
    """A copy of this process that analyses.

    Args:
        pid: its number.
        pipe: what it writes.
    """

    def __init__(self, pid: int, pipe: IO[bytes]) -> None:
        self._pid, self._pipe = pid, pipe
        self._first_line: bytes | None = None

    @classmethod
    def of(cls, path: str) -> _Forked | None:
        """Begin; None where there can be no copy."""
        reader, writer = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(reader)
            os.close(writer)
            log.debug("no process to analyse %s in: %s", path, error)
            return None
        if pid == 0:
            _be_forked(path, writer)
        os.close(writer)
        return cls(pid, os.fdopen(reader, "rb"))

    def likely(self) -> tuple[OutlinedProbe, ...]:
        """See `Analysis`."""
        if self._first_line is None:
            self._first_line = self._pipe.readline()
        try:
            return msgspec.json.decode(self._first_line, type=tuple[OutlinedProbe, ...])
        except msgspec.MsgspecError:
            return ()  # it has ended: `plan` tells why

    def plan(self) -> bytes:
        """Return the plan, as JSON; nothing where it couldn't be made."""
        self.likely()
        with self._pipe:
            given = self._pipe.read()
        os.waitpid(self._pid, 0)
        return given


def _be_forked(path: str, writer: int) -> NoReturn:
    """Answer, and end without anything that this process does at its end."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        with os.fdopen(writer, "wb") as answer:
            _answer(path, answer)
    finally:
        os._exit(0)


def _spawned(path: str) -> bytes:
    """Analyse in a new process; return its answer."""
    with Path(path).open("rb") as executable:
        command = children.command(__name__)
        answer = subprocess.run(command, stdin=executable, capture_output=True, check=True).stdout
        return answer.partition(b"\n")[2]


def analyse(path: str) -> Plan:
    """Analyse an executable here.

    Raises:
        BinaryError: as `gobinary.open_binary`.
    """
    # What disassembles and what is known of libraries, which nobody needs for a plan that is in the cache.
    from otel_goprobe import gobinary, probes  # noqa: PLC0415

    with gobinary.open_binary(path) as binary:
        return probes.select(binary)


def _answer(path: str, pipe: IO[bytes]) -> None:
    """Write what the parent wants to know."""
    from otel_goprobe import gobinary, probes  # noqa: PLC0415 - as above

    with gobinary.open_binary(path) as binary:
        pipe.write(msgspec.json.encode(_likely(binary)) + b"\n")
        pipe.flush()
        pipe.write(msgspec.json.encode(probes.select(binary)))


def _likely(binary: GoBinary) -> list[OutlinedProbe]:
    """Return the first way of every hook, which most executables allow."""
    from otel_goprobe import probes  # noqa: PLC0415 - as above

    hooks = [hook for library in probes.libraries() if library.wanted(binary) for hook in library.hooks]
    return [OutlinedProbe(hook.ways[0].program, hook.option, hook.unless) for hook in hooks if hook.wanted(binary)]


def main() -> None:
    """Be the child."""
    try:
        _answer("/proc/self/fd/0", sys.stdout.buffer)
    except GoprobeError as error:
        sys.exit(str(error))
