"""An executable -> what of it is instrumented, by which way, with which values, and why the rest isn't.

`consider` gives every decision with its reasons, for ``otel-goprobe inspect``; `select` what of it the kernel needs.
"""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_goprobe.errors import BinaryError
from otel_goprobe.model import Plan, ProbePlan, Site, Skipped
from otel_goprobe.probes.base import (
    Block,
    Fact,
    Field,
    Hook,
    Itab,
    Library,
    ReadOnly,
    Role,
    StructPresent,
    Type,
    Variable,
    Way,
)
from otel_goprobe.probes.registry import PARENT_FACTS, SHARED_FACTS, TARGET_TRAITS, libraries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from otel_goprobe.gobinary import GoBinary

MISSING = 0xFFFF
"""An offset that the executable doesn't have, as the C code knows it."""


@dataclass(frozen=True, slots=True)
class HookOutcome:
    """What became of one hook."""

    hook: Hook
    way: Way | None
    """None: it can't be placed."""
    sites: tuple[Site, ...]
    rejected: tuple[tuple[Way, str], ...]
    """Ways that come before `way`, and why they can't be gone."""

    @property
    def reason(self) -> str:
        """Why it can't be placed."""
        return "; ".join(dict.fromkeys(reason for _, reason in self.rejected))


@dataclass(frozen=True, slots=True)
class FactOutcome:
    """What became of one fact."""

    fact: Fact
    value: int
    """Offset in bytes, address before load bias, or 0 and 1; `MISSING` for an offset that isn't there."""
    source: str
    """``types``, ``dwarf+types``, ``itabs``, ``segments``; empty where nothing was found."""
    reason: str = ""
    """Why nothing was found."""

    @property
    def lost(self) -> bool:
        """Whether the library can't do without it."""
        return bool(self.reason) and isinstance(self.fact, Itab | Field) and self.fact.required


@dataclass(frozen=True, slots=True)
class LibraryOutcome:
    """What of one library is instrumented."""

    library: Library
    hooks: tuple[HookOutcome, ...]
    facts: tuple[FactOutcome, ...]
    untraceable: str = ""
    """Why nothing at all may be attached to the executable."""

    @property
    def refused(self) -> str:
        """Why nothing of the library is instrumented; empty where it is."""
        if self.untraceable:
            return self.untraceable
        reasons = [one.reason for one in self.hooks if one.way is None and one.hook.role is not Role.DETAIL]
        reasons += [one.reason for one in self.facts if one.lost]
        return "; ".join(dict.fromkeys(reasons))


def consider(binary: GoBinary) -> tuple[LibraryOutcome, ...]:
    """Decide on every library that is known, with all reasons."""
    shared = tuple(_learn(binary, fact) for fact in SHARED_FACTS)
    of_parents = functools.cache(lambda: tuple(_learn(binary, fact) for fact in PARENT_FACTS))
    return tuple(
        LibraryOutcome(
            library,
            tuple(_place(binary, hook) for hook in library.hooks if hook.wanted(binary)),
            (
                *_not_in((*shared, *(of_parents() if library.finds_parents else ())), library),
                *(_learn(binary, fact) for fact in library.facts),
            ),
            _untraceable(binary),
        )
        for library in libraries()
        if library.wanted(binary)
    )


def _not_in(shared: Iterable[FactOutcome], library: Library) -> Iterator[FactOutcome]:
    """Leave out what the library asks for itself, to say what is lost without it."""
    own = {fact.member for fact in library.facts}
    return (one for one in shared if one.fact.member not in own)


def _untraceable(binary: GoBinary) -> str:
    here = platform.machine()
    return binary.untraceable or (
        "" if binary.machine == here else f"it is for {binary.machine}, this machine is {here}"
    )


def select(binary: GoBinary) -> Plan:
    """Decide what of an executable is instrumented, with the reason for everything that isn't."""
    return plan_of(consider(binary))


def plan_of(outcomes: tuple[LibraryOutcome, ...]) -> Plan:
    """Return what is to be attached: ends before starts."""
    chosen = [one for one in outcomes if not one.refused]
    hooks = [(hook, one.library) for one in chosen for hook in one.hooks if hook.way is not None]
    values = {fact.fact.member: fact.value for one in chosen for fact in one.facts}
    values["traits"] = sum(
        1 << i for i, name in enumerate(TARGET_TRAITS) if any(getattr(o.library, name) for o in chosen)
    )
    values |= {hook.hook.address: hook.sites[0].address for hook, _ in hooks if hook.hook.address}
    probes = [
        ProbePlan(hook.way.program, library.label, hook.sites, hook.hook.option, hook.hook.unless)
        for hook, library in sorted(hooks, key=lambda pair: pair[0].hook.role)
        if hook.way
    ]
    return Plan(
        # A program that several libraries want at a place runs there once.
        probes=tuple({(probe.program, probe.sites): probe for probe in reversed(probes)}.values())[::-1],
        values=values,
        skipped=tuple(skip for one in outcomes for skip in _skipped(one)),
    )


