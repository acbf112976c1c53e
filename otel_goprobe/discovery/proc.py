"""Files of /proc/PID -> values: what psutil doesn't give, or gives only with much else; called by all of discovery/.

The parsers are pure and take whatever a process may have written there. The readers return None for a process that is
gone.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

_FORKED_WITHOUT_EXEC: Final = 0x40
"""PF_FORKNOEXEC of include/linux/sched.h: set by fork, cleared by exec."""
_KERNEL_THREAD: Final = 0x00200000
"""PF_KTHREAD of include/linux/sched.h."""
_ADDRESSES_NOT_RANDOM: Final = 0x0040000
"""ADDR_NO_RANDOMIZE of include/uapi/linux/personality.h."""
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _CAP_SYS_PTRACE = 1, 2, 19
"""Bits of CapEff: include/uapi/linux/capability.h."""
_CONTAINER_ID: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_CONTAINER_MOUNT: Final = re.compile(r"containers/([0-9a-f]{64})/")
_DELETED: Final = " (deleted)"


class Stat(NamedTuple):
    """Columns of /proc/PID/stat; proc_pid_stat(5) numbers them."""

    parent: int
    """Field 4."""
    flags: int
    """Field 9."""
    threads: int
    """Field 20."""
    start_ticks: int
    """Field 22, in clock ticks since boot."""
    stack_addr: int
    """Field 28: random, so another after each exec; 0 in the midst of one, and where it may not be read."""
    environment_end: int
    """Field 51, an address; 0 while an exec hasn't laid out the new stack yet, or where it may not be read."""

    @property
    def kernel_thread(self) -> bool:
        """Whether it is a thread of the kernel, which has no executable."""
        return bool(self.flags & _KERNEL_THREAD)

    @property
    def about_to_exec(self) -> bool:
        """Whether it still wears its parent's executable: a Go program that runs has its sysmon as a second thread."""
        return bool(self.flags & _FORKED_WITHOUT_EXEC) and self.threads == 1


def parse_stat(content: bytes) -> Stat:
    """Take /proc/PID/stat apart; the command's name may hold blanks and parentheses.

    Raises:
        ValueError: it isn't one.
    """
    fields = content[content.rfind(b")") + 1 :].split()
    if len(fields) < 49:
        raise ValueError("not a /proc/PID/stat")
    parent, flags, threads, start_ticks, stack, end = (int(fields[number - 3]) for number in (4, 9, 20, 22, 28, 51))
    return Stat(parent, flags, threads, start_ticks, stack, end)


def parse_environment(content: bytes) -> dict[str, str]:
    """Keep the ``OTEL_*`` variables of a /proc/PID/environ; of two with one name the first, as Go's os.Getenv does."""
    variables: dict[str, str] = {}
    for entry in content.split(b"\0"):
        if entry.startswith(b"OTEL_"):
            name, separator, value = entry.decode("utf-8", "replace").partition("=")
            if separator:
                variables.setdefault(name, value)
    return variables


def parse_container_id(cgroup: str, mountinfo: str) -> str:
    """Find the id of a container: 64 hexadecimal digits.

    Args:
        cgroup: /proc/PID/cgroup, whose paths name it (``/docker/<id>``, ``…/cri-containerd-<id>.scope``); of two in a
            path the inner one counts.
        mountinfo: /proc/PID/mountinfo, where Docker and Podman mount ``…/containers/<id>/hostname``; for a process
            whose cgroup path the agent's own cgroup namespace hides.

    Returns:
        The id, or an empty string.
    """
    for line in cgroup.splitlines():
        found = _CONTAINER_ID.findall(line)
        if found:
            return str(found[-1])
    mounted = _CONTAINER_MOUNT.search(mountinfo)
    return mounted[1] if mounted else ""


def parse_innermost_pid(status: str) -> int | None:
    """Give the process id in its own PID namespace: the last of ``NSpid:`` in /proc/PID/status; None without one."""
    found = re.search(r"^NSpid:\t([0-9\t ]+)$", status, re.MULTILINE)
    return int(found[1].split()[-1]) if found and found[1].strip() else None


def parse_missing_capabilities(status: str) -> list[str]:
    """Name the capabilities that a process, by its /proc/PID/status, lacks for looking at those of other users."""
    found = re.search(r"^CapEff:\t([0-9a-f]{16})$", status, re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    missing = [] if effective >> _CAP_SYS_PTRACE & 1 else ["CAP_SYS_PTRACE"]
    if not effective >> _CAP_DAC_READ_SEARCH & 1 and not effective >> _CAP_DAC_OVERRIDE & 1:
        missing.append("CAP_DAC_READ_SEARCH")
    return missing


def read(pid: int, name: str) -> bytes | None:
    """Read /proc/PID/`name` whole; None if the process is gone, is none any more, or may not be looked at."""
    try:
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    parts: list[bytes] = []
    try:
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return b"".join(parts)


def read_text(pid: int, name: str) -> str:
    """Read /proc/PID/`name`; empty where `read` has nothing."""
    return (read(pid, name) or b"").decode("utf-8", "replace")


def read_stat(pid: int) -> Stat | None:
    """Read /proc/PID/stat; None if the process is gone."""
    content = read(pid, "stat")
    return parse_stat(content) if content else None


def stack_is_random(pid: int) -> bool:
    """Whether an exec of this process shows in `Stat.stack_addr`: no sysctl and no ``setarch -R`` forbids it."""
    try:
        switched_on = Path("/proc/sys/kernel/randomize_va_space").read_text("ascii").strip() != "0"
    except OSError:
        return False
    personality = read(pid, "personality")
    return switched_on and personality is not None and not int(personality, 16) & _ADDRESSES_NOT_RANDOM


def read_link(pid: int, name: str) -> str:
    """Where the link /proc/PID/`name` points, without `` (deleted)``; empty if the process is gone."""
    try:
        # Path.readlink would make `//` and `.` out of names that aren't paths, such as `pid:[4026531836]`.
        return os.readlink(f"/proc/{pid}/{name}").removesuffix(_DELETED)  # noqa: PTH115 - see above
    except OSError:
        return ""
