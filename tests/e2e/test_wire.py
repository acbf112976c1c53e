"""--propagation wire: two hosts, two agents that share nothing, and each request arrives with one traceparent."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.hosts import Program, Traced, counts, intact, joined
from harness.receiver import Receiver
from networks import Hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.propagation]

BUILDS: dict[str, Callable[[], Path]] = {
    "today": lambda: go_binary("wire"),
    "go1.21-stripped": lambda: go_binary("wire", go="1.21", strip=True),
}
LONG = ("long", "header")
"""Kinds of requests whose head has more than 4096 bytes, which net/http doesn't write at once."""


def bare(line: Mapping[str, Any]) -> bool:
    """Whether a request gets no header: too long, or not by net/http."""
    return line["kind"] in ("pipelined", *LONG)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Give two hosts."""
    with Hosts() as two:
        yield two


@pytest.fixture(params=BUILDS)
def exe(request: pytest.FixtureRequest) -> Path:
    """Give tests/go/wire by today's Go and by the oldest that is tested."""
    return BUILDS[request.param]()


@pytest.mark.parametrize("family", ["4", "6"])
def test_every_request_arrives_with_one_header(exe: Path, hosts: Hosts, family: str) -> None:
    """Of each kind and size, byte by byte; not where the application has one already, nor beside net/http."""
    listen = f"{hosts.FAR_IPV4}:0" if family == "4" else f"[{hosts.FAR_IPV6}]:0"
    with (
        Program(exe, hosts.far, "server", listen) as server,
        Program(exe, hosts.near, "client", f"http://{server.address}") as client,
        Traced(client, server) as traced,
    ):
        assert "propagation=wire (" in traced.attached_line
        for size in (0, 1, 4095, 65536, 10 * 2**20):
            for kind in ("post", "chunked", "expect", "file"):
                client.send(kind, 3, size)
        for kind in ("get", "own", "header", "close", "long"):
            client.send(kind, 23, concurrency=4)
        client.send("pipelined", 3, size=50)
        client.send("mixed", 997, -300_000, 16)
        sent = client.log()
        arrived = server.log(len(sent))
        client_spans, server_spans, outcome = traced.stop()
    intact(sent, arrived)
    joined(sent, arrived, client_spans, server_spans, bare)
    kinds = Counter(line["kind"] for line in sent.values())
    long = sum(kinds[kind] for kind in LONG)
    injected = sum(kinds.values()) - kinds["own"] - long - kinds["pipelined"]
    assert counts(outcome) == {"wire_injected": injected, "wire_own_header": kinds["own"], "wire_long_head": long}


def test_connections_from_before_the_agent(exe: Path, hosts: Hosts) -> None:
    """They are taken in as they are: the first request behind the attached line has its header."""
    with (
        Program(exe, hosts.far, "server", f"{hosts.FAR_IPV4}:0") as server,
        Program(exe, hosts.near, "client", f"http://{server.address}") as client,
    ):
        client.send("get", 101, concurrency=8)
        before = client.log()
        with Traced(client, server) as traced:
            connections = {line["remote"] for line in server.log().values()}
            client.send("post", 101, 5000, 4)
            sent = client.log()
            arrived = server.log(len(sent))
            client_spans, server_spans, outcome = traced.stop()
    intact(sent, arrived)
    assert all(arrived[id_]["traceparents"] is None for id_ in before)
    sent, arrived = ({id_: line for id_, line in log.items() if id_ not in before} for log in (sent, arrived))
    assert {line["remote"] for line in arrived.values()} <= connections
    joined(sent, arrived, client_spans, server_spans, bare)
    assert counts(outcome) == {"wire_injected": 101}


def test_a_proxy_in_the_middle(exe: Path, hosts: Hosts) -> None:
    """It forwards headers and is not traced: one trace."""
    with (
        Program(exe, hosts.far, "server", "127.0.0.1:0") as server,
        Program(exe, hosts.far, "proxy", f"{hosts.FAR_IPV4}:0") as proxy,
        Program(exe, hosts.near, "client", f"http://{server.address}", f"http://{proxy.address}") as client,
        Traced(client, server) as traced,
    ):
        for kind in ("get", "post", "chunked", "own"):
            client.send(kind, 23, 10_000, 4)
        sent = client.log()
        arrived = server.log(len(sent))
        client_spans, server_spans, _ = traced.stop()
    intact(sent, arrived)
    joined(sent, arrived, client_spans, server_spans, bare)


def test_tls_is_left_alone(hosts: Hosts) -> None:
    """Nothing is inserted, which is counted."""
    exe = go_binary("wire")
    with (
        Program(exe, hosts.far, "tls", f"{hosts.FAR_IPV4}:0") as server,
        Program(exe, hosts.near, "client", f"https://{server.address}") as client,
        Traced(client, server) as traced,
    ):
        client.send("post", 23, 100_000, 4)
        sent = client.log()
        arrived = server.log(len(sent))
        _, server_spans, outcome = traced.stop()
    intact(sent, arrived)
    assert all(line["traceparents"] is None for line in arrived.values())
    assert all(span.parent_span_id == "" for span in server_spans.values())
    assert counts(outcome) == {"wire_tls": 23}


def test_agents_killed_under_load(exe: Path, hosts: Hosts) -> None:
    """Attached and killed again and again while bodies that look like requests are sent: none fails or is changed."""
    with (
        Program(exe, hosts.far, "server", f"{hosts.FAR_IPV4}:0") as server,
        Program(exe, hosts.near, "client", f"http://{server.address}") as client,
        Receiver() as receiver,
    ):
        client.tell("mixed", 1_000_000, -100_000, 16)
        for _ in range(3):
            arguments = ("--pid", str(client.pid), "--propagation", "wire")
            with Agent(*arguments, environment=receiver.environment) as agent:
                agent.attached()
                time.sleep(0.5)
                agent.kill()
        client.process.kill()
        client.process.wait()
        client.stdout.join()
        sent = client.log()
        time.sleep(0.5)
        arrived = server.log(len(sent))
    # The last 16 were cut off with the client.
    intact(sent, {id_: line for id_, line in arrived.items() if id_ in sent})
    headers = Counter(
        len(line["traceparents"] or ()) for id_, line in arrived.items() if not sent.get(id_, {}).get("own")
    )
    assert set(headers) <= {0, 1}
    assert headers[1] > 100
    print(f"{len(sent)} requests, {headers[1]} with a header")


def test_without_permission_the_rest_goes_on(hosts: Hosts) -> None:
    """One sentence names the capability; requests are traced as with --propagation local."""
    exe = go_binary("wire")
    capabilities = "-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search"
    confined = ("setpriv", f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}")
    with (
        Program(exe, hosts.far, "server", f"{hosts.FAR_IPV4}:0") as server,
        Program(exe, hosts.near, "client", f"http://{server.address}") as client,
        Receiver() as receiver,
        Agent(
            *("--pid", str(client.pid), "--propagation", "wire"),
            environment=receiver.environment,
            prefix=(*confined, f"--bounding-set={capabilities}", "--no-new-privs"),
        ) as agent,
    ):
        agent.attached()
        client.send("get", 23)
        outcome = agent.stop()
        assert (outcome.started, outcome.exported) == (23, 23)
        assert all(line["traceparents"] is None for line in server.log().values())
    (warning,) = agent.stderr.matching("no traceparent header is sent")
    assert "CAP_NET_ADMIN" in warning
    assert "propagation=local" in agent.stderr.matching("^attached")[0]
