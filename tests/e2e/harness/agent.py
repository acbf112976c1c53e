"""The agent as a user starts it, with what it said and the summary that it left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGKILL, Signals
from typing import TYPE_CHECKING, Any, Self

import psutil
from goprograms import cache_folder

from harness.target import Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

PROJECT = Path(__file__).resolve().parents[3]
ATTACH_S = 60.0
"""The first start on a machine compiles the BPF programs."""
STOP_S = 10.0
"""Twice what the agent itself allows."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Which otel-goprobe: the interpreter, and the folder to start it in, which comes first on its path."""

    python: str = sys.executable
    folder: Path = PROJECT

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of its ``otel-goprobe`` with `arguments`."""
        return [self.python, "-m", "otel_goprobe", *arguments]


TREE = Installation()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the agent ended."""

    code: int
    stdout: str
    stderr: str
    started: int
    exported: int
    dropped: dict[str, int]
    targets: list[dict[str, Any]]

    @property
    def balanced(self) -> bool:
        """Whether every started span is accounted for."""
        return self.started == self.exported + sum(self.dropped.values())


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without its OpenTelemetry variables, with `extra`.

    What the agent's modules are compiled to is kept in the cache: hundreds of agents are started.
    """
    others = ("OTEL_EXPORTER", "OTEL_S", "OTEL_R", "PYTHONDONTWRITEBYTECODE")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(others)}
    return {**kept, "PYTHONPYCACHEPREFIX": str(cache_folder() / "pycache"), **extra}


def run(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    timeout_s: float = ATTACH_S,
    installation: Installation = TREE,
) -> subprocess.CompletedProcess[str]:
    """Run ``otel-goprobe`` to its end."""
    return subprocess.run(
        [*prefix, *installation.command(*arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        cwd=installation.folder,
        env=clean_environment(environment or {}),
    )


class Agent:
    """A running ``otel-goprobe run``; a context manager that stops it.

    Args:
        arguments: those of ``run``, before ``--``.
        environment: added to the environment; `Receiver.environment` points it at a receiver.
        prefix: command that starts it: ``setpriv …``.
        program: what stands after ``--``.
        installation: which one is started.
        subcommand: ``run``, or a tool, which leaves no summary.
    """

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, str],
        prefix: Sequence[str] = (),
        program: Sequence[str] = (),
        installation: Installation = TREE,
        subcommand: str = "run",
    ) -> None:
        self._command = installation.command()
        self._folder = tempfile.TemporaryDirectory(prefix="otel-goprobe-test-")
        self._summary = Path(self._folder.name) / "summary.json"
        summary = ("--summary-json", str(self._summary)) if subcommand == "run" else ()
        line = installation.command(subcommand, *arguments, *summary)
        self.process = subprocess.Popen(
            [*prefix, *line, *(["--", *program] if program else [])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=installation.folder,
            env=clean_environment(environment),
        )
        self.stdout = Output(self.process.stdout)
        self.stderr = Output(self.process.stderr)

    @property
    def pid(self) -> int:
        """Process id of the agent itself, behind the prefix, as this process's PID namespace has it."""
        family = [psutil.Process(self.process.pid)]
        family += family[0].children(recursive=True)
        return next(process.pid for process in family if process.cmdline()[:3] == self._command)

    def attached(self, count: int = 1) -> Self:
        """Wait until it says so for the `count`th time."""
        self.stderr.wait_for("^attached", count, ATTACH_S)
        return self

    def signal(self, number: Signals) -> None:
        """Send a signal to the agent itself."""
        os.kill(self.pid, number)

    def stop(self, number: Signals = SIGINT, timeout_s: float = STOP_S) -> Outcome:
        """End it, by default as Ctrl-C does, and return how it ended."""
        self.signal(number)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = STOP_S) -> Outcome:
        """Wait until it ends by itself.

        Raises:
            TimeoutError: it doesn't; the message holds what it said.
        """
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the agent hasn't ended within {timeout_s} s:\n{self.stderr.text()}") from None
        self.stdout.join()
        self.stderr.join()
        summary = json.loads(self._summary.read_text()) if self._summary.exists() else {}
        return Outcome(
            code,
            self.stdout.text(),
            self.stderr.text(),
            summary.get("started", 0),
            summary.get("exported", 0),
            summary.get("dropped", {}),
            summary.get("targets", []),
        )

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does."""
        if self.process.poll() is None:
            self.signal(SIGKILL)
            self.process.wait(STOP_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        if error is not None:
            print(f"--- the agent's stderr\n{self.stderr.text()}", file=sys.stderr)
        self._folder.cleanup()
