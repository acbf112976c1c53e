"""The files that network.py writes at the end: whether they can be, said at the start; the drawings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from otel_goprobe.emit import service_map
from otel_goprobe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_REMEDY = "name a file in a folder that you may write to"


def check(learn: Path | None, drawings: Mapping[str, Path]) -> None:
    """Raise what would be raised at the end, perhaps ten minutes later.

    Args:
        learn: the policy to write.
        drawings: ``dot`` or ``svg`` -> file.

    Raises:
        UsageError: a file can't be written, or Graphviz, which an SVG needs, isn't here.
    """
    for file in (*drawings.values(), *([learn] if learn else [])):
        there = file.is_file() or file.parent.is_dir()
        if not there or file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
            raise UsageError(f"{file} can't be written", _REMEDY)
    if "svg" in drawings:
        service_map.graphviz()


def draw(edges: Sequence[service_map.Edge], drawings: Mapping[str, Path]) -> None:
    """Write the drawings.

    Raises:
        UsageError: Graphviz fails, or a file can't be written after all.
    """
    for kind, file in drawings.items():
        try:
            file.write_text(service_map.dot(edges) if kind == "dot" else service_map.svg(edges))
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}", _REMEDY) from error
