"""The pinned sources beside it -> a real Jaeger (with its user interface) and a real OpenTelemetry Collector.

Called by backends.py and by the demo, and by hand: ``python tests/backends/build.py`` prints the folder that holds
``jaeger``, ``otelcol`` and ``jaeger-ui/``. It lies outside the tree, is keyed by the sources, and is made once: about
five minutes of two cores, 300 MB of downloads by way of Go's module proxy and 2.5 GB in Go's caches. Progress goes to
stderr.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parents[1] / "scripts"
SOURCES = ("go.mod", "go.sum", "otelcol/main.go")
PACKAGES = ("github.com/jaegertracing/jaeger/cmd/jaeger", "./otelcol")
UI_MODULE = "github.com/tonistiigi/jaeger-ui-rest"
ENVIRONMENT = {
    "CGO_ENABLED": "0",
    "GOTOOLCHAIN": "local",
    # Without optimisation the compiler needs a third less time; nothing here measures these two programs.
    "GOFLAGS": "-mod=readonly -trimpath '-gcflags=all=-N -l'",
}


def printed_by(command: list[str | Path]) -> str:
    """Return what `command` prints, without the newline; its stderr is ours."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.rstrip("\n")


class Progress:
    """One line on stderr that says how far a step is: rewritten on a terminal, repeated every 15 s elsewhere."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.started = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.interval_s = 0.2 if self.terminal else 15.0
        self.last = self.started - self.interval_s

    def show(self, text: str, *, final: bool = False) -> None:
        """Print `text` unless the last line is too recent; `final` always does and ends the line."""
        now = time.monotonic()
        if not final and now - self.last < self.interval_s:
            return
        self.last = now
        start, end = ("\r\033[K", "\n" if final else "") if self.terminal else ("", "\n")
        print(f"{start}{self.what}: {text}, {now - self.started:.0f} s", end=end, file=sys.stderr, flush=True)


def run_go(go: Path, arguments: list[str], progress: Progress, total: int) -> list[str]:
    """Run `go` in this module at low priority and return its stdout's lines; each line of its stderr is progress.

    Args:
        go: the command.
        arguments: what follows it.
        progress: told how many lines there were, of about `total`.
        total: the expected number of lines.

    Raises:
        SystemExit: go fails; its last lines are shown.
    """
    last_lines: list[str] = []
    lines = 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [go, *arguments],
            cwd=HERE,
            env=os.environ | ENVIRONMENT,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.nice(5),  # noqa: PLW1509 - no thread runs here yet
        )
        assert process.stderr
        for line in process.stderr:
            lines += 1
            last_lines = [*last_lines[-20:], line]
            progress.show(f"{lines} of about {total}")
        if process.wait():
            progress.show("failed", final=True)
            raise SystemExit(f"{''.join(last_lines)}go {arguments[0]} failed: see above")
        progress.show("done", final=True)
        output.seek(0)
        return output.read().splitlines()


def unpack_ui(source: Path, destination: Path) -> None:
    """Copy Jaeger's user interface out of its module, where the files are gzipped under their plain names."""
    for path in source.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            target = destination / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content)


def build() -> Path:
    """Return the folder of the built backends, building them first where that hasn't been done yet.

    Raises:
        SystemExit: a download or the compiler failed.
    """
    settings = repr((PACKAGES, ENVIRONMENT)).encode()
    key = hashlib.sha256(settings + b"".join((HERE / name).read_bytes() for name in SOURCES)).hexdigest()[:16]
    destination = Path(printed_by([SCRIPTS / "cache-folder"])) / "backends" / key
    if destination.exists():
        return destination
    destination.parent.mkdir(parents=True, exist_ok=True)
    with (destination.parent / f".{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if destination.exists():
            return destination
        print("building Jaeger and the Collector, once: about five minutes", file=sys.stderr)
        go = Path(printed_by([SCRIPTS / "go-toolchain"]))
        packages = run_go(go, ["list", "-deps", *PACKAGES], Progress("modules downloaded"), 300)
        with tempfile.TemporaryDirectory(dir=destination.parent) as folder:
            made = Path(folder) / "made"
            command = ["build", "-v", "-p", "2", "-ldflags=-s -w", "-o", f"{made}/", *PACKAGES]
            run_go(go, command, Progress("packages compiled"), len(packages))
            run_go(go, ["mod", "download", UI_MODULE], Progress("user interface"), 1)
            listed = run_go(go, ["list", "-m", "-f", "{{.Dir}}", UI_MODULE], Progress("user interface"), 1)
            unpack_ui(Path(listed[0]) / "public", made / "jaeger-ui")
            made.rename(destination)
    return destination


if __name__ == "__main__":
    print(build())
