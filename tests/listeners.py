"""Starting programs that print "ready PORT …" and wait, as tests/go/listener does; called by the tests of discovery."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


@dataclass
class Running:
    """A program that has said that it is ready."""

    process: subprocess.Popen[str]
    port: int = 0
    said: tuple[str, ...] = ()
    """The words of its first line."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def ready(self) -> None:
        """Wait until it says that it is ready, again."""
        assert self.process.stdout
        self.said = tuple(self.process.stdout.readline().split())
        assert self.said[:1] == ("ready",), self.said
        self.port = int(self.said[1])

    def tell(self, text: str) -> None:
        """Write to its standard input."""
        assert self.process.stdin
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def end(self) -> None:
        """Kill it and collect it."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Start a command, wait until it is ready, and kill it at the end."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, env={"PATH": os.defpath, **(environment or {})}
    )
    started = Running(process)
    try:
        started.ready()
        yield started
    finally:
        started.end()
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()
