"""All declarations -> the C unit of the uprobe programs, and the numbers that C and Python share.

Called by agent.py and instrumented.py. A library is found by its module being here: no list names it.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

from otel_goprobe.model import Unit, UnitProgram
from otel_goprobe.probes.base import Fact, Field, Itab, Library, ReadOnly, StructPresent

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_SLOTS = 1024
"""Targets at once; an element of the BPF array `targets` each."""
COUNTERS = ("started", "sampled_out", "in_flight_full", "ring_full", "abandoned")
"""Counters of every library. All but the first count spans that were dropped."""
DROPS = COUNTERS[1:]
OBSERVATIONS = ("metric_overflow",)
"""Counters of every library that count no spans."""
MAX_SERIES = 4096
"""Series of durations, over all targets (the agent sets its own), and series without routes for what comes behind."""
SAMPLING_U64 = ("sampling_bound", "sampling_slow_ns")
SAMPLING_U32 = ("sampling_parents", "sampling_late")
"""Members of ``struct target`` that bpf/include/sampling.h decides by; `otel_goprobe.sampling` makes the numbers."""
ID_SEEDS = ("id_seed_high", "id_seed_low")
"""Random 64-bit members of ``struct target``, from which bpf/include/ids.h makes ids."""
SHARED_FACTS: tuple[Fact, ...] = (
    Field("g_goid", "runtime.g", "goid", required=True),
    Field("g_parent_goid", "runtime.g", "parentGoid", lost="http.route behind an http.TimeoutHandler"),
    StructPresent("swiss_maps", "internal/runtime/maps.Map"),
    ReadOnly("read_only_end"),
)
"""What bpf/include/go.h asks for. Source of the names: src/runtime/runtime2.go, src/internal/runtime/maps/map.go."""


@functools.cache
def libraries() -> tuple[Library, ...]:
    """Return every declaration of this package, in the order of their stems."""
    package = importlib.import_module("otel_goprobe.probes")
    modules = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
    found = (getattr(importlib.import_module(f"otel_goprobe.probes.{name}"), "LIBRARY", None) for name in modules)
    return tuple(library for library in found if library is not None)


@functools.cache
def counters() -> tuple[str, ...]:
    """Return the names of all counters; their order is that of the C enum."""
    return COUNTERS + observations()


def observations() -> tuple[str, ...]:
    """Return the names of the libraries' own counters, which are no drops."""
    return (*OBSERVATIONS, *(name for library in libraries() for name in library.counters))


@functools.cache
def options() -> tuple[str, ...]:
    """Return the names of all options; bit n of ``target.options`` is the nth."""
    return tuple(dict.fromkeys(("red", *(name for library in libraries() for name in library.options))))


@functools.cache
def kinds() -> dict[int, Library]:
    """Return the libraries by the number that their records carry."""
    return dict(enumerate(libraries(), start=1))


def _members() -> Iterable[tuple[str, str]]:
    """Members of ``struct target`` with their C type, largest first so that nothing is padded."""
    facts = [*SHARED_FACTS, *(fact for library in libraries() for fact in library.facts)]
    addresses = [hook.address for library in libraries() for hook in library.hooks if hook.address]
    words = (fact.member for fact in facts if isinstance(fact, (Itab, ReadOnly)))
    for name in (*addresses, *words, *SAMPLING_U64, *ID_SEEDS):
        yield name, "u64"
    for name in ("active", "tgid", "options", "generation", "kept_in_flight", *SAMPLING_U32):
        yield name, "u32"
    for fact in facts:
        if not isinstance(fact, (Itab, ReadOnly)):
            yield fact.member, "u16"


def header() -> str:
    """Return the generated C: ids, limits and ``struct target``, so that no list stands twice."""
    members = list(_members())
    shorts = sum(kind == "u16" for _, kind in members)
    lines = [
        f"#define MAX_SLOTS {MAX_SLOTS}",
        f"#define COUNTERS {len(counters())}",
        *(f"#define COUNTER_{name} {i}" for i, name in enumerate(counters())),
        *(f"#define OPTION_{name} {1 << i}" for i, name in enumerate(options())),
        *(f"#define KIND_{library.stem} {kind}" for kind, library in kinds().items()),
        f"#define KINDS {len(kinds()) + 1}",
        f"#define RED_MAX_SERIES {MAX_SERIES}",
        f"#define RED_BUCKETS {max(len(library.duration.bounds_s) for library in libraries()) + 1}",
        *(_bucket_macro(library) for library in libraries()),
        *(f"#define {name} ({value})" for library in libraries() for name, value in library.macros),
        "struct target {",
        *(f"\t{kind} {name};" for name, kind in members),
        *([f"\tu16 padding[{-shorts % 4}];"] if shorts % 4 else []),
        "};",
    ]
    return "\n".join(lines) + "\n"


def _bucket_macro(library: Library) -> str:
    """Return the index of the bucket that a duration falls into: OTLP's bounds are inclusive upper ones."""
    terms = " + ".join(f"((ns) > {round(bound * 1e9)}ULL)" for bound in library.duration.bounds_s)
    return f"#define RED_BUCKET_{library.stem}(ns) ({terms})"


def unit(sources: Path) -> Unit:
    """Return the unit of all uprobe programs.

    Args:
        sources: the folder ``bpf/`` of this installation.
    """
    programs = {way.program for library in libraries() for hook in library.hooks for way in hook.ways}
    return Unit(
        name="core",
        header=header(),
        sources=(
            sources / "include/trace.h",
            sources / "include/ids.h",
            sources / "include/sampling.h",
            sources / "include/go.h",
            sources / "include/span.h",
            sources / "include/red.h",
            sources / "process.bpf.c",
            *(sources / "probes" / name for library in libraries() for name in library.headers),
            *(sources / "probes" / f"{library.stem}.bpf.c" for library in libraries()),
        ),
        programs=(
            *(UnitProgram(name) for name in sorted(programs)),
            UnitProgram("process_exec", "raw_tracepoint", "sched_process_exec"),
            UnitProgram("process_exit", "raw_tracepoint", "sched_process_exit"),
        ),
        structs=(
            "target",
            "process_event",
            "span_header",
            "goroutine_key",
            "red_key",
            "red_series",
            *(f"{library.stem}_in_flight" for library in libraries()),
            *(record for library in libraries() for record in library.records),
        ),
    )
