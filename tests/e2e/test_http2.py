"""HTTP/2 of net/http and of golang.org/x/net: a span a stream at either end, its parent, against the target's log.

Requests have random paths, which both ends' spans name: a server's span is right if its parent is the client's span
with the same path, however many streams share a connection.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.join import Join

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.receiver import Receiver, Span

pytestmark = [pytest.mark.root]

SERVER, CLIENT = 2, 3
CONNECTIONS, CONCURRENCY = 4, 100
REQUESTS = int(os.environ.get("HTTP2_REQUESTS", "10007"))
FEW = 503
SENT = f"00-{'4b' * 16}-{'7c' * 8}-01"

ASKED = (
    ("GET", "/status/404", "-", 404),
    ("POST", "/nothing/x?a=b", "-", 200),
    ("GET", "/panic/x", "-", 0),
    ("GET", "/flushed-panic/x", "-", 202),
    ("GET", "/goexit/x", "-", 0),
    ("GET", "/until-reset/x", "-", 0),
    ("PROPFIND", f"/{'long/' * 50}", "-", 200),
    ("GET", "/status/503", SENT, 503),
)
"""Method, path, traceparent, status that the client gets; 0: none."""
SERVED = {
    "/status/404": ("GET /status/", 404, None),
    "/nothing/x": ("POST /nothing/", 200, None),
    "/panic/x": ("GET /panic/", None, "*errors.errorString"),
    "/flushed-panic/x": ("GET /flushed-panic/", 202, "*errors.errorString"),
    "/goexit/x": ("GET /goexit/", None, "runtime.Goexit"),
    "/until-reset/x": ("GET /until-reset/", 200, None),
    f"/{'long/' * 50}": ("HTTP /", 200, None),
    "/status/503": ("GET /status/", 503, "503"),
}
"""By path, of the server's span: name, status code, error.type."""


class Ends:
    """A server, and a client that calls it over so many connections."""

    def __init__(self, how: str, exe: Path, *served: str) -> None:
        self.scheme = "http" if how.endswith("h2c") else "https"
        self.server = Join("-listen", "127.0.0.1:0", "-how", how, *served, exe=exe)
        url = self.server.url(f"{self.scheme}://ADDRESS")
        self.client = Join("-call", url, "-how", how, "-connections", str(CONNECTIONS), exe=exe)

    def traced(self, receiver: Receiver, *arguments: str) -> Agent:
        """Start an agent on both."""
        pids = ("--pid", str(self.server.pid), "--pid", str(self.client.pid))
        return Agent(*pids, "--ring-size", "64MiB", *arguments, environment=receiver.environment)

    def stop(self) -> None:
        """End both."""
        self.client.stop()
        self.server.stop()


@pytest.fixture
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Give both ends of a way: how they speak, and what they are built by."""
    how, release, strip = request.param
    both = Ends(how, go_binary("http2", go=release, strip=strip))
    yield both
    both.stop()


def verdict(spans: list[Span]) -> Counter[str]:
    """Compare the parent of each server's span with the client's span of the same path."""
    clients = {urlsplit(str(span.attributes["url.full"])).path: span for span in spans if span.kind == CLIENT}
    found: Counter[str] = Counter()
    for span in spans:
        if span.kind == SERVER:
            client = clients.get(str(span.attributes["url.path"]))
            right = client and (client.trace_id, client.span_id) == (span.trace_id, span.parent_span_id)
            found["right" if right else "wrong" if span.parent_span_id else "none"] += 1
    return found


QUICK = [("tls", "", False), ("x-h2c", "", False)]
MORE = [
    ("h2c", "", False),
    ("x", "", False),
    ("tls", "1.21", True),
    ("x-h2c", "1.21", True),
    ("tls", "1.27", True),
    ("h2c", "1.27", False),
    ("x", "1.27", False),
]


@pytest.mark.parametrize(
    "ends",
    [*QUICK, *(pytest.param(way, marks=pytest.mark.slow) for way in MORE)],
    ids=lambda way: f"{way[0]}-{way[1] or 'machine'}{'-stripped' * way[2]}",
    indirect=True,
)
def test_every_stream_is_a_span(ends: Ends, receiver: Receiver) -> None:
    """What handlers did, and whose request it was."""
    with ends.traced(receiver) as agent:
        agent.attached(2)
        for method, path, traceparent, status in ASKED:
            assert ends.client.ask(f"get {method} {path} {traceparent}", "^got ") == f"got {status}"
        ends.client.send(FEW, CONCURRENCY)
        outcome = agent.stop()
    assert outcome.dropped == {}
    assert outcome.started == outcome.exported
    spans = receiver.spans
    served = {str(span.attributes["url.path"]): span for span in spans if span.kind == SERVER}
    logged = {line["path"]: line for line in map(json.loads, ends.server.printed(r"^\{"))}
    assert set(served) == set(logged)
    assert len(served) == FEW + len(ASKED)
    assert verdict(spans) == Counter(right=FEW + len(ASKED) - 1, wrong=1)  # which another trace's header names
    assert served["/status/503"].parent_span_id == SENT[36:52]
    for path, (name, status, error) in SERVED.items():
        span = served[path]
        assert (span.name, span.attributes.get("http.response.status_code")) == (name, status)
        assert span.attributes.get("error.type") == error
    for path, span in served.items():
        line = logged[path]
        attributes = span.attributes
        assert attributes["network.protocol.version"] == "2"
        assert attributes["url.scheme"] == ends.scheme
        assert f"{attributes['server.address']}:{attributes['server.port']}" == line["host"]
        assert f"{attributes['client.address']}:{attributes['network.peer.port']}" == line["remote"]
        assert attributes.get("http.request.method_original", attributes["http.request.method"]) == line["method"]
    for span in spans:
        if span.kind == CLIENT:
            assert span.attributes["network.peer.port"] == ends.server.port


@pytest.mark.propagation
@pytest.mark.parametrize("ends", [*QUICK, MORE[0]], ids=lambda way: f"{way[0]}", indirect=True)
def test_streams_side_by_side_have_their_own_parents(ends: Ends, receiver: Receiver) -> None:
    """A hundred at once over four connections."""
    with ends.traced(receiver) as agent:
        agent.attached(2)
        ends.client.send(REQUESTS, CONCURRENCY)
        outcome = agent.stop()
    assert outcome.dropped == {}
    assert verdict(receiver.spans) == Counter(right=REQUESTS)


def test_what_handlers_send_has_their_spans_as_parents(receiver: Receiver) -> None:
    """By context, and where there is none by goroutine, although one connection has all the requests."""
    with Join("-listen", "127.0.0.1:0") as back:
        both = Ends("tls", go_binary("http2"), "-back", back.url())
        try:
            with both.traced(receiver) as agent:
                agent.attached(2)
                for number in range(23):
                    for way in ("ctx", "ctx/go", "background", "background/go"):
                        both.client.ask(f"get GET /back/{way}/{number} -", "^got ")
                outcome = agent.stop()
        finally:
            both.stop()
    assert outcome.dropped == {}
    spans = receiver.spans
    served = {str(span.attributes["url.path"]): span for span in spans if span.kind == SERVER}
    sent = [span for span in spans if span.kind == CLIENT and span.resource["process.pid"] == both.server.pid]
    assert len(sent) == len(served) == 4 * 23
    for span in sent:
        path = urlsplit(str(span.attributes["url.full"])).path
        assert span.parent_span_id == served[f"/back{path}"].span_id
