"""--propagation wire in cgroups that others use as well, and in PID namespaces."""

from __future__ import annotations

import itertools
import os
import struct
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.containers import Pod
from harness.hosts import Program, counts, intact
from networks import Hosts

from otel_goprobe.kernel import sockhash, syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from harness.receiver import Receiver

pytestmark = [pytest.mark.root, pytest.mark.slow]

REQUESTS = 23
RETURN_1 = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)
PROG_ATTACH = 8
EXCLUSIVE, OVERRIDABLE, SHARED = 0, 1, 2
"""No flag, BPF_F_ALLOW_OVERRIDE, BPF_F_ALLOW_MULTI: include/uapi/linux/bpf.h."""


class Cgroup:
    """A cgroup of the test's own, by a mount that is attached to no path; a context manager that removes it."""

    _numbers = itertools.count()

    def __init__(self, above: Cgroup | None = None) -> None:
        self._above = above.descriptor if above else sockhash._opened_by_own_mount("/")
        self._name = f"goprobe-{os.getpid()}-{next(self._numbers)}"
        os.mkdir(self._name, dir_fd=self._above)
        self.descriptor = os.open(self._name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._above)

    def take(self, pid: int) -> None:
        """Move a process here; sockets that it has stay what they were."""
        procs = os.open("cgroup.procs", os.O_WRONLY, dir_fd=self.descriptor)
        os.write(procs, str(pid).encode())
        os.close(procs)

    def occupy(self, how: int) -> None:
        """Have a sock_ops program of somebody else's here, attached the legacy way; it goes with the cgroup."""
        program = syscalls.prog_load(
            RETURN_1, syscalls.PROG_SOCK_OPS, name="others", attach_type=syscalls.ATTACH_CGROUP_SOCK_OPS
        )
        attributes = struct.pack("<IIII", self.descriptor, program, syscalls.ATTACH_CGROUP_SOCK_OPS, how)
        syscalls.bpf(PROG_ATTACH, attributes)
        os.close(program)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)
        for _ in range(100):
            try:
                os.rmdir(self._name, dir_fd=self._above)
                break
            except OSError:  # its last process is still going
                time.sleep(0.05)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Give two hosts."""
    with Hosts("n") as two:
        yield two


@pytest.mark.parametrize(
    ("outer", "inner", "works"),
    [
        (None, None, True),
        (SHARED, SHARED, True),
        (OVERRIDABLE, None, True),
        (None, OVERRIDABLE, False),
        (EXCLUSIVE, None, False),
    ],
    ids=["alone", "among-others", "below-overridable", "beside-overridable", "below-exclusive"],
)
def test_cgroup_in_a_cgroup(
    hosts: Hosts, receiver: Receiver, outer: int | None, inner: int | None, *, works: bool
) -> None:
    """Headers are there where others' programs allow ours beside them; else the agent says so, and all else works."""
    exe = go_binary("wire")
    with (
        Cgroup() as above,
        Cgroup(above) as own,
        Program(exe, hosts.far, "server", f"{hosts.FAR_IPV4}:0") as server,
        Program(exe, hosts.near, "client", f"http://{server.address}") as client,
    ):
        own.take(client.pid)
        for cgroup, how in ((above, outer), (own, inner)):
            if how is not None:
                cgroup.occupy(how)
        arguments = ("--pid", str(client.pid), "--propagation", "wire")
        with Agent(*arguments, environment=receiver.environment) as agent:
            agent.attached()
            client.send("post", REQUESTS, 1000, 4)
            outcome = agent.stop()
        intact(sent := client.log(), arrived := server.log(len(sent)))
    headers = [line["traceparents"] for line in arrived.values() if line["traceparents"]]
    assert (outcome.exported, outcome.dropped) == (REQUESTS, {})
    assert len(headers) == (REQUESTS if works else 0)
    assert counts(outcome) == ({"wire_injected": REQUESTS} if works else {"wire_unseen_socket": REQUESTS})
    assert len(agent.stderr.matching("no traceparent header is sent to other hosts: .*cgroup")) == (not works)
    assert f"propagation={'wire' if works else 'local'} (" in agent.stderr.matching("^attached")[0]


@pytest.mark.parametrize("agent_inside", [False, True], ids=["agent-outside", "agent-inside"])
def test_target_in_a_pid_namespace(hosts: Hosts, receiver: Receiver, *, agent_inside: bool) -> None:
    """Its sockets are told by the kernel's number of the process, which neither of them may know."""
    exe = go_binary("wire")
    with ExitStack() as stack:
        pod = stack.enter_context(Pod())
        server = stack.enter_context(Program(exe, hosts.far, "server", f"{hosts.FAR_IPV4}:0"))
        client = stack.enter_context(Program(exe, hosts.near, "client", f"http://{server.address}", prefix=pod.prefix))
        pid = client.pid
        if agent_inside:
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
            (numbers,) = (line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
            pid = int(numbers[-1])
        agent = stack.enter_context(
            Agent(
                *("--pid", str(pid), "--propagation", "wire"),
                environment=receiver.environment,
                prefix=pod.prefix if agent_inside else (),
            )
        )
        agent.attached()
        for kind in ("get", "close"):
            client.send(kind, REQUESTS, concurrency=4)
        outcome = agent.stop()
        intact(sent := client.log(), arrived := server.log(len(sent)))
    assert all(len(line["traceparents"] or ()) == 1 for line in arrived.values())
    assert counts(outcome) == {"wire_injected": 2 * REQUESTS}
