"""A header in what an armed socket sends, and nothing in anything else: connections of this process between two hosts.

The tests arm a connection as the client's probe does, by an element of the map.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

import pytest
from networks import Hosts, inside

from otel_goprobe import kernel, probes
from otel_goprobe.kernel import sockhash, syscalls
from otel_goprobe.kernel.sockhash import tuple_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

pytestmark = pytest.mark.root

SLOT = 3
TRACE_ID, SPAN_ID = bytes(range(0x80, 0x90)), bytes(range(0x31, 0x39))
LINE = f"traceparent: 00-{TRACE_ID.hex()}-{SPAN_ID.hex()}-01\r\n".encode()
FAMILIES = ("4", "6")


class Exchange:
    """A connection of this process in one namespace to a listener in the other, which keeps all that arrives."""

    def __init__(self, hosts: Hosts, family: str = "4") -> None:
        far, kind = (hosts.FAR_IPV4, socket.AF_INET) if family == "4" else (hosts.FAR_IPV6, socket.AF_INET6)
        self._listener = inside(
            hosts.far,
            lambda: socket.create_server((far, 0), family=kind),
        )
        port = self._listener.getsockname()[1]
        self.client = inside(hosts.near, lambda: socket.create_connection((far, port), 10))
        self.client.settimeout(None)  # blocking: sendfile(2) is called on it
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._accepted, _ = self._listener.accept()
        self._accepted.settimeout(10)
        self.tuple = tuple_of(self.client.getsockname()[:2], self.client.getpeername()[:2])
        self._arrived = bytearray()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while data := self._accepted.recv(1 << 20):
            self._arrived += data

    def arrived(self) -> bytes:
        """End the connection and return all that was sent."""
        self.client.shutdown(socket.SHUT_WR)
        self._thread.join(20)
        assert not self._thread.is_alive()
        return bytes(self._arrived)

    def close(self) -> None:
        """Let go of the sockets."""
        for one in (self.client, self._accepted, self._listener):
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self._thread.join(20)
        self.close()


class Watched:
    """The unit at work for this process."""

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir
        self.program = kernel.load(probes.wire_unit(kernel.bpf_folder()), cache_dir=cache_dir)
        kernel.describe_sockets(self.program)
        self.sockets = kernel.Sockets(self.program)

    def watch(self) -> int:
        """Take in this process."""
        self.program.maps["tgid_slots"].update(os.getpid().to_bytes(4, "little"), SLOT.to_bytes(4, "little"))
        return self.sockets.watch(os.getpid(), SLOT)

    def is_member(self, connection: Exchange) -> bool:
        """Whether a request on this connection would be armed."""
        return self.program.maps["wire_sockets"].lookup(connection.tuple) == bytes([SLOT, 0, 0, 0, 1, 0, 0, 0])

    def arm(self, connection: Exchange, *, flags: int = 1, check: bool = True) -> None:
        """Do as wire_arm."""
        assert self.is_member(connection) or not check
        value = TRACE_ID + SPAN_ID + SLOT.to_bytes(4, "little") + flags.to_bytes(4, "little")
        self.program.maps["wire_armed"].update(connection.tuple, value)

    def is_armed(self, connection: Exchange) -> bool:
        """Whether the next that it sends is looked at."""
        return self.program.maps["wire_armed"].lookup(connection.tuple) is not None

    def counts(self) -> dict[str, int]:
        """Return the counters that aren't 0."""
        names = probes.counters()
        values = self.program.maps["counters"].sums(SLOT * len(names), len(names))
        return {name: int(value) for name, value in zip(names, values, strict=True) if value}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sockets.close()
        self.program.close()


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Give two hosts."""
    with Hosts() as two:
        yield two


@pytest.fixture
def watched(cache_dir: Path) -> Iterator[Watched]:
    """Give the unit, which watches this process."""
    with Watched(cache_dir) as unit:
        unit.watch()
        yield unit


def injected(request: bytes) -> bytes:
    """Return a request with the header behind its first line."""
    first, newline, rest = request.partition(b"\n")
    return first + newline + LINE + rest


def test_both_programs_pass_the_verifier(watched: Watched) -> None:
    """Far from the million instructions that it walks at most."""
    for name, instructions in watched.program.verified_instructions.items():
        print(f"{name}: {instructions} instructions verified")
        assert 0 < instructions < 200_000


@pytest.mark.parametrize("family", FAMILIES)
def test_an_armed_request_arrives_with_one_header(watched: Watched, hosts: Hosts, family: str) -> None:
    """Behind the request line; the next request, which isn't armed, as it was sent."""
    request = b"GET /a?b=c HTTP/1.1\r\nHost: far\r\n\r\n"
    with Exchange(hosts, family) as connection:
        watched.arm(connection)
        connection.client.sendall(request)
        assert not watched.is_armed(connection)
        connection.client.sendall(request)
        assert connection.arrived() == injected(request) + request
    assert watched.counts() == {"wire_injected": 1}


