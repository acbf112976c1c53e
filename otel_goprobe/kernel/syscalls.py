"""bpf(2) on maps and programs by ctypes, each command a function; errno -> the project's errors.

`maps`, `loader`, `links` and `features` call it. Layouts are those of ``union bpf_attr`` in the kernel's
include/uapi/linux/bpf.h, 6.18; older kernels know a prefix of them and accept the rest while it is zero. x86-64 only.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import platform
import struct
from typing import Any

from otel_goprobe.errors import KernelError, MapFullError, UnsupportedByKernelError
from otel_goprobe.kernel.capabilities import BPF, NET_ADMIN, PERFMON, refusal

_log = logging.getLogger(__name__)

libc = ctypes.CDLL(None, use_errno=True)
syscall = libc.syscall
syscall.restype = ctypes.c_long

# arch/x86/entry/syscalls/syscall_64.tbl
_NR_BPF = 321

# enum bpf_cmd
_MAP_CREATE = 0
_MAP_LOOKUP = 1
_MAP_UPDATE = 2
_MAP_DELETE = 3
_PROG_LOAD = 5
_MAP_GET_NEXT_ID = 12
_MAP_GET_FD_BY_ID = 14
_OBJ_GET_INFO_BY_FD = 15
_MAP_LOOKUP_BATCH = 24

# enum bpf_map_type
MAP_HASH = 1
MAP_PERCPU_HASH = 5
MAP_PERCPU_ARRAY = 6
MAP_SOCKHASH = 18
MAP_RINGBUF = 27

# enum bpf_prog_type
PROG_KPROBE = 2
PROG_SOCK_OPS = 13
PROG_SK_MSG = 16
PROG_RAW_TRACEPOINT = 17

# enum bpf_attach_type
ATTACH_CGROUP_SOCK_OPS = 3
ATTACH_SK_MSG_VERDICT = 7
ATTACH_UPROBE_MULTI = 48

PROG_SLEEPABLE = 1 << 4
"""BPF_F_SLEEPABLE."""

_ATTR_BYTES = 152
"""More than any command here needs."""
_LOG_BYTES = 4 * 2**20
_LOG_LINES = 12
"""How much of the verifier's log an error carries; the rest is logged at debug."""


class ProgramRejectedError(KernelError):
    """The verifier refused a program; `log` is all it said."""

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log


