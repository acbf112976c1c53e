"""Client and server spans of one host joined by their connection: the right parent, or none; never a wrong one.

Every request has a random path, which both ends' spans name: a server's span is right if its parent is the client's
span with the same path. tests/go/join checks that the request was answered by the server that it was meant for.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.join import Join
from harness.networks import Network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.receiver import Receiver, Span

pytestmark = [pytest.mark.root, pytest.mark.propagation]

SERVER, CLIENT = 2, 3
REQUESTS, CONCURRENCY = int(os.environ.get("JOIN_REQUESTS", "1009")), 16
SENT = f"00-{'4b' * 16}-{'7c' * 8}-01"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many of the servers' spans have which parent."""

    right: int
    none: int
    wrong: int


def verdict(spans: Sequence[Span]) -> Verdict:
    """Compare the parent of each server's span with the client's span of the same request."""
    clients = {urlsplit(str(span.attributes["url.full"])).path: span for span in spans if span.kind == CLIENT}
    right = none = wrong = 0
    for span in spans:
        if span.kind != SERVER:
            continue
        client = clients.get(str(span.attributes["url.path"]))
        if not span.parent_span_id:
            none += 1
        elif client and (client.span_id, client.trace_id) == (span.parent_span_id, span.trace_id):
            right += 1
        else:
            wrong += 1
    return Verdict(right, none, wrong)


def traced(receiver: Receiver, *programs: Join) -> Agent:
    """Start an agent on these processes; with room for all spans, however slowly it is drained."""
    pids = [argument for program in programs for argument in ("--pid", str(program.pid))]
    return Agent(*pids, "--ring-size", "64MiB", environment=receiver.environment)


