"""Requests over HTTP/2 that servers refuse, or whose servers are shut down: a CLIENT span for each attempt."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.join import Join
from test_http2 import CLIENT, SERVER, verdict

if TYPE_CHECKING:
    from harness.receiver import Receiver

pytestmark = [pytest.mark.root]

CONCURRENCY, REQUESTS, RESTARTS = 16, 1009, 3
RESET = {"": "net/http.http2StreamError", "1.27": "net/http/internal/http2.StreamError"}
"""By Go's version, of net/http: the error of a stream that was reset."""


@pytest.mark.parametrize("refusal", ["goaway", "stream"])
@pytest.mark.parametrize(
    ("how", "release", "strip"),
    [
        ("tls", "", False),
        pytest.param("x-h2c", "", False, marks=pytest.mark.slow),
        pytest.param("tls", "1.21", True, marks=pytest.mark.slow),
        pytest.param("h2c", "1.27", False, marks=pytest.mark.slow),
    ],
)
def test_attempts_are_spans(how: str, release: str, strip: bool, refusal: str, receiver: Receiver) -> None:
    """The first is refused before a handler sees it; the second is the parent of the server's span."""
    exe = go_binary("http2", go=release, strip=strip)
    scheme = "http" if how.endswith("h2c") else "https"
    with (
        Join("-listen", "127.0.0.1:0", "-how", how, "-refuse", refusal, exe=exe) as server,
        Join("-call", server.url(f"{scheme}://ADDRESS"), "-how", how, exe=exe) as client,
        Agent("--pid", str(server.pid), "--pid", str(client.pid), environment=receiver.environment) as agent,
    ):
        agent.attached(2)
        for number in range(3):
            assert client.ask(f"get GET /{number} -", "^got ") == "got 200"
        outcome = agent.stop()
        logged = [json.loads(line)["path"] for line in server.printed(r"^\{")]
    assert outcome.dropped == {}
    assert outcome.started == outcome.exported
    clients = sorted((span for span in receiver.spans if span.kind == CLIENT), key=lambda span: span.start)
    assert [span.attributes.get("http.request.resend_count") for span in clients] == [None, 1, None, None]
    assert [span.attributes.get("http.response.status_code") for span in clients] == [None, 200, 200, 200]
    assert {span.attributes["network.peer.port"] for span in clients} == {server.port}
    if refusal == "goaway":
        error = "*errors.errorString"
    else:
        error = (
            "golang.org/x/net/http2.StreamError" if how.startswith("x") else RESET["1.27" if release == "1.27" else ""]
        )
    assert [span.attributes.get("error.type") for span in clients] == [error, None, None, None]
    assert clients[0].end <= clients[1].start
    assert clients[0].trace_id == clients[1].trace_id
    servers = [span for span in receiver.spans if span.kind == SERVER]
    assert (
        [span.attributes["url.path"] for span in servers]
        == logged
        == (["/0", "/1", "/2"] if refusal == "goaway" else [])
    )
    by_path = {str(span.attributes["url.full"])[-2:]: span for span in clients if "error.type" not in span.attributes}
    for span in servers:
        assert span.parent_span_id == by_path[str(span.attributes["url.path"])].span_id


def test_servers_that_are_shut_down_lose_nothing(receiver: Receiver) -> None:
    """A graceful GOAWAY while requests are in flight: all are answered, each is one span at either end."""
    exe = go_binary("http2")
    with (
        Join("-listen", "127.0.0.1:0", "-how", "tls", "-delay", "2ms", exe=exe) as server,
        Join("-call", server.url("https://ADDRESS"), "-how", "tls", "-connections", "2", exe=exe) as client,
        Agent("--pid", str(server.pid), "--pid", str(client.pid), environment=receiver.environment) as agent,
    ):
        agent.attached(2)
        sending = threading.Thread(target=client.send, args=(REQUESTS, CONCURRENCY))
        sending.start()
        for number in range(RESTARTS):
            server.wait_for_lines(r"^\{", (number + 1) * REQUESTS // (RESTARTS + 1))
            os.kill(server.pid, signal.SIGHUP)
        sending.join()
        outcome = agent.stop()
        logged = Counter(json.loads(line)["path"] for line in server.printed(r"^\{"))
        remotes = {json.loads(line)["remote"] for line in server.printed(r"^\{")}
    assert outcome.dropped == {}
    assert len(remotes) > 2, "no connection was given up"
    assert Counter(span.attributes["url.path"] for span in receiver.spans if span.kind == SERVER) == logged
    assert verdict(receiver.spans) == Counter(right=REQUESTS)
    answered = [span for span in receiver.spans if span.kind == CLIENT and "error.type" not in span.attributes]
    assert len(answered) == REQUESTS
