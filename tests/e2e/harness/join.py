"""A running tests/go/join: one end of connections under test."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil
from goprograms import go_binary

from harness.target import DEADLINE_S, Output

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

SEND_S = 240.0


class Join:
    """From its ``ready`` line on; a context manager that stops it.

    Args:
        arguments: its own; of one that is there twice the last counts.
        prefix: command that starts it: ``ip netns exec …``, which becomes the program.
        exe: another build of it.
    """

    def __init__(self, *arguments: str, prefix: Sequence[str] = (), exe: Path | None = None) -> None:
        self._process = subprocess.Popen(
            [*prefix, exe or go_binary("join"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._stdout = Output(self._process.stdout)
        self._stderr = Output(self._process.stderr)
        self._sent = self._asked = 0
        try:
            self._stdout.wait_for("^ready$")
        except TimeoutError:
            self.stop()
            raise TimeoutError(f"join isn't ready: {self._stderr.text()}") from None

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def address(self) -> str:
        """Where it listens: HOST:PORT, or a path."""
        return self._stdout.wait_for("^listening ").split()[1]

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.address.rpartition(":")[2])

    def url(self, pattern: str = "http://ADDRESS") -> str:
        """Return `pattern` with its own address and port in it."""
        return pattern.replace("ADDRESS", self.address).replace("PORT", self.address.rpartition(":")[2])

    def send(self, count: int, concurrency: int, *, failing: int = 0) -> None:
        """Send requests and wait until all have been answered as they should, but for those that are to fail.

        Raises:
            AssertionError: others failed, or more, or fewer.
        """
        assert self._process.stdin
        self._sent += 1
        self._process.stdin.write(f"{count} {concurrency}\n")
        self._process.stdin.flush()
        assert self._stdout.wait_for("^done ", self._sent, SEND_S) == f"done {failing}", self._stderr.text()

    def ask(self, line: str, answer: str) -> str:
        """Give it a line that isn't for requests of `send`; return the one that it prints then, which has `answer`."""
        assert self._process.stdin
        self._asked += 1
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._stdout.wait_for(answer, self._asked)

    def printed(self, pattern: str) -> list[str]:
        """Return the lines so far in which `pattern` is found."""
        return self._stdout.matching(pattern)

    def wait_for_lines(self, pattern: str, count: int) -> None:
        """Wait until it has printed so many lines in which `pattern` is found."""
        self._stdout.wait_for(pattern, count)

    def wait_for_connections(self, count: int) -> None:
        """Wait until so many connections are open to it, none or at least as many as are asked for.

        Raises:
            TimeoutError: they don't come.
        """
        ending = time.monotonic() + DEADLINE_S
        while time.monotonic() < ending:
            connections = psutil.Process(self.pid).net_connections("tcp")
            established = sum(each.status == psutil.CONN_ESTABLISHED for each in connections)
            if established == count or established >= count > 0:
                return
            time.sleep(0.01)
        raise TimeoutError(f"there are no {count} connections to {self.address}")

    def suspend(self) -> None:
        """Stop all its threads, until it gets SIGCONT; return when they stand still."""
        os.kill(self.pid, signal.SIGSTOP)
        tasks = Path(f"/proc/{self.pid}/task")
        while any(stat.read_text().rpartition(")")[2].split()[0] != "T" for stat in tasks.glob("*/stat")):
            time.sleep(0.001)

    def stop(self) -> None:
        """End it at once."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(DEADLINE_S)
        self._stdout.join()
        self._stderr.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
