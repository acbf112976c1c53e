"""A Go process and the user's rules -> whether to instrument it, and by which name; pure, called by watch.py.

Left alone unless named are the receiver of our own spans, known telemetry and node components (components.toml), and
programs that export spans themselves. What counts as naming:

                                                 receiver, component   exporting SDK
    --pid, and the command of `run -- CMD`       traced                traced
    --port, --exe without a wildcard in the
    last element (``/srv/*/shop``)               traced                left alone without ``--sdk trace``
    --exe '/srv/*', --all, or no selector        left alone            left alone without ``--sdk trace``

An exporting SDK is a matter of its own because tracing it tells every request twice, which a path or port that happens
to match hasn't asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from otel_goprobe.discovery.components import component_of, trace_exporter_of
from otel_goprobe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_goprobe.config import Selection, Selector, ServiceRule
    from otel_goprobe.model import GoProcess

_MAX_LISTED: Final = 20
"""Executables named in an error message."""
_WILDCARD: Final = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with a process that the user's rules cover."""

    named: bool
    """By its pid, or as the command after ``--``."""
    service: str = ""
    """The name a flag gave it; empty for none."""
    left_alone: str = ""
    """Why it isn't instrumented; empty where it is."""
    remedy: str = ""

    @property
    def taken(self) -> bool:
        """Whether it is to be instrumented."""
        return not self.left_alone


def matches(process: GoProcess, selector: Selector) -> bool:
    """Whether one selector holds. A glob without a slash is compared with the file's name alone."""
    match selector.kind:
        case "pid":
            return int(selector.value) == process.pid
        case "port":
            return int(selector.value) in process.ports
        case "exe":
            compared = process.exe if "/" in selector.value else PurePosixPath(process.exe).name
            return fnmatchcase(compared, selector.value)


def judge(process: GoProcess, selection: Selection, *, command: bool = False, receiver: bool = False) -> Verdict | None:
    """Say what the rules want with a process; the first rule that matches counts.

    Args:
        process: any Go process.
        selection: the user's rules; without any, every process is covered (and `only_executable` chooses).
        command: it is the command after ``--``.
        receiver: our own spans are sent to it.

    Returns:
        None for a process that no rule covers.
    """
    rule = next((rule for rule in selection.rules if all(matches(process, each) for each in rule.selectors)), None)
    if rule is None and not command and selection.rules and not selection.every:
        return None
    service = (rule.service if rule else "") or selection.service
    by_pid = command or _names_by(rule, "pid")
    by_program = by_pid or _names_by(rule, "port") or _names_by(rule, "exe")
    left_alone, remedy = _why_left_alone(process, selection, by_pid=by_pid, by_program=by_program, receiver=receiver)
    return Verdict(by_pid, service, left_alone, remedy)


def _names_by(rule: ServiceRule | None, kind: str) -> bool:
    selectors = [each for each in rule.selectors if each.kind == kind] if rule else []
    return any(kind != "exe" or not _WILDCARD.search(PurePosixPath(each.value).name) for each in selectors)


def _why_left_alone(
    process: GoProcess, selection: Selection, *, by_pid: bool, by_program: bool, receiver: bool
) -> tuple[str, str]:
    """Reason and remedy; both empty for a process that is to be instrumented."""
    if process.unsupported:
        return process.unsupported, ""
    if not by_program:
        remedy = f"name it with --pid {process.pid} to trace it all the same"
        if receiver:
            return "it receives our own spans", remedy
        if component := component_of(process.build):
            return f"it is {component}", remedy
    if selection.sdk == "skip" and not by_pid and (exporter := trace_exporter_of(process.build)):
        return f"it exports spans of its own ({exporter})", "trace it all the same with --sdk trace"
    return "", ""


def program(process: GoProcess) -> tuple[str, str]:
    """What tells one executable from another, over restarts, deployments and containers: its path and main package."""
    return process.exe, process.build.path


def only_executable(processes: Sequence[GoProcess]) -> tuple[str, str] | None:
    """Choose when the user has named nothing: the one executable in sight.

    Args:
        processes: those that `judge` takes.

    Returns:
        Its `program`; None if there is no process.

    Raises:
        UsageError: several executables are running; they are listed.
    """
    programs: dict[tuple[str, str], list[GoProcess]] = {}
    for process in processes:
        programs.setdefault(program(process), []).append(process)
    if len(programs) <= 1:
        return next(iter(programs), None)
    lines = [_line(each) for each in programs.values()]
    if len(lines) > _MAX_LISTED:
        lines[_MAX_LISTED:] = [f"… and {len(lines) - _MAX_LISTED} more"]
    example = next(iter(programs.values()))[0]
    listing = "".join(f"\n  {line}" for line in lines)
    raise UsageError(
        f"{len(programs)} Go programs are running and nothing says which one to trace{listing}",
        f"choose with --pid {example.pid}, --exe '{example.exe}' or --port PORT, or take all with --all",
    )


def _line(processes: Sequence[GoProcess]) -> str:
    ports = sorted({port for process in processes for port in process.ports})
    listens = f"  listens on {_numbers(ports)}" if ports else ""
    build = processes[0].build
    module = build.main.path if build.main else build.path
    return f"{processes[0].exe}  ({module})  pid {_numbers(process.pid for process in processes)}{listens}"


def _numbers(numbers: Iterable[int]) -> str:
    listed = sorted(numbers)
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(map(str, listed[:5])) + more


def program_name(process: GoProcess) -> str:
    """Name a service that nobody named: by its main package, its module, else its executable.

    ``example.com/shop/cmd/cart`` is ``cart``, as ``go install`` calls it; ``example.com/shop/v2`` and
    ``example.com/shop/cmd`` are ``shop``.
    """
    build = process.build
    package = _last_element(build.path)
    module = _last_element(build.main.path if build.main else "")
    return next((name for name in (package, module) if name not in _SAYING_NOTHING), PurePosixPath(process.exe).name)


_SAYING_NOTHING = frozenset({"", "cmd", "main", "command-line-arguments"})
"""Names of main packages; the last one is Go's for ``go build file.go``."""


def _last_element(import_path: str) -> str:
    """Return the last element of an import path, major version aside."""
    elements = import_path.split("/")
    if len(elements) > 1 and re.fullmatch(r"v[2-9]|v[1-9][0-9]+", elements[-1]):
        elements.pop()
    return re.sub(r"\.v[0-9]+$", "", elements[-1])  # gopkg.in/yaml.v3
