"""What `make test-propagation` saw, a JSON line a scenario -> the table in docs/propagation.md.

    PYTHONPATH=tests:tests/e2e python -m propagation.page ROWS PAGE

A scenario that is missing is an error: no table is written then.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from compatibility import replaced

from propagation.run import Result  # noqa: TC001 - msgspec reads Row's annotations
from propagation.scenarios import SCENARIOS, Scenario

if TYPE_CHECKING:
    from propagation.truth import Judgement

PART = "parents"
TEXT = """\
Seen {date} on Linux {kernel} with {go} by `make test-propagation`, which makes this table: {requests} requests a row,
{concurrency} at once. A cell counts the spans whose parent and trace are right / that have no parent / whose parent or
trace is wrong; links: that are linked to all requests that the call is for, and to no other / lack some of them / are
linked to another.
"""


class Row(msgspec.Struct, frozen=True):
    """A result, with where and when."""

    result: Result
    go: str
    """Such as ``go1.26.8``."""
    date: str
    kernel: str


def record(result: Result, go: str) -> None:
    """Add a row to the file that the environment names, if it does."""
    path = os.environ.get("OTEL_GOPROBE_ROWS")
    if path:
        today = dt.datetime.now(tz=dt.UTC).date().isoformat()
        row = Row(result, go, today, platform.release().partition("-")[0])
        with Path(path).open("ab") as file:
            file.write(msgspec.json.encode(row) + b"\n")


def table(rows: dict[str, Row]) -> str:
    """Return the part of the page: its text and a line for each scenario."""

    def joined(values: set[str]) -> str:
        return ", ".join(sorted(values))

    text = TEXT.format(
        date=max(row.date for row in rows.values()),
        kernel=joined({row.kernel for row in rows.values()}),
        go=joined({row.go for row in rows.values()}),
        requests=joined({f"{row.result.requests:,}" for row in rows.values()}),
        concurrency=joined({str(row.result.concurrency) for row in rows.values()}),
    )
    lines = [
        "| how a handler calls the next service | expected | the call's span | the next service's span |",
        "| --- | --- | --- | --- |",
        *(_line(scenario, rows[scenario.name].result) for scenario in SCENARIOS),
    ]
    return f"{text}\n{chr(10).join(lines)}\n"


def _line(scenario: Scenario, result: Result) -> str:
    expected = "right" if scenario.right else "none"
    if scenario.wrong_by_worker:
        expected += f", at most {scenario.wrong_by_worker} wrong a worker"
    calls = _cell(result.verdict.client)
    if scenario.linked:
        expected += ", linked"
        calls += f"; links {_cell(result.verdict.links)}"
    return f"| {scenario.what} | {expected} | {calls} | {_cell(result.verdict.back)} |"


def _cell(judged: Judgement) -> str:
    return f"{judged.right} / {judged.none} / {judged.wrong}"


def main() -> None:
    """Write the table, or say which scenarios are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("page", type=Path)
    arguments = parser.parse_args()
    lines = arguments.rows.read_bytes().splitlines() if arguments.rows.exists() else []
    rows = {row.result.scenario: row for row in (msgspec.json.decode(line, type=Row) for line in lines)}
    if missing := [scenario.name for scenario in SCENARIOS if scenario.name not in rows]:
        sys.exit(f"{arguments.rows} lacks {', '.join(missing)}: {arguments.page} is left as it was")
    arguments.page.write_text(replaced(arguments.page.read_text(), PART, table(rows)))
    print(f"{arguments.page}: {len(rows)} scenarios")


if __name__ == "__main__":
    main()
