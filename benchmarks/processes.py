"""Running programs of a benchmark: started on chosen cores, ended with it, their CPU time and memory read.

Called by all benchmarks that start something.
"""

from __future__ import annotations

import contextlib
import mmap
import re
import signal
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from benchmarks.machine import OTHER_CPUS, TARGET_CPU
from benchmarks.programs import ENVIRONMENT, bench_program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

STOP_S = 10.0
TEMPORARY = "otel-goprobe-bench-"


def cpu_ns(pid: int) -> int:
    """Return the CPU time in ns that all threads of a process have used, those that ended too."""
    process_clock = (~pid << 3) | 2  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED), include/linux/posix-timers_types.h
    return time.clock_gettime_ns(process_clock)


def memory_mib(pid: int) -> dict[str, float]:
    """Return resident memory in MiB: ``now``, ``max`` and the ``anonymous`` part of now."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = {"now": "VmRSS", "max": "VmHWM", "anonymous": "RssAnon"}
    found = {name: re.search(rf"^{field}:\s*(\d+) kB$", status, re.MULTILINE) for name, field in fields.items()}
    return {name: round(int(match[1]) / 1024, 1) for name, match in found.items() if match}


def wait_until(condition: Callable[[], bool], within_s: float, every_s: float = 0.01) -> bool:
    """Ask again and again; return whether `condition` held within `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


class Running:
    """A program that runs until `stop`, or until the benchmark ends.

    Args:
        command: it and its arguments.
        cpus: where it may run.
        environment: added to this process's.
        stderr: as `subprocess.Popen` has it.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        cpus: Sequence[int] = OTHER_CPUS,
        environment: Mapping[str, str] | None = None,
        stderr: int | IO[bytes] | None = None,
    ) -> None:
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", ",".join(map(str, cpus)), *command],
            env={**ENVIRONMENT, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )

    @property
    def pid(self) -> int:
        """Its process id: setpriv and taskset execute it in their place."""
        return self.process.pid

    def line(self) -> str:
        """Return the next line of its output."""
        assert self.process.stdout
        return self.process.stdout.readline().decode().rstrip("\n")

    def tell(self, line: str) -> None:
        """Write a line to its input."""
        assert self.process.stdin
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; return how it ended."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()
        return self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class SharedCounter:
    """Eight bytes of a file that a process counts in and another reads."""

    def __init__(self, path: str = "") -> None:
        # The file stays open as long as this lives.
        self._file = Path(path).open("r+b") if path else tempfile.NamedTemporaryFile(prefix=TEMPORARY)  # noqa: SIM115
        self.path = path or self._file.name
        if not path:
            self._file.truncate(mmap.PAGESIZE)
        self._memory = mmap.mmap(self._file.fileno(), mmap.PAGESIZE)

    @property
    def value(self) -> int:
        """The count."""
        (value,) = struct.unpack_from("<Q", self._memory)
        return int(value)

    @value.setter
    def value(self, value: int) -> None:
        struct.pack_into("<Q", self._memory, 0, value)


class Server(Running):
    """The target: go/server, on a core of its own where there are two or more."""

    def __init__(self) -> None:
        self.counter = SharedCounter()
        path = bench_program("server")
        super().__init__([path, "-counter", self.counter.path], cpus=[TARGET_CPU])
        self.port = int(self.line())
        self.path = path

    @property
    def requests(self) -> int:
        """How many requests it has had so far."""
        return self.counter.value

    def url(self, path: str) -> str:
        """Return the address of one of its handlers."""
        return f"http://127.0.0.1:{self.port}{path}"


class Lines:
    """Lines that a pipe brings, with the moment at which each came; read by a thread of its own."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self.lines: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    def _read(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(ValueError):  # closed by the one who waits for the process
            for line in pipe:
                self.lines.append((time.monotonic(), line.decode().rstrip("\n")))

    def first(self, beginning: str) -> tuple[float, str] | None:
        """Return the first line that begins so, and when it came."""
        return next((each for each in self.lines if each[1].startswith(beginning)), None)

    def text(self) -> str:
        """Return all lines."""
        return "\n".join(line for _, line in self.lines)
