"""Where a task keeps its user-space thread pointer, out of the kernel's BTF; for bpf/include/tool.h, by tooling.py."""

from __future__ import annotations

from otel_goprobe.errors import UnsupportedByKernelError
from otel_goprobe.kernel.sockets import Btf


def thread_pointer_offset() -> int:
    """Return bytes from the start of ``struct task_struct`` to ``thread.fsbase``, which is x86-64's.

    What a thread was given as it was made, or set by arch_prctl, is there (arch/x86/kernel/process_64.c,
    do_arch_prctl_64); what it writes by itself, with the instruction wrfsbase, is there from its next switch on.

    Raises:
        UnsupportedByKernelError: the kernel has no BTF, or no such member.
    """
    btf = Btf()
    try:
        return btf.struct("task_struct")[btf.name("thread")] + btf.struct("thread_struct")[btf.name("fsbase")]
    except KeyError:
        raise UnsupportedByKernelError("the kernel's tasks keep no thread pointer in thread.fsbase") from None
