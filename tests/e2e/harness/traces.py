"""What the agent leaves, or must not leave, in the kernel and in a target's text."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BPF_MAP_GET_NEXT_KEY = 4
BPF_PROG_GET_FD_BY_ID = 13
BPF_MAP_GET_FD_BY_ID = 14
BPF_OBJ_GET_INFO_BY_FD = 15
BPF_LINK_GET_FD_BY_ID = 30
"""enum bpf_cmd, include/uapi/linux/bpf.h."""

SYS_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
"""arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h."""

PROGRAM_INFO_BYTES, PROGRAM_NAME_AT, PROGRAM_NAME_BYTES = 128, 64, 16
"""struct bpf_prog_info of the same: some of it, and where `name` is."""

MAP_INFO = struct.Struct("<6I16s40x")
"""Some of struct bpf_map_info: type, id, key_size, value_size, max_entries, map_flags, name."""
HASHES = (1, 9)
"""BPF_MAP_TYPE_HASH and _LRU_HASH."""

STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")

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


@contextlib.contextmanager
def program_statistics() -> Iterator[None]:
    """Let the kernel count and time the runs of BPF programs."""
    before = STATISTICS.read_text()
    STATISTICS.write_text("1")
    try:
        yield
    finally:
        STATISTICS.write_text(before)


def program_runs(pid: int) -> dict[str, tuple[int, int]]:
    """Return runs and ns of the programs that a process holds open, by what the kernel keeps of their names.

    That is 15 characters; those of one name are added up.
    """
    found: dict[str, tuple[int, int]] = {}
    for number in bpf_ids(pid)[0]:
        fd = _bpf(BPF_PROG_GET_FD_BY_ID, struct.pack("<III", number, 0, 0))
        if fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            described = ctypes.create_string_buffer(PROGRAM_INFO_BYTES)
            asked = struct.pack("<IIQ", fd, len(described), ctypes.addressof(described))
            if _bpf(BPF_OBJ_GET_INFO_BY_FD, asked):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            counts = dict(re.findall(r"^(\w+):\t(\d+)$", Path(f"/proc/self/fdinfo/{fd}").read_text(), re.MULTILINE))
        finally:
            os.close(fd)
        name = described.raw[PROGRAM_NAME_AT : PROGRAM_NAME_AT + PROGRAM_NAME_BYTES].partition(b"\0")[0].decode()
        runs, ns = found.get(name, (0, 0))
        found[name] = runs + int(counts["run_cnt"]), ns + int(counts["run_time_ns"])
    return found


def map_elements(pid: int) -> dict[str, int]:
    """Return how many elements the hash maps have that a process holds open, by names as in `program_runs`."""
    numbers: set[int] = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            numbers |= {int(number) for number in re.findall(r"^map_id:\s+(\d+)", entry.read_text(), re.MULTILINE)}
    found: dict[str, int] = {}
    for number in numbers:
        fd = _bpf(BPF_MAP_GET_FD_BY_ID, struct.pack("<III", number, 0, 0))
        if fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            described = ctypes.create_string_buffer(MAP_INFO.size)
            if _bpf(BPF_OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", fd, MAP_INFO.size, ctypes.addressof(described))):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            kind, _, key_size, *_, name = MAP_INFO.unpack(described.raw)
            if kind in HASHES:
                found[name.partition(b"\0")[0].decode()] = _elements(fd, key_size)
        finally:
            os.close(fd)
    return found


def _elements(fd: int, key_size: int) -> int:
    count, key, following = 0, 0, ctypes.create_string_buffer(key_size)
    while not _bpf(BPF_MAP_GET_NEXT_KEY, struct.pack("<IxxxxQQ", fd, key, ctypes.addressof(following))):
        count, key = count + 1, ctypes.addressof(following)
    return count


def _bpf(command: int, attributes: bytes) -> int:
    return int(
        _libc.syscall(SYS_BPF, command, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes))
    )


def _exists(command: int, number: int) -> bool:
    fd = _bpf(command, struct.pack("<III", number, 0, 0))
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
