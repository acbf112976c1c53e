"""A plan and a process -> links. The agent calls `attach` for each target and closes what it returns."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from otel_goprobe.errors import BinaryError, KernelError, TargetGoneError, UnsupportedByKernelError
from otel_goprobe.kernel import links
from otel_goprobe.kernel.capabilities import (
    BPF,
    DAC_READ_SEARCH,
    PERFMON,
    SYS_ADMIN,
    SYS_PTRACE,
    refusal,
)
from otel_goprobe.model import Skipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from otel_goprobe import model
    from otel_goprobe.kernel.loader import Program

MANY_PERF_LINKS = 40
"""Closing one and its event takes 0.13 s, in the exit of a process too, in parallel 0.09 s (measured, Linux 6.18): more
than these are closed in the background."""

CLOSED_AT_ONCE = 64
"""A link of uprobe_multi waits when it is closed until no program runs any more: 18 of them take 1.3 s one after the
other and 0.08 s at once (measured, Linux 6.18)."""


class Attachment:
    """The links of one target, or of the tracepoints. Closing is idempotent, last made first.

    Args:
        descriptors: in the order they were made.
        in_background: whether closing them would keep the caller waiting for seconds; until each is closed its probe
            still fires.
        skipped: what isn't attached, and why.
    """

    def __init__(
        self, descriptors: Sequence[int], *, in_background: bool = False, skipped: Sequence[model.Skipped] = ()
    ) -> None:
        self._descriptors = list(descriptors)
        self._in_background = in_background
        self.skipped = tuple(skipped)

    def __len__(self) -> int:
        return len(self._descriptors)

    def close(self) -> None:
        """Detach: starts, which were attached last, go first."""
        detach([self])

    def take(self) -> tuple[list[int], bool]:
        """Return what is to be closed, in that order, and whether in the background; it is the caller's now."""
        descriptors, self._descriptors = self._descriptors, []
        return descriptors[::-1], self._in_background

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def detach(attachments: Iterable[Attachment]) -> None:
    """Close the links of several at once."""
    waited_for: list[int] = []
    for attachment in attachments:
        descriptors, in_background = attachment.take()
        if in_background:
            threading.Thread(target=_close_all, args=(descriptors,), name="detach", daemon=True).start()
        else:
            waited_for += descriptors
    if waited_for:
        with ThreadPoolExecutor(min(len(waited_for), CLOSED_AT_ONCE)) as threads:
            list(threads.map(os.close, waited_for))


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def attach(program: Program, plan: model.Plan, *, pid: int, exe_path: str, slot: int) -> Attachment:
    """Put the uprobes of `plan` on one process.

    The file is opened once, its bytes are compared with the analysed ones, and the links are made on what is open: it
    can't be replaced in between. Each link carries `slot` as its cookie and its own filter for the process `pid`, all
    threads of it, also with perf events: both ways the kernel compares the memory map of the process's first thread
    (uprobe_multi_link_filter, __uprobe_perf_filter in kernel/trace). So a link made before the exec of a child with one
    thread holds; one to a program that executes itself again holds only if its first thread is the one that calls exec,
    and has to be made anew after every exec, the old one closed first lest a hit counts twice.

    Args:
        program: whose programs the plan names.
        plan: attached in its order.
        pid: in the PID namespace of this process.
        exe_path: a path that opens the executable itself, such as ``/proc/PID/exe``.
        slot: index of the target.

    Raises:
        BinaryError: the file isn't the analysed one; nothing is attached.
        TargetGoneError: the process ended.
        NotPermittedError: for want of a capability.
        KernelError: a program or a link was refused; links already made are closed.
    """
    program.require(probe.program for probe in plan.probes)
    try:
        executable = os.open(exe_path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise TargetGoneError(f"process {pid} has ended") from error
    except OSError as error:
        raise refusal(error, f"opening {exe_path}", SYS_PTRACE, DAC_READ_SEARCH) from error
    try:
        for probe in plan.probes:
            for site in probe.sites:
                _check_bytes(executable, site, exe_path)
        return _attach_open(program, plan, pid, f"/proc/self/fd/{executable}", slot)
    finally:
        os.close(executable)


def attach_tracepoints(program: Program) -> Attachment:
    """Put the unit's raw tracepoint programs on their tracepoints; without tracefs.

    Raises:
        NotPermittedError: for want of a capability.
        UnsupportedByKernelError: the kernel has no such tracepoint, and the program is required.
    """
    entries = [entry for entry in program.unit.programs if entry.kind == "raw_tracepoint"]
    program.require(entry.name for entry in entries)
    opened: list[int] = []
    skipped: list[Skipped] = []
    for entry in entries:
        try:
            opened.append(links.raw_tracepoint_link(program.descriptors[entry.name], entry.event))
        except KernelError as error:
            if not entry.required and isinstance(error, UnsupportedByKernelError):
                skipped.append(Skipped(f"without {entry.name}", error.message))
                continue
            Attachment(opened).close()
            raise
    return Attachment(opened, skipped=skipped)


def _check_bytes(executable: int, site: model.Site, exe_path: str) -> None:
    found = os.pread(executable, len(site.expected), site.file_offset)
    if found != site.expected:
        raise BinaryError(
            f"{exe_path} is not the analysed file: {site.function} has {found.hex(' ') or 'nothing'} at file offset"
            f" {site.file_offset:#x} where {site.expected.hex(' ')} was expected",
            "try again; if it was replaced, the new one will be analysed",
        )


def _attach_open(program: Program, plan: model.Plan, pid: int, path: str, slot: int) -> Attachment:
    descriptors: list[int] = []
    try:
        for probe in plan.probes:
            loaded = program.descriptors[probe.program]
            offsets = [site.file_offset for site in probe.sites]
            if program.attach_way == "uprobe_multi":
                descriptors.append(links.uprobe_multi_link(loaded, path, offsets, slot, pid))
                continue
            for offset in offsets:
                descriptors.append(event := links.perf_uprobe_open(path, offset, pid))
                descriptors.append(links.perf_event_link(loaded, event, slot))
    except OSError as error:
        Attachment(descriptors).close()
        if error.errno == errno.ESRCH:
            raise TargetGoneError(f"process {pid} has ended") from error
        needs = (BPF, PERFMON) if program.attach_way == "uprobe_multi" else (BPF, SYS_ADMIN)
        raise refusal(error, f"attaching uprobes to process {pid}", *needs) from error
    except KernelError:
        Attachment(descriptors).close()
        raise
    many = program.attach_way == "perf_event" and len(descriptors) > 2 * MANY_PERF_LINKS
    return Attachment(descriptors, in_background=many)
