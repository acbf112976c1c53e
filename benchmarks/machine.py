"""What a figure was measured on, and where figures go: JSON, and the marked blocks of a document."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.programs import go_version

if TYPE_CHECKING:
    from collections.abc import Callable

CPUS = sorted(os.sched_getaffinity(0))
TARGET_CPU = CPUS[0]
"""The target's alone, where there are two or more."""
OTHER_CPUS = CPUS[1:] or CPUS


def machine() -> dict[str, Any]:
    """Describe this machine and this run."""
    cpu = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpu, re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": len(CPUS),
        "virtual_machine": bool(re.search(r"^flags\s*:.*\bhypervisor\b", cpu, re.MULTILINE)),
        "kernel": platform.release(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "go": go_version(),
        "python": platform.python_version(),
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load_at_start": round(os.getloadavg()[0], 1),
        "command": f"python -m benchmarks.{Path(sys.argv[0]).stem} {shlex.join(sys.argv[1:])}".strip(),
    }


def in_words(described: dict[str, Any]) -> str:
    """Return a line or two on the machine for a document."""
    kind = "a virtual machine" if described["virtual_machine"] else "no virtual machine"
    return (
        f"{described['cpu']}, {described['cores']} cores, {kind}, Linux {described['kernel']},"
        f" {described['memory_gib']} GiB, {described['go']}, Python {described['python']}; {described['date']},"
        f" load {described['load_at_start']} when it began; `{described['command']}`."
    )


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table whose first column is text and whose others are numbers."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: list[str]) -> str:
        cells = [
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = "|".join([f":{'-' * (widths[0] + 1)}", *(f"{'-' * (width + 1)}:" for width in widths[1:])])
    return "\n".join([line(header), f"|{rule}|", *map(line, rows)])


def give(results: dict[str, Any], blocks: dict[str, str], *, json_path: str, document: str) -> None:
    """Print the texts; write the results to `json_path` and the texts into `document`, where these are named.

    Args:
        results: for JSON.
        blocks: Markdown by name, for ``<!-- name:begin -->`` … ``<!-- name:end -->``.
        json_path: a file, or empty.
        document: a file with the blocks, or empty.

    Raises:
        SystemExit: the document has no such block.
    """
    print("\n\n".join(blocks.values()), flush=True)
    if json_path:
        Path(json_path).write_text(json.dumps(results, indent=1) + "\n")
    if document:
        content = Path(document).read_text()
        for name, text in blocks.items():
            block = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
            if not block.search(content):
                raise SystemExit(f"{document} has no block {name}")
            content = block.sub(_between(text), content)
        Path(document).write_text(content)


def _between(text: str) -> Callable[[re.Match[str]], str]:
    return lambda match: f"{match[1]}\n{text}\n\n{match[2]}"