WAYS: dict[str, tuple[list[str], list[str], str]] = {
    "keep-alive": ([], [], "http://ADDRESS"),
    "two idle connections": ([], ["-idle", "2"], "http://ADDRESS"),
    "a connection each": ([], ["-idle", "0"], "http://ADDRESS"),
    "TLS": (["-tls"], [], "https://ADDRESS"),
    "TLS, two idle connections": (["-tls"], ["-idle", "2"], "https://ADDRESS"),
    "IPv6": (["-listen", "[::1]:0"], [], "http://ADDRESS"),
    "IPv4 to both": (["-listen", "[::]:0"], [], "http://127.0.0.1:PORT"),
    "wrapped": (["-wrap", "first"], ["-wrap", "first"], "http://ADDRESS"),
    "wrapped TLS": (["-wrap", "first", "-tls"], ["-wrap", "first"], "https://ADDRESS"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_request_has_its_parent(way: str, receiver: Receiver) -> None:
    """Whatever the connection is like, and also where it was open before the agent came."""
    served, called, url = WAYS[way]
    with Join("-listen", "127.0.0.1:0", *served) as server, Join("-call", server.url(url), *called) as client:
        client.send(CONCURRENCY, CONCURRENCY)
        with traced(receiver, server, client) as agent:
            agent.attached(2)
            client.send(REQUESTS, CONCURRENCY)
            outcome = agent.stop()
    assert outcome.dropped == {}
    assert verdict(receiver.spans) == Verdict(right=REQUESTS, none=0, wrong=0)
    assert [each["unjoinable_connections"] for each in outcome.targets] == [0, 0]


def test_old_go(receiver: Receiver) -> None:
    """Go 1.21, without symbols, position-independent."""
    exe = go_binary("join", go="1.21", strip=True, pie=True)
    with (
        Join("-listen", "127.0.0.1:0", exe=exe) as server,
        Join("-call", server.url(), "-idle", "2", exe=exe) as client,
        traced(receiver, server, client) as agent,
    ):
        agent.attached(2)
        client.send(REQUESTS, CONCURRENCY)
        agent.stop()
    assert verdict(receiver.spans) == Verdict(right=REQUESTS, none=0, wrong=0)


def test_one_process_is_both_ends(receiver: Receiver) -> None:
    """A reverse proxy that passes an outdated header on: the connection says who called, and the trace is one."""
    with ExitStack() as stack:
        back = stack.enter_context(Join("-listen", "127.0.0.1:0"))
        front = stack.enter_context(Join("-listen", "127.0.0.1:0", "-forward", back.url()))
        client = stack.enter_context(Join("-call", front.url(), "-header", f"traceparent: {SENT}"))
        agent = stack.enter_context(traced(receiver, front, back))
        agent.attached(2)
        client.send(REQUESTS, CONCURRENCY)
        agent.stop()
    spans = receiver.spans
    of_back = [span for span in spans if span.kind == SERVER and span.resource["process.pid"] == back.pid]
    assert len(spans) == 3 * REQUESTS
    assert {span.trace_id for span in spans} == {SENT[3:35]}
    assert verdict(of_back + [span for span in spans if span.kind == CLIENT]) == Verdict(REQUESTS, 0, 0)


def test_a_proxy_that_is_not_instrumented_lies_between(receiver: Receiver) -> None:
    """Its connections are its own: the header that it passes on is followed, and joins all in one trace."""
    with ExitStack() as stack:
        back = stack.enter_context(Join("-listen", "127.0.0.1:0"))
        proxy = stack.enter_context(Join("-listen", "127.0.0.1:0", "-forward", back.url()))
        client = stack.enter_context(Join("-call", proxy.url(), "-header", f"traceparent: {SENT}"))
        agent = stack.enter_context(traced(receiver, back))
        agent.attached()
        client.send(REQUESTS, CONCURRENCY)
        agent.stop()
    assert {(span.trace_id, span.parent_span_id) for span in receiver.spans} == {(SENT[3:35], SENT[36:52])}


def test_another_traces_header_wins(receiver: Receiver) -> None:
    """A header that the application sent for a reason of its own."""
    with (
        Join("-listen", "127.0.0.1:0") as server,
        Join("-call", server.url(), "-header", f"traceparent: {SENT}") as client,
        traced(receiver, server, client) as agent,
    ):
        agent.attached(2)
        client.send(23, 1)
        agent.stop()
    servers = [span for span in receiver.spans if span.kind == SERVER]
    assert {(span.trace_id, span.parent_span_id) for span in servers} == {(SENT[3:35], SENT[36:52])}
    assert len(servers) == 23


def test_two_agents_share_what_they_know(receiver: Receiver) -> None:
    """One has the client, the other the server; the one that came first may leave."""
    with ExitStack() as stack:
        server = stack.enter_context(Join("-listen", "127.0.0.1:0"))
        client = stack.enter_context(Join("-call", server.url()))
        first = stack.enter_context(traced(receiver, client))
        second = stack.enter_context(traced(receiver, server))
        first.attached()
        second.attached()
        client.send(REQUESTS, CONCURRENCY)
        assert first.stop().dropped == {}
        third = stack.enter_context(traced(receiver, client)).attached()
        client.send(REQUESTS, CONCURRENCY)
        assert third.stop().dropped == {}
        assert second.stop().dropped == {}
    assert verdict(receiver.spans) == Verdict(2 * REQUESTS, 0, 0)


def test_without_cap_sys_admin_agents_do_not_share(receiver: Receiver) -> None:
    """It is said; requests within one agent are joined all the same."""
    confined = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    with Join("-listen", "127.0.0.1:0") as server, Join("-call", server.url()) as client:
        arguments = ["--pid", str(server.pid), "--pid", str(client.pid)]
        with Agent(*arguments, environment=receiver.environment, prefix=confined) as agent:
            agent.attached(2)
            client.send(23, 3)
            outcome = agent.stop()
    assert "CAP_SYS_ADMIN" in outcome.stderr
    assert verdict(receiver.spans) == Verdict(23, 0, 0)


NONE: dict[str, tuple[list[str], list[str], str]] = {
    "wrapped so that it can't be seen": (["-wrap", "last"], ["-wrap", "last"], "http://ADDRESS"),
    "Unix sockets": (["-unix", "SOCKET"], ["-unix", "SOCKET"], "http://localhost"),
}


@pytest.mark.parametrize("way", NONE)
def test_connections_that_cannot_be_joined_are_counted(way: str, receiver: Receiver, tmp_path: object) -> None:
    """No parent rather than a guess."""
    served, called, url = NONE[way]
    place = [[text.replace("SOCKET", f"{tmp_path}/socket") for text in texts] for texts in (served, called)]
    with (
        Join("-listen", "127.0.0.1:0", *place[0]) as server,
        Join("-call", server.url(url), *place[1]) as client,
        traced(receiver, server, client) as agent,
    ):
        agent.attached(2)
        client.send(23, 1)
        outcome = agent.stop()
    assert verdict(receiver.spans) == Verdict(0, 23, 0)
    assert [each["unjoinable_connections"] for each in outcome.targets] == [1, 1]


def test_switched_off(receiver: Receiver) -> None:
    """--propagation read: headers alone."""
    with Join("-listen", "127.0.0.1:0") as server, Join("-call", server.url()) as client:
        pids = ["--pid", str(server.pid), "--pid", str(client.pid)]
        with Agent(*pids, "--propagation", "read", environment=receiver.environment) as agent:
            agent.attached(2)
            client.send(23, 1)
            agent.stop()
    assert verdict(receiver.spans) == Verdict(0, 23, 0)


def test_sampling_is_decided_once(receiver: Receiver) -> None:
    """At the client's span, which begins the trace: half of the traces, each of them whole."""
    with Join("-listen", "127.0.0.1:0") as server, Join("-call", server.url()) as client:
        pids = ["--pid", str(server.pid), "--pid", str(client.pid)]
        with Agent(*pids, "--sample", "0.5", environment=receiver.environment) as agent:
            agent.attached(2)
            client.send(REQUESTS, CONCURRENCY)
            agent.stop()
    spans = receiver.spans
    sampled = sum(span.kind == CLIENT for span in spans)
    assert verdict(spans) == Verdict(sampled, 0, 0)
    assert REQUESTS / 3 < sampled < REQUESTS * 2 / 3


# --- what must not be joined


@pytest.mark.parametrize(("waits", "patience"), [(2.0, "1s"), (11.0, "20s")], ids=["the client gave up", "too old"])
def test_a_request_that_is_served_late(waits: float, patience: str, receiver: Receiver) -> None:
    """It lay before a server that stood still: what its client published is over, or not believed any more."""
    with (
        Join("-listen", "127.0.0.1:0") as server,
        Join("-call", server.url(), "-timeout", patience) as client,
        traced(receiver, server, client) as agent,
    ):
        agent.attached(2)
        client.send(1, 1)
        server.suspend()
        sending = threading.Thread(target=client.send, args=(1, 1), kwargs={"failing": int(waits < 5)})
        sending.start()
        time.sleep(waits)
        os.kill(server.pid, signal.SIGCONT)
        sending.join()
        server.wait_for_connections(0 if waits < 5 else 1)
        agent.stop()
    assert verdict(receiver.spans) == Verdict(1, 1, 0)


def ask_from(local: tuple[str, int], server: Join, count: int = 1) -> None:
    """Send requests from an address that others may use too."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.bind(local)
        connection.connect(("127.0.0.1", server.port))
        for _ in range(count):
            connection.sendall(b"GET /from-elsewhere HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def free_port() -> int:
    """Return a port that nothing uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_port_that_two_connections_share(receiver: Receiver) -> None:
    """A client's request to a server that isn't instrumented is not the parent of what comes from the same port."""
    port = free_port()
    with ExitStack() as stack:
        slow = stack.enter_context(Join("-listen", "127.0.0.1:0", "-delay", "3s"))
        server = stack.enter_context(Join("-listen", "127.0.0.1:0"))
        client = stack.enter_context(Join("-call", slow.url(), "-local", f"127.0.0.1:{port}"))
        agent = stack.enter_context(traced(receiver, server, client))
        agent.attached(2)
        sending = threading.Thread(target=client.send, args=(1, 1))
        sending.start()
        slow.wait_for_connections(1)
        ask_from(("127.0.0.1", port), server, 23)
        sending.join()
        agent.stop()
    assert verdict(receiver.spans) == Verdict(0, 23, 0)


def test_a_forwarder_that_keeps_the_port(receiver: Receiver) -> None:
    """Bytes copied between two connections: nobody can know whether it is the same request."""
    port = free_port()
    with ExitStack() as stack:
        server = stack.enter_context(Join("-listen", "127.0.0.1:0"))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        forwarding = threading.Thread(target=forward_once, args=(listener, ("127.0.0.1", server.port)))
        forwarding.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        client = stack.enter_context(Join("-call", f"http://{address}", "-local", f"127.0.0.1:{port}"))
        agent = stack.enter_context(traced(receiver, server, client))
        agent.attached(2)
        client.send(1, 1)
        client.stop()
        forwarding.join()
        agent.stop()
    assert verdict(receiver.spans) == Verdict(0, 1, 0)


def forward_once(listener: socket.socket, to: tuple[str, int]) -> None:
    """Pass one connection on, from the port that it came from, until the client leaves."""
    incoming, peer = listener.accept()
    with incoming, socket.socket() as outgoing:
        outgoing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        outgoing.bind(peer)
        outgoing.connect(to)
        while request := incoming.recv(4096):
            outgoing.sendall(request)
            incoming.sendall(outgoing.recv(4096))


# --- namespaces


def test_addresses_are_translated_between_namespaces(receiver: Receiver) -> None:
    """The server sees another address than the client has called, as with a Service of Kubernetes."""
    with ExitStack() as stack:
        here = stack.enter_context(Network("10.203.0.1/30"))
        there = stack.enter_context(Network("10.203.0.2/30"))
        here.connect(there)
        server = stack.enter_context(Join("-listen", "10.203.0.2:0", prefix=there.prefix))
        here.translate("10.96.0.10:80", f"10.203.0.2:{server.port}")
        client = stack.enter_context(Join("-call", "http://10.96.0.10:80", "-idle", "2", prefix=here.prefix))
        agent = stack.enter_context(traced(receiver, server, client))
        agent.attached(2)
        client.send(REQUESTS, CONCURRENCY)
        agent.stop()
    assert verdict(receiver.spans) == Verdict(REQUESTS, 0, 0)


def test_equal_loopback_addresses_in_two_namespaces(receiver: Receiver) -> None:
    """Same ports, same addresses, at the same time: each request has the parent of its own namespace."""
    local, port = f"127.0.0.1:{free_port()}", free_port()
    with ExitStack() as stack:
        programs = []
        for network in (stack.enter_context(Network("10.203.0.1/30")) for _ in range(2)):
            server = stack.enter_context(Join("-listen", f"127.0.0.1:{port}", prefix=network.prefix))
            client = stack.enter_context(Join("-call", server.url(), "-local", local, prefix=network.prefix))
            programs += [server, client]
        agent = stack.enter_context(traced(receiver, *programs))
        agent.attached(4)
        sending = [threading.Thread(target=client.send, args=(REQUESTS, 1)) for client in programs[1::2]]
        for thread in sending:
            thread.start()
        for thread in sending:
            thread.join()
        agent.stop()
    spans = receiver.spans
    assert verdict(spans) == Verdict(2 * REQUESTS, 0, 0)
