"""What this kernel and this process can do, found by trying: for `loader` and for the doctor command."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from otel_goprobe.errors import KernelError, UnsupportedByKernelError
from otel_goprobe.kernel import capabilities, links, sockets, sockhash, syscalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_RETURN_1 = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)
"""``r0 = 1; exit``: SK_PASS of an sk_msg program; a sock_ops program that leaves the others' answers alone."""

_WRITING = struct.pack(
    "<BBhiBBhiBBhiBBhiBBhiBBhiBBhi",
    *(0x7A, 0x0A, -8, 0),  # *(u64 *)(r10 - 8) = 0
    *(0xB7, 0x01, 0, 0),  # r1 = 0: nowhere
    *(0xBF, 0xA2, 0, 0),  # r2 = r10
    *(0x07, 0x02, 0, -8),  # r2 += -8
    *(0xB7, 0x03, 0, 8),  # r3 = 8
    *(0x85, 0x00, 0, 36),  # call bpf_probe_write_user
    *(0x95, 0x00, 0, 0),  # exit
)
"""A program that would write to a process's memory."""

_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_BTF = Path("/sys/kernel/btf/vmlinux")


@dataclass(frozen=True, slots=True)
class Feature:
    """One thing that the agent uses of the kernel."""

    name: str
    state: Literal["yes", "no", "unknown"]
    required: bool
    """Whether nothing works without it."""
    detail: str
    """What was found; empty where `state` says it all."""
    remedy: str = ""


def probe_features() -> tuple[Feature, ...]:
    """Try each feature, kernel first, then this process's capabilities. Leaves nothing behind; milliseconds."""
    return (
        _tried("BPF maps", syscalls.require_bpf),
        _tried("BPF ring buffer", _try_ring),
        _tried("BPF programs", lambda: _try_program(0)),
        _tried("sleepable BPF programs", lambda: _try_program(syscalls.PROG_SLEEPABLE), required=False),
        *_uprobes(),
        _tried("raw tracepoints", _try_raw_tracepoint, required=False),
        _tried("headers on the wire", _try_wire, required=False),
        _btf(),
        _tried("joins within the host", sockets.socket_layout, required=False),
        _lockdown(),
        *_capabilities(),
    )


def _tried(name: str, attempt: Callable[[], object], *, required: bool = True) -> Feature:
    try:
        attempt()
    except KernelError as error:
        return Feature(name, "no", required, error.message, error.remedy)
    return Feature(name, "yes", required, "")


def _try_ring() -> None:
    os.close(syscalls.map_create(syscalls.MAP_RINGBUF, 0, 0, mmap.PAGESIZE, name="probe_ring"))


def _try_program(flags: int) -> None:
    os.close(syscalls.prog_load(links.RETURN_0, syscalls.PROG_KPROBE, name="probe_program", flags=flags))


def _try_raw_tracepoint() -> None:
    program = syscalls.prog_load(links.RETURN_0, syscalls.PROG_RAW_TRACEPOINT, name="probe_raw_tp")
    try:
        os.close(links.raw_tracepoint_link(program, "sched_process_exec"))
    finally:
        os.close(program)


def missing_tracepoints(events: Iterable[str]) -> tuple[str, ...]:
    """Return those of these tracepoints that this kernel hasn't got.

    Raises:
        NotPermittedError: for want of a capability.
    """
    missing = []
    program = syscalls.prog_load(links.RETURN_0, syscalls.PROG_RAW_TRACEPOINT, name="probe_raw_tp")
    try:
        for event in events:
            try:
                os.close(links.raw_tracepoint_link(program, event))
            except UnsupportedByKernelError:
                missing.append(event)
    finally:
        os.close(program)
    return tuple(missing)


