"""Links between programs and what they run on: uprobe_multi, perf events, raw tracepoints.

`attach` and `features` call it. Layouts: ``union bpf_attr`` and ``struct perf_event_attr`` in the kernel's
include/uapi/linux/{bpf,perf_event}.h, 6.18.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from otel_goprobe.errors import UnsupportedByKernelError
from otel_goprobe.kernel.capabilities import BPF, PERFMON, refusal
from otel_goprobe.kernel.syscalls import (
    ATTACH_UPROBE_MULTI,
    PROG_KPROBE,
    ProgramRejectedError,
    address,
    bpf,
    prog_load,
    syscall,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_NR_PERF_EVENT_OPEN = 298
"""arch/x86/entry/syscalls/syscall_64.tbl."""

# enum bpf_cmd
_RAW_TRACEPOINT_OPEN = 17
_LINK_CREATE = 28

_ATTACH_PERF_EVENT = 41
"""enum bpf_attach_type."""

RETURN_0 = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
"""``r0 = 0; exit``."""


def uprobe_multi_link(program: int, path: str, offsets: Sequence[int], cookie: int, pid: int) -> int:
    """One link that runs `program` at every file offset, in process `pid` (of the caller's PID namespace) alone.

    Raises:
        OSError: as the kernel answered; `features` reads it.
    """
    count = len(offsets)
    name = ctypes.create_string_buffer(path.encode())
    offset_array = (ctypes.c_uint64 * count)(*offsets)
    cookies = (ctypes.c_uint64 * count)(*([cookie] * count))
    return bpf(
        _LINK_CREATE,
        struct.pack(
            "<IIIIQQQQIIiI",
            program,
            0,
            ATTACH_UPROBE_MULTI,
            0,
            address(name),
            address(offset_array),
            0,
            address(cookies),
            count,
            0,
            pid,
            0,
        ),
    )


def perf_event_link(program: int, event: int, cookie: int) -> int:
    """A link that runs `program` on a perf event.

    Raises:
        OSError: as the kernel answered.
    """
    return bpf(_LINK_CREATE, struct.pack("<IIIIQ", program, event, _ATTACH_PERF_EVENT, 0, cookie))


def perf_uprobe_type() -> int:
    """The number of the uprobe PMU.

    Raises:
        UnsupportedByKernelError: this kernel has none.
    """
    path = Path("/sys/bus/event_source/devices/uprobe/type")
    try:
        return int(path.read_text(encoding="ascii"))
    except OSError as error:
        raise UnsupportedByKernelError(
            f"this kernel has no uprobe events ({path}: {error.strerror})", "use a kernel with CONFIG_UPROBE_EVENTS"
        ) from error


def perf_uprobe_open(path: str, offset: int, pid: int) -> int:
    """A perf event on one instruction of a file, in process `pid` alone.

    Raises:
        OSError: as the kernel answered.
        UnsupportedByKernelError: no uprobe PMU.
    """
    name = ctypes.create_string_buffer(path.encode())
    # type, size, config, sample_period, sample_type, read_format, flags, wakeup_events, bp_type, config1, config2
    attributes = ctypes.create_string_buffer(
        struct.pack("<IIQQQQQIIQQ", perf_uprobe_type(), 128, 0, 1, 0, 0, 0, 1, 0, address(name), offset), 128
    )
    close_on_exec = 8  # PERF_FLAG_FD_CLOEXEC
    result: int = syscall(
        _NR_PERF_EVENT_OPEN,
        attributes,
        ctypes.c_int(pid),
        ctypes.c_int(-1),
        ctypes.c_int(-1),
        ctypes.c_ulong(close_on_exec),
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def raw_tracepoint_link(program: int, event: str) -> int:
    """A link that runs `program` on a kernel tracepoint; needs no tracefs.

    Raises:
        UnsupportedByKernelError: this kernel has no such tracepoint.
        KernelError: not permitted.
    """
    name = ctypes.create_string_buffer(event.encode())
    try:
        return bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QI", address(name), program))
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise UnsupportedByKernelError(f"this kernel ({platform.release()}) has no tracepoint {event}") from error
        raise refusal(error, f"attaching to the tracepoint {event}", BPF, PERFMON) from error


@functools.cache
def has_uprobe_multi() -> bool:
    """Whether links to many sites with a filter by process exist (Linux 6.6; the filter was by thread at first).

    Told apart by the order of the kernel's checks (kernel/trace/bpf_trace.c, bpf_uprobe_multi_link_attach): the root
    folder is no executable (EBADF), and since the filter's repair a negative pid is refused before that (EINVAL).

    Raises:
        NotPermittedError: this process may not load programs.
    """
    try:
        program = prog_load(RETURN_0, PROG_KPROBE, name="uprobe_multi", attach_type=ATTACH_UPROBE_MULTI)
    except ProgramRejectedError:
        return False
    try:
        return _link_errno(program, 0) == errno.EBADF and _link_errno(program, -1) == errno.EINVAL
    finally:
        os.close(program)


def _link_errno(program: int, pid: int) -> int:
    try:
        os.close(uprobe_multi_link(program, "/", [0], 0, pid))
    except OSError as error:
        return error.errno or 0
    return 0
