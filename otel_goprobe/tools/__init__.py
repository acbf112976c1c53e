"""One declaration per instrument that is not a library; base.py explains what they are made of.

A tool is found by its module being here, under a name without ``_``: no list names it. This module imports none of
them, so that ``--help`` doesn't wait for what they need.
"""

from __future__ import annotations

import ast
import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_goprobe.tools.base import Tool

_NO_TOOLS = {"base", "registry", "counted"}


@functools.cache
def stems() -> tuple[str, ...]:
    """Return the names of all tools, in order."""
    known = {module.name for module in pkgutil.iter_modules(__path__)} - _NO_TOOLS
    return tuple(sorted(name for name in known if "_" not in name))


def summary(stem: str) -> str:
    """Return what a tool is about, the first line of its module's docstring, without importing it."""
    text = pkgutil.get_data(__name__, f"{stem}.py") or b""
    first = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return first.partition("``: ")[2]


@functools.cache
def tool(stem: str) -> Tool:
    """Return a tool's declaration."""
    found: Tool = importlib.import_module(f"otel_goprobe.tools.{stem}").TOOL
    return found
