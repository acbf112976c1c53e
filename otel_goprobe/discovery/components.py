"""Build info -> why a program is left alone unless named; called by selection.py, the list is components.toml.

Programs are told by import paths, never by the name of a file: a Collector called `agent` is one, a service called
`jaeger` isn't.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_goprobe.model import BuildInfo


@dataclass(frozen=True, slots=True)
class Component:
    """A kind of program that nobody traces by accident."""

    what: str
    """With an article, for a sentence: ``the OpenTelemetry Collector``."""
    paths: tuple[str, ...]
    """Import paths, each standing for all below it."""
    dependency: str = ""


@dataclass(frozen=True, slots=True)
class Components:
    """components.toml."""

    known: tuple[Component, ...]
    sdk: str
    sdk_exporters: tuple[str, ...]


@cache
def components() -> Components:
    """Read components.toml, once."""
    content = tomllib.loads(resources.files(__package__).joinpath("components.toml").read_text("utf-8"))
    known = tuple(
        Component(each["what"], tuple(each["paths"]), each.get("dependency", "")) for each in content["component"]
    )
    return Components(known, content["sdk"]["module"], tuple(content["sdk"]["exporters"]))


def component_of(build: BuildInfo) -> str:
    """What known component a program is (`Component.what`); empty for anybody's own."""
    main = build.main.path if build.main else ""
    dependencies = {module.path for module in build.dependencies}
    for component in components().known:
        if component.dependency in dependencies:
            return component.what
        if any(_below(import_path, path) for path in component.paths for import_path in (build.path, main)):
            return component.what
    return ""


def trace_exporter_of(build: BuildInfo) -> str:
    """The module by which a program exports spans of its own; empty for one without an exporting OpenTelemetry SDK."""
    dependencies = {module.path for module in build.dependencies}
    if components().sdk not in dependencies:
        return ""
    exporters = components().sdk_exporters
    return min((path for path in dependencies if any(_below(path, each) for each in exporters)), default="")


def _below(import_path: str, prefix: str) -> bool:
    return import_path == prefix or import_path.startswith(prefix + "/")
