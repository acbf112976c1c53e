"""What `make test-versions`, `test-wild` and `test-libraries` saw, a JSON line a row -> parts of docs/compatibility.md.

    PYTHONPATH=tests python tests/e2e/compatibility.py versions ROWS PAGE
    PYTHONPATH=tests python tests/e2e/compatibility.py wild ROWS PAGE
    PYTHONPATH=tests python tests/e2e/compatibility.py libraries ROWS PAGE

The tests add rows where OTEL_GOPROBE_ROWS names a file. A row that is missing is an error: no table is written then.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import libraries
import msgspec
from goprograms import SERVER_PROFILE, go_binary

from otel_goprobe import gobinary, probes
from otel_goprobe.kernel import links
from otel_goprobe.model import Cost

RELEASES = ("1.19", "1.21", "1.22", "1.23", "1.24", "1.25", "1.26", "1.27")
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "-s -w": {"strip": True},
    "PIE -s -w": {"strip": True, "pie": True},
    "cgo, -linkmode=external": {"cgo": True},
}
"""Name -> arguments of `go_binary`; the same as in tests/unit/test_gobinary.py, so that nothing is built twice."""
OTHER_KINDS: dict[str, dict[str, Any]] = {
    "-race": {"race": True},
    "-gcflags=all=-l": {"gcflags": "all=-l"},
    "-gcflags='all=-N -l'": {"gcflags": "all=-N -l"},
    "-pgo": {"pgo": SERVER_PROFILE},
}
"""The same for the machine's own Go."""
NO_SECTIONS = "-s -w, section headers zeroed"
PACKED = "packed"
WILD = ("etcd", "nats-server", "node_exporter")


class Build(msgspec.Struct, frozen=True):
    """One way to build tests/go/http_server."""

    release: str
    """Empty: the machine's own Go."""
    kind: str

    def __str__(self) -> str:
        return f"{self.release or 'own Go'} {self.kind}"

    @property
    def stripped(self) -> bool:
        """Whether it is built without DWARF."""
        return "-s -w" in self.kind

    def executable(self) -> Path:
        """Return the path, building it first where it isn't in the cache."""
        ways = KINDS[self.kind] if self.kind in KINDS else OTHER_KINDS[self.kind]
        return go_binary("http_server", go=self.release, **ways)


