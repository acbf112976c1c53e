"""A Go program of tests/go as a running process, with the log that it keeps of its own requests."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Line:
    """What the target itself says about one request; see tests/go/http_server/log.go."""

    id: str
    method: str
    path: str
    """Percent-decoded; Go's JSON encoder has put U+FFFD for each byte that isn't UTF-8."""
    proto: str
    status: int
    """0: nothing was written."""
    remote: str
    """HOST:PORT of the client."""
    host: str
    panic: str
    """Go type of the value that it panicked with, or empty."""
    start: int
    """Start of the handler, CLOCK_MONOTONIC, ns."""
    end: int


class Output:
    """The lines of a stream, read by a thread as they come, each with the time.monotonic() of its arrival."""

    def __init__(self, stream: Sequence[str] | object) -> None:
        self.lines: list[tuple[float, str]] = []
        self._changed = threading.Condition(threading.RLock())
        self._ended = False
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: Sequence[str]) -> None:
        for text in stream:
            with self._changed:
                self.lines.append((time.monotonic(), text.rstrip("\n")))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def matching(self, pattern: str) -> list[str]:
        """Return the lines so far in which `pattern` is found."""
        with self._changed:
            return [text for _, text in self.lines if re.search(pattern, text)]

    def _count(self, pattern: str) -> int:
        return sum(1 for _, text in self.lines if re.search(pattern, text))

    def wait_for(self, pattern: str, count: int = 1, timeout_s: float = DEADLINE_S) -> str:
        """Wait for the `count`th line in which `pattern` is found and return it.

        Raises:
            TimeoutError: it doesn't come; the message holds all that came.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._count(pattern) >= count, timeout_s)
            if self._count(pattern) < count:
                why = "before the end" if self._ended else f"within {timeout_s} s"
                raise TimeoutError(f"no line {count} with {pattern!r} {why}; there were:\n{self.text()}")
        return self.matching(pattern)[count - 1]

    def arrival(self, pattern: str) -> float:
        """Return the time.monotonic() at which the first line with `pattern` came."""
        with self._changed:
            return next(at for at, text in self.lines if re.search(pattern, text))

    def text(self) -> str:
        """Return all lines so far."""
        with self._changed:
            return "\n".join(text for _, text in self.lines)

    def join(self) -> None:
        """Wait until the stream has ended."""
        self._thread.join(DEADLINE_S)


class Target:
    """A running http_server, from its ``ready`` line on; a context manager that stops it.

    Args:
        exe: the executable.
        arguments: its own, such as ``-mux`` and ``plain``.
        prefix: command that starts it: ``nsenter …``.
        environment: replaces the whole environment if given.
        stdin: whether the test writes to its stdin.

    Attributes:
        pid: process id of the program itself, behind the prefix, as this process's PID namespace has it.
    """

    def __init__(
        self,
        exe: Path | str,
        *arguments: str,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        stdin: bool = False,
    ) -> None:
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            [*prefix, str(exe), "-listen", "127.0.0.1:0", *arguments],
            stdin=subprocess.PIPE if stdin else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.stdout = Output(self.process.stdout)
        self.stderr = Output(self.process.stderr)
        try:
            self.stdout.wait_for("^ready$")
        except TimeoutError:
            self.kill()
            raise TimeoutError(f"the target isn't ready: {self.stdout.text()}\n{self.stderr.text()}") from None
        self.pid: int = self._family()[-1].pid

    def _family(self) -> list[psutil.Process]:
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.stdout.wait_for("^listening ").rpartition(":")[2])

    def log(self) -> list[Line]:
        """Return its lines about requests so far."""
        return [Line(**json.loads(text)) for text in self.stdout.matching(r"^\{")]

    def wait_log(self, count: int, timeout_s: float = DEADLINE_S) -> list[Line]:
        """Wait for `count` requests in the log and return all."""
        self.stdout.wait_for(r"^\{", count, timeout_s)
        return self.log()

    def say(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self.process.stdin
        print(line, file=self.process.stdin, flush=True)

    def close(self) -> int:
        """Close its stdin, with which it ends, and return its exit code."""
        assert self.process.stdin
        self.process.stdin.close()
        return self._ended()

    def stop(self) -> int:
        """End it as an init system does and return its exit code."""
        if self.process.poll() is None:
            self._family()[-1].terminate()
        return self._ended()

    def kill(self) -> int:
        """End it at once."""
        if self.process.poll() is None:
            for process in self._family():
                process.kill()
        return self._ended()

    def _ended(self) -> int:
        code = self.process.wait(DEADLINE_S)
        self.stdout.join()
        self.stderr.join()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
