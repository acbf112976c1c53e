"""`otel-goprobe inspect`: what it says of a program, of a process, of functions and structs; its JSON."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import goprograms
import pytest

from otel_goprobe import cli, gobinary, kernel

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


def found(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what its one spec found."""
    (finding,) = report["at"]
    matches: list[dict[str, Any]] = finding["found"]
    return matches


def test_functions_with_what_they_take(capsys: pytest.CaptureFixture[str]) -> None:
    """By spec, with places of arguments and results, and where they are in the source."""
    program = goprograms.go_binary("signatures")
    report = inspected(capsys, program, "--at", "main.pair.*")
    assert set(report) == KEYS | {"at"}
    (value,) = found(report)
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
    assert cli.main(["inspect", str(program), "--at", "main.many"]) == 0
    assert "main.many(a int: ax, b int: bx," in capsys.readouterr().out


def source_line(program: str, start: str) -> int:
    """Return the number of the line of tests/go that begins with `start`."""
    lines = (goprograms.TESTS / "go" / program / "main.go").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.startswith(start))


def test_all_functions_of_a_stripped_program(minimal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each has places for probes, or a reason why not; so many of them aren't looked for in one another."""
    (finding,) = inspected(capsys, minimal, "--at", "*", "--limit", "100000")["at"]
    assert finding["count"] == len({function["name"] for function in finding["found"]}) > 1000
    for function in finding["found"]:
        assert function["reason"]
        assert (function["cost"] is None) is (function["file_offset"] is None)
        assert bool(function["ends"]) is not bool(function["end_reason"])
        assert function["inlined_into"] is function["arguments"] is None
    assert sum(function["cost"] == "emulated" for function in finding["found"]) > 1000
    assert cli.main(["inspect", str(minimal), "--at", "*", "--limit", "7"]) == 0
    output = capsys.readouterr().out
    assert f"\ngo:*: {finding['count']} functions\n" in output
    assert output.count("\n") < 30
    assert f"  {finding['count'] - 7} more: --limit {finding['count']} lists all\n" in output


def test_methods_generics_closures_and_what_is_inlined(server_plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each by the names that Go gives them; what has no code of its own is in the functions that hold it."""
    program = goprograms.go_binary("signatures")
    instances = found(inspected(capsys, program, "--at", "main.generic[go.shape.*]"))
    assert [each["name"] for each in instances] == [f"main.generic[go.shape.{kind}]" for kind in ("int", "string")]
    report = inspected(capsys, server_plain, "--at", "net/http.(*conn).serve*", "--at", "strings.HasPrefix")
    methods, inlined = report["at"]
    names = [function["name"] for function in methods["found"]]
    assert names[0] == "net/http.(*conn).serve"
    assert "net/http.(*conn).serve.func1" in names
    assert methods["found"][0]["cost"] == "emulated"
    assert methods["found"][0]["ends"]
    (only,) = inlined["found"]
    assert only["entry"] is None
    assert only["reason"] == "only inlined: there is no code of its own"
    with gobinary.open_binary(server_plain) as binary:
        holders = binary.inlined(["strings.HasPrefix"])["strings.HasPrefix"]
        assert not binary.bodies(["strings.HasPrefix"])
    assert {holder.partition(" (")[0] for holder in only["inlined_into"]} == holders
    assert all(holder.endswith(")") and ".go:" in holder for holder in only["inlined_into"])


def test_what_finds_nothing(server_plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names that were meant, a reason, or a mistake in the spec with its column."""
    specs = ["net/http.conn.serve", f"uretprobe:{server_plain}:main.*"]
    nearest, refused = inspected(capsys, server_plain, *(word for spec in specs for word in ("--at", spec)))["at"]
    assert (nearest["count"], nearest["nearest"][0]) == (0, "net/http.(*conn).serve")
    assert (refused["count"], refused["nearest"]) == (0, [])
    assert "is Go code, on which a uretprobe is refused" in refused["reason"]
    assert cli.main(["inspect", str(server_plain), "--at", "uprobe:/bin/sh"]) == 2
    assert "column 15: 1 more part must follow" in capsys.readouterr().err
    assert cli.main(["inspect", "--at", "main.*"]) == 0
    assert "no Go program is named" in capsys.readouterr().out
    assert cli.main(["inspect"]) == 2
    assert cli.main(["inspect", "--at", "uprobe:/no/such:x"]) == 2


def test_symbols_and_marks_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """As readelf lists them."""
    library = next(path for path in Path("/lib/x86_64-linux-gnu").glob("libstdc++.so.6*"))
    symbols, marks = inspected(capsys, "--at", f"uprobe:{library}:__cxa_thr*", "--at", f"usdt:{library}:libstdcxx:*")[
        "at"
    ]
    listed = readelf("--dyn-syms", "-W", library)
    (throw,) = (line.split() for line in listed if re.search(r" FUNC .* __cxa_throw@@", line))
    (found_throw,) = (one for one in symbols["found"] if one["name"] == "__cxa_throw")
    assert (found_throw["address"], found_throw["size"]) == (int(throw[1], 16), int(throw[2]))
    places = re.findall(r"Name: (\w+)\s+Location: (0x\w+)", "\n".join(readelf("-n", library)))
    assert [(one["name"], one["address"]) for one in marks["found"]] == [(name, int(at, 16)) for name, at in places]
    assert marks["found"][0]["arguments"][0]["size"] == 8


def readelf(*arguments: object) -> list[str]:
    """Return its lines."""
    done = subprocess.run(["readelf", *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.root
def test_tracepoints(capsys: pytest.CaptureFixture[str]) -> None:
    """With their own fields, out of a tracefs that is mounted nowhere; kprobes, where the kernel has them."""
    mounts = Path("/proc/self/mountinfo").read_text()
    opened, none, kprobe = inspected(
        capsys, "--at", "tracepoint:sched:sched_process_exec", "--at", "tracepoint:schd:x", "--at", "kprobe:tcp_connect"
    )["at"]
    (exec_,) = opened["found"]
    assert [field["name"] for field in exec_["fields"]][1:] == ["pid", "old_pid"]
    assert {field["type"] for field in exec_["fields"][1:]} == {"pid_t"}
    assert none["nearest"][0].startswith("sched:")
    assert bool(kprobe["reason"]) is not kernel.has_kprobes()
    assert Path("/proc/self/mountinfo").read_text() == mounts


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


def test_a_program_of_another_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """Is shown with its own sites, and why nothing can be attached."""
    server = goprograms.go_binary("profile", strip=True, goarch="arm64")
    report = inspected(capsys, server, "--at", "runtime.gopanic")
    (library,) = (one for one in report["libraries"] if one["library"] == "net/http")
    assert not library["instrumented"]
    assert library["reason"] == "it is for aarch64, this machine is x86_64"
    (function,) = found(report)
    assert function["cost"] == "emulated"