def test_a_request_stays_one_segment(watched: Watched, hosts: Hosts) -> None:
    """What is inserted doesn't tear it apart: each further segment would cost both hosts more than all else here."""
    request = b"GET / HTTP/1.1\r\nHost: far\r\n\r\n"
    with Exchange(hosts) as connection:
        for sent in range(1, 24):
            watched.arm(connection)
            connection.client.sendall(request)
            described = connection.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
            # tcpi_data_segs_out, include/uapi/linux/tcp.h
            assert struct.unpack_from("=I", described, 156)[0] == sent
        assert connection.arrived() == injected(request) * 23


def test_flags_are_the_spans(watched: Watched, hosts: Hosts) -> None:
    """Not sampled: said so, not left out; bits that W3C doesn't define aren't passed on."""
    request = b"GET / HTTP/1.1\r\nHost: far\r\n\r\n"
    with Exchange(hosts) as connection:
        for flags in (0, 2, 3, 0xFF):
            watched.arm(connection, flags=flags)
            connection.client.sendall(request)
        arrived = connection.arrived()
    assert [arrived.split(b"traceparent: ")[1 + n][53:55] for n in range(4)] == [b"00", b"02", b"03", b"03"]


@pytest.mark.parametrize("length", [*range(41, 58), 500, 4095, 4096])
@pytest.mark.parametrize("where", ["line", "header"])
def test_heads_of_every_length(watched: Watched, hosts: Hosts, length: int, where: str) -> None:
    """Each place of a newline in a word of 8 bytes, up to the longest that is looked at, alone and before a body."""
    short = b"G / HTTP/1.1\r\nHost: far\r\nX: \r\n\r\n"
    more = b"x" * (length - len(short))
    request = short.replace(b"/ ", b"/" + more + b" ") if where == "line" else short.replace(b"X: ", b"X: " + more)
    assert len(request) == length
    with Exchange(hosts) as connection:
        for body in (b"", b"GET /body HTTP/1.1\r\nHost: x\r\n\r\n" * 300):
            watched.arm(connection)
            connection.client.sendall(request + body)
        assert connection.arrived() == injected(request) + injected(request + body)
    assert watched.counts() == {"wire_injected": 2}


@pytest.mark.parametrize("before", [b"", b"A: b\r\n", b"Tracestate: x\r\nTraceparen: y\r\nXtraceparent: z\r\n"])
@pytest.mark.parametrize("name", [b"traceparent", b"Traceparent", b"TRACEPARENT", b"TraceParent"])
def test_a_header_that_is_there_is_left_alone(watched: Watched, hosts: Hosts, before: bytes, name: bytes) -> None:
    """However it is written, wherever it stands, whatever it says; a name that is only alike is another header."""
    for padding in range(9):
        with Exchange(hosts) as connection:
            head = b"GET /" + b"x" * padding + b" HTTP/1.1\r\nHost: far\r\n" + before
            alike = head + b"Accept: */*\r\n\r\ntraceparent: in the body\r\n\r\n"
            for request in (head + name + b": ?\r\n\r\n", head + name + b":\r\nZ: z\r\n\r\n", alike):
                watched.arm(connection)
                connection.client.sendall(request)
            expected = head + name + b": ?\r\n\r\n" + head + name + b":\r\nZ: z\r\n\r\n" + injected(alike)
            assert connection.arrived() == expected
    assert watched.counts() == {"wire_own_header": 18, "wire_injected": 9}