def select_hooks(binary: GoBinary, label: str, hooks: Iterable[Hook], facts: Iterable[Fact]) -> Plan:
    """Decide where a tool's hooks go; one that can't be placed is left out, a fact that isn't there is missing.

    Args:
        binary: the executable.
        label: what the tool is called.
        hooks: attached ends before starts.
        facts: `Plan.values` has them all.
    """
    reason = _untraceable(binary)
    placed = [_place(binary, hook) for hook in sorted(hooks, key=lambda hook: hook.role) if hook.wanted(binary)]
    learnt = [_learn(binary, fact) for fact in facts]
    found = [] if reason else [one for one in placed if one.way]
    values = {one.fact.member: one.value for one in learnt}
    values |= {one.hook.address: one.sites[0].address for one in found if one.hook.address}
    return Plan(
        probes=tuple(ProbePlan(one.way.program, label, one.sites) for one in found if one.way),
        values=values,
        skipped=tuple(Skipped(f"{label}: {one.hook.lost}", reason or one.reason) for one in placed if one not in found),
    )


def _skipped(outcome: LibraryOutcome) -> Iterator[Skipped]:
    path = outcome.library.label
    if outcome.refused:
        yield Skipped(path, outcome.refused)
        return
    for hook in outcome.hooks:
        if hook.way is None:
            yield Skipped(f"{path}: {hook.hook.lost}", hook.reason, hook.hook.option)
    for fact in outcome.facts:
        if fact.reason and isinstance(fact.fact, (Field, Type, Variable)) and fact.fact.lost:
            yield Skipped(f"{path}: {fact.fact.lost}", fact.reason)


def _place(binary: GoBinary, hook: Hook) -> HookOutcome:
    rejected: list[tuple[Way, str]] = []
    for way in hook.ways:
        try:
            sites = way.place.sites(binary)
        except BinaryError as error:
            rejected.append((way, error.message))
            continue
        if hook.address and len(sites) > 1:
            rejected.append((way, f"{len(sites)} places, where the load bias is told by one"))
            continue
        return HookOutcome(hook, way, sites, tuple(rejected))
    return HookOutcome(hook, None, (), tuple(rejected))


def _learn(binary: GoBinary, fact: Fact) -> FactOutcome:
    nothing = MISSING if isinstance(fact, (Field, Block)) else 0
    try:
        found = _value(binary, fact)
    except BinaryError as error:
        return FactOutcome(fact, nothing, "", error.message)
    if found is None:
        return FactOutcome(fact, nothing, "", f"{'the ' if not isinstance(fact, Field) else ''}{fact.of} wasn't found")
    return FactOutcome(fact, *found)


def _value(binary: GoBinary, fact: Fact) -> tuple[int, str] | None:
    """The fact's value and where it is from; None where there is none."""
    if isinstance(fact, StructPresent):
        return int(binary.struct(fact.struct) is not None), "types"
    if isinstance(fact, Field):
        structs = (fact.struct, *fact.instead)
        offset = next(filter(None, (binary.field(struct, fact.field) for struct in structs)), None)
        return None if offset is None else (offset.offset, offset.source)
    if isinstance(fact, Block):
        return _block(binary, fact)
    if isinstance(fact, ReadOnly):
        return binary.read_only_end, "segments"
    if isinstance(fact, Type):
        address, source = binary.type_address(fact.name), "types"
    elif isinstance(fact, Itab):
        address, source = binary.itab(fact.concrete, fact.interface), "itabs"
    else:
        address, source = binary.variable(fact.name), "code" if binary.stripped else "symbols"
    return None if address is None else (address, source)


def _block(binary: GoBinary, fact: Block) -> tuple[int, str] | None:
    found = [offset for offset in (binary.field(fact.struct, field) for field in fact.fields) if offset]
    start = fact.start([offset.offset for offset in found]) if len(found) == len(fact.fields) else None
    return None if start is None else (start, found[0].source)
