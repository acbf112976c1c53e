"""The Go programs of tests/go -> executables, built once for each way to build them; called by tests of all folders.

They are kept in the project's cache folder (scripts/cache-folder), by a key of sources, arguments and Go version. Each
is a module of its own, of other versions of what it requires; a file that several have alike is a link in all but one.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TESTS = Path(__file__).resolve().parent
SCRIPTS = TESTS.parent / "scripts"
OFFICIAL = TESTS / "go/official"
"""Go module that the programs of `make test-libraries` share."""
SERVER_PROFILE = TESTS / "go/profile/server.pprof"
"""CPU profile of a net/http server under load, for `go_binary`'s `pgo`: ``profile server.pprof 10``, by Go 1.26.8."""


def printed_by(*command: str | Path) -> str:
    """Return what `command` prints, without the newline.

    Raises:
        RuntimeError: it fails; the message holds its stderr.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout.rstrip("\n")


@functools.cache
def cache_folder() -> Path:
    """Return the folder for what is made once and kept."""
    return Path(printed_by(SCRIPTS / "cache-folder"))


@functools.cache
def go_command(version: str = "") -> Path:
    """Return a ``go``: the machine's own (empty `version`), or that of a release or version such as ``1.21``."""
    return Path(printed_by(SCRIPTS / "go-toolchain", *([version] if version else [])))


@functools.cache
def go_version(go: Path) -> str:
    """Return what `go` calls itself, such as ``go1.26.8``."""
    return printed_by(go, "env", "GOVERSION")


def go_binary(
    name: str,
    *,
    go: str = "",
    language: str = "",
    strip: bool = False,
    pie: bool = False,
    cgo: bool = False,
    race: bool = False,
    gcflags: str = "",
    pgo: Path | None = None,
    goarch: str = "",
    package: str = ".",
    require: Sequence[str] = (),
    tags: str = "",
) -> Path:
    """Build tests/go/`name` and return the executable's path.

    Args:
        name: folder under tests/go, which is a module.
        go: version or release of Go; the machine's own if empty.
        language: what the main module says after ``go``; the toolchain's own release if empty (and as go.mod has it
            where `package` is another module's). It sets Go's compatibility switches, such as ``httpmuxgo121``.
        strip: without symbol table and DWARF (``-s -w``).
        pie: position-independent.
        cgo: with cgo and the C linker.
        race: with the race detector; needs a C compiler too.
        gcflags: for the compiler.
        pgo: profile that it is optimised by; Go 1.21 and newer.
        goarch: ``386`` makes a 32-bit program; this machine's architecture if empty.
        package: import path of the main package.
        require: what go.mod gets to require, as "PATH VERSION"; what these in turn require, Go finds out. The program
            may import tests/go/official then.
        tags: for the build, comma-separated.

    Raises:
        RuntimeError: the build fails.
    """
    command = go_command(go)
    release = re.match(r"go(\d+\.\d+)", go_version(command))
    if release is None:
        raise RuntimeError(f"{command} calls itself {go_version(command)}")
    if not language and package == ".":
        language = release[1]
    folder = TESTS / "go" / name
    sources = sorted(path for path in folder.rglob("*") if path.is_file())
    sources += sorted(path for path in OFFICIAL.rglob("*") if require and path.is_file())
    flags = [f"-gcflags={gcflags}", f"-buildmode={'pie' if pie else 'exe'}"]
    flags.append(f"-ldflags={'-s -w ' * strip}{'-linkmode=external' * cgo}")
    flags += ["-race"] * race
    flags += [f"-tags={tags}"] * bool(tags)
    settings = {
        "CGO_ENABLED": str(int(cgo or race)),
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-buildvcs=false",
        "GOWORK": "off",
    }
    if goarch:
        settings["GOARCH"] = goarch
    if pgo:
        flags.append(f"-pgo={pgo}")
    made_of: tuple[object, ...] = (go_version(command), language, flags, settings, package)
    key = hashlib.sha256(repr(made_of + (tuple(require),) * bool(require)).encode())
    if pgo:
        key.update(pgo.read_bytes())
    for path in sources:
        key.update(f"{os.path.relpath(path, folder)}\0".encode() + path.read_bytes())
    destination = cache_folder() / "test-programs" / key.hexdigest()[:20] / name
    destination.parent.mkdir(parents=True, exist_ok=True)
    with (destination.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not destination.exists():
            go_mod = (folder / "go.mod").read_text()
            if language:
                go_mod = re.sub(r"^go .*$", f"go {language}", go_mod, flags=re.MULTILINE)
            if require:
                settings["GOFLAGS"] += " -mod=mod"
                replaced = ["require official v0.0.0", f"replace official => {OFFICIAL}"]
                go_mod += "\n".join([*(f"require {one}" for one in require), *replaced, ""])
            _build([command, "build", *flags, package], folder, go_mod, settings, destination)
    return destination


def _build(command: list[str | Path], folder: Path, go_mod: str, settings: dict[str, str], destination: Path) -> None:
    """Build into `destination`, whole or not at all, leaving the module's own go.mod as it is."""
    with tempfile.TemporaryDirectory(dir=destination.parent) as temporary:
        file = Path(temporary) / "go.mod"
        file.write_text(go_mod)
        if (folder / "go.sum").exists():
            file.with_suffix(".sum").write_bytes((folder / "go.sum").read_bytes())
        made = Path(temporary) / "program"
        flags = " ".join([settings["GOFLAGS"], f"-modfile={file}", f"-o={made}"])
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **settings, "GOFLAGS": flags},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))} failed for tests/go/{folder.name}:\n{done.stderr}")
        made.rename(destination)
