"""``--service``, ``--pid``, ``--exe``, ``--port``, ``--all`` -> a `Selection`; called by config.py."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from otel_goprobe.errors import UsageError

SelectorKind = Literal["pid", "exe", "port"]
SdkPolicy = Literal["skip", "trace"]

_SERVICE_REMEDY: Final = "write --service NAME, or --service NAME=pid:N, NAME=exe:GLOB or NAME=port:N"
_MAX_PID: Final = 2**22
"""PID_MAX_LIMIT of a 64-bit kernel (include/linux/threads.h)."""


@dataclass(frozen=True, slots=True)
class Selector:
    """One way to name processes."""

    kind: SelectorKind
    value: str
    """Decimal for pid and port. For exe a glob: over the whole path, or without a slash over the file's name."""


@dataclass(frozen=True, slots=True)
class ServiceRule:
    """Processes that match every selector get `service` as their name."""

    selectors: tuple[Selector, ...]
    service: str = ""
    """Empty: the target's own environment, then its main module."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which processes are to be instrumented: those that match any rule."""

    rules: tuple[ServiceRule, ...] = ()
    every: bool = False
    """--all."""
    service: str = ""
    """--service NAME without a selector of its own."""
    sdk: SdkPolicy = "skip"
    """What to do with programs that carry an exporting OpenTelemetry SDK."""

    @property
    def only_pids(self) -> bool:
        """Whether every rule names a process by its pid, so that nothing that starts later can match."""
        by_pid = (any(each.kind == "pid" for each in rule.selectors) for rule in self.rules)
        return bool(self.rules) and not self.every and all(by_pid)


def selection_from_flags(
    *,
    services: tuple[str, ...],
    pids: tuple[int, ...],
    exes: tuple[str, ...],
    ports: tuple[int, ...],
    every: bool,
    sdk: SdkPolicy,
    launches: bool,
) -> Selection:
    """Make the rules.

    Each --pid is a rule of its own; --exe and --port together must both match. They, and the command after ``--`` if
    the agent `launches` one, are called by the one --service that has no selector.

    Raises:
        UsageError: a value is malformed, or the flags contradict each other.
    """
    plain = [value.strip() for value in services if "=" not in value]
    named = tuple(_named_rule(value) for value in services if "=" in value)
    service = plain[0] if plain else ""
    if plain and not service:
        raise UsageError("--service is empty", _SERVICE_REMEDY)
    if len(plain) > 1:
        remedy = f"give each its own selector, such as --service {plain[0]}=pid:N --service {plain[1]}=port:N"
        raise UsageError(f"--service is given twice without a selector: {', '.join(plain)}", remedy)
    given = [flag for flag, values in (("--pid", pids), ("--exe", exes), ("--port", ports)) if values]
    if launches:
        others = given + ["--all"] * every + [f"--service {value}" for value in services if "=" in value]
        if others:
            remedy = "leave it out, or attach to what runs with an agent of its own"
            raise UsageError(f"{others[0]} stands beside a command after --, which is then the only target", remedy)
        return Selection(service=service, sdk=sdk)
    if every and given:
        raise UsageError(
            f"--all takes every Go process, so {given[0]} can't narrow it", f"leave out --all or {given[0]}"
        )
    if every and service:
        remedy = f"give the name a selector, such as --service {service}=exe:'*/{service}', or leave out --all"
        raise UsageError(f"--all with --service {service} would give every process one name", remedy)
    if pids and (exes or ports):
        remedy = f"to take both, write --service NAME=pid:{pids[0]} beside {given[1]}"
        raise UsageError(f"--pid already names the process, so {given[1]} can't narrow it", remedy)
    if service and named and not given:
        raise UsageError(f"--service {service} has no selector, but others have", f"write --service {service}=pid:N")
    rules = [ServiceRule((_selector("pid", str(pid), "--pid"),), service) for pid in dict.fromkeys(pids)]
    if exes or ports:
        exe_selectors = [[_selector("exe", exe, "--exe")] for exe in exes] or [[]]
        port_selectors = [[_selector("port", str(port), "--port")] for port in ports] or [[]]
        pairs = itertools.product(exe_selectors, port_selectors)
        rules += [ServiceRule((*by_exe, *by_port), service) for by_exe, by_port in pairs]
    return Selection(rules=(*rules, *named), every=every, service=service, sdk=sdk)


def _named_rule(text: str) -> ServiceRule:
    name, _, rest = (part.strip() for part in text.partition("="))
    kind, separator, value = rest.partition(":")
    if not name or not separator or kind not in get_args(SelectorKind):
        raise UsageError(f"--service {text} has no selector that is known", _SERVICE_REMEDY)
    return ServiceRule((_selector(cast("SelectorKind", kind), value, f"--service {text}"),), name)


def _selector(kind: SelectorKind, value: str, source: str) -> Selector:
    if kind == "exe":
        return Selector(kind, _exe_glob(value, source))
    highest = _MAX_PID if kind == "pid" else 0xFFFF
    if not re.fullmatch(r"[0-9]{1,10}", value) or not 1 <= int(value) <= highest:
        raise UsageError(f"{source}: {value!r} is no {kind}", f"a {kind} is a number from 1 to {highest}")
    return Selector(kind, str(int(value)))


def _exe_glob(glob: str, source: str) -> str:
    """``bin/shop`` matches in any directory, ``./shop`` in the present one; a name without a slash stays as it is."""
    if not glob.strip():
        raise UsageError(f"{source}: the glob is empty", "write a path or a glob, such as '/srv/*/shop' or '*/shop'")
    if glob.startswith(("./", "../")):
        return os.path.abspath(glob)  # noqa: PTH100 - Path.resolve would follow links, and a glob is no path
    return f"*/{glob}" if "/" in glob and not glob.startswith(("/", "*")) else glob
