"""A tool's declaration -> its C unit, and the plan for an executable; called by tooling.py and units.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_goprobe.gobinary import threads
from otel_goprobe.model import Plan, Unit, UnitProgram
from otel_goprobe.probes import registry, selection
from otel_goprobe.probes.base import Field, Itab, ReadOnly, Variable
from otel_goprobe.tools.base import FRAMES

if TYPE_CHECKING:
    from pathlib import Path

    from otel_goprobe.gobinary import GoBinary
    from otel_goprobe.tools.base import Tool

COUNTERS = ("ring_full",)
"""Of every tool."""
FACTS = (
    Field("goid", "runtime.g", "goid"),
    Field("g_m", "runtime.g", "m"),
    Field("m_curg", "runtime.m", "curg"),
)
"""What bpf/include/tool.h asks for. Source of the names: src/runtime/runtime2.go."""


def counters(of: Tool) -> tuple[str, ...]:
    """Return the names of a tool's counters, in the order of the C enum."""
    return (*COUNTERS, *of.counters)


def plan(of: Tool, binary: GoBinary) -> Plan:
    """Decide where a tool's hooks go in an executable; `Plan.values` are members of ``struct tool_target``."""
    found = selection.select_hooks(binary, of.stem, of.hooks, (*FACTS, *of.facts))
    g_offset = threads.g_offset(binary)
    return Plan(found.probes, {**found.values, "g_offset": (g_offset or 0) & (2**64 - 1)}, found.skipped)


def _header(of: Tool) -> str:
    facts = (*FACTS, *of.facts)
    words = [fact.member for fact in facts if isinstance(fact, (Itab, ReadOnly, Variable))]
    words += [hook.address for hook in of.hooks if hook.address]
    shorts = [fact.member for fact in facts if not isinstance(fact, (Itab, ReadOnly, Variable))]
    lines = [
        '#pragma clang diagnostic ignored "-Wunused-function"',
        registry.header(),
        f"#define TOOL_FRAMES {FRAMES}",
        f"#define TOOL_COUNTERS {len(counters(of))}",
        f"#define TOOL_RING_PAGES {of.ring_pages}",
        *(f"#define TOOL_COUNTER_{name} {number}" for number, name in enumerate(counters(of))),
        "struct tool_target {",
        "\tu64 g_offset;",
        *(f"\tu64 {name};" for name in words),
        "\tu32 active;",
        "\tu32 task_fsbase;",
        *(f"\tu16 {name};" for name in shorts),
        *([f"\tu16 padding[{-len(shorts) % 4}];"] if len(shorts) % 4 else []),
        "};",
    ]
    return "\n".join(lines) + "\n"


def unit(of: Tool, sources: Path) -> Unit:
    """Return a tool's unit: all of the core's headers, of which it uses some, and its own; loaded with the core's maps.

    Args:
        of: the tool.
        sources: the folder ``bpf/`` of this installation.
    """
    return Unit(
        name=f"tool-{of.stem}",
        header=_header(of),
        sources=(
            *(source for source in registry.unit(sources).sources if source.suffix == ".h"),
            sources / "include/tool.h",
            *(sources / "tools" / name for name in of.headers),
            sources / "tools" / f"{of.stem}.bpf.c",
        ),
        programs=(
            *(UnitProgram(way.program) for hook in of.hooks for way in hook.ways),
            *(
                UnitProgram(each.program, "raw_tracepoint", each.event, required=each.required)
                for each in of.tracepoints
            ),
        ),
        structs=(of.record, "tool_header", "tool_target", *of.structs),
    )
