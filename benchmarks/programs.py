"""The Go programs of benchmarks/go, the load generator and the Collector -> executables, built once and kept.

Called by all benchmarks. They lie outside the tree, keyed by sources, Go version and flags.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[1]
GO_SOURCES = PROJECT / "benchmarks/go"
BACKENDS = PROJECT / "tests/backends"
"""Its module names the versions of the Collector; the tests build it without optimisation, which is of no use here."""

ENVIRONMENT = dict(os.environ)  # noqa: TID251 - for the programs that a benchmark starts

VEGETA = "github.com/tsenart/vegeta/v12@v12.13.0"
"""Load at a fixed rate, whatever the target answers; wrk waits for each answer."""


def printed_by(*command: str | Path) -> str:
    """Return what `command` prints, without the newline; its stderr is ours."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.rstrip("\n")


@functools.cache
def go() -> Path:
    """Return the `go` command that the tests use as well."""
    return Path(printed_by(PROJECT / "scripts/go-toolchain"))


@functools.cache
def go_version() -> str:
    """Return what it calls itself, such as ``go1.26.8``."""
    return printed_by(go(), "env", "GOVERSION")


def need(command: str, package: str) -> str:
    """Return the path of a command that the distribution has.

    Raises:
        SystemExit: it isn't installed.
    """
    found = shutil.which(command)
    if found is None:
        raise SystemExit(f"{command} is missing: install the distribution's package {package}")
    return found


def bench_program(name: str) -> Path:
    """Build benchmarks/go/`name`."""
    folder = GO_SOURCES / name
    sources = sorted(path for path in folder.iterdir() if path.is_file())
    with _kept(name, *(path.read_bytes() for path in sources)) as (destination, made):
        if made:
            _go("build", "-buildvcs=false", "-o", str(made), ".", folder=folder)
    return destination


def vegeta() -> Path:
    """Install vegeta from Go's module proxy."""
    with _kept("vegeta", VEGETA.encode()) as (destination, made):
        if made:
            _go("install", VEGETA, folder=GO_SOURCES, bin_folder=made.parent)
    return destination


def collector() -> Path:
    """Build the Collector of the tests with optimisation; the first time some minutes of all cores."""
    sources = [BACKENDS / name for name in ("go.mod", "go.sum", "otelcol/main.go")]
    with _kept("otelcol", *(path.read_bytes() for path in sources)) as (destination, made):
        if made:
            flags = ("-mod=readonly", "-trimpath", "-ldflags=-s -w")
            _go("build", *flags, "-o", str(made), "./otelcol", folder=BACKENDS)
    return destination


def _go(*arguments: str, folder: Path, bin_folder: Path | None = None) -> None:
    settings = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
    if bin_folder:
        settings["GOBIN"] = str(bin_folder)
    subprocess.run(["nice", "-n5", go(), *arguments], cwd=folder, env=ENVIRONMENT | settings, check=True)


@contextlib.contextmanager
def _kept(name: str, *sources: bytes) -> Iterator[tuple[Path, Path | None]]:
    """Yield where the executable belongs and, unless it is there, where to make it."""
    key = hashlib.sha256(b"\0".join((go_version().encode(), *sources))).hexdigest()[:16]
    destination = Path(printed_by(PROJECT / "scripts/cache-folder")) / "benchmarks" / key / name
    destination.parent.mkdir(parents=True, exist_ok=True)
    with (destination.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if destination.exists():
            yield destination, None
            return
        print(f"building {name}, once", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=destination.parent) as folder:
            made = Path(folder) / name
            yield destination, made
            made.rename(destination)
