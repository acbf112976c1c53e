"""A spec and what it is about -> a `Finding`, the object that ``inspect --at --json`` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otel_goprobe import specs
from otel_goprobe.listing import events, files, functions
from otel_goprobe.listing.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_goprobe.gobinary import GoBinary

KINDS = {
    specs.Functions: "function",
    specs.Symbols: "symbol",
    specs.KernelFunctions: "kernel function",
    specs.Tracepoints: "tracepoint",
    specs.Marks: "mark",
}
"""Kind of spec -> what one match is called."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is looked at besides the kernel; nothing where neither is known."""

    binary: GoBinary | None = None
    pid: int | None = None
    """Of a process: its libraries and its file system are looked at, too."""


def find(spec: specs.Spec, subject: Subject, limit: int) -> dict[str, Any]:
    """Look for what matches.

    Args:
        spec: what.
        subject: where.
        limit: matches that are listed; the others are counted.

    Returns:
        ``at``, the spec; ``kind`` (see `KINDS`); ``count`` of matches; ``found``, those that are listed, objects of
        that kind; ``reason`` why there can't be any, or no probe on them, else empty; ``nearest``, names that it may
        have meant where nothing matches.
    """
    looked = _LOOKERS[type(spec)](spec, subject)
    return {
        "at": str(spec),
        "kind": KINDS[type(spec)],
        "count": len(looked.matching),
        "found": looked.described(looked.matching[:limit]),
        "reason": looked.reason,
        "nearest": [] if looked.matching or looked.reason else nearest(looked.wanted, looked.all_names()),
    }


@dataclass(frozen=True, slots=True)
class _Looked:
    """What one look saw."""

    matching: Sequence[Any]
    described: Callable[[Sequence[Any]], list[dict[str, Any]]]
    wanted: str = ""
    all_names: Callable[[], Sequence[str]] = tuple
    reason: str = ""


def _nothing(_: Sequence[Any]) -> list[dict[str, Any]]:
    return []


def _functions(spec: specs.Functions, subject: Subject) -> _Looked:
    binary = subject.binary
    if binary is None:
        return _Looked(
            (), _nothing, reason="no Go program is named to look for functions in: write its path or its pid"
        )
    return _Looked(
        functions.matching(binary, spec.name),
        lambda names: functions.described(binary, names),
        spec.name.text,
        lambda: functions.all_names(binary),
    )


def _symbols(spec: specs.Symbols, subject: Subject) -> _Looked:
    path = files.opened_as(spec.path, subject.pid)
    found = files.symbols(path)
    reason = files.why_no_return_probe(path, spec.name) if spec.at_return else ""
    matching = [each for each in found if spec.name.matches(each.name)]
    if not found and not reason:
        reason = f"{spec.path} has no symbols" + files.remedy_without_symbols(path)
    return _Looked(
        [] if spec.at_return and reason else matching,
        lambda chosen: files.described_symbols(path, chosen),
        spec.name.text,
        lambda: [each.name for each in found],
        reason,
    )


def _marks(spec: specs.Marks, subject: Subject) -> _Looked:
    if spec.path:
        paths = {spec.path: files.opened_as(spec.path, subject.pid)}
    elif subject.pid:
        paths = files.mapped(subject.pid)
    elif subject.binary:
        paths = {subject.binary.path: subject.binary.path}
    else:
        form = f"usdt:PATH:{spec.provider}:{spec.name}"
        return _Looked((), _nothing, reason=f"no file is named to look for marks in: write {form}, a path or a pid")
    found = [mark for shown, path in paths.items() for mark in files.marks(path, shown)]
    return _Looked(
        [each for each in found if spec.provider.matches(each.provider) and spec.name.matches(each.name)],
        files.described_marks,
        f"{spec.provider}:{spec.name}",
        lambda: [f"{each.provider}:{each.name}" for each in found],
        "" if found else f"no marks in {', '.join(paths)[:200]}",
    )


def _tracepoints(spec: specs.Tracepoints, _: Subject) -> _Looked:
    known, reason = events.tracepoints()
    return _Looked(
        [each for each in known if spec.category.matches(each[0]) and spec.name.matches(each[1])],
        events.described_tracepoints,
        f"{spec.category}:{spec.name}",
        lambda: [":".join(each) for each in known],
        reason,
    )


def _kernel_functions(spec: specs.KernelFunctions, _: Subject) -> _Looked:
    known, reason = events.kernel_functions()
    return _Looked(
        [name for name in known if spec.name.matches(name)],
        lambda names: [{"name": name} for name in names],
        spec.name.text,
        lambda: known,
        reason,
    )


_LOOKERS: dict[type[specs.Spec], Callable[[Any, Subject], _Looked]] = {
    specs.Functions: _functions,
    specs.Symbols: _symbols,
    specs.Marks: _marks,
    specs.Tracepoints: _tracepoints,
    specs.KernelFunctions: _kernel_functions,
}
