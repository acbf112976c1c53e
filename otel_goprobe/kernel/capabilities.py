"""Which capabilities the agent needs and has, and an errno of the kernel -> the project's error that names them.

Found by experiment (Linux 6.18, another uid's process through /proc/PID/exe, one capability after the other left out
with setpriv; tests/bpf/test_permissions.py repeats it): CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE are enough, also to
compile. CAP_SYS_ADMIN stands for the first two, and is what perf events on user code need instead of them.
"""

from __future__ import annotations

import errno
import platform
from dataclasses import dataclass
from pathlib import Path

from otel_goprobe.errors import KernelError, NotPermittedError, UnsupportedByKernelError


@dataclass(frozen=True, slots=True)
class Capability:
    """One capability of capabilities(7)."""

    name: str
    number: int
    """include/uapi/linux/capability.h."""
    reason: str
    """What the agent does with it."""


DAC_READ_SEARCH = Capability(
    "CAP_DAC_READ_SEARCH", 2, "reads other users' listening ports, OTEL_* variables and executables closed to others"
)
SYS_PTRACE = Capability("CAP_SYS_PTRACE", 19, "opens /proc/PID/exe of other users' processes")
NET_ADMIN = Capability("CAP_NET_ADMIN", 12, "sends traceparent headers to other hosts (--propagation wire)")
SYS_ADMIN = Capability(
    "CAP_SYS_ADMIN",
    21,
    "opens perf events on user code, where the kernel has no uprobe_multi; joins requests with those of other agents of"
    " this host; finds cgroups that no mount shows (--propagation wire); writes headers (--propagation write)",
)
PERFMON = Capability("CAP_PERFMON", 38, "loads programs that read another process, attaches them")
BPF = Capability("CAP_BPF", 39, "creates BPF maps, loads BPF programs")

REQUIRED_CAPABILITIES = (BPF, PERFMON, SYS_PTRACE)
"""Enough to trace a process named by its pid, where its executable is readable and the kernel has uprobe_multi."""
SITUATIONAL_CAPABILITIES = (DAC_READ_SEARCH, NET_ADMIN, SYS_ADMIN)
"""Wanted in the cases that their reasons name."""

_COVERED_BY_SYS_ADMIN = (BPF, PERFMON)


def effective() -> frozenset[str]:
    """Names of the capabilities above that this process has, those included that another one stands for."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (mask,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    held = {
        capability.name
        for capability in (*REQUIRED_CAPABILITIES, *SITUATIONAL_CAPABILITIES)
        if mask >> capability.number & 1
    }
    if SYS_ADMIN.name in held:
        held |= {capability.name for capability in _COVERED_BY_SYS_ADMIN}
    return frozenset(held)


def refusal(error: OSError, doing: str, *needs: Capability) -> KernelError:
    """The error to raise for what the kernel answered.

    Args:
        error: with its errno.
        doing: such as ``creating the BPF map x``.
        needs: the capabilities that it takes.
    """
    if error.errno in (errno.EPERM, errno.EACCES):
        return NotPermittedError(f"the kernel doesn't permit {doing} ({error.strerror})", _permission_remedy(needs))
    if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
        return UnsupportedByKernelError(
            f"this kernel ({platform.release()}) doesn't support {doing} ({error.strerror})",
            "use Linux 5.15 or newer with CONFIG_BPF_SYSCALL and CONFIG_UPROBE_EVENTS",
        )
    return KernelError(f"{doing} failed ({error.strerror})")


def _permission_remedy(needs: tuple[Capability, ...]) -> str:
    held = effective()
    missing = [f"{need.name} ({need.reason})" for need in needs if need.name not in held]
    if missing:
        return f"run it as root, or give it {' and '.join(missing)}"
    return "it has the capabilities, so a seccomp profile, a user namespace, or kernel lockdown forbids it"
