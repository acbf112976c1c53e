"""gRPC calls that are repeated, and those whose handlers panic: a span each, told as it was, and nothing kept."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.target import DEADLINE_S, Target
from harness.traces import map_elements
from test_grpc import BUILDS, CLIENT, SERVER, by_kind, log_of, make_calls, spans_match, traced_calls

if TYPE_CHECKING:
    from harness.receiver import Receiver

pytestmark = pytest.mark.root

KEPT = ("grpc_server_inf", "grpc_client_inf", "active_spans", "live_contexts")
"""Maps whose elements are calls that go on, as the kernel keeps their names."""


def test_a_repeated_call_is_one_span(receiver: Receiver) -> None:
    """A retry policy has a second attempt made: two spans of the server, both children of the client's one."""
    exe = go_binary("grpc", language="1.26.0")
    traced = traced_calls(receiver, exe, ("repeated",), 2)
    assert traced.spans == (3, 3, {})
    clients, servers = by_kind(receiver.spans, CLIENT), by_kind(receiver.spans, SERVER)
    spans_match(clients, traced.made, traced.port)
    spans_match(servers, traced.answered, traced.port)
    assert [call.code for call in (*traced.made, *traced.answered)] == ["OK", "UNAVAILABLE", "OK"]
    assert {span.parent_span_id for span in servers} == {clients[0].span_id}


def test_a_repeated_stream_is_one_span(receiver: Receiver) -> None:
    """A retry policy has a second and a third attempt made, while the stream is read: three spans of the server."""
    exe = go_binary("grpc", language="1.26.0")
    traced = traced_calls(receiver, exe, ("chatrepeated", "chat"), 8, times=4)
    clients, servers = by_kind(receiver.spans, CLIENT), by_kind(receiver.spans, SERVER)
    assert traced.spans == (12, 12, {})
    spans_match(clients, traced.made, traced.port)
    spans_match(servers, traced.answered, traced.port)
    assert [call.code for call in traced.answered] == ["UNAVAILABLE", "UNAVAILABLE", "OK", "OK"] * 2
    first, plain, second, last = (span.span_id for span in clients)
    assert [span.parent_span_id for span in servers] == [first] * 3 + [plain] + [second] * 3 + [last]


@pytest.mark.parametrize("build", BUILDS)
def test_a_handler_that_panics(receiver: Receiver, build: str) -> None:
    """Where an interceptor recovers, the call ends with what that makes of it."""
    exe, kinds = BUILDS[build](), ("panics", "chatpanics", "unary")
    traced = traced_calls(receiver, exe, kinds, 7, times=7, serving=["-recover"])
    assert [call.code for call in traced.answered] == ["INTERNAL", "INTERNAL", "OK"] * 2 + ["INTERNAL"]
    assert traced.spans == (14, 14, {})
    clients, servers = by_kind(receiver.spans, CLIENT), by_kind(receiver.spans, SERVER)
    spans_match(clients, traced.made, traced.port)
    spans_match(servers, traced.answered, traced.port)
    assert [span.parent_span_id for span in servers] == [span.span_id for span in clients]


@pytest.mark.parametrize("build", BUILDS)
def test_a_panic_that_ends_the_process(receiver: Receiver, build: str) -> None:
    """Nobody recovers: a call, or a stream, ends with the process, without a status, and nothing of it is kept."""
    exe, kinds = BUILDS[build](), ("panics", "chatpanics")
    with ExitStack() as stack:
        servers = [stack.enter_context(Target(exe)) for _ in kinds]
        clients = [
            stack.enter_context(
                Target(exe, "-to", f"127.0.0.1:{server.port}", "-kinds", f"unary,{kind}", "-times", "2")
            )
            for server, kind in zip(servers, kinds, strict=True)
        ]
        pids = [f"--pid={each.pid}" for each in (*servers, *clients)]
        agent = stack.enter_context(Agent(*pids, environment=receiver.environment))
        agent.attached(4)
        for client in clients:
            make_calls(client)
        ending = time.monotonic() + DEADLINE_S
        while any((elements := map_elements(agent.pid))[name] for name in KEPT) and time.monotonic() < ending:
            time.sleep(0.05)
        outcome = agent.stop()
        made = [call for client in clients for call in log_of(client, "client")]
        answered = [call for server in servers for call in log_of(server, "server")]
    assert {name: elements[name] for name in KEPT} == dict.fromkeys(KEPT, 0)
    assert (outcome.started, outcome.exported, outcome.dropped) == (8, 8, {})
    assert [call.code for call in made] == ["OK", "UNAVAILABLE"] * 2
    asked, done = by_kind(receiver.spans, CLIENT), by_kind(receiver.spans, SERVER)
    assert [span.parent_span_id for span in done] == [span.span_id for span in asked]
    for number, server in enumerate(servers):
        its = slice(2 * number, 2 * number + 2)
        spans_match(asked[its], made[its], server.port)
        answer, last = done[its]
        spans_match([answer], answered[number : number + 1], server.port)
        # What is deferred behind the handler runs while the process dies: the call has an end, but no status.
        assert (last.name, last.error) == (made[its][1].method, False)
        assert "rpc.response.status_code" not in last.attributes