@pytest.mark.parametrize(
    ("first", "counter"),
    [
        (b"POST /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: far\r\n\r\n", "wire_long_head"),
        (b"POST / HTTP/1.1\r\nHost: far\r\nX: " + b"x" * 5000 + b"\r\n\r\n", "wire_long_head"),
        (b"GET /cut HTTP/1.1\r\nHost: f", "wire_long_head"),
        (b"GET /cut HTTP/1.1\r\nHost: far\r\n\r", "wire_long_head"),
        (b"GET /cut", "wire_long_head"),
        (b"GET /" + b"x: y\r\n" * 1500, "wire_no_head"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03hello of TLS\n more of it", "wire_no_head"),
        (b"GET / HTTP/1.0\r\nHost: far\r\n\r\n", "wire_no_head"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "wire_no_head"),
        (b"\n\n\n\n\n\n\n\n\n\n", "wire_no_head"),
        (b"x", "wire_long_head"),
    ],
)
def test_what_is_no_request_arrives_as_it_was_sent(watched: Watched, hosts: Hosts, first: bytes, counter: str) -> None:
    """Armed wrongly: the first thing that is sent disarms, a request in the midst of a body isn't touched."""
    body = b"GET /in-a-body HTTP/1.1\r\nHost: far\r\n\r\n"
    with Exchange(hosts) as connection:
        watched.arm(connection)
        connection.client.sendall(first)
        connection.client.sendall(body)
        assert connection.arrived() == first + body
    assert watched.counts() == {counter: 1}


def test_pieces_and_large_bodies_are_byte_identical(watched: Watched, hosts: Hosts) -> None:
    """Bodies of 0 B to 10 MB, sent at once or in pieces that look like requests, by write, writev and sendfile."""
    lengths = random.Random(23)  # noqa: S311 - no secret
    expected = b""
    body_file = os.memfd_create("body")
    with Exchange(hosts) as connection:
        for size in (0, 1, 7, 69, 70, 71, 4095, 4096, 4097, 65536, 10 * 2**20):
            for way in ("together", "writev", "apart", "sendfile"):
                body = (b"GET /x HTTP/1.1\r\nHost: body\r\n\r\n" * (size // 31 + 1))[:size]
                head = f"POST /{way} HTTP/1.1\r\nHost: far\r\nContent-Length: {size}\r\n\r\n".encode()
                watched.arm(connection)
                if way == "together":
                    connection.client.sendall(head + body)
                elif way == "writev":
                    sent = connection.client.sendmsg([head[:9], head[9:], body])
                    connection.client.sendall((head + body)[sent:])
                elif way == "apart":
                    connection.client.sendall(head)
                    at = 0
                    while at < size:
                        step = 31 * lengths.randint(1, 1000)
                        connection.client.sendall(body[at : at + step])
                        at += step
                else:
                    connection.client.sendall(head)
                    os.ftruncate(body_file, 0)
                    os.pwrite(body_file, body, 0)
                    at = 0
                    while at < size:
                        at += os.sendfile(connection.client.fileno(), body_file, at, size - at)
                expected += injected(head) + body
        os.close(body_file)
        arrived = connection.arrived()
    assert len(arrived) == len(expected)
    assert arrived == expected
    assert watched.counts() == {"wire_injected": 44}


def test_many_heads_in_a_row(watched: Watched, hosts: Hosts) -> None:
    """So many that the kernel has to split some over two pieces of its buffers (32 KiB each)."""
    expected = b""
    with Exchange(hosts) as connection:
        for number in range(4999):
            request = f"GET /{'x' * (number % 700)} HTTP/1.1\r\nHost: far\r\nX-Number: {number}\r\n\r\n".encode()
            watched.arm(connection)
            connection.client.sendall(request)
            expected += injected(request)
        assert connection.arrived() == expected
    assert watched.counts() == {"wire_injected": 4999}


@pytest.mark.parametrize("family", FAMILIES)
def test_sockets_from_before(cache_dir: Path, hosts: Hosts, family: str) -> None:
    """Taken in by pidfd_getfd; listening and accepted sockets aren't, nor those within the host."""
    request = b"GET / HTTP/1.1\r\nHost: far\r\n\r\n"
    with (
        Exchange(hosts, family) as connection,
        Watched(cache_dir) as unit,
        socket.create_server(("127.0.0.1", 0)) as local_listener,
        socket.create_connection(local_listener.getsockname()),
    ):
        connection.client.sendall(request)
        assert unit.watch() == 1
        assert unit.is_member(connection)
        assert len(unit.program.maps["wire_sockets"].keys()) == 1
        unit.arm(connection)
        connection.client.sendall(request)
        assert connection.arrived() == request + injected(request)


def test_sockets_within_the_host_are_left_alone(watched: Watched, hosts: Hosts) -> None:
    """Loopback of both families, mapped addresses, and an address of the host's own."""

    def listener(family: int, address: str) -> socket.socket:
        return inside(hosts.near, lambda: socket.create_server((address, 0), family=family))

    for family, address, target in (
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "127.5.0.1", "127.5.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET, hosts.NEAR_IPV4, hosts.NEAR_IPV4),
        (socket.AF_INET6, hosts.NEAR_IPV6, hosts.NEAR_IPV6),
        (socket.AF_INET, "127.0.0.1", "::ffff:127.0.0.1"),
    ):
        with listener(family, address) as listening:
            port = listening.getsockname()[1]
            with inside(hosts.near, lambda to=(target, port): socket.create_connection(to)):
                assert watched.program.maps["wire_sockets"].keys() == []


def test_another_process_is_left_alone(cache_dir: Path, hosts: Hosts) -> None:
    """Its sockets are in the same cgroup, and that is all."""
    with Watched(cache_dir) as unit:
        unit.watch()
        unit.program.maps["tgid_slots"].delete(os.getpid().to_bytes(4, "little"))
        with Exchange(hosts):
            assert unit.program.maps["wire_sockets"].keys() == []


def test_closed_sockets_are_forgotten(watched: Watched, hosts: Hosts) -> None:
    """Those that connected, those that didn't get through, and what was armed for them."""
    for _ in range(23):
        with Exchange(hosts) as connection:
            watched.arm(connection)
    with pytest.raises(ConnectionRefusedError):
        inside(hosts.near, lambda: socket.create_connection((hosts.FAR_IPV4, 1)))
    assert watched.program.maps["wire_sockets"].keys() == []
    assert watched.program.maps["wire_armed"].keys() == []


def test_attached_to_a_cgroup_and_the_one_above(watched: Watched, hosts: Hosts) -> None:
    """The program then runs twice for each event of a socket; as another one with the same maps does here."""
    request = b"GET / HTTP/1.1\r\nHost: far\r\n\r\n"
    cgroup = sockhash.open_cgroup(os.getpid())
    with kernel.load(watched.program.unit, cache_dir=watched.cache_dir, maps=watched.program.maps) as second:
        link = sockhash.sock_ops_link(second.descriptors["wire_connection"], cgroup)
        with Exchange(hosts) as connection:
            watched.arm(connection)
            connection.client.sendall(request)
            assert connection.arrived() == injected(request)
        os.close(link)
    os.close(cgroup)
    assert watched.program.maps["wire_sockets"].keys() == []
    assert watched.counts() == {"wire_injected": 1}


def test_detaching_gives_sockets_back(watched: Watched, hosts: Hosts) -> None:
    """What is armed is disarmed; another target's in the same cgroup stay."""
    request = b"GET / HTTP/1.1\r\nHost: far\r\n\r\n"
    with Exchange(hosts) as connection:
        watched.arm(connection)
        watched.sockets.forget(SLOT)
        with Exchange(hosts) as later:
            assert not watched.is_member(later)
        assert not watched.is_member(connection)
        assert not watched.is_armed(connection)
        connection.client.sendall(request)
        assert connection.arrived() == request
    assert watched.counts() == {}


# --- the two traps ---------------------------------------------------------------------------------------------------


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
