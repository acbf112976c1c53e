"""``probes/<stem>.toml`` -> the flags of ``run`` that a library has of its own; commands/run.py makes options of them.

A file beside the library's module, since ``--help`` must not wait for numpy, which the modules import. Its one table::

    [flags]
    grpc_health = "Trace health checks of gRPC too."

makes ``--grpc-health``, off by default; the library names it in its `Library.options`.
"""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).resolve().parent / "probes"


class Flag(NamedTuple):
    """A flag of ``run``, off unless it is given."""

    name: str
    """With underscores; as C's ``OPTION_<name>``."""
    help: str


@functools.cache
def declared() -> tuple[Flag, ...]:
    """Return the flags of all libraries, in the order of their stems."""
    files = sorted(_FOLDER.glob("*.toml"))
    return tuple(Flag(name, text) for file in files for name, text in tomllib.loads(file.read_text())["flags"].items())
