"""`otel-goprobe inspect`: what it says of a program, of a process, of functions and structs; its JSON."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import goprograms

from otel_goprobe import cli, gobinary

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

KEYS = {
    *("format", "path", "pid", "exe", "go_version", "package", "module", "dependencies", "settings", "build_id"),
    *("machine", "pie", "stripped", "dwarf", "libraries", "propagation", "structs", "milliseconds"),
}


def inspected(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """Return what it says as JSON."""
    assert cli.main(["inspect", *map(str, arguments), "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_the_json_of_a_program(server_plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its keys are promised; what they hold is what gobinary says."""
    report = inspected(capsys, server_plain)
    assert set(report) == KEYS
    assert report["format"] == 1
    assert (report["path"], report["pid"], report["exe"]) == (str(server_plain), None, None)
    (library,) = (one for one in report["libraries"] if one["library"] == "net/http")
    assert set(library) == {"library", "instrumented", "reason", "probes", "values"}
    assert library["instrumented"]
    assert {one["role"] for one in library["probes"]} == {"start", "end", "detail"}
    with gobinary.open_binary(server_plain) as binary:
        serve = binary.functions(["net/http.serverHandler.ServeHTTP"])["net/http.serverHandler.ServeHTTP"]
        expected = binary.start_site(serve)
        line = binary.line(expected.address)
    assert line is not None
    (start,) = (one for one in library["probes"] if one["role"] == "start")
    assert start["sites"] == [
        {
            "function": serve.name,
            "address": expected.address,
            "file_offset": expected.file_offset,
            "bytes": expected.expected.hex(),
            "cost": "emulated",
            "reason": expected.reason,
            "line": f"{line.file}:{line.line}",
        }
    ]
    assert all({"name", "of", "value", "source", "reason"} == set(value) for value in library["values"])
    assert {value["source"] for value in library["values"]} <= {"dwarf+types", "types", "itabs", "segments", ""}


def test_a_process_is_inspected_by_its_executable(server_plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its number, and its path as it sees it."""
    with subprocess.Popen([server_plain, "-quiet"], stdout=subprocess.DEVNULL) as process:
        try:
            report = inspected(capsys, process.pid)
            assert cli.main(["inspect", str(process.pid)]) == 0
        finally:
            process.kill()
    assert (report["path"], report["pid"]) == (f"/proc/{process.pid}/exe", process.pid)
    assert report["exe"] == str(server_plain)
    assert capsys.readouterr().out.startswith(f"{server_plain}: go1.")


def test_no_such_process(capsys: pytest.CaptureFixture[str]) -> None:
    """Is another thing than no such file."""
    assert cli.main(["inspect", "4194305"]) == 3  # beyond the kernel's largest number
    assert capsys.readouterr().err.startswith("error: there is no process 4194305\n  ")
    assert cli.main(["inspect", "/no/such/file"]) == 3
    assert "can't be opened" in capsys.readouterr().err


def test_functions_with_what_they_take(capsys: pytest.CaptureFixture[str]) -> None:
    """By glob, with places of arguments and results, and where they are in the source."""
    program = goprograms.go_binary("signatures")
    report = inspected(capsys, program, "--functions", "main.pair.*")
    (value,) = report["functions"]
    assert value["name"] == "main.pair.value"
    assert [(one["name"], one["location"]) for one in value["arguments"]] == [
        ("p", "ax bx"),
        ("m", "cx di si r8 f1 f2 f3"),
        ("x", "stack+0"),
        ("y", "r9 r10 r11"),
    ]
    assert [one["location"] for one in value["results"]] == ["ax bx", "cx", "f1"]
    assert value["line"].rpartition("/")[2] == f"main.go:{source_line('signatures', 'func (p pair) value')}"
    assert value["inlined_into"] == []
    assert cli.main(["inspect", str(program), "--functions", "main.many"]) == 0
    assert "main.many(a int: ax, b int: bx," in capsys.readouterr().out


def source_line(program: str, start: str) -> int:
    """Return the number of the line of tests/go that begins with `start`."""
    lines = (goprograms.TESTS / "go" / program / "main.go").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.startswith(start))


def test_all_functions_of_a_stripped_program(minimal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each has a place for a probe, or a reason why not; so many of them aren't looked for in one another."""
    report = inspected(capsys, minimal, "--functions", "*")
    assert len(report["functions"]) > 1000
    for function in report["functions"]:
        assert function["reason"]
        assert (function["cost"] is None) is (function["file_offset"] is None)
        assert function["inlined_into"] is function["arguments"] is None
    assert sum(function["cost"] == "emulated" for function in report["functions"]) > 1000
    assert cli.main(["inspect", str(minimal), "--functions", "nothing.*"]) == 0
    assert "0 functions match" in capsys.readouterr().out


def test_structs(server_plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that is there, one that isn't."""
    report = inspected(capsys, server_plain, "--struct", "net/http.Request", "--struct", "http.Request")
    there, absent = report["structs"]
    assert there["fields"][0] == {
        "name": "Method",
        "offset": 0,
        "size": 16,
        "type": "string",
        "source": "dwarf+types",
    }
    assert absent["reason"].startswith("no such type in the program")
    assert cli.main(["inspect", str(server_plain), "--struct", "net/http.Request"]) == 0
    assert "net/http.Request, " in capsys.readouterr().out


def test_a_program_of_another_machine(minimal_arm64: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Is shown with its own sites, and why nothing can be attached."""
    report = inspected(capsys, minimal_arm64, "--functions", "runtime.gopanic")
    (library,) = (one for one in report["libraries"] if one["library"] == "net/http")
    assert not library["instrumented"]
    assert library["reason"] == "it is for aarch64, this machine is x86_64"
    (function,) = report["functions"]
    assert function["cost"] == "emulated"