def bpf(command: int, attributes: bytes) -> int:
    """The raw command.

    Raises:
        OSError: as the kernel answered.
    """
    buffer = ctypes.create_string_buffer(attributes, max(_ATTR_BYTES, len(attributes)))
    result: int = syscall(_NR_BPF, ctypes.c_int(command), buffer, ctypes.c_uint(len(buffer)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def object_name(name: str) -> bytes:
    """What the kernel keeps of a name: BPF_OBJ_NAME_LEN is 16 with its NUL."""
    return name.encode()[:15]


def address(buffer: Any) -> int:
    """Where a ctypes object lies; 0 for None."""
    return ctypes.addressof(buffer) if buffer is not None else 0


# --- maps ------------------------------------------------------------------------------------------------------------


def map_create(kind: int, key_size: int, value_size: int, max_entries: int, *, flags: int = 0, name: str = "") -> int:
    """A new map's descriptor.

    Raises:
        KernelError: or one of its kinds.
    """
    if platform.machine() != "x86_64":
        raise UnsupportedByKernelError(f"otel-goprobe runs on x86-64, not on {platform.machine()}")
    try:
        return bpf(
            _MAP_CREATE,
            struct.pack("<7I16s", kind, key_size, value_size, max_entries, flags, 0, 0, object_name(name)),
        )
    except OSError as error:
        needs = (BPF, NET_ADMIN) if kind == MAP_SOCKHASH else (BPF,)
        raise refusal(error, f"creating the BPF map {name} of {max_entries} entries", *needs) from error


def require_bpf() -> None:
    """Return if this process may use bpf(2).

    Raises:
        NotPermittedError: it lacks a capability.
        UnsupportedByKernelError: there is no bpf(2).
    """
    os.close(map_create(MAP_HASH, 4, 4, 1, name="permitted"))


def map_lookup(descriptor: int, key: bytes, value_bytes: int) -> bytes | None:
    """The value, or None where there is no such key."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value = ctypes.create_string_buffer(value_bytes)
    try:
        bpf(_MAP_LOOKUP, struct.pack("<IxxxxQQQ", descriptor, address(key_buffer), address(value), 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise refusal(error, "reading a BPF map", BPF) from error
    return value.raw


def map_update(descriptor: int, key: bytes, value: bytes, flags: int) -> None:
    """Write one element; `flags` 0 any, 1 only a new one, 2 only an existing one.

    Raises:
        MapFullError: it has no room.
        KernelError: any other failure.
    """
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value_buffer = ctypes.create_string_buffer(value, len(value))
    try:
        bpf(_MAP_UPDATE, struct.pack("<IxxxxQQQ", descriptor, address(key_buffer), address(value_buffer), flags))
    except OSError as error:
        if error.errno == errno.E2BIG:
            raise MapFullError("a BPF map has no room for another element") from error
        raise refusal(error, "writing a BPF map", BPF) from error


def map_delete(descriptor: int, key: bytes) -> bool:
    """Whether there was such a key."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    try:
        bpf(_MAP_DELETE, struct.pack("<IxxxxQ", descriptor, address(key_buffer)))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise refusal(error, "deleting from a BPF map", BPF) from error
    return True


def map_lookup_batch(
    descriptor: int, key_bytes: int, value_bytes: int, count: int, *, before: bytes | None = None
) -> tuple[bytes, bytes]:
    """Up to `count` elements in one call: their keys and their values, one behind the other.

    Args:
        descriptor: of an array, a hash, or their per-CPU kinds.
        key_bytes: size of a key.
        value_bytes: size of a value, of all CPUs in a per-CPU map.
        count: how many at most; a hash gives all if it is at least its number of elements.
        before: the key behind which an array begins; None for its first row.
    """
    import numpy as np  # noqa: PLC0415 - a start doesn't wait for it before the verifier works

    first = ctypes.create_string_buffer(before, len(before)) if before is not None else None
    last = ctypes.create_string_buffer(max(key_bytes, 4))
    # Not zeroed: of room for thousands of elements only what there is gets touched.
    keys, values = (np.empty(count * size, np.uint8) for size in (key_bytes, value_bytes))
    attributes = ctypes.create_string_buffer(
        struct.pack(
            "<QQQQIIQQ",
            address(first),
            address(last),
            keys.ctypes.data,
            values.ctypes.data,
            count,
            descriptor,
            0,
            0,
        ),
        _ATTR_BYTES,
    )
    result = syscall(_NR_BPF, ctypes.c_int(_MAP_LOOKUP_BATCH), attributes, ctypes.c_uint(_ATTR_BYTES))
    number = ctypes.get_errno()
    if result < 0 and number != errno.ENOENT:  # ENOENT: the end was reached; what is there has been copied
        raise refusal(OSError(number, os.strerror(number)), "reading a BPF map", BPF)
    (done,) = struct.unpack_from("<I", attributes.raw, 32)
    return keys[: done * key_bytes].tobytes(), values[: done * value_bytes].tobytes()


def map_next_id(before: int) -> int | None:
    """The number of the oldest map of this machine behind the number `before`; None behind the last.

    Raises:
        PermissionError: it takes CAP_SYS_ADMIN.
    """
    attributes = ctypes.create_string_buffer(struct.pack("<III", before, 0, 0), _ATTR_BYTES)
    if syscall(_NR_BPF, ctypes.c_int(_MAP_GET_NEXT_ID), attributes, ctypes.c_uint(12)) == 0:
        number: int = struct.unpack_from("<I", attributes.raw, 4)[0]
        return number
    if ctypes.get_errno() == errno.ENOENT:
        return None
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def map_by_id(number: int) -> int | None:
    """A descriptor of a map of this machine; None if it is gone.

    Raises:
        PermissionError: it takes CAP_SYS_ADMIN.
    """
    try:
        return bpf(_MAP_GET_FD_BY_ID, struct.pack("<III", number, 0, 0))
    except FileNotFoundError:
        return None


def map_information(descriptor: int) -> bytes:
    """``struct bpf_map_info``: type, id, key size, value size, elements, flags (4 bytes each), name (16), and so on."""
    found = ctypes.create_string_buffer(128)
    bpf(_OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", descriptor, len(found), address(found)))
    return found.raw


# --- programs --------------------------------------------------------------------------------------------------------


def prog_load(instructions: bytes, kind: int, *, name: str, attach_type: int = 0, flags: int = 0) -> int:
    """A verified program's descriptor.

    Args:
        instructions: bytecode, 8 bytes each, map descriptors patched in.
        kind: ``BPF_PROG_TYPE_*``.
        name: for errors, bpftool and the kernel's listings (cut to 15 bytes there).
        attach_type: ``expected_attach_type``.
        flags: such as PROG_SLEEPABLE.

    Raises:
        NotPermittedError: for want of a capability.
        ProgramRejectedError: the verifier refused it.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")

    def load(log: Any) -> int:
        return bpf(
            _PROG_LOAD,
            struct.pack(
                "<IIQQIIQII16sII",
                kind,
                len(instructions) // 8,
                address(code),
                address(licence),
                1 if log is not None else 0,
                len(log) if log is not None else 0,
                address(log),
                0,
                flags,
                object_name(name),
                0,
                attach_type,
            ),
        )

    try:
        return load(None)
    except OSError as error:
        if error.errno == errno.EPERM:
            needs = (BPF, PERFMON, NET_ADMIN) if kind in {PROG_SOCK_OPS, PROG_SK_MSG} else (BPF, PERFMON)
            raise refusal(error, f"loading the BPF program {name}", *needs) from error
    log = ctypes.create_string_buffer(_LOG_BYTES)
    try:
        return load(log)
    except OSError as error:
        text = log.value.decode(errors="replace")
        _log.debug("verifier on %s:\n%s", name, text)
        tail = "\n".join(text.rstrip().splitlines()[-_LOG_LINES:])
        raise ProgramRejectedError(
            f"the kernel rejected the BPF program {name} ({error.strerror})" + (f":\n{tail}" if tail else ""), text
        ) from error


def verified_instructions(descriptor: int) -> int:
    """How many instructions the verifier walked; 0 where the kernel (< 5.16) doesn't tell."""
    program_info = ctypes.create_string_buffer(256)
    bpf(_OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", descriptor, len(program_info), address(program_info)))
    verified: int = struct.unpack_from("<I", program_info.raw, 216)[0]  # bpf_prog_info.verified_insns
    return verified
