"""What the agent leaves, or must not leave, in the kernel and in a target's text."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
from pathlib import Path

BPF_PROG_GET_FD_BY_ID = 13
BPF_LINK_GET_FD_BY_ID = 30
"""enum bpf_cmd, include/uapi/linux/bpf.h."""

SYS_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
"""arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h."""

_libc = ctypes.CDLL(None, use_errno=True)


def changed_text(pid: int, exe: Path) -> list[int]:
    """Return the file offsets at which a process's own code differs from its executable's: the breakpoints."""
    different: list[int] = []
    content = exe.read_bytes()
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            addresses, permissions, offset_text, _, _, *path = line.split(None, 5)
            if "x" not in permissions or not path or Path(path[0]).name != exe.name:
                continue
            begin, end = (int(part, 16) for part in addresses.split("-"))
            offset = int(offset_text, 16)
            memory.seek(begin)
            loaded = memory.read(end - begin)
            on_disk = content[offset : offset + len(loaded)]
            if loaded[: len(on_disk)] != on_disk:
                different += [offset + at for at, (a, b) in enumerate(zip(loaded, on_disk, strict=False)) if a != b]
    return different


def bpf_ids(pid: int) -> tuple[set[int], set[int]]:
    """Return the ids of the programs and of the links that a process holds open."""
    programs, links = set(), set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            text = entry.read_text()
        except FileNotFoundError:  # closed meanwhile
            continue
        if found := re.search(r"^link_id:\s+(\d+)", text, re.MULTILINE):
            links.add(int(found[1]))
        elif found := re.search(r"^prog_id:\s+(\d+)", text, re.MULTILINE):
            programs.add(int(found[1]))
    return programs, links


def _exists(command: int, number: int) -> bool:
    attributes = ctypes.create_string_buffer(struct.pack("<III", number, 0, 0), 12)
    fd = _libc.syscall(SYS_BPF, command, attributes, 12)
    if fd >= 0:
        os.close(fd)
        return True
    if ctypes.get_errno() == errno.ENOENT:
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def program_exists(number: int) -> bool:
    """Tell whether the kernel still has a BPF program."""
    return _exists(BPF_PROG_GET_FD_BY_ID, number)


def link_exists(number: int) -> bool:
    """Tell whether the kernel still has a BPF link."""
    return _exists(BPF_LINK_GET_FD_BY_ID, number)
