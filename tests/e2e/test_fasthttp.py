"""fasthttp's server: a span a request, whatever its handler does, against the target's own log."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.client import Connection, Request, one_after_another
from harness.expect import SERVER
from harness.join import Join
from harness.target import Target
from test_red import ACTIVE, DURATION, points, told_by

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.receiver import Receiver, Span

pytestmark = [pytest.mark.root]

CLIENT = 3
REQUESTS = int(os.environ.get("FASTHTTP_REQUESTS", "10007"))
CONCURRENCY = 16
FEW = 499
SENT = f"00-{'4b' * 16}-{'7c' * 8}-01"
OTHER_HEADERS = tuple((f"X-Header-{number}", "of no interest") for number in range(40))


def build(version: str = "1.77.0", go: str = "", *, strip: bool = False) -> Path:
    """Return tests/go/fasthttp_server with a version of fasthttp."""
    return go_binary("fasthttp_server", go=go, strip=strip, require=(f"github.com/valyala/fasthttp v{version}",))


def served(spans: list[Span], pid: int) -> dict[str, Span]:
    """Return a server's spans by their paths, each of which there is once."""
    own = [span for span in spans if span.kind == SERVER and span.resource["process.pid"] == pid]
    found = {str(span.attributes["url.path"]): span for span in own}
    assert len(found) == len(own)
    return found


@pytest.fixture
def back() -> Iterator[Target]:
    """Return what handlers call."""
    with Target(build()) as target:
        yield target


EXPECTING = b"PUT /big/expected HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
LAST = b"GET /status/200 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def gone_early(port: int, head: str) -> None:
    """Send the head of a request and close."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode())


REQUESTS_IN_TURN = (
    Request("/status/404", status=404),
    Request("/status/503?key=value&sig=secret", method="POST", status=503),
    Request("/panic/1", status=500),
    Request("/stream/1"),
    Request("/status/204", method="HEAD", status=204),
    Request("/big/1", method="PUT", body=b"x" * 2**22),
    Request("/status/201", method="PROPFIND", status=201),
    Request(f"/{'long/' * 50}1", status=503),
    Request("/sent/1", headers=(*OTHER_HEADERS, ("traceparent", SENT), ("tracestate", "a=b")), status=503),
    Request("/sent/twice", headers=(("traceparent", SENT), ("Traceparent", SENT.replace("7c", "7d"))), status=201),
    Request("/old/1", version="1.0", status=503),
)


@pytest.mark.parametrize(
    ("version", "go", "strip"),
    [
        ("1.77.0", "", False),
        pytest.param("1.16.0", "1.21", True, marks=pytest.mark.slow),
        pytest.param("1.34.0", "1.21", False, marks=pytest.mark.slow),
        pytest.param("1.51.0", "1.27", True, marks=pytest.mark.slow),
    ],
)
def test_every_request_is_a_span(version: str, go: str, *, strip: bool, back: Target, receiver: Receiver) -> None:
    """Statuses, streams, timeouts, hijacked connections, panics, a Goexit, clients that leave early, pipelines."""
    with (
        Target(build(version, go, strip=strip), "-back", f"127.0.0.1:{back.port}") as target,
        Agent("--pid", str(target.pid), "--url-query", environment=receiver.environment) as agent,
    ):
        agent.attached()
        for request, answer in zip(REQUESTS_IN_TURN, one_after_another(target.port, REQUESTS_IN_TURN), strict=True):
            assert answer.status == request.status, request
        for what, status in (("timeout", 408), ("hijack", 299)):
            with Connection(target.port) as connection:
                assert connection.ask(Request(f"/{what}/1")).status == status
        with Connection(target.port) as connection:
            assert connection.raw(b"GET /upgrade/1 HTTP/1.1\r\nHost: a\r\n\r\n").endswith(b"hijacked")
        with Connection(target.port) as connection:
            connection.send(*(Request(f"/pipeline/{number}") for number in range(23)))
            assert {connection.receive().status for _ in range(23)} == {200, 201, 404, 500, 503}
        with Connection(target.port) as connection:
            assert b"100 Continue" in connection.raw(EXPECTING + LAST)
        gone_early(target.port, "GET /slow/1 HTTP/1.1\nHost: a\n\n")
        gone_early(target.port, "GET /goexit/1 HTTP/1.1\nHost: a\n\n")
        gone_early(target.port, "PUT /big/never HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: 3\n\n")
        gone_early(target.port, "GET /no-request")
        target.stdout.wait_for('"path":"/slow/1"')
        count = len(REQUESTS_IN_TURN) + 3 + 23 + 2 + 3
        receiver.wait_for(count + 1)  # and what the stream's writer sends
        outcome = agent.stop()
    assert (outcome.started, outcome.exported, outcome.dropped) == (count + 1, count + 1, {})
    spans = served(receiver.spans, target.pid)
    assert len(spans) == count
    logged = {line["path"]: line for line in map(json.loads, target.stdout.matching(r"^\{"))}
    assert spans.keys() - logged.keys() == {"/big/never"}  # its handler was never called
    statuses = {path: line["status"] for path, line in logged.items()}
    statuses |= {"/timeout/1": 408, "/hijack/1": 101, "/goexit/1": None, "/big/never": 400}
    for path, span in spans.items():
        assert (path, span.attributes.get("http.response.status_code")) == (path, statuses[path])
        if path in logged:
            line, attributes = logged[path], span.attributes
            assert f"{attributes['client.address']}:{attributes['network.peer.port']}" == line["remote"]
            assert attributes.get("http.request.method_original", attributes["http.request.method"]) == line["method"]
            host = (attributes.get("server.address"), attributes.get("server.port"))
            assert ":".join(str(part) for part in host if part) == line["host"]
        assert span.attributes["network.protocol.version"] == ("1.0" if path == "/old/1" else "1.1")
    assert spans["/status/503"].attributes["url.query"] == "key=value&sig=REDACTED"
    assert spans["/goexit/1"].attributes["error.type"] == "runtime.Goexit"
    assert spans["/stream/1"].end - spans["/stream/1"].start > 150e6  # ns: to the end of its stream
    [streamed] = [span for span in receiver.spans if span.kind == CLIENT]
    assert streamed.parent_span_id == spans["/stream/1"].span_id
    assert (spans["/sent/1"].trace_id, spans["/sent/1"].parent_span_id) == (SENT[3:35], SENT[36:52])
    assert spans["/sent/1"].trace_state == "a=b"
    assert not spans["/sent/twice"].parent_span_id


def chains(spans: list[Span], caller: int, front: int, back: int) -> Counter[str]:
    """Count what the four spans of each request that `caller` made say of their parents, and of its status."""
    calls = [span for span in spans if span.kind == CLIENT]
    asked, called = (
        {urlsplit(str(span.attributes["url.full"])).path: span for span in calls if span.resource["process.pid"] == pid}
        for pid in (caller, front)
    )
    fronts, backs = served(spans, front), served(spans, back)
    found: Counter[str] = Counter()
    for path, span in asked.items():
        inner = path.removeprefix("/back")
        chain = [span, fronts[path], called[inner], backs[inner]]
        for name, outer, within in zip(("front", "call", "back"), chain, chain[1:], strict=False):
            right = (within.trace_id, within.parent_span_id) == (outer.trace_id, outer.span_id)
            found[f"{name} {'right' if right else 'wrong' if within.parent_span_id else 'none'}"] += 1
        status = (200, 201, 404, 500, 503)[ord(path[-1]) % 5]
        found["status right"] += all(one.attributes["http.response.status_code"] == status for one in chain)
    return found


@pytest.mark.parametrize("count", [FEW, pytest.param(REQUESTS, marks=pytest.mark.slow)])
def test_statuses_and_parents_over_keep_alive_connections(count: int, back: Target, receiver: Receiver) -> None:
    """16 at once; handlers call on by their RequestCtx, without, on a goroutine of their own, and by a worker's."""
    with (
        Target(build(), "-back", f"127.0.0.1:{back.port}") as front,
        Join("-call", f"127.0.0.1:{front.port}", exe=build()) as caller,
    ):
        pids = [f"--pid={each.pid}" for each in (back, front, caller)]
        with Agent(*pids, "--ring-size", "64MiB", environment=receiver.environment) as agent:
            agent.attached(3)
            assert caller.ask(f"{count} {CONCURRENCY}", "^done ") == "done 0"
            outcome = agent.stop()
    assert (outcome.started, outcome.exported, outcome.dropped) == (4 * count, 4 * count, {})
    right = Counter({f"{name} right": count for name in ("front", "call", "back", "status")})
    assert chains(receiver.spans, caller.pid, front.pid, back.pid) == right


