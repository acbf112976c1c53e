"""tests/go/wire on two hosts, its client and its server, an agent for each; called by tests of --propagation.

The client logs what it sent, the server what arrived; spans are compared with both.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import psutil

from harness.agent import ATTACH_S, STOP_S, Agent, Outcome
from harness.receiver import Receiver, Span
from harness.target import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

WAIT_S = 60.0
OF_NET_HTTP = ("get", "post", "chunked", "expect", "file", "own", "header", "close", "long", "query", "raw", "many")
"""Kinds of requests that are made by net/http."""


class Program:
    """tests/go/wire in a network namespace; a context manager that ends it.

    Args:
        exe: the build.
        namespace: its name.
        arguments: the program's.
        wait_s: what is waited for at most.
        prefix: command that starts it.
    """

    def __init__(
        self, exe: Path, namespace: str, *arguments: str, wait_s: float = WAIT_S, prefix: Sequence[str] = ()
    ) -> None:
        self._wait_s = wait_s
        self.process = subprocess.Popen(
            [*prefix, "nsenter", f"--net=/run/netns/{namespace}", exe, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.stdout, self.stderr = Output(self.process.stdout), Output(self.process.stderr)
        self.stdout.wait_for("^ready$", timeout_s=wait_s)
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        self.pid = next(process.pid for process in family if process.cmdline()[:1] == [str(exe)])
        self._done = 0

    @property
    def address(self) -> str:
        """What it listens on, HOST:PORT."""
        return self.stdout.wait_for("^listening ", timeout_s=self._wait_s).split()[1]

    def tell(self, kind: str, count: int, size: int = 0, concurrency: int = 1) -> None:
        """Have a client send requests."""
        assert self.process.stdin
        self.process.stdin.write(f"{kind} {count} {size} {concurrency}\n")
        self.process.stdin.flush()

    def done(self) -> None:
        """Wait until a client has done what it was told last."""
        self._done += 1
        self.stdout.wait_for("^done$", self._done, self._wait_s)

    def send(self, kind: str, count: int, size: int = 0, concurrency: int = 1) -> None:
        """Have a client send requests, and wait for it."""
        self.tell(kind, count, size, concurrency)
        self.done()

    def log(self, count: int = 0) -> dict[str, dict[str, Any]]:
        """Return its lines by the id of their request, as soon as there are `count`."""
        if count:
            self.stdout.wait_for(r"^\{", count, self._wait_s)
        lines = [json.loads(text) for text in self.stdout.matching(r"^\{")]
        by_id = {line["id"]: line for line in lines}
        assert len(by_id) == len(lines), "a request was logged twice"
        return by_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # behind a prefix it has a parent, which ends with it
        self.process.communicate()


class Traced:
    """A client and a server, each with an agent of its own; after `stop` their spans by the request's id.

    Args:
        client: whose requests are to get headers.
        server: the other.
        way: how, ``wire`` or ``write``.
        environment: of the agents.
        attach_s: how long they may take to attach.
    """

    def __init__(
        self,
        client: Program,
        server: Program,
        way: str = "wire",
        *,
        environment: Mapping[str, str] = MappingProxyType({}),
        attach_s: float = ATTACH_S,
    ) -> None:
        self._receivers = Receiver(), Receiver()
        self._stop_s = max(STOP_S, attach_s / 5)
        self._agents = []
        for one, propagation, receiver in zip((client, server), (way, "read"), self._receivers, strict=True):
            environment = {**environment, **receiver.environment}
            agent = Agent("--pid", str(one.pid), "--propagation", propagation, environment=environment)
            self._agents.append(agent)
            agent.stderr.wait_for("^attached", timeout_s=attach_s)  # one after the other: the first compiles
        self.attached_line = self._agents[0].stderr.matching("^attached")[0]
        self.client_agent_pid = self._agents[0].pid

    def stop(self) -> tuple[dict[str, Span], dict[str, Span], Outcome]:
        """End both agents; the client's spans, the server's, how the client's agent ended."""
        outcomes = [agent.stop(timeout_s=self._stop_s) for agent in self._agents]
        for outcome in outcomes:
            assert outcome.balanced
            assert outcome.dropped == {}, outcome
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
    bare: Callable[[Mapping[str, Any]], bool],
) -> None:
    """Check that each header is the client span's, or the application's own, and each server span its child.

    Args:
        sent: the client's log.
        arrived: the server's.
        client_spans: of one agent.
        server_spans: of the other.
        bare: whether a request of the client's log is to arrive without a header.
    """
    assert server_spans.keys() == arrived.keys()
    assert client_spans.keys() == {id_ for id_, line in sent.items() if line["kind"] in OF_NET_HTTP}
    for id_, line in arrived.items():
        kind, server = sent[id_]["kind"], server_spans[id_]
        if bare(sent[id_]):
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
    return {name: count for name, count in outcome.targets[0].items() if name.startswith(("wire_", "write_")) and count}
