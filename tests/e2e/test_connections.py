"""What is kept of a connection from one of its requests to the next: never another's, and never in another's way."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.client import Connection, in_turn
from harness.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.client import Request
    from harness.receiver import Receiver
    from harness.target import LogLine

pytestmark = pytest.mark.root

AT_ONCE = 11
REQUESTS = 61


@pytest.fixture
def server() -> Iterator[Target]:
    """Give a server whose routes are on a plain ServeMux."""
    with Target(go_binary("http_server")) as target:
        yield target


def take_turns(port: int, connections: int, requests: list[Request]) -> None:
    """Send each request on the next of some connections, which stay open meanwhile."""
    with ExitStack() as stack:
        held = [stack.enter_context(Connection(port)) for _ in range(connections)]
        for number, request in enumerate(requests):
            assert held[number % connections].ask(request).status == request.status


def as_logged(log: list[LogLine]) -> Counter[tuple[int, str]]:
    """Count by client port and path."""
    return Counter((int(line.remote.rpartition(":")[2]), line.path) for line in log)


@pytest.mark.parametrize("limit", [16384, 8], ids=["all are kept", "few are kept"])
def test_connections_come_and_go(server: Target, receiver: Receiver, limit: int) -> None:
    """Go uses the memory of ended goroutines and connections again: each span has its own connection's peer.

    With room for 8 requests at once, waiting connections, 11 at a time, don't take it from those that work.
    """
    answered = [request for request in in_turn(4 * REQUESTS) if request.status][:REQUESTS]
    with Agent("--pid", str(server.pid), "--max-in-flight", str(limit), environment=receiver.environment) as agent:
        agent.attached()
        for _ in range(3):
            take_turns(server.port, AT_ONCE, answered)
        log = server.wait_log(3 * REQUESTS)
        outcome = agent.stop()
    assert (outcome.started, outcome.exported, outcome.dropped) == (3 * REQUESTS, 3 * REQUESTS, {})
    seen = Counter((span.attributes["network.peer.port"], span.attributes["url.path"]) for span in receiver.spans)
    assert seen == as_logged(log)
