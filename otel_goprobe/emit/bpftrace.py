"""What a tool watches -> a script for bpftrace (0.17 and newer) that counts the same; by tools, for ``--emit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PREFIX = "tracepoint:syscalls:sys_"


def watched(pids: Sequence[int]) -> str:
    """Return a predicate that is true in some processes, by bpftrace's ``pid``; in all where none is named."""
    return " || ".join(f"pid == {pid}" for pid in pids) or "1"


def entries(*calls: str) -> str:
    """Return the probes at the start of some system calls."""
    return ",\n".join(f"{_PREFIX}enter_{call}" for call in calls)


def exits(*calls: str) -> str:
    """Return the probes at the end of some system calls."""
    return ",\n".join(f"{_PREFIX}exit_{call}" for call in calls)


def script(body: str, pids: Sequence[int], **limits: int) -> str:
    """Return a script whose first line says how it is run.

    Args:
        body: its probes.
        pids: which processes they are about.
        limits: bpftrace's own, by their variables behind ``BPFTRACE_``; it cuts longer texts and drops more keys.
    """
    settings = "".join(f"BPFTRACE_{name}={value} " for name, value in limits.items())
    every = "" if pids else "// Of every process: --emit with --pid is about some.\n"
    return f"// Ctrl-C prints what was counted. Run by: {settings}bpftrace FILE\n{every}{body.strip()}\n"
