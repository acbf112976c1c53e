"""A script of ``--emit bpftrace``, run by the real bpftrace beside the agent: what its maps hold at the end."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import contextmanager
from signal import SIGINT
from typing import TYPE_CHECKING, Any

import pytest

from harness.agent import run
from harness.target import Output

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# In a mount namespace of its own: the machine's mounts stay as they are.
_PRIVATE = """
mount --make-rprivate /
mount -t debugfs none /sys/kernel/debug 2>/dev/null || true
mount -t tracefs none /sys/kernel/tracing 2>/dev/null || true
exec "$@"
"""
_ATTACH_S = 60.0


class Counts:
    """What a script has counted, once it has ended."""

    def __init__(self) -> None:
        self._maps: dict[str, Any] = {}

    def take(self, lines: str) -> None:
        """Read what ``bpftrace -f json`` printed."""
        for line in lines.splitlines():
            if line.startswith("{") and (said := json.loads(line, object_pairs_hook=_summed))["type"] == "map":
                self._maps |= said["data"]

    def of(self, name: str) -> dict[str, int]:
        """Return a map, ``@name``: its keys as bpftrace writes them, parts separated by commas."""
        found: dict[str, int] = self._maps.get(f"@{name}", {})
        return found


def _summed(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Add up the values of a key that is there twice: stacks that differ may read the same."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        found[key] = found[key] + value if key in found else value
    return found


def _unable() -> str:
    """Return what this kernel lacks for bpftrace's tracepoints of system calls; nothing if it can do it."""
    probe = ["unshare", "-m", "sh", "-ec", _PRIVATE, "sh", "bpftrace", "-l", "tracepoint:syscalls:sys_enter_connect"]
    listed = subprocess.run(probe, capture_output=True, text=True, check=False, timeout=_ATTACH_S)
    return "" if "sys_enter_connect" in listed.stdout else "kernel lacks CONFIG_FTRACE_SYSCALLS, or tracefs"


@contextmanager
def beside(tool: str, pid: int, folder: Path) -> Iterator[Counts]:
    """Run what a tool emits for a process until the block ends.

    Raises:
        RuntimeError: bpftrace isn't installed.
    """
    if not shutil.which("bpftrace"):
        raise RuntimeError("bpftrace is missing: apt install bpftrace")
    if lacks := _unable():
        pytest.skip(lacks)
    emitted = run(tool, "--pid", str(pid), "--emit", "bpftrace")
    assert emitted.returncode == 0, emitted.stderr
    # Probes are attached in their order: once this one fires, all the others are there.
    script = emitted.stdout + 'interval:ms:100 { printf("attached\\n"); }\n'
    file = folder / f"{tool}.bt"
    file.write_text(script)
    settings = re.findall(r"BPFTRACE_\w+=\d+", script.partition("\n")[0])
    command = ["unshare", "-m", "sh", "-ec", _PRIVATE, "sh", "env", *settings, "bpftrace", "-f", "json", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    printed, complaints = Output(process.stdout), Output(process.stderr)
    counts = Counts()
    try:
        printed.wait_for("attached.n", timeout_s=_ATTACH_S)
        yield counts
        process.send_signal(SIGINT)
        assert process.wait(_ATTACH_S) == 0, complaints.text()
        printed.join()
        counts.take(printed.text())
        complaints.join()
        assert "Lost" not in complaints.text(), complaints.text()
    except TimeoutError as error:
        raise TimeoutError(f"{error}\n{complaints.text()}") from error
    finally:
        process.kill()
        process.wait()
