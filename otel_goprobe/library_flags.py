"""``probes/<stem>.toml`` -> the flags of ``run`` that a library has of its own; commands/run.py makes options of them.

A file beside the library's module, since ``--help`` must not wait for numpy, which the modules import. Its tables::

    [flags]
    grpc_health = "Trace health checks of gRPC too."

    [names]
    grpc_metadata = "Record these keys of the requests' metadata."

make ``--grpc-health``, off by default, and ``--grpc-metadata NAME,NAME``, none by default. The library has both in its
`Library.options`; bpf/include/captured.h looks for the names.
"""

from __future__ import annotations

import functools
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

from otel_goprobe.errors import UsageError

_FOLDER = Path(__file__).resolve().parent / "probes"

MAX_NAMES = 16
"""Of one flag."""
NAME_BYTES = 40
"""``CAPTURED_NAME_BYTES`` of the C sources."""
_NAME = re.compile(rf"[0-9a-z_.-]{{1,{NAME_BYTES}}}")
"""A key of gRPC's metadata or a header's name, in lower case
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, Custom-Metadata)."""


class Flag(NamedTuple):
    """A flag of ``run``, off unless it is given."""

    name: str
    """With underscores; as C's ``OPTION_<name>``."""
    help: str
    takes_names: bool = False


@functools.cache
def declared() -> tuple[Flag, ...]:
    """Return the flags of all libraries, in the order of their stems."""
    tables = [tomllib.loads(file.read_text()) for file in sorted(_FOLDER.glob("*.toml"))]
    switches = (Flag(name, text) for table in tables for name, text in table.get("flags", {}).items())
    lists = (Flag(name, text, takes_names=True) for table in tables for name, text in table.get("names", {}).items())
    return (*switches, *lists)


def names_of(flag: Flag, text: str) -> tuple[str, ...]:
    """Return the names that a flag was given, each once, in lower case.

    Raises:
        UsageError: they are too many, or one of them can't be such a name.
    """
    names = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    option = f"--{flag.name.replace('_', '-')}"
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{option} has {name!r}, which can't be such a name",
                f"a name has up to {NAME_BYTES} of the characters 0-9, a-z, _, . and -",
            )
    if len(names) > MAX_NAMES:
        raise UsageError(f"{option} has {len(names)} names", f"name {MAX_NAMES} at most")
    return names
