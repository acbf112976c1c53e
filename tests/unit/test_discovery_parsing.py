"""The parsers of what other processes wrote: /proc files and OTEL_* variables."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_goprobe.discovery import ports, proc
from otel_goprobe.discovery.resource import given_attributes

CONTAINER = "8af1c0de" * 8
OTHER = "0123456789abcdef" * 4
_VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
_NAMES = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1)


@given(st.dictionaries(_NAMES, _VALUES))
def test_environment_keeps_what_is_otel(variables: dict[str, str]) -> None:
    """Every OTEL_* variable comes back as it was, whatever its value; nothing else does."""
    mixed = {**{f"OTEL_{name}": value for name, value in variables.items()}, "PASSWORD": "secret", "XOTEL_A": "b"}
    content = b"".join(f"{name}={value}\0".encode() for name, value in mixed.items())
    assert proc.parse_environment(content) == {f"OTEL_{name}": value for name, value in variables.items()}


@given(st.binary())
def test_environment_takes_any_bytes(content: bytes) -> None:
    """A process may have written anything there; what comes out can be encoded as UTF-8."""
    for name, value in proc.parse_environment(b"OTEL_" + content).items():
        (name + value).encode()


def test_environment_first_of_two_counts() -> None:
    """Go's os.Getenv returns the first of two variables with one name."""
    assert proc.parse_environment(b"OTEL_A=1\0OTEL_A=2\0OTEL_B\0") == {"OTEL_A": "1"}


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=15))
def test_stat_command_may_hold_anything(command: str) -> None:
    """Blanks and parentheses in the command's name don't shift the fields."""
    fields = [str(number) for number in range(4, 53)]
    stat = proc.parse_stat(f"77 ({command}) S {' '.join(fields)}\n".encode())
    assert stat == (4, 9, 20, 22, 28, 51)


def test_stat_of_this_process() -> None:
    """The fields are those that the kernel writes."""
    stat = proc.read_stat(os.getpid())
    assert stat is not None
    assert stat.parent == os.getppid()
    assert not stat.kernel_thread
    assert stat.threads >= 1
    assert stat.environment_end > 0


@given(st.binary(max_size=64))
def test_stat_refuses_what_is_none(content: bytes) -> None:
    """A file that is cut short is a ValueError."""
    with pytest.raises(ValueError, match=r"stat|invalid"):
        proc.parse_stat(content)


@pytest.mark.parametrize(
    "path",
    [
        f"0::/docker/{CONTAINER}",
        f"0::/system.slice/docker-{CONTAINER}.scope",
        f"0::/../{CONTAINER}",
        f"0::/machine.slice/libpod-{CONTAINER}.scope/container",
        f"12:pids:/kubepods/burstable/pod1d2c/{CONTAINER}",
        f"0::/kubepods.slice/kubepods-pod1d2c.slice/cri-containerd-{CONTAINER}.scope",
        f"0::/kubepods.slice/kubepods-pod1d2c.slice/crio-{CONTAINER}.scope",
        f"5:cpu:/\n4:memory:/ecs/{'0a' * 16}/{CONTAINER}\n0::/",
        f"0::/docker/{OTHER}/docker/{CONTAINER}",
    ],
)
def test_container_id_in_cgroup(path: str) -> None:
    """Every runtime writes 64 hexadecimal digits; in a container within a container the inner one counts."""
    assert proc.parse_container_id(path, "") == CONTAINER


def test_container_id_in_mountinfo() -> None:
    """A process whose cgroup says `/` is told by the files that its runtime mounts; a pod's sandbox is no container."""
    docker = f"622 602 8:1 /var/lib/docker/containers/{CONTAINER}/hostname /etc/hostname rw - ext4 /dev/sda1 rw"
    podman = (
        f"1 2 8:1 /containers/storage/overlay-containers/{CONTAINER}/userdata/hosts /etc/hosts rw - ext4 /dev/sda1 rw"
    )
    sandbox = f"1 2 8:1 /var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{CONTAINER}/hostname /etc/hostname rw"
    assert proc.parse_container_id("0::/", docker) == CONTAINER
    assert proc.parse_container_id("0::/", podman) == CONTAINER
    assert not proc.parse_container_id("0::/", sandbox)


@given(st.text(), st.text())
def test_container_id_is_one_or_nothing(cgroup: str, mountinfo: str) -> None:
    """Whatever the files hold, the answer is an id or empty."""
    found = proc.parse_container_id(cgroup, mountinfo)
    assert found == "" or (len(found) == 64 and int(found, 16) >= 0)


def test_innermost_pid() -> None:
    """The last number of NSpid is what the process itself sees."""
    assert proc.parse_innermost_pid("Name:\tx\nNSpid:\t4711\t17\t1\nVmPeak:\t 1 kB\n") == 1
    assert proc.parse_innermost_pid("NSpid:\t4711\n") == 4711
    assert proc.parse_innermost_pid("Name:\tx\n") is None


def test_listeners_end_with_the_first_connection() -> None:
    """Sockets that listen come first; the rest of the table is not read."""
    lines = iter(
        [
            b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n",
            b"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4242 1 0 100 0\n",
            b"   1: 00000000000000000000000000000000:10DE 0:0000 0A 00000000:0 00:00000000 00000000 0 0 4243 1\n",
            b"   2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000 0 0 4244 1 0 20 4\n",
            b"not reached",
        ]
    )
    assert ports.parse_listeners(lines) == {4242: 8080, 4243: 4318}
    assert next(lines) == b"not reached"


def test_kernel_tells_the_listeners_that_proc_lists() -> None:
    """Both ways find a socket that listens; a connection isn't one."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as connection,
    ):
        found = ports.asked_listeners()
        assert found is not None
        inode, port = os.fstat(listener.fileno()).st_ino, listener.getsockname()[1]
        assert os.fstat(connection.fileno()).st_ino not in found
        listed = ports.parse_listeners(Path("/proc/self/net/tcp").read_bytes().splitlines())
        assert found[inode] == listed[inode] == port


@given(st.binary(max_size=300))
def test_any_datagram_is_read_or_refused(datagram: bytes) -> None:
    """Whatever sock_diag sends, the answer is a list of sockets or none, soon."""
    found = ports.parse_diagnosed(datagram)
    assert found is None or all(0 <= port < 2**16 for port in found.listeners.values())


@given(st.dictionaries(st.text(min_size=1).map(str.strip).filter(bool), st.text().map(str.strip), max_size=5))
def test_resource_attributes_come_back_from_percent_encoding(attributes: dict[str, str]) -> None:
    """Any key and value survive OTEL_RESOURCE_ATTRIBUTES when percent-encoded; an empty service.name is none."""
    text = ",".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in attributes.items())
    found = given_attributes({"OTEL_RESOURCE_ATTRIBUTES": text})
    assert not found.problem
    assert found.attributes == {key: value for key, value in attributes.items() if value or key != "service.name"}


@given(st.text())
def test_resource_attributes_take_any_text(text: str) -> None:
    """Anything a process may hold in its environment gives attributes or a problem, never an exception."""
    found = given_attributes({"OTEL_RESOURCE_ATTRIBUTES": text, "OTEL_SERVICE_NAME": "shop"})
    assert found.attributes["service.name"] == "shop"
    assert not found.problem or set(found.attributes) == {"service.name"}


def test_problem_names_no_secret() -> None:
    """A malformed variable is reported without its content."""
    found = given_attributes({"OTEL_RESOURCE_ATTRIBUTES": "a=1,hunter2"})
    assert found.problem
    assert "hunter2" not in found.problem
