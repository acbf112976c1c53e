"""Who talks to whom -> a graph in DOT, and as SVG by Graphviz; called by what sees paths between services."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otel_goprobe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_LAYOUT_WITHIN_S: Final = 60
_FINDING: Final = "#c62828"
_SERVICE: Final = "#1565c0"


@dataclass(frozen=True, slots=True)
class Edge:
    """One path, drawn as an arrow."""

    source: str
    """Name of a service."""
    destination: str
    label: str = ""
    finding: bool = False
    """One that shouldn't be."""


def dot(edges: Iterable[Edge]) -> str:
    """Return the graph in Graphviz' language: services are boxes, what isn't watched ellipses, findings red.

    The same edges give the same text, whatever their order.
    """
    ordered = sorted(set(edges), key=lambda edge: (edge.source, edge.destination, edge.label, edge.finding))
    services = {edge.source for edge in ordered}
    nodes = sorted(services | {edge.destination for edge in ordered})
    lines = [
        "digraph services {",
        '\tgraph [rankdir=LR fontname="sans-serif"];',
        '\tnode [shape=ellipse fontname="sans-serif" fontsize=11];',
        '\tedge [fontname="sans-serif" fontsize=9];',
        *(f"\t{_quoted(node)}{_box(node in services)};" for node in nodes),
    ]
    for edge in ordered:
        attributes = [f"label={_quoted(edge.label)}"] if edge.label else []
        if edge.finding:
            attributes += [f'color="{_FINDING}"', f'fontcolor="{_FINDING}"', "penwidth=2"]
        suffix = f" [{' '.join(attributes)}]" if attributes else ""
        lines.append(f"\t{_quoted(edge.source)} -> {_quoted(edge.destination)}{suffix};")
    return "\n".join([*lines, "}"]) + "\n"


def graphviz() -> str:
    """Return Graphviz' program.

    Raises:
        UsageError: it isn't installed.
    """
    program = shutil.which("dot")
    if not program:
        raise UsageError("--svg needs Graphviz' program dot, which isn't here", "apt install graphviz, or take --dot")
    return program


def svg(edges: Iterable[Edge]) -> str:
    """Return the same as SVG.

    Raises:
        UsageError: Graphviz isn't installed, or fails.
    """
    program = graphviz()
    try:
        done = subprocess.run(
            [program, "-Tsvg"], input=dot(edges), capture_output=True, text=True, timeout=_LAYOUT_WITHIN_S, check=True
        )
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"dot took more than {_LAYOUT_WITHIN_S} s to lay out the graph", "take --dot") from error
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise UsageError(f"dot failed: {said.strip()}", "take --dot") from error
    return done.stdout


def _box(is_service: bool) -> str:
    return f' [shape=box style=rounded color="{_SERVICE}"]' if is_service else ""


def _quoted(text: str) -> str:
    """Return a quoted string; a line break as DOT's, other control characters as nothing."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + re.sub(r"[\x00-\x1f\x7f]", "", escaped) + '"'
