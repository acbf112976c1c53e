"""The example shop as running processes, and what its services say they were asked."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec
from goprograms import go_command

from harness.target import DEADLINE_S, Output

if TYPE_CHECKING:
    from types import TracebackType

SHOP = Path(__file__).resolve().parents[3] / "examples/shop"
SERVICES = ("pricing", "cart", "front")
"""In the order of their start: each calls those before it."""


class Asked(msgspec.Struct, frozen=True):
    """A request that a service logged."""

    service: str
    method: str
    path: str
    by: str
    """The service that sent it; another client's User-Agent."""
    request: str
    """Its id: the same for all that is asked for one request of a customer."""


class Shop:
    """The three services, from their listening on; a context manager that stops them.

    Args:
        folder: for the executables, which are built first.
        refresh: time between two rounds of cart's background job.

    Attributes:
        pids: by service.
        url: of front.
    """

    def __init__(self, folder: Path, *, refresh: str = "1s") -> None:
        packages = [f"./{name}" for name in SERVICES]
        settings = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "0"}
        subprocess.run([go_command(), "build", "-o", f"{folder}/", *packages], cwd=SHOP, env=settings, check=True)
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._logs: dict[str, Output] = {}
        pricing = self._start(folder, "pricing")
        cart = self._start(folder, "cart", "--pricing", pricing, "--refresh", refresh)
        self.url = self._start(folder, "front", "--cart", cart, "--pricing", pricing)
        self.pids = {name: process.pid for name, process in self._processes.items()}

    def _start(self, folder: Path, name: str, *arguments: str) -> str:
        process = subprocess.Popen([folder / name, *arguments], stderr=subprocess.PIPE, text=True)
        self._processes[name] = process
        self._logs[name] = Output(process.stderr)
        line = self._logs[name].wait_for('"msg":"listening"')
        return str(json.loads(line)["url"])

    @property
    def port(self) -> int:
        """The port of front."""
        return int(self.url.rpartition(":")[2])

    def asked(self) -> list[Asked]:
        """Return what the services were asked so far."""
        lines = (line for log in self._logs.values() for line in log.matching(r'"msg":"asked"'))
        return [msgspec.json.decode(line, type=Asked) for line in lines]

    def wait_asked(self, service: str, pattern: str, count: int = 1) -> None:
        """Wait until a service has logged `count` lines with `pattern`."""
        self._logs[service].wait_for(pattern, count)

    def stop(self) -> None:
        """End the services as an init system does, the one that is called last."""
        for name in reversed(SERVICES):
            if self._processes[name].poll() is None:
                self._processes[name].terminate()
                self._processes[name].wait(DEADLINE_S)
            self._logs[name].join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
        with ExitStack() as waits:
            for process in self._processes.values():
                waits.callback(process.wait, DEADLINE_S)


def calls(asked: list[Asked]) -> Counter[tuple[str, str]]:
    """Count who asked whom among the services."""
    return Counter((line.by, line.service) for line in asked if line.by in SERVICES)


def of_request(asked: list[Asked], pattern: str) -> list[Asked]:
    """Return what was asked for requests whose id has `pattern`."""
    return [line for line in asked if re.search(pattern, line.request)]
