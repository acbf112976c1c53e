"""Headers on the wire: the two traps, agents that are killed under load, cgroups that no mount shows."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from exchange import LINE, SLOT, SPAN_ID, TRACE_ID, Exchange, Watched, injected
from networks import Hosts

from otel_goprobe.kernel import sockhash, syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Give two hosts."""
    with Hosts() as two:
        yield two


@pytest.mark.parametrize("remedy", [True, False])
def test_trap_arming_before_membership(cache_dir: Path, hosts: Hosts, remedy: bool) -> None:
    """A head that was armed but not seen: a body that looks like a request isn't touched once the socket is a member.

    Taking a socket in disarms it, and `wire_arm` arms members alone. Without that, which the test does by arming again
    what taking in has disarmed, the body is corrupted.
    """
    head = b"POST / HTTP/1.1\r\nHost: far\r\nContent-Length: 31\r\n\r\n"
    body = b"GET /body HTTP/1.1\r\nHost: x\r\n\r\n"
    with Exchange(hosts) as connection, Watched(cache_dir) as unit:
        unit.arm(connection, check=False)
        connection.client.sendall(head)
        assert unit.is_armed(connection)
        assert unit.watch() == 1
        assert not unit.is_armed(connection)
        if not remedy:
            unit.arm(connection)
        connection.client.sendall(body)
        assert connection.arrived() == head + (body if remedy else injected(body))


HOLDER = """
import os, signal, struct, sys
from otel_goprobe.kernel import sockhash, syscalls
program = syscalls.prog_load(
    struct.pack("<BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0), syscalls.PROG_SOCK_OPS, name="trap",
    attach_type=syscalls.ATTACH_CGROUP_SOCK_OPS)
cgroup = sockhash.open_cgroup(os.getpid())
if sys.argv[1] == "link":
    link = sockhash.sock_ops_link(program, cgroup)
else:
    allow_multi = 2
    syscalls.bpf(8, struct.pack("<IIII", cgroup, program, syscalls.ATTACH_CGROUP_SOCK_OPS, allow_multi))
print(open(f"/proc/self/fdinfo/{program}").read().split("prog_id:")[1].split()[0], flush=True)
signal.pause()
"""


def attached_to(cgroup: int) -> set[int]:
    """Return the ids of the sock_ops programs of a cgroup (BPF_PROG_QUERY)."""
    ids = (ctypes.c_uint32 * 64)()
    attributes = ctypes.create_string_buffer(
        struct.pack("<IIIIQI", cgroup, syscalls.ATTACH_CGROUP_SOCK_OPS, 0, 0, ctypes.addressof(ids), 64), 152
    )
    assert syscalls.syscall(321, ctypes.c_int(16), attributes, ctypes.c_uint(152)) == 0
    return set(ids[: struct.unpack_from("<I", attributes.raw, 24)[0]])


@pytest.mark.parametrize("way", ["link", "legacy"])
def test_trap_attachment_outlives_its_process(way: str) -> None:
    """A link goes with a process that is killed; a legacy attachment, which nothing here uses, stays."""
    cgroup = sockhash.open_cgroup(os.getpid())
    with subprocess.Popen([sys.executable, "-c", HOLDER, way], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        program = int(holder.stdout.readline())
        assert program in attached_to(cgroup)
        holder.kill()
    until = time.monotonic() + 5
    while program in attached_to(cgroup) and time.monotonic() < until and way == "link":
        time.sleep(0.01)
    assert (program in attached_to(cgroup)) == (way == "legacy")
    if way == "legacy":
        descriptor = syscalls.bpf(13, struct.pack("<I", program))
        syscalls.bpf(9, struct.pack("<III", cgroup, descriptor, syscalls.ATTACH_CGROUP_SOCK_OPS))
        os.close(descriptor)
        assert program not in attached_to(cgroup)
    os.close(cgroup)


AGENT = f"""
import sys
from pathlib import Path
from otel_goprobe import kernel, probes
pid, cache_dir = int(sys.argv[1]), Path(sys.argv[2])
program = kernel.load(probes.wire_unit(kernel.bpf_folder()), cache_dir=cache_dir)
program.maps["tgid_slots"].update(pid.to_bytes(4, "little"), bytes([{SLOT}, 0, 0, 0]))
kernel.describe_sockets(program)
sockets = kernel.Sockets(program)
sockets.watch(pid, {SLOT})
print("ready", flush=True)
value = {TRACE_ID + SPAN_ID!r} + bytes([{SLOT}, 0, 0, 0, 1, 0, 0, 0])
while True:
    for key in program.maps["wire_sockets"].keys():
        program.maps["wire_armed"].update(key, value)
"""


def test_killed_under_load(cache_dir: Path, hosts: Hosts) -> None:
    """Attached and killed again and again while requests are sent: each arrives, with a header or without."""
    request = b"GET /under-load HTTP/1.1\r\nHost: far\r\n\r\n"
    sent = 0
    done = threading.Event()
    with Exchange(hosts) as connection:

        def send() -> None:
            nonlocal sent
            while not done.is_set():
                connection.client.sendall(request)
                sent += 1

        sender = threading.Thread(target=send)
        sender.start()
        for _ in range(5):
            arguments = [sys.executable, "-c", AGENT, str(os.getpid()), str(cache_dir)]
            with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as agent:
                assert agent.stdout
                assert agent.stdout.readline() == "ready\n"
                time.sleep(0.3)
                agent.send_signal(signal.SIGKILL)
        before = sent
        while sent < before + 997:
            time.sleep(0.01)
        done.set()
        sender.join()
        arrived = connection.arrived()
    assert arrived.replace(LINE, b"") == request * sent
    assert 0 < arrived.count(LINE) < sent
    print(f"{sent} requests, {arrived.count(LINE)} with a header")


# --- where the agent is ----------------------------------------------------------------------------------------------

FIND_CGROUP = """
import os, sys
from otel_goprobe.kernel import sockhash
status = os.fstat(sockhash.open_cgroup(int(sys.argv[1])))
print(status.st_dev, status.st_ino)
"""


def test_a_cgroup_is_found_without_a_mount_in_sight() -> None:
    """In mount and cgroup namespaces of its own, from which every mount of cgroups has been removed."""
    cgroup = sockhash.open_cgroup(os.getpid())
    expected = os.fstat(cgroup)
    os.close(cgroup)
    script = f'umount -R -l /sys/fs/cgroup; exec {sys.executable} -c "$0" {os.getpid()}'
    done = subprocess.run(
        ["unshare", "--mount", "--cgroup", "sh", "-c", script, FIND_CGROUP], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(expected.st_dev), str(expected.st_ino)]
    other_way = sockhash._in_cgroup_namespace(os.getpid())
    assert os.fstat(other_way).st_ino == expected.st_ino
    os.close(other_way)
