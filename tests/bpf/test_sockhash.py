"""A header in what an armed socket sends, and nothing in anything else: connections of this process between two hosts.

The tests arm a connection as the client's probe does, by an element of the map.
"""

from __future__ import annotations

import os
import random
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from exchanges import FAMILIES, SLOT, Exchange, Watched, injected
from networks import Hosts, inside

from otel_goprobe import kernel
from otel_goprobe.kernel import sockhash

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root


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
    """Taken in by pidfd_getfd; listening and accepted sockets aren't, nor those to traced servers of the host."""
    request = b"GET / HTTP/1.1\r\nHost: far\r\n\r\n"
    with (
        Exchange(hosts, family) as connection,
        Watched(cache_dir) as unit,
        socket.create_server(("127.0.0.1", 0)) as local_listener,
        socket.create_connection(local_listener.getsockname()),
    ):
        connection.client.sendall(request)
        unit.sockets.serve([local_listener.getsockname()[1]], SLOT)
        assert unit.watch() == 1
        assert unit.is_member(connection)
        assert len(unit.program.maps["wire_sockets"].keys()) == 1
        unit.arm(connection)
        connection.client.sendall(request)
        assert connection.arrived() == request + injected(request)


def test_sockets_within_the_host_are_left_alone_if_their_server_is_traced(watched: Watched, hosts: Hosts) -> None:
    """Loopback of both families, mapped addresses, an address of the host's own; any other server's are taken in."""

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

            def members(target: str = target, port: int = port) -> int:
                before = watched.program.maps["wire_sockets"].keys()  # those that are closed at one end, too
                with inside(hosts.near, lambda: socket.create_connection((target, port))):
                    return len(set(watched.program.maps["wire_sockets"].keys()) - set(before))

            assert members() == 1
            watched.sockets.serve([port], SLOT)
            assert members() == 0
    watched.sockets.forget(SLOT)
    assert watched.program.maps["wire_served"].keys() == []


def test_another_process_is_left_alone(cache_dir: Path, hosts: Hosts) -> None:
    """Its sockets are in the same cgroup, and that is all."""
    with Watched(cache_dir) as unit:
        unit.watch()
        unit.program.maps["tgid_slots"].delete(kernel.u32(os.getpid()))
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
