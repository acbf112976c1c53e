"""The kernel's file system about tracepoints, mounted for this process alone; listing/ reads what is there.

It is mounted nowhere (fsmount(2), Linux 5.2): nothing of the machine's changes, and it is gone with its descriptor.
"""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from otel_goprobe.kernel.capabilities import SYS_ADMIN, refusal
from otel_goprobe.kernel.syscalls import syscall

if TYPE_CHECKING:
    from types import TracebackType

# arch/x86/entry/syscalls/syscall_64.tbl
_NR_FSOPEN, _NR_FSCONFIG, _NR_FSMOUNT = 430, 431, 432
# include/uapi/linux/mount.h
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_CMD_CREATE = 6
_MOUNT_ATTRIBUTES = 1 | 2 | 4 | 8
"""MOUNT_ATTR_RDONLY, _NOSUID, _NODEV, _NOEXEC."""
_MOUNTED = Path("/sys/kernel/tracing")
_KPROBES = Path("/sys/bus/event_source/devices/kprobe")
"""Documentation/ABI/testing/sysfs-bus-event_source-devices: perf events of kprobes."""
_FIELD: Final = re.compile(r"\tfield:(?P<declared>.+);\toffset:(?P<offset>\d+);\tsize:(?P<size>\d+);")
_DECLARED: Final = re.compile(r"(?P<type>.*?)\s*(?P<name>\w+)(?P<array>\[.*\])?")
_COMMON = "common_"
"""Begins the names of fields that every tracepoint has (kernel/trace/trace_events.c)."""


@dataclass(frozen=True, slots=True)
class TracepointField:
    """What a tracepoint tells, in its record's format."""

    name: str
    type_name: str
    """C's, such as ``__u8[4]``."""
    offset: int
    size: int


def has_kprobes() -> bool:
    """Whether this kernel can put probes on its own functions."""
    return _KPROBES.exists()


class Tracefs:
    """A context manager.

    Raises:
        NotPermittedError: for want of a capability.
        UnsupportedByKernelError, KernelError: the kernel has no tracefs.
    """

    def __init__(self) -> None:
        self._descriptor = -1
        try:
            self._descriptor = _mount()
        except OSError as error:
            if not os.access(_MOUNTED / "events", os.R_OK | os.X_OK):
                raise refusal(error, "mounting tracefs, where tracepoints are described,", SYS_ADMIN) from error
        self._root = Path(f"/proc/self/fd/{self._descriptor}") if self._descriptor >= 0 else _MOUNTED

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def tracepoints(self) -> list[tuple[str, str]]:
        """Return category and name of each, in order.

        Raises:
            KernelError: they can't be read.
        """
        return sorted((category, name) for category, _, name in (line.partition(":") for line in self._lines()))

    def _lines(self) -> list[str]:
        return self._read("available_events").splitlines()

    def fields(self, category: str, name: str) -> tuple[TracepointField, ...]:
        """Return a tracepoint's own fields, in order.

        Raises:
            KernelError: there is no such tracepoint.
        """
        found = []
        for field in _FIELD.finditer(self._read(f"events/{category}/{name}/format")):
            declared = _DECLARED.fullmatch(field["declared"])
            if declared and not declared["name"].startswith(_COMMON):
                type_name = declared["type"] + (declared["array"] or "")
                found.append(TracepointField(declared["name"], type_name, int(field["offset"]), int(field["size"])))
        return tuple(found)

    def functions(self) -> list[str]:
        """Return the names of functions that can be traced, in order; those of modules without the module's name.

        Raises:
            KernelError: the kernel keeps no such list.
        """
        return sorted({line.split()[0] for line in self._read("available_filter_functions").splitlines()})

    def _read(self, name: str) -> str:
        try:
            return (self._root / name).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise refusal(error, f"reading {name} of tracefs", SYS_ADMIN) from error


def _mount() -> int:
    """Return a descriptor of a new tracefs; OSError where the kernel refuses."""
    context = _checked(_NR_FSOPEN, b"tracefs", _FSOPEN_CLOEXEC)
    try:
        _checked(_NR_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _checked(_NR_FSMOUNT, context, _FSMOUNT_CLOEXEC, _MOUNT_ATTRIBUTES)
    finally:
        os.close(context)


def _checked(*arguments: int | bytes | None) -> int:
    answer: int = syscall(*arguments)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