def test_tls_and_names_as_they_come(receiver: Receiver) -> None:
    """The scheme is https; a traceparent is found however its name is written."""
    with (
        Target(build(), "-tls", "-raw-names") as target,
        Agent("--pid", str(target.pid), environment=receiver.environment) as agent,
    ):
        agent.attached()
        with Connection(target.port, tls=True) as connection:
            for number in range(23):
                connection.ask(Request(f"/tls/{number}", headers=(("TRACEPARENT", SENT),)))
        receiver.wait_for(23)
        outcome = agent.stop()
    assert (outcome.started, outcome.exported, outcome.dropped) == (23, 23, {})
    for span in served(receiver.spans, target.pid).values():
        assert (span.attributes["url.scheme"], span.parent_span_id) == ("https", SENT[36:52])
        assert span.attributes["client.address"] == "127.0.0.1"


def test_metrics_and_what_is_not_sampled(receiver: Receiver) -> None:
    """Durations of all requests, by attributes; none is in flight when they are over; a fifth are spans."""
    variables = {**receiver.environment, "OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "500"}
    with (
        Target(build()) as target,
        Agent("--pid", str(target.pid), "--sample", "0.2", environment=variables) as agent,
    ):
        agent.attached()
        for request in (Request("/status/404", status=404), Request("/panic/1", method="POST", status=500)):
            one_after_another(target.port, [request] * 101)
        receiver.wait_metrics(len(receiver.metrics) + 2)  # the last one's requests are all over
        outcome = agent.stop()
    assert outcome.started == 202
    assert outcome.dropped == {"sampled_out": 202 - outcome.exported}
    assert 10 < outcome.exported < 80
    last = {}
    for point in points(receiver, DURATION):
        last[told_by(point)] = point.point.count
        assert point.attributes["network.protocol.version"] == "1.1"
    assert last == {("GET", None, 404, None): 101, ("POST", None, 500, "500"): 101}
    assert [point.point.as_int for point in points(receiver, ACTIVE)[-1:]] in ([], [0])