BUILDS = (
    *(Build(release, kind) for kind in KINDS for release in RELEASES),
    *(Build("", kind) for kind in OTHER_KINDS),
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of one program."""

    name: str
    """Of the `Build`, or of the program."""
    go: str
    """Such as ``go1.26.8``."""
    requests: int = 0
    right: int = 0
    """Spans that were as the target's own log has the request."""
    attached_by: str = ""
    probes: int = 0
    stepped: int = 0
    """Of these probes, those that the kernel single-steps."""
    fields: int = 0
    """Of the structs that the probes use; on all of them type metadata and DWARF agree. 0: no DWARF."""
    analysis_ms: float = 0.0
    """Opening the executable and deciding on its probes, the least of three."""
    refused: str = ""
    """The sentence, where it isn't traced."""
    more: str = ""
    """For the table of programs: version and size."""
    differences: dict[str, int] = {}
    """Between the agent's spans and official ones: what and how, and how often; see libraries.py."""
    date: str = ""
    kernel: str = ""


def record(row: Row) -> None:
    """Add a row to the file that the environment names, if it does, with date and kernel."""
    path = os.environ.get("OTEL_GOPROBE_ROWS")
    if path:
        today = dt.datetime.now(tz=dt.UTC).date().isoformat()
        line = msgspec.json.encode(
            msgspec.structs.replace(row, date=today, kernel=platform.release().partition("-")[0])
        )
        with Path(path).open("ab") as file:
            file.write(line + b"\n")


def measured(name: str, exe: Path, *, requests: int, right: int, fields: int = 0, more: str = "") -> Row:
    """Return the row of a program that was traced, with what its analysis finds and costs."""
    took = []
    for _ in range(3):
        began = time.perf_counter()
        with gobinary.open_binary(exe) as binary:
            plan = probes.select(binary)
            go = binary.build_info.go_version
        took.append((time.perf_counter() - began) * 1e3)
    sites = [site for probe in plan.probes for site in probe.sites]
    return Row(
        name=name,
        go=go.split()[0],
        requests=requests,
        right=right,
        attached_by="uprobe_multi" if links.has_uprobe_multi() else "perf_event",
        probes=len(sites),
        stepped=sum(site.cost is Cost.STEPPED for site in sites),
        fields=fields,
        analysis_ms=min(took),
        more=more,
    )


def read(path: Path) -> dict[str, Row]:
    """Return the rows by name, the last of each."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return {row.name: row for row in (msgspec.json.decode(line, type=Row) for line in lines)}


VERSIONS = """\
## Versions of Go, and ways to build

Seen {date} on Linux {kernel} by `make test-versions`, which makes this table: a net/http server built in each way,
selected by its pid while it runs. Under each of four arrangements of its routes it gets 23 requests one after another
and 23 at once; a span is right if name, status and all attributes are as the server's own log has the request, and
its times enclose the handler's. Only Go 1.19 doesn't tell which goroutine started another: there, the routes behind
`http.TimeoutHandler` are expected to be missing. Fields are those of the structs that the probes read, where the type
metadata and DWARF were compared, and agree on name, offset and size; a stripped file has no DWARF. The analysis is
the least of three, on two cores that others were using. The last row is of a file
that was packed, and only inspected; a running one is not tried. In that with `-pgo`, the profile has inlined
`finishRequest`, where most requests end, and `serverHandler.ServeHTTP`, where they start.
"""

WILD_TEXT = """\
## Programs that nobody here wrote

Seen {date} on Linux {kernel} by `make test-wild`, which makes this table: built from Go's module proxy with
`-ldflags='-s -w'`, selected by pid, 23 requests at once.
"""

LIBRARIES_TEXT = """\
## Libraries, beside their official instrumentation

Seen {date} on Linux {kernel} by `make test-libraries`, which makes this table: a program with a server and a client of
the library and their official instrumentation compiled in (tests/go/NAME/library.toml), selected by its pid. It makes
its calls one after another; both report them. Compared are name, status, parent and every attribute of every span. A
number stands for a difference, explained below: none is left unexplained, or the test fails.
"""


def versions(rows: dict[str, Row]) -> str:
    """Return the part on versions and ways to build."""
    cells = [["Go", "built", "right spans", "attached by", "probes", "fields that agree", "analysis, ms", "date"]]
    for build in sorted(BUILDS, key=lambda build: (not build.release, build.release)):
        row = rows[str(build)]
        cells.append(_cells(row, build.kind, f"{row.fields}" if row.fields else "stripped"))
    cells.append(_cells(rows[NO_SECTIONS], NO_SECTIONS, "stripped"))
    packed = rows[PACKED]
    cells.append([packed.go.removeprefix("go"), packed.more, f"refused: {packed.refused}", *[""] * 4, packed.date])
    return _part(VERSIONS, cells, rows)


def wild(rows: dict[str, Row]) -> str:
    """Return the part on programs that nobody here wrote."""
    cells = [["program", "Go", "right spans", "attached by", "probes", "analysis, ms", "date"]]
    for name in WILD:
        cell = _cells(rows[name], "", "")
        cells.append([rows[name].more, cell[0], *cell[2:5], *cell[6:]])
    return _part(WILD_TEXT, cells, rows)


def compared_libraries(rows: dict[str, Row]) -> str:
    """Return the part on libraries, with what differs and why."""
    cells = [["library", "version", "Go", "built", "compared with", "spans", "values", "differences", "date"]]
    numbers: dict[tuple[str, str], int] = {}
    for name, library in libraries.declared().items():
        why = libraries.explained(library)
        for declared in libraries.rows(name, library):
            row, version = rows[str(declared)], declared.version
            found = sorted({numbers.setdefault((one, why[one]), len(numbers) + 1) for one in row.differences})
            cells.append(
                [
                    library.library,
                    version.version,
                    row.go,
                    _code(declared.built),
                    version.official or library.official,
                    f"{row.right}/{row.requests}",
                    f"{row.fields}",
                    ", ".join(map(str, found)),
                    row.date,
                ]
            )
    notes = "".join(f"{number}. {what}: {why}.\n" for (what, why), number in numbers.items())
    return f"{_part(LIBRARIES_TEXT, cells, rows)}\n{notes}"


def _code(built: str) -> str:
    return f"`{built}`" if "-" in built else built


def _cells(row: Row, built: str, fields: str) -> list[str]:
    probes = f"{row.probes}, {row.stepped} single-stepped" if row.stepped else f"{row.probes}"
    return [
        row.go.removeprefix("go"),
        _code(built),
        row.refused or f"{row.right}/{row.requests}",
        row.attached_by,
        probes,
        fields,
        f"{row.analysis_ms:.0f}",
        row.date,
    ]


def _part(text: str, cells: list[list[str]], rows: dict[str, Row]) -> str:
    dates, kernels = sorted({row.date for row in rows.values()}), sorted({row.kernel for row in rows.values()})
    lines = [cells[0], ["---"] * len(cells[0]), *cells[1:]]
    table = "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
    return f"{text.format(date=dates[-1], kernel=', '.join(kernels))}\n{table}"


PARTS = {
    "versions": (versions, (*map(str, BUILDS), NO_SECTIONS, PACKED)),
    "wild": (wild, WILD),
    "libraries": (
        compared_libraries,
        tuple(str(row) for name, library in libraries.declared().items() for row in libraries.rows(name, library)),
    ),
}


def replaced(page: str, part: str, text: str) -> str:
    """Return the page with the part between its marks, or added at the end with them."""
    begin, end = f"<!-- {part}:begin -->", f"<!-- {part}:end -->"
    before, found, rest = page.partition(begin)
    after = rest.partition(end)[2] if found else "\n"
    if not found:
        before = f"{page.rstrip()}\n\n"
    return f"{before}{begin}\n{text}{end}{after}"


def main() -> None:
    """Write a part of the page, or say which rows are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("rows", type=Path)
    parser.add_argument("page", type=Path)
    arguments = parser.parse_args()
    rows = read(arguments.rows)
    table, expected = PARTS[arguments.part]
    if missing := [name for name in expected if name not in rows]:
        sys.exit(f"{arguments.rows} lacks {', '.join(missing)}: {arguments.page} is left as it was")
    page = arguments.page.read_text() if arguments.page.exists() else "# Compatibility\n"
    arguments.page.write_text(replaced(page, arguments.part, table(rows)))
    print(f"{arguments.page}: {len(expected)} rows")


if __name__ == "__main__":
    main()
