"""What looking at an executable costs: all of ``otel-goprobe inspect``, beside pyelftools on the same program.

``python -m benchmarks.inspection PROGRAM… [--unstripped PROGRAM]``: wall and CPU seconds and the peak of resident
memory, of a process of its own for each run, interpreter and imports included; the median of several, the page cache
warm. Without a program: the Jaeger that `make test-jaeger` builds, 98 MB stripped.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.machine import in_words, machine, table

ROOT: Final = Path(__file__).resolve().parents[1]
LIMIT_SECONDS: Final = 0.4
LIMIT_MB: Final = 70
BIG_BYTES: Final = 80 << 20

SYMBOLS: Final = """
import sys
from elftools.elf.elffile import ELFFile
with open(sys.argv[1], "rb") as file:
    print(sum(1 for _ in ELFFile(file).get_section_by_name(".symtab").iter_symbols()))
"""
ENTRIES: Final = """
import sys
from elftools.elf.elffile import ELFFile
with open(sys.argv[1], "rb") as file:
    types = [unit for unit in ELFFile(file).get_dwarf_info().iter_CUs()
             if unit.get_top_DIE().attributes["DW_AT_name"].value == b"runtime"]
    print(sum(1 for unit in types for _ in unit.iter_DIEs()))
"""
"""The entries of the units that hold the types, not even those of the functions."""


@dataclass(frozen=True)
class Cost:
    """Of one process."""

    wall_seconds: float
    cpu_seconds: float
    peak_mb: float


def cost(command: list[str]) -> Cost:
    """Run `command` and say what it cost.

    Raises:
        SystemExit: it failed.
    """
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT) as process:
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:3])} … ended with {process.returncode}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def median(command: list[str], times: int) -> Cost:
    """Return the median of each figure; the first run, which fills the page cache, doesn't count."""
    if times > 1:
        cost(command)
    costs = [cost(command) for _ in range(times)]
    return Cost(*(statistics.median(getattr(one, name) for one in costs) for name in Cost.__dataclass_fields__))


def default_program() -> Path:
    """Return the Jaeger of tests/backends, building it if need be."""
    command = [sys.executable, str(ROOT / "tests/backends/build.py")]
    return Path(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()) / "jaeger"


def main() -> None:
    """Print the table; end with 1 where a big program took too long or too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inspection", description=__doc__)
    parser.add_argument("programs", nargs="*", type=Path, metavar="PROGRAM")
    parser.add_argument("--unstripped", type=Path, metavar="PROGRAM", help="walk its symbols and DWARF with pyelftools")
    parser.add_argument("--times", type=int, default=7)
    arguments = parser.parse_args()
    print(f"{in_words(machine())}\n")
    programs = arguments.programs or [default_program()]
    rows, missed = [], []
    for program in [*programs, *([arguments.unstripped] if arguments.unstripped else [])]:
        found = median([sys.executable, "-m", "otel_goprobe", "inspect", str(program.resolve())], arguments.times)
        rows.append(("otel-goprobe inspect", program, found))
        stripped = program != arguments.unstripped
        if (
            stripped
            and program.stat().st_size > BIG_BYTES
            and (found.wall_seconds > LIMIT_SECONDS or found.peak_mb > LIMIT_MB)
        ):
            missed.append(program.name)
    if arguments.unstripped:
        for what, code in (("pyelftools: .symtab", SYMBOLS), ("pyelftools: DWARF types", ENTRIES)):
            found = median([sys.executable, "-c", code, str(arguments.unstripped.resolve())], 1)
            rows.append((what, arguments.unstripped, found))
    print(
        table(
            ["", "program", "MB", "wall s", "CPU s", "peak MB"],
            [
                [
                    what,
                    program.name,
                    f"{program.stat().st_size / 1e6:.0f}",
                    f"{found.wall_seconds:.2f}",
                    f"{found.cpu_seconds:.2f}",
                    f"{found.peak_mb:.0f}",
                ]
                for what, program, found in rows
            ],
        )
    )
    if missed:
        raise SystemExit(f"more than {LIMIT_SECONDS} s or {LIMIT_MB} MB: {', '.join(missed)}")


if __name__ == "__main__":
    main()
