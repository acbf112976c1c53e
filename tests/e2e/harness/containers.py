"""Containers of the kernel's own parts, since no image can be assumed: PID and mount namespaces, overlay mounts.

A `Pod` is a PID namespace with its own /proc and without tracefs, as a container runtime makes it. `overlay_prefix`
starts a program from an overlay mount of its own, which is its root, under another uid (in_overlay.py).
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

WITHOUT_TRACEFS = """
for folder in /sys/kernel/tracing /sys/kernel/debug; do
    if [ -d $folder ]; then mount -t tmpfs none $folder; fi
done
exec "$@"
"""

IN_OVERLAY = Path(__file__).with_name("in_overlay.py")


def hide_tracefs() -> list[str]:
    """Return a prefix that runs a command in a mount namespace without tracefs."""
    return ["unshare", "--mount", "sh", "-c", WITHOUT_TRACEFS, "sh"]


def with_only(capabilities: Iterable[str]) -> list[str]:
    """Return a prefix that runs a command with these capabilities (``CAP_BPF``) alone, as a container is run."""
    kept = "".join(f",+{name.removeprefix('CAP_').lower()}" for name in capabilities)
    return ["setpriv", "--bounding-set", f"-all{kept}", "--inh-caps", f"-all{kept}"]


def overlay_prefix(folder: Path, lower: Path, uid: int) -> list[str]:
    """Return a prefix that runs a command of `lower` from an overlay mount.

    Args:
        folder: empty, for this mount alone.
        lower: holds the executable and an empty ``proc``; several overlays can share it.
        uid: who runs it, as user and group.
    """
    return ["unshare", "--mount", sys.executable, str(IN_OVERLAY), str(folder), str(lower), str(uid)]


class Pod:
    """A PID namespace that lives as long as the `with` block, and all processes in it.

    Args:
        prefix: that of the pod in which this one lies; none: the one that the tests run in.
    """

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        options = ["--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
        first = ["sh", "-c", WITHOUT_TRACEFS, "sh", sys.executable, "-c", "import signal; signal.pause()"]
        self._process = subprocess.Popen([*prefix, "unshare", *options, *first])
        self._first = self._first_process()

    def _first_process(self) -> psutil.Process:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if process.cmdline()[:2] == [sys.executable, "-c"]:
                        return process
            time.sleep(0.01)
        self._process.kill()
        raise TimeoutError("no process came to life in the new PID namespace")

    @property
    def prefix(self) -> list[str]:
        """What runs a command in here."""
        return ["nsenter", "--target", str(self._first.pid), "--pid", "--mount"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._first.kill()
        self._process.wait(10)
