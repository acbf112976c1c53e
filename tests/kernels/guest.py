"""What the checks in a virtual machine share; `inside` makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ATTACH_S = 300.0
"""The first start compiles the BPF programs: 40 s were seen."""
STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class Guest:
    """What is there."""

    programs: dict[str, Path]
    """Builds of tests/go/http_server, on a file system that may be written; the first is the plain one."""
    hosts_program: Path
    """tests/go/wire, likewise."""
    tools: dict[str, Path]
    """Programs of tests/go that tools are tried on, likewise."""
    cache: Path
    """The project's cache folder there."""

    @property
    def server(self) -> Path:
        """The plain one."""
        return next(iter(self.programs.values()))

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the agents."""
        return {"OTEL_GOPROBE_CACHE": str(self.cache)}
