"""A kernel and a command -> a virtual machine that runs the command as root on this machine's file system, and ends.

virtme-ng starts QEMU with emulated processors (no KVM: it isn't everywhere, and where it is a guest may hang in it).
The host's file system is there read-only over 9p, with overlays in memory over /tmp, /etc and others.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import signal
import subprocess
import sys
import venv
from typing import TYPE_CHECKING

from goprograms import cache_folder

from kernels.images import ENVIRONMENT, Image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VIRTME_NG = "1.42"
TIMEOUT_S = 2400.0
"""One machine took 20 minutes on two processors that twelve other processes wanted."""


@functools.cache
def install() -> Path:
    """Return the path of ``vng``, installing it into a virtual environment of its own in the cache if it isn't there.

    Raises:
        subprocess.CalledProcessError: pip can't.
    """
    folder = cache_folder() / f"virtme-ng-{VIRTME_NG}"
    command = folder / "bin/vng"
    if not command.exists():
        venv.create(folder, clear=True, with_pip=True)
        pip: list[str | Path] = [folder / "bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", f"virtme-ng=={VIRTME_NG}"], check=True, stdout=sys.stderr)
    return command


def boot(image: Image, command: Sequence[str], *, folder: Path, working: Path, options: Sequence[str] = ()) -> str:
    """Boot, run `command`, wait for its end.

    Args:
        image: the kernel.
        command: run by root of the guest.
        folder: that the guest may write; gets ``console.log`` too.
        working: the command's working folder.
        options: for the kernel's command line.

    Returns:
        Empty, or why the machine didn't come to its own end.
    """
    vng = install()
    line: list[str | Path] = [vng, "--disable-kvm", "--force-9p", "--verbose", "--run", image.vmlinuz]
    line += ["--cpus", "2", "--memory", "3G", "--rwdir", folder, "--exec", shlex.join(command)]
    line += [word for option in options for word in ("--append", option)]
    path = f"{vng.parent}:{ENVIRONMENT['PATH']}"
    with (folder / "console.log").open("wb") as console:
        process = subprocess.Popen(
            ["nice", *line],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env={**ENVIRONMENT, "PATH": path},
            cwd=working,
            start_new_session=True,
        )
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"it hadn't ended after {TIMEOUT_S:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return f"vng ended with {code}" if code else ""