def _try_wire() -> None:
    """What ``--propagation wire`` takes, on a cgroup that is there: this process's own."""
    with contextlib.ExitStack() as stack:

        def held(descriptor: int) -> int:
            stack.callback(os.close, descriptor)
            return descriptor

        held_sockets = held(syscalls.map_create(syscalls.MAP_SOCKHASH, 4, 4, 1, name="probe_sockhash"))
        message = held(
            syscalls.prog_load(
                _RETURN_1, syscalls.PROG_SK_MSG, name="probe_sk_msg", attach_type=syscalls.ATTACH_SK_MSG_VERDICT
            )
        )
        connection = held(
            syscalls.prog_load(
                _RETURN_1, syscalls.PROG_SOCK_OPS, name="probe_sock_ops", attach_type=syscalls.ATTACH_CGROUP_SOCK_OPS
            )
        )
        link = sockhash.attach_sk_msg(message, held_sockets)
        if link is not None:
            held(link)
        held(sockhash.sock_ops_link(connection, held(sockhash.open_cgroup(os.getpid()))))


def _uprobes() -> tuple[Feature, Feature]:
    """uprobe_multi, and what stands in for it; one of them is required."""
    try:
        multi = links.has_uprobe_multi()
    except KernelError as error:
        many = Feature("uprobe_multi links", "no", False, error.message, error.remedy)
        multi = False
    else:
        detail = "" if multi else "Linux 6.6 is the first with it; perf events are used, whose detaching takes longer"
        many = Feature("uprobe_multi links", "yes" if multi else "no", False, detail)
    return many, _tried("uprobe perf events", links.perf_uprobe_type, required=not multi)


def _btf() -> Feature:
    found = _BTF.exists()
    return Feature("BTF of the kernel", "yes" if found else "no", False, "" if found else f"{_BTF} is missing")


def require_writing() -> None:
    """Return if the kernel loads programs that write to a process's memory; it logs that one was loaded.

    Raises:
        NotPermittedError: this process may load none at all.
        UnsupportedByKernelError: not those.
    """
    try:
        os.close(syscalls.prog_load(_WRITING, syscalls.PROG_KPROBE, name="probe_write"))
    except syscalls.ProgramRejectedError as error:
        # Of what it takes, bpf_tracing_func_proto asks for no more than these two (kernel/trace/bpf_trace.c).
        raise UnsupportedByKernelError(writing_refused() or "its lockdown is on") from error


def writing_refused() -> str:
    """Why the kernel loads no programs that write to a process's memory, a clause; empty if that isn't known.

    By what can be known without trying: lockdown forbids it, and it takes CAP_SYS_ADMIN.
    """
    if capabilities.SYS_ADMIN.name not in capabilities.effective():
        return f"that takes {capabilities.SYS_ADMIN.name}"
    chosen = _lockdown_chosen()
    return "" if chosen in {"", "none"} else f"its lockdown is on ({chosen})"


def _lockdown_chosen() -> str:
    """``none``, ``integrity``, ``confidentiality``; empty where it can't be read."""
    try:
        text = _LOCKDOWN.read_text(encoding="ascii")
    except OSError:
        return ""
    return text[text.find("[") + 1 : text.find("]")]


def _lockdown() -> Feature:
    """Whether lockdown leaves the agent alone: ``integrity`` does all but, ``confidentiality`` forbids perf events."""
    chosen = _lockdown_chosen()
    if not chosen:
        found = f"{_LOCKDOWN} can't be read: securityfs isn't mounted; lockdown would forbid --propagation write"
        return Feature("kernel lockdown", "unknown", False, found)
    if chosen != "confidentiality":
        affected = "nothing here is affected" if chosen == "none" else "forbids --propagation write, nothing else here"
        return Feature("kernel lockdown", "yes", False, f"{chosen}: {affected}")
    return Feature("kernel lockdown", "no", False, f"{chosen}: perf events are forbidden", "boot without it")


def _capabilities() -> tuple[Feature, ...]:
    held = capabilities.effective()
    return tuple(
        Feature(
            capability.name,
            "yes" if capability.name in held else "no",
            capability in capabilities.REQUIRED_CAPABILITIES,
            capability.reason,
            "" if capability.name in held else f"run otel-goprobe as root or give it {capability.name}",
        )
        for capability in (*capabilities.REQUIRED_CAPABILITIES, *capabilities.SITUATIONAL_CAPABILITIES)
    )
