"""Run a program as a container runtime does: from an overlay mount that is its whole root, as another user.

    unshare --mount python in_overlay.py FOLDER LOWER UID PROGRAM ARGS…

FOLDER is an empty folder to mount on; LOWER holds PROGRAM, static, and an empty ``proc``. Called by containers.py.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
"""arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h."""
MNT_DETACH = 2


def checked(result: int) -> None:
    """Raise what errno says where a system call returned -1."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main(folder: Path, lower: str, uid: int, program: list[str]) -> None:
    """Mount, make that the root, become `uid`, execute."""
    libc = ctypes.CDLL(None, use_errno=True)
    merged = folder / "merged"
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    for name in ("upper", "work", "merged"):
        (folder / name).mkdir()
    layers = f"lowerdir={lower},upperdir={folder}/upper,workdir={folder}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, merged], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", merged / "proc"], check=True)
    os.chdir(merged)
    checked(libc.syscall(SYS_PIVOT_ROOT, b".", b"."))
    checked(libc.umount2(b".", MNT_DETACH))
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    os.execv(program[0], program)  # noqa: S606 - the point of it all


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
