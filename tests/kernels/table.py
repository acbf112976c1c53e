"""Results of all machines -> the part of docs/compatibility.md between its two marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping
    from pathlib import Path

    from kernels.results import Result

BEGIN, END = "<!-- kernels:begin -->", "<!-- kernels:end -->"
HEADING = "# Compatibility\n"

ABOUT = """\
## Kernels

What the agent does on kernels other than the one at hand, seen {date} by `make test-kernels`: Debian's own kernels in
virtual machines with two emulated processors, which are 10 to 20 times slower than real ones, so that the seconds
compare kernels and promise nothing. A `no` is what the kernel lacks and the agent does without.
"""


def fragment(machines: Mapping[str, Mapping[str, Result]], date: dt.date) -> str:
    """Return the text with both marks.

    Args:
        machines: name of the column -> check -> what was found.
        date: of the run.
    """
    checks = dict.fromkeys(check for found in machines.values() for check in found)
    rows = [["", *machines], ["---"] * (1 + len(machines))]
    rows += [[check, *(_cell(found.get(check)) for found in machines.values())] for check in checks]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"{BEGIN}\n{ABOUT.format(date=date.isoformat())}\n{table}{END}\n"


def _cell(result: Result | None) -> str:
    if result is None:
        return "not tried"
    if result.state == "lacks":
        return f"no: {result.detail}" if result.detail else "no"
    return result.found if result.state == "yes" else f"**{result.found}**"


def write(path: Path, text: str) -> None:
    """Put the fragment where its marks are, or at the end; the file is made where there is none."""
    page = path.read_text() if path.exists() else HEADING
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    page = before + text.rstrip("\n") + after if begin and end else f"{page.rstrip()}\n\n{text}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)
