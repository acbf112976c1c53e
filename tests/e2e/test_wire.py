"""--propagation wire: between two hosts, with two agents that share nothing, each request arrives with one traceparent.

The client logs what it sent, the server what arrived; spans are compared with both.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import pytest
from goprograms import go_binary
from harness.agent import Agent, Outcome
from harness.receiver import Receiver, Span
from harness.target import Output
from networks import Hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

pytestmark = [pytest.mark.root, pytest.mark.propagation]

BUILDS: dict[str, Callable[[], Path]] = {
    "today": lambda: go_binary("wire"),
    "go1.21-stripped": lambda: go_binary("wire", go="1.21", strip=True),
}
WAIT_S = 60.0
LONG = ("long", "header")
"""Kinds of requests whose head has more than 4096 bytes, which net/http doesn't write at once."""
NEVER = ("pipelined", *LONG)
"""Kinds of requests that get no header; the first isn't by net/http."""
OF_NET_HTTP = ("get", "post", "chunked", "expect", "file", "own", "header", "close", "long")


class Program:
    """tests/go/wire in a network namespace; a context manager that ends it."""

    def __init__(self, exe: Path, namespace: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{namespace}", exe, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        self.stdout, self.stderr = Output(self.process.stdout), Output(self.process.stderr)
        self.stdout.wait_for("^ready$")
        self._done = 0

    @property
    def address(self) -> str:
        """What it listens on, HOST:PORT."""
        return self.stdout.wait_for("^listening ").split()[1]

    def tell(self, kind: str, count: int, size: int = 0, concurrency: int = 1) -> None:
        """Have a client send requests."""
        assert self.process.stdin
        self.process.stdin.write(f"{kind} {count} {size} {concurrency}\n")
        self.process.stdin.flush()

    def done(self) -> None:
        """Wait until a client has done what it was told last."""
        self._done += 1
        self.stdout.wait_for("^done$", self._done, WAIT_S)

    def send(self, kind: str, count: int, size: int = 0, concurrency: int = 1) -> None:
        """Have a client send requests, and wait for it."""
        self.tell(kind, count, size, concurrency)
        self.done()

    def log(self, count: int = 0) -> dict[str, dict[str, Any]]:
        """Return its lines by the id of their request, as soon as there are `count`."""
        if count:
            self.stdout.wait_for(r"^\{", count)
        lines = [json.loads(text) for text in self.stdout.matching(r"^\{")]
        by_id = {line["id"]: line for line in lines}
        assert len(by_id) == len(lines), "a request was logged twice"
        return by_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Give two hosts."""
    with Hosts() as two:
        yield two


@pytest.fixture(params=BUILDS)
def exe(request: pytest.FixtureRequest) -> Path:
    """Give tests/go/wire by today's Go and by the oldest that is tested."""
    return BUILDS[request.param]()


class Traced:
    """A client and a server, each with an agent of its own; after `stop` their spans by the request's id."""

    def __init__(self, client: Program, server: Program) -> None:
        self._receivers = Receiver(), Receiver()
        self._agents = [
            Agent("--pid", str(one.pid), "--propagation", way, environment=receiver.environment)
            for one, way, receiver in zip((client, server), ("wire", "read"), self._receivers, strict=True)
        ]
        for agent in self._agents:
            agent.attached()
        self.attached_line = self._agents[0].stderr.matching("^attached")[0]

    def stop(self) -> tuple[dict[str, Span], dict[str, Span], Outcome]:
        """End both agents; the client's spans, the server's, how the client's agent ended."""
        outcomes = [agent.stop() for agent in self._agents]
        for outcome in outcomes:
            assert outcome.balanced
            assert outcome.dropped == {}
        near, far = (receiver.spans for receiver in self._receivers)
        return (
            {str(span.attributes["url.full"]).partition("?")[0].rpartition("/")[2]: span for span in near},
            {str(span.attributes["url.path"]).rpartition("/")[2]: span for span in far},
            outcomes[0],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for agent, receiver in zip(self._agents, self._receivers, strict=True):
            agent.__exit__(kind, error, trace)
            receiver.__exit__(kind, error, trace)


def intact(sent: Mapping[str, dict[str, Any]], arrived: Mapping[str, dict[str, Any]]) -> None:
    """Check that every request was answered, and arrived once and byte by byte."""
    assert [line for line in sent.values() if line["error"] or line["status"] != 200] == []
    assert arrived.keys() == sent.keys()
    for id_, line in arrived.items():
        assert (line["bytes"], line["crc"]) == (sent[id_]["bytes"], sent[id_]["crc"]), (line, sent[id_])


def joined(
    sent: Mapping[str, dict[str, Any]],
    arrived: Mapping[str, dict[str, Any]],
    client_spans: Mapping[str, Span],
    server_spans: Mapping[str, Span],
) -> None:
    """Check that each header is the client span's, and each server span its child."""
    assert server_spans.keys() == arrived.keys()
    assert client_spans.keys() == {id_ for id_, line in sent.items() if line["kind"] in OF_NET_HTTP}
    for id_, line in arrived.items():
        kind, server = sent[id_]["kind"], server_spans[id_]
        if kind in NEVER:
            assert line["traceparents"] is None
            assert server.parent_span_id == ""
            continue
        client = client_spans[id_]
        own = f"00-{client.trace_id}-{client.span_id}-01"
        assert line["traceparents"] == [sent[id_]["own"] or own], (kind, line)
        _, trace_id, span_id, _ = line["traceparents"][0].split("-")
        assert (server.trace_id, server.parent_span_id) == (trace_id, span_id)


def counts(outcome: Outcome) -> dict[str, int]:
    """Return what the agent says of headers, zeros left out."""
    return {name: count for name, count in outcome.targets[0].items() if name.startswith("wire_") and count}


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
    joined(sent, arrived, client_spans, server_spans)
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
    joined(sent, arrived, client_spans, server_spans)
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
    joined(sent, arrived, client_spans, server_spans)


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
